"""Result files in CSV, with one row per run and cell; files are written atomically."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from saccade import files
from saccade.attention.covering import COVERED
from saccade.errors import DataError

Row = dict[str, Any]

COLUMNS = ("model", "data", "seed", "accuracy", "cross_entropy", "num_clips")
"""The columns that every result file has."""

RECALL = "recall_"
"""The prefix of the columns of recalls; the name of the thing follows."""

# Files of version 0.1 have no column `data`, because this was the only kind of clips.
_FIRST_DATA = "moving digits"

MEASURED = frozenset(
    {
        "accuracy",
        "cross_entropy",
        "accuracy_of_mean_logits",
        "top5_accuracy",
        "calibration_error",
        "offset_px_rms",
        "map_spread",
        "map_deviation",
        "accuracy_without_attention",
        "cross_entropy_without_attention",
        "verdicts_changed_by_attention",
        "attention_summary",
    }
)
"""The columns that an evaluation measures, except recalls."""

ATTENDED = (
    *("ratio", "ratio_min", "ratio_min_elsewhere", "all_above", "all_above_elsewhere"),
    *("angle_slope", "angle_correlation", "scale_slope", "scale_correlation", "ratio_min_gain"),
    *(f"ratio_digit_{digit}" for digit in range(1, 6)),
    *(f"{name}{suffix}" for name in COVERED for suffix in ("", "_elsewhere")),
)
"""The figures of a row on attention, as in `attention.measure.Attended`; each has a column for its standard error."""

# All other columns describe the model and the clips.
_FIGURES = MEASURED | {f"{name}{suffix}" for name in ATTENDED for suffix in ("", "_se")}

# These stay text even if they look like a number: a commit may be 1234e56.
_TEXT = frozenset(
    (
        *("model", "protocol", "data", "condition", "digits", "instances", "labels", "input", "group"),
        "order",
        "split",
        "trained_on",
        "trunk",
        "before_condition",
        "checkpoint",
        "commit",
        "device",
        "precision",
        "attention_summary",
        "trained",
        "attention",
        "measure",
    )
)
_MOST_DIGITS = 4000  # Python's own limit for conversion is a little higher
_WHOLE = re.compile(r"[+-]?\d+")
_DECIMAL = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a result file atomically, replacing an older one.

    Args:
        path: the CSV file.
        rows: the rows, each with at least `COLUMNS`. Further columns follow in the order in which they first occur.
            None becomes an empty cell.

    Raises:
        DataError: if a row lacks one of `COLUMNS`, a number is missing or not finite, or an accuracy is not a fraction.

    >>> import tempfile
    >>> row = dict(zip(COLUMNS, ("lenet-lstm", "my clips", 0, 0.5, 1.2, 100)))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_rows(Path(folder) / "results.csv", [row])
    ...     read_rows(Path(folder) / "results.csv") == [row]
    True
    """
    rows = [dict(row) for row in rows]
    for row in rows:
        _check(row, f"a row for {path}")
    columns = dict.fromkeys((*COLUMNS, *(name for row in rows for name in row)))
    text = io.StringIO()
    writer = csv.DictWriter(text, list(columns), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    files.write_text(path, text.getvalue())


def read_rows(path: Path) -> list[Row]:
    """Read a result file; numbers are returned as numbers, empty cells as None.

    Raises:
        DataError: if the file does not exist or is not a result file.
    """
    try:
        lines = csv.reader(io.StringIO(path.read_text(encoding="utf-8"), newline=""), strict=True)
        header = next(lines, [])
        rows = [(lines.line_num, cells) for cells in lines if cells]
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as a result file ({error})") from error
    first = {"data": _FIRST_DATA} if "condition" in header and "data" not in header else {}
    if missing := [name for name in COLUMNS if name not in header and name not in first]:
        raise DataError(f"{path} has no column {missing[0]}; a result file has at least {', '.join(COLUMNS)}")
    found = []
    for line, cells in rows:
        if len(cells) != len(header):
            raise DataError(
                f"{path} line {line} has {len(cells)} cells, its header has {len(header)}; repair or remove the line"
            )
        row = first | {name: _parse(name, cell) for name, cell in zip(header, cells, strict=True)}
        _check(row, f"{path} line {line}")
        found.append(row)
    return found


def append_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Add rows to a result file, or create it; a new row replaces old rows on the same model, training and clips.

    Several processes may add rows to one file at the same time.

    Raises:
        DataError: as for `read_rows` and `write_rows`; the file is then unchanged.
    """
    new = list(rows)
    repeated = [_facts(row) for row in new]
    with files.locked(path):
        old = read_rows(path) if path.exists() else []
        write_rows(path, [*(row for row in old if _facts(row) not in repeated), *new])


def _facts(row: Mapping[str, Any]) -> Row:
    return {n: v for n, v in row.items() if n not in _FIGURES and not n.startswith(RECALL) and v is not None}


def _parse(name: str, cell: str) -> str | int | float | None:
    if cell == "":
        return None
    if name in _TEXT:
        return cell
    if _WHOLE.fullmatch(cell) and len(cell) < _MOST_DIGITS:
        return int(cell)
    return float(cell) if _DECIMAL.fullmatch(cell) else cell


def _check(row: Mapping[str, Any], where: str) -> None:
    for name in COLUMNS:
        if row.get(name) is None:
            raise DataError(f"{where} lacks {name}; a result row has at least {', '.join(COLUMNS)}")
    for name in COLUMNS[2:]:
        if not isinstance(row[name], int | float):
            raise DataError(f"{where} has the {name} {row[name]!r}; a number is needed")
    for name, value in row.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise DataError(f"{where} has the {name} {value}; only finite numbers are allowed")
    if not 0 <= row["accuracy"] <= 1:
        raise DataError(f"{where} has the accuracy {row['accuracy']}; a fraction from 0 to 1 is needed, not per cent")
