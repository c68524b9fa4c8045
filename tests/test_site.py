"""The site: it builds, a broken link fails it, every public name has its place, and pages need no other host."""

from __future__ import annotations

import importlib
import inspect
import os
import re
import shlex
import subprocess
import sys
from collections import defaultdict
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin

import pytest
from filelock import FileLock

ROOT = Path(__file__).parents[1]
DIGITS = "saccade.data.digits"
PHONE, LAPTOP = {"width": 390, "height": 844}, {"width": 1440, "height": 900}


def sphinx_of_make(site: Path) -> list[str]:
    """Return the words with which `make docs` calls Sphinx, the source and the site last."""
    outer = ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")
    environment = {name: value for name, value in os.environ.items() if name not in outer}
    command = ["make", "--dry-run", "docs", f"SITE={site}", f"VENV={sys.prefix}"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    (line,) = [line for line in done.stdout.splitlines() if " -m sphinx " in line]
    return shlex.split(line)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Build the site, once for all processes of the suite."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    log = folder / "site.log"
    with FileLock(folder / "site.lock"):
        if not log.exists():
            done = subprocess.run(sphinx_of_make(folder / "site"), cwd=ROOT, capture_output=True, text=True)
            log.write_text(f"{done.returncode}\n{done.stdout}{done.stderr}", encoding="utf-8")
    assert log.read_text(encoding="utf-8").split("\n", 1)[0] == "0", log.read_text(encoding="utf-8")
    return folder / "site"


class Page(HTMLParser):
    """What a page holds: the ids of its parts, where its links lead, and what it loads."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.ids, self.links, self.loaded, self.entries = set(), [], [], []
        self.html = path.read_text(encoding="utf-8")
        self.feed(self.html)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.ids.add(found.get("id"))
        if tag == "a" and "href" in found:
            self.links.append(found["href"])
        elif tag == "link":
            self.loaded.append(found["href"])
        self.loaded += [found[name] for name in ("src", "srcset", "poster", "data") if found.get(name)]
        if tag == "dt" and "sig" in found.get("class", "").split() and "id" in found:
            self.entries.append(found["id"])

    @property
    def text(self) -> str:
        """The page's words, without its marks; dashes are plain."""
        words = unescape(re.sub("<[^>]+>", "", self.html)).replace("\N{EN DASH}", "-")
        return " ".join(words.split())


@pytest.fixture(scope="module")
def pages(site):
    """Read every page of the site, by its path in it."""
    return {path.relative_to(site).as_posix(): Page(path) for path in site.rglob("*.html")}


def rooms() -> dict[str, set[str]]:
    """Return the public names by module, those of moving digits too."""
    found = defaultdict(set)
    for name in (ROOT / "tests" / "public_names.txt").read_text(encoding="utf-8").split():
        room, _, short = name.rpartition(".")
        if room != "saccade":
            found[room].add(short)
    return found | {DIGITS: set(importlib.import_module(DIGITS).__all__)}


def test_every_public_name_has_its_place(pages):
    for room, names in rooms().items():
        name = room.rpartition(".")[2]
        shown = {entry.removeprefix(f"{room}.").split(".")[0] for entry in pages[f"api/{name}.html"].entries}
        missing = sorted(names - shown)
        assert not missing, f"docs/api/{name}.md: {missing}; a constant needs a line `.. autodata:: NAME`"
        extra = [getattr(importlib.import_module(room), short, None) for short in sorted(shown - names)]
        private = [thing for thing in extra if inspect.isroutine(thing) or getattr(thing, "__module__", None) == room]
        assert not private, f"docs/api/{name}.md shows more than tests/public_names.txt lists"


def test_arguments_stand_with_their_types(pages):
    for room, names in rooms().items():
        page, module = pages[f"api/{room.rpartition('.')[2]}.html"], importlib.import_module(room)
        for function in filter(inspect.isfunction, (getattr(module, name) for name in names)):
            for name, parameter in inspect.signature(function).parameters.items():
                if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                    assert f"<strong>{name}</strong> (" in page.html, f"{room}.{function.__name__}: {name} has no type"


def test_shapes_are_readable(pages):
    from saccade.ops import deform_conv2d

    shapes = [re.search('"(.*)"', kind) for kind in inspect.get_annotations(deform_conv2d).values()]
    for shape in filter(None, shapes):
        assert f"Float[Tensor, '{shape[1].strip()}']" in pages["api/ops.html"].text


def test_links_lead_somewhere(site, pages):
    for name, page in pages.items():
        for link in page.links:
            path, anchor = urldefrag(unquote(urljoin(name, link)))
            if "://" not in link:
                assert (site / path).is_file(), f"{name}: {link}"
                assert not anchor or path not in pages or anchor in pages[path].ids, f"{name}: {link}"


def test_sections_that_documents_point_to_are_there(pages):
    documents = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]
    for document in documents:
        for path, section in re.findall(r"\]\(([^)#:]+)\.md#([^)]+)\)", document.read_text(encoding="utf-8")):
            page = (document.parent / path).resolve().relative_to(ROOT / "docs").as_posix() + ".html"
            assert section in pages[page].ids, f"{document.name}: {path}.md has no section {section}"


def test_pages_name_no_other_host_to_load_from(site, pages):
    styles = [path.read_text(encoding="utf-8") for path in site.rglob("*.css")]
    loaded = [link for page in pages.values() for link in page.loaded]
    loaded += [link for style in styles for link in re.findall(r"url\(['\"]?([^'\")]+)|@import ['\"]([^'\"]+)", style)]
    assert loaded
    assert [link for link in loaded if re.match(r"(?:\w+:)?//", "".join(link))] == []


def test_pages_load_nothing_else_and_fit_a_phone(site, pages, chromium):
    context = chromium.new_context(viewport=PHONE)
    tab, asked, wide, broken = context.new_page(), [], [], []
    tab.on("request", lambda request: asked.append(request.url))
    for name in pages:
        tab.goto((site / name).as_uri())
        # The column of text would scroll sideways, not the document.
        if tab.eval_on_selector(".content", "column => column.scrollWidth > column.clientWidth"):
            wide.append(name)
        broken += tab.eval_on_selector_all("img", "all => all.filter(one => !one.naturalWidth).map(one => one.src)")
    context.close()
    assert (wide, broken) == ([], [])
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []


@pytest.mark.parametrize("size", [PHONE, LAPTOP], ids=["phone", "laptop"])
def test_wide_tables_scroll_inside_themselves(site, chromium, size):
    context = chromium.new_context(viewport=size)
    tab = context.new_page()
    tab.goto((site / "results.html").as_uri())
    tables = tab.eval_on_selector_all(
        ".table-wrapper",
        """tables => tables.map(table => {
          table.scrollLeft = 9999;
          return [table.scrollWidth > table.clientWidth, table.scrollLeft > 0];
        })""",
    )
    context.close()
    assert any(is_wide for is_wide, _ in tables)
    assert all(scrolls for is_wide, scrolls in tables if is_wide)


def test_dark_readers_get_a_dark_page(site, chromium):
    light = {}
    for scheme in ("light", "dark"):
        context = chromium.new_context(color_scheme=scheme)
        tab = context.new_page()
        tab.goto((site / "index.html").as_uri())
        colour = tab.evaluate("getComputedStyle(document.body).backgroundColor")
        light[scheme] = sum(map(int, re.findall(r"\d+", colour)[:3])) / 3
        context.close()
    assert light["dark"] < 64 < 192 < light["light"]


def build_small(folder: Path, added: str) -> subprocess.CompletedProcess[str]:
    """Build a site of two pages and a file beside them as `make docs` does; `added` stands on the first page."""
    docs = folder / "docs"
    docs.mkdir(exist_ok=True)
    (folder / "rows.csv").write_text("accuracy\n1\n")
    (docs / "other.md").write_text("# Other\n\n## A part\n\nText.\n")
    links = "[other](other.md), [a part](other.md#a-part), [rows](../rows.csv), {py:obj}`saccade.models.create`"
    known = "```{eval-rst}\n.. py:function:: saccade.models.create()\n```\n\n```{toctree}\nother\n```\n"
    (docs / "index.md").write_text(f"# Small\n\n{links}\n\n{known}\n{added}\n")
    *command, _, site = sphinx_of_make(folder / "site")
    command += ["--conf-dir", str(ROOT / "docs"), str(docs), site]
    environment = os.environ | {"PYTHONPATH": str(folder)}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


FAULTS = {
    "page": "[a page](no-page.md)",
    "section": "[a section](#no-section)",
    "section elsewhere": "[a section elsewhere](other.md#no-part)",
    "file": "[rows](../no-rows.csv)",
    "picture": "![a picture](no-picture.png)",
    "name": "{py:func}`saccade.models.no_name`",
    "type": "```{eval-rst}\n.. py:function:: f(x: saccade.no_module.Type)\n```",
    "contents": "```{toctree}\nno-contents\n```",
}


def test_each_broken_link_fails_the_build(tmp_path):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "no-place.md").write_text("# In no contents\n")
    done = build_small(tmp_path, "\n\n".join(FAULTS.values()))
    assert done.returncode != 0
    told = [line for line in done.stderr.splitlines() if "WARNING" in line]
    for fault in [re.search(r"no[-_]\w+", text)[0] for text in FAULTS.values()] + ["no-place"]:
        assert any(fault in line for line in told), f"nothing was said of {fault}: {done.stderr}"


PLANTED = '''
"""A module."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple


class Found(NamedTuple):
    """What was found: a name and a size.

    Args:
        name: with what stands behind `a_(\\\\d+)`.
        size_px: of it.
    """

    name: str
    size_px: int


def find(folder: Path, *words: str, size_px: int | None = None) -> Found:
    """Find the first; `folder / "x"` is looked at.

    Args:
        folder: where; it is
            looked at once.
        words: all of them.

    Returns:
        The first: None is never returned.

    Raises:
        OSError: no such folder.
        ValueError, KeyError: other words.

    >>> 1 + 1
    2
    """
'''


def test_docstrings_come_out_whole_and_a_site_without_fault_builds(tmp_path):
    (tmp_path / "planted.py").write_text(PLANTED)
    done = build_small(tmp_path, "```{eval-rst}\n.. automodule:: planted\n```")
    assert done.returncode == 0, done.stderr
    text = Page(tmp_path / "site" / "index.html").text
    for wanted in (
        "What was found: a name and a size.",
        r"name (str) - with what stands behind a_(\d+).",
        'Find the first; folder / "x" is looked at.',
        "folder (Path) - where; it is looked at once.",
        "words (str) - all of them.",
        "size_px (int | None)",
        "Returns: The first: None is never returned. Return type: Found",
        "OSError - no such folder.",
        "ValueError, KeyError - other words.",
        ">>> 1 + 1 2",
    ):
        assert wanted in text, text
    assert "Alias for field" not in text
