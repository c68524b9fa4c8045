"""Measured figures of README and docs come from result files: tables are rendered from them, prose repeats tables."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from recipes import tables

ROOT = Path(__file__).parent.parent
RESULTS = ("results/", "benchmarks/results/")


PAGES = list(tables.PAGES)
WITH_TABLES = ["README.md", "docs/results.md", "docs/report.md", "docs/attention.md"]


def read(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


SOURCES = sorted(
    {source for page in PAGES for found in tables.TABLE.finditer(read(page)) for source in found["sources"].split()}
)

# What looks measured: a number before one of these units, or any decimal number.
_NUMBER = r"\d[\d,]*(?:\.\d+)?"
_UNITS = r"(?:%|(?:percent|points?|times|ms|s|seconds?|min|minutes?|h|hours?|\w+/s|\w+ (?:a|per) second)(?!\w))"
MEASURED = re.compile(rf"(?<![\w.])(?:{_NUMBER}(?:(?:,| to| and| or| ±) {_NUMBER})* ?{_UNITS}|\d[\d,]*\.\d+)")
# What looks so and is not: versions, addresses, and the level of an interval.
NOT_MEASURED = re.compile(
    r"(?:Python|torch|triton|arXiv|version|capability) \d+\.\d+(?: to \d+\.\d+)?|\d+(?:\.\d+){2,}|95 % intervals?"
)
# Where figures are not looked for: blocks and pieces of code, comments, tags, headings, and where links lead.
NO_PROSE = re.compile(r"^```.*?^```|<!--.*?-->|<[^>]*>|`[^`\n]*`|^#.*?$|\]\([^)]*\)", re.M | re.S)


def unproved(text: str) -> list[str]:
    """Return the numbers that look measured and stand in no rendered table of the page."""
    proved = {number for found in tables.TABLE.finditer(text) for number in re.findall(_NUMBER, found["table"])}
    prose = NOT_MEASURED.sub(" ", NO_PROSE.sub(" ", tables.TABLE.sub("", text)))
    return [
        n for found in MEASURED.finditer(prose) for n in re.findall(_NUMBER, found[0]) if n.rstrip(",") not in proved
    ]


@pytest.mark.parametrize("page", PAGES)
def test_tables_are_those_of_their_files(page: str) -> None:
    assert tables.rendered(read(page), ROOT) == read(page), "run: python -m recipes.tables"


@pytest.mark.parametrize("page", WITH_TABLES)
def test_tables_are_of_result_files(page: str) -> None:
    found = list(tables.TABLE.finditer(read(page)))
    assert found
    assert read(page).count("<!-- table:") == len(found)
    for table in found:
        assert table["table"].count("\n") > 2
        assert all(source.startswith(RESULTS) for source in table["sources"].split())


@pytest.mark.parametrize("page", PAGES)
def test_figures_in_prose_stand_in_a_table_of_the_page(page: str) -> None:
    assert unproved(read(page)) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It is right in 93.1 % of the clips.", ["93.1"]),
        ("It is right in 93 percent.", ["93"]),
        ("From 91 to 93 %, 4 points more.", ["91", "93", "4"]),
        ("It is 13.5 times as fast, or 1.7 and 2 times.", ["13.5", "1.7", "2"]),
        ("It makes 347,000 frames/s and 153 clips a second.", ["347,000", "153"]),
        ("It took 28 min, 7 minutes or 0.2 s.", ["28", "7", "0.2"]),
        ("The slope is 0.42 ± 0.02.", ["0.42", "0.02"]),
        ("| speed | 2.6 |\n| --- | --- |\n", ["2.6"]),
        (
            "Python 3.11 to 3.13, torch 2.11, at 127.0.0.1, with 95 % intervals, 64x64 frames of 28 px, on 2026-11-29.",
            [],
        ),
        ("# 93.1 %\n`--scale 0.5`\n```bash\nsleep 0.5\n```\n<!-- 93.1 % -->[rows](a/0.5.csv)\n", []),
    ],
)
def test_what_looks_measured_is_found(text: str, expected: list[str]) -> None:
    assert unproved(text) == expected


@pytest.mark.parametrize("page", WITH_TABLES)
def test_prose_may_say_what_a_table_of_its_page_says(page: str) -> None:
    number = re.findall(r"\d+\.\d+", tables.TABLE.search(read(page))["table"])[0]
    other = f"{number[:-1]}{9 - int(number[-1])}{number[-1]}"
    assert unproved(f"{read(page)}\nIt is {number} %.\n") == []
    assert unproved(f"{read(page)}\nIt is {other} %.\n") == [other]


@pytest.mark.parametrize("page", WITH_TABLES)
def test_a_changed_digit_in_a_table_is_seen(page: str) -> None:
    text = tables.rendered(read(page), ROOT)
    for table in tables.TABLE.finditer(text):
        at = table.start("table") + re.search(r"\d\.\d", table["table"]).start()
        changed = text[:at] + str(9 - int(text[at])) + text[at + 1 :]
        assert tables.rendered(changed, ROOT) == text


def _changed(value: Any, *, figure: bool = False) -> Any:
    """Double the times and rates of Saccade in a benchmark's file, and leave those of others."""
    if isinstance(value, dict):
        ours = {"ours", "triton", "ratio", "p50_ms", "reading_ms", "naming", "clips_per_s"}
        return {name: _changed(one, figure=figure or name in ours) for name, one in value.items()}
    if isinstance(value, list):
        return [_changed(one, figure=figure) for one in value]
    return 2 * value if figure and isinstance(value, float) else value


def _change(path: Path) -> None:
    """Halve the figures in a file of rows, or change those of Saccade in a benchmark's file."""
    if path.suffix == ".json":
        path.write_text(json.dumps(_changed(json.loads(path.read_text(encoding="utf-8")))), encoding="utf-8")
        return
    figures = {"accuracy", "accuracy_without_attention", "ratio_min", "ratio_min_gain", "scale_slope"}
    figures |= {"accuracy_of_mean_logits", "covered", "iou", "one_each", "alone", "read", "good"}
    with path.open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    with path.open("w", encoding="utf-8", newline="") as file:
        changed = [
            [str(float(cell) / 2) if name in figures and cell else cell for name, cell in zip(header, row, strict=True)]
            for row in rows
        ]
        csv.writer(file).writerows([header, *changed])


@pytest.mark.parametrize("source", SOURCES)
def test_a_changed_figure_in_a_file_is_seen(source: str, tmp_path: Path) -> None:
    for folder in RESULTS:
        shutil.copytree(ROOT / folder, tmp_path / folder)
    _change(tmp_path / source)
    found = [table for page in PAGES for table in tables.TABLE.finditer(read(page))]
    for table in (table[0] for table in found if source in table["sources"].split()):
        assert tables.rendered(table, tmp_path) != tables.rendered(table, ROOT)


@pytest.mark.parametrize("page", PAGES)
def test_recipes_that_a_page_names_are_there(page: str) -> None:
    named = re.findall(r"(?:recipes|examples|benchmarks)/[\w./-]+\.(?:sh|py)", read(page))
    assert [name for name in named if not (ROOT / name).is_file()] == []


def test_unknown_tables_are_refused() -> None:
    with pytest.raises(ValueError, match="'unknown'; the tables are accuracy, "):
        tables.rendered("<!-- table: unknown results/quick/uci.csv -->\n", ROOT)


def test_the_command_renders_pages_in_place(tmp_path: Path) -> None:
    for folder in ("recipes", *RESULTS):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    expected = {tmp_path / page: tables.rendered(read(page), ROOT) for page in PAGES}
    for path, text in expected.items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(re.sub(r"\d\d\.\d+ %", "99.9 %", text) if path.name == "README.md" else text, encoding="utf-8")
    command = [sys.executable, "-m", "recipes.tables"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout == "changed: README.md\n", done.stderr
    assert {path: path.read_text(encoding="utf-8") for path in expected} == expected
