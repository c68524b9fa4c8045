"""The wheel: what is in it, and that it runs where it is installed, with a C++ compiler and without one."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest

import saccade
from saccade import weights

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "saccade"
NATIVE_SOURCES = {".cpp", ".h"}
INFO = f"saccade-{saccade.__version__}.dist-info"

# What pip calls; in a process of its own, since it changes environment variables.
BUILD = """
import json, sys
from scikit_build_core.build import build_wheel
print(build_wheel(sys.argv[1], json.loads(sys.argv[2])))
"""


def _built(folder: Path, settings: str, path: str) -> Path:
    """Build a wheel of the checkout with what is installed here, as without a network."""
    pytest.importorskip("scikit_build_core", reason="scikit-build-core is not installed: saccade[dev] has it")
    done = subprocess.run(
        [sys.executable, "-c", BUILD, str(folder), settings],
        cwd=ROOT,
        env=os.environ | {"PATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder / done.stdout.split()[-1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel without the kernels, which takes a second; all else is in it."""
    return _built(tmp_path_factory.mktemp("wheel"), '{"wheel.cmake": "false"}', os.environ["PATH"])


@pytest.fixture(scope="module")
def content(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist() if not name.endswith("/")}


@pytest.fixture(scope="module")
def metadata(content: dict[str, bytes]) -> Message:
    return Parser().parsestr(content[f"{INFO}/METADATA"].decode("utf-8"))


def _sources() -> dict[str, bytes]:
    paths = [path for path in PACKAGE.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    left_out = NATIVE_SOURCES | {".so"}  # a library that an in-place build left
    return {
        path.relative_to(PACKAGE.parent).as_posix(): path.read_bytes() for path in paths if path.suffix not in left_out
    }


def test_it_holds_the_package_and_nothing_else(content: dict[str, bytes]) -> None:
    packed = {name: data for name, data in content.items() if not name.startswith(f"{INFO}/")}
    sources = _sources()
    assert packed.keys() == sources.keys()
    assert [name for name, data in packed.items() if data != sources[name]] == []


def test_it_holds_what_is_no_python(content: dict[str, bytes]) -> None:
    kinds = {Path(name).suffix for name in content if name.startswith("saccade/")}
    assert kinds >= {".html", ".js", ".css", ".svg", ".safetensors", ".json", ".pyi"}
    assert {"saccade/py.typed", "saccade/data/digits/strokes.py", f"{INFO}/licenses/LICENSE"} <= content.keys()


def test_the_page_finds_its_files(content: dict[str, bytes]) -> None:
    # The overlay is shared with the reports, and so lies where those find it too.
    folders = ("saccade/serve/static", "saccade/visualize")
    assets = {Path(name).name: data.decode("utf-8") for name, data in content.items() if name.startswith(folders)}
    named = {name for text in assets.values() for name in re.findall(r'"(?:\./)?([\w-]+\.(?:js|css|svg))"', text)}
    assert {"app.js", "app.css", "icon.svg", "overlay.js"} <= named
    assert named <= assets.keys()


def test_each_model_with_weights_has_its_header_and_its_card(content: dict[str, bytes]) -> None:
    found = {name for name in content if name.startswith("saccade/weights/") and not name.endswith(".py")}
    suffixes = (".safetensors", ".json", ".md")
    assert found == {f"saccade/weights/{name}{suffix}" for name in weights.paths() for suffix in suffixes}


def test_its_metadata_says_which_pythons(metadata: Message) -> None:
    assert metadata["Requires-Python"] == ">=3.11"
    pythons = {line.rpartition(" ")[2] for line in metadata.get_all("Classifier", []) if "Python :: 3." in line}
    assert pythons == {"3.11", "3.12", "3.13", "3.14"}


def test_its_metadata_names_version_licence_and_command(metadata: Message, content: dict[str, bytes]) -> None:
    assert (metadata["Name"], metadata["Version"]) == ("saccade", saccade.__version__)
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata.get_payload().strip() == (ROOT / "README.md").read_text(encoding="utf-8").strip()
    assert b"saccade=saccade.cli:main" in content[f"{INFO}/entry_points.txt"].replace(b" ", b"")


# --- Installed


@pytest.fixture(params=["compiler", "no compiler"])
def tools(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[bool, str]:
    """Whether there is a C++ compiler, and a PATH that says so: what builds with one is there either way."""
    has_compiler = request.param == "compiler"
    if has_compiler and not any(map(shutil.which, ("c++", "g++", "clang++"))):
        pytest.skip("no C++ compiler is here")
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("cmake", "ninja"):
        found = shutil.which(name)
        if found is None:
            pytest.skip(f"{name} is not here, and there is no network to fetch it from")
        (folder / name).symlink_to(found)
    return has_compiler, os.environ["PATH"] if has_compiler else str(folder)


def _environment(folder: Path, wheel: Path) -> Path:
    """Make a virtual environment with the wheel, beside the packages that are installed here; return its programs."""
    venv.create(folder, symlinks=True)
    programs = folder / "bin"
    command = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        programs / "python",
        "install",
        "--no-deps",
        "--no-index",
        wheel,
    ]
    subprocess.run(command, check=True, capture_output=True)
    (site,) = folder.glob("lib/python3.*/site-packages")
    # A line in a file of paths, not a file among them: what is installed here as editable stays out.
    (site / "installed_here.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    return programs


OPERATOR = """
import torch, saccade
from saccade.ops import deform_conv2d
from saccade.ops.deform_conv import cpu
torch.manual_seed(0)
given = torch.randn(2, 3, 8, 9), torch.randn(2, 18, 8, 9), torch.randn(4, 3, 3, 3).requires_grad_()
results = []
for backend in ("auto", "reference"):
    found = deform_conv2d(*given, padding=1, backend=backend)
    results.append([found, *torch.autograd.grad(found.square().sum(), given[2])])
torch.testing.assert_close(*results, rtol=1e-4, atol=1e-4)
print(saccade.__file__, bool(cpu.instruction_sets()))
"""


@pytest.mark.slow
def test_an_installed_wheel_runs(tools: tuple[bool, str], tmp_path: Path) -> None:
    has_compiler, path = tools
    wheel = _built(tmp_path, "{}", path)
    assert wheel.name.endswith("-py3-none-any.whl") != has_compiler
    programs = _environment(tmp_path / "installed", wheel)
    environment = os.environ | {"PATH": path if has_compiler else "", "COLUMNS": "200", "OMP_NUM_THREADS": "1"}

    def run(*command: str | Path) -> str:
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    command = programs / "saccade"
    assert run(command, "--version").strip() == f"saccade {saccade.__version__}"
    (kernels,) = (line for line in run(command, "info").splitlines() if line.startswith("deform_conv2d: cpu"))
    said = "yes, for " if has_compiler else "no: its kernels were not built when Saccade was installed, for want"
    assert said in kernels
    run(command, "generate", "--digits", "uci", "--num-clips", "1", "--num-frames", "12", "--out", "clips")
    for model in ("lenet-lstm", "stn-lstm", "dcn-lstm"):
        assert '"verdict"' in run(command, "predict", "clips", "--model", model, "--json")
    where, kernels_there = run(programs / "python", "-c", OPERATOR).split()
    assert Path(where).is_relative_to(tmp_path / "installed")
    assert kernels_there == str(has_compiler)
