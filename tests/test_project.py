"""The project as a whole: what it exports, how fast it starts, what its README promises, what must not be tracked."""

from __future__ import annotations

import importlib
import os
import pkgutil
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import pytest

import saccade

ROOT = Path(__file__).parent.parent
PUBLIC_NAMES = ROOT / "tests" / "public_names.txt"


def _exported(module: ModuleType) -> list[str]:
    """List a module's public names: `__all__`, or for a plain file what it defines without an underscore."""
    if hasattr(module, "__all__"):
        return list(module.__all__)
    assert not hasattr(module, "__path__"), f"{module.__name__} is a package and needs __all__"
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
    ]


def public_names() -> list[str]:
    """List every public name of the package: of the root, and of each module right below it."""
    modules = [saccade]
    modules += [importlib.import_module(f"saccade.{child.name}") for child in pkgutil.iter_modules(saccade.__path__)]
    return sorted(f"{module.__name__}.{name}" for module in modules for name in _exported(module))


def test_public_names_are_the_checked_ones() -> None:
    listed = PUBLIC_NAMES.read_text(encoding="utf-8").split()
    assert public_names() == listed, f"run: python {Path(__file__).name} > {PUBLIC_NAMES.name}, and read the difference"


def test_public_names_exist() -> None:
    for name in PUBLIC_NAMES.read_text(encoding="utf-8").split():
        module, _, attribute = name.rpartition(".")
        assert hasattr(importlib.import_module(module), attribute), name


def _python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("module", ["saccade", "saccade.errors", "saccade.cli"])
def test_starts_without_heavy_imports(module: str) -> None:
    heavy = {"torch", "numpy", "sklearn", "av", "matplotlib"}
    loaded = _python(f"import sys, {module}; print(*sys.modules)").split()
    assert heavy.isdisjoint(loaded)


def test_help_needs_no_torch(tmp_path: Path) -> None:
    # A module that cannot be imported stands in its place, in front of the real one.
    (tmp_path / "torch.py").write_text("raise ImportError('torch was imported')")
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    command = [str(Path(sys.executable).parent / "saccade"), "--help"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert "reproduce" in done.stdout


def test_modules_come_on_first_use() -> None:
    assert _python("import saccade; print(saccade.models.names()[0])").strip() == "lenet-lstm"


def test_unknown_attribute_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing_such'"):
        _ = saccade.nothing_such


def test_version_is_one() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["version"] == saccade.__version__
    assert f"version: {saccade.__version__}" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")


def _checkout() -> list[str]:
    """List every file that is committed, or would be by `git add`."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    return [name for name in names if name and (ROOT / name).is_file()]


def _text_of_checkout() -> Iterator[tuple[str, str]]:
    for name in _checkout():
        data = (ROOT / name).read_bytes()
        if b"\0" not in data:
            yield name, data.decode("utf-8")


in_a_checkout = pytest.mark.skipif(not (ROOT / ".git").exists(), reason="no git checkout: nothing lists its files")
MACHINE_PATH = re.compile(r"(?<![\w.~})/-])/(?:root|home|Users|work|opt|mnt|srv|media)/[\w.]+")
# In brackets, so that this line does not find itself.
REGISTRY = re.compile(r"pypi[.]|python[h]osted|arti[f]actory|(?:index-url|find-links)[ =]+['\"]?(?:https?|file):")


@in_a_checkout
@pytest.mark.parametrize("unwanted", [MACHINE_PATH, REGISTRY], ids=["machine path", "registry host"])
def test_tracked_files_name_no(unwanted: re.Pattern[str]) -> None:
    found = [
        f"{name}:{number}: {line.strip()[:120]}"
        for name, text in _text_of_checkout()
        for number, line in enumerate(text.splitlines(), 1)
        if unwanted.search(line)
    ]
    assert not found, "\n".join(found)


class Block(NamedTuple):
    """A block of code in a document, and whether it is to be run: `run`, `slow`, or `not run`."""

    when: str
    language: str
    code: str


BLOCK = re.compile(
    r"(?:<!-- (?P<when>run|slow|not run)(?:: [^>]*)? -->\n+)?```(?P<language>bash|python)\n(?P<code>.*?)```", re.S
)


# Whose blocks say whether they are run, and of which some are run with every `make test`.
DOCUMENTS = ["README.md", "docs/attention.md", "docs/deform_conv.md", "docs/guide.md", "docs/results.md"]
RUN_DOCUMENTS = ["README.md", "docs/deform_conv.md", "docs/guide.md"]


def blocks_of(document: str) -> list[Block]:
    """Read a document's blocks of bash and Python; a comment above each says when it is run.

    `<!-- run -->`: with every `make test`; `<!-- slow -->`: with `make test-slow`; `<!-- not run: why -->`: never.
    """
    text = (ROOT / document).read_text(encoding="utf-8")
    return [Block(found["when"] or "", found["language"], found["code"]) for found in BLOCK.finditer(text)]


def _reader_environment() -> dict[str, str]:
    """Return the environment of a reader's shell: our commands are found, an outer `make` is not."""
    ours = ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")
    environment = {name: value for name, value in os.environ.items() if name not in ours}
    return environment | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}


def _run_blocks(document: str, folder: Path, *wanted: str) -> str:
    """Run the wanted blocks in order in one folder, as a reader would: what one block writes, a later one reads.

    Return what they print.
    """
    interpreters = {"bash": ["bash", "-euo", "pipefail", "-c"], "python": [sys.executable, "-c"]}
    blocks = [block for block in blocks_of(document) if block.when in wanted]
    assert blocks, f"{document} has no block marked {wanted}"
    printed = ""
    for block in blocks:
        command = [*interpreters[block.language], block.code]
        done = subprocess.run(command, cwd=folder, env=_reader_environment(), capture_output=True, text=True)
        assert done.returncode == 0, f"{block.code}\n{done.stdout}\n{done.stderr}"
        printed += done.stdout
    return printed


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_block_says_when_it_is_run(document: str) -> None:
    assert [block.code for block in blocks_of(document) if not block.when] == []


@pytest.mark.parametrize("document", RUN_DOCUMENTS)
def test_commands_run(document: str, tmp_path: Path) -> None:
    printed = _run_blocks(document, tmp_path, "run")
    if document == "README.md":  # a newcomer's first model is right, and sure of it
        assert re.search(r"new\.mp4 *│ 3 ", printed), printed


@pytest.mark.slow
def test_commands_from_a_folder_to_a_model_run(tmp_path: Path) -> None:
    _run_blocks("docs/own-videos.md", tmp_path, "slow")


@pytest.mark.slow
@in_a_checkout
def test_readme_commands_run_to_the_last_in_a_fresh_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)  # set by `make test-slow`; a reader has all cores
    for name in _checkout():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, tmp_path / name)
    _run_blocks("README.md", tmp_path, "run", "slow")


def test_make_knows_the_targets_of_the_readme() -> None:
    blocks = [block for document in ("README.md", "CONTRIBUTING.md") for block in blocks_of(document)]
    called = {line for block in blocks for line in block.code.splitlines() if line.startswith("make ")}
    assert {"demo", "reproduce", "test"} <= {line.split()[1] for line in called}
    for line in called:
        command = ["bash", "-c", line.replace("make ", "make --dry-run ", 1)]
        done = subprocess.run(command, cwd=ROOT, env=_reader_environment(), capture_output=True, text=True)
        assert done.returncode == 0, f"{line}: {done.stderr}"


def test_links_lead_somewhere() -> None:
    for document in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]:
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", document.read_text(encoding="utf-8")):
            assert "://" in target or (document.parent / target).exists(), f"{document.name}: {target} is not there"


def _anchors(document: Path) -> set[str]:
    """Return what links to a document's headings end in, as code hosts and Sphinx make it of their text."""
    headings = re.findall(r"^#+ (.+)$", document.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_links_to_headings_lead_somewhere() -> None:
    for document in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]:
        for target, anchor in re.findall(r"\]\(([^)#]*)#([^)]*)\)", document.read_text(encoding="utf-8")):
            page = document.parent / target if target else document
            assert "://" in target or anchor in _anchors(page), f"{document.name}: {target}#{anchor} is not there"


def test_the_readme_is_short() -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 80
    assert max(map(len, lines)) <= 130


@pytest.mark.slow
def test_benchmark_of_the_generator_runs(tmp_path: Path) -> None:
    command = [
        sys.executable,
        str(ROOT / "benchmarks" / "moving_digits.py"),
        "--turns",
        "1",
        "--out",
        str(tmp_path / "rates.json"),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "rates.json").exists()


if __name__ == "__main__":
    print("\n".join(public_names()))
