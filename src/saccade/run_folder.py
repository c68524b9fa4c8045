"""The folder of a run: what was asked, on what, and how it went."""

from __future__ import annotations

import json
import platform
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypedDict

import torch

from saccade import checkpoint, files, foreign
from saccade.errors import DataError, UsageError

RUN, LOG = "run.json", "log.jsonl"


class _Run(TypedDict, total=False):
    """What is read of `run.json`."""

    config: dict[str, Any]
    later_calls: tuple[Any, ...]
    training_steps: int
    finished: bool


@contextmanager
def held(out: Path, *, wait: bool = False) -> Iterator[None]:
    """Keep a run folder to this process while the block runs, and remove what one that was killed left unfinished.

    Args:
        out: the folder; it is made where it is not there, and removed where nothing was put into it.
        wait: wait until other processes are done, instead of refusing.

    Raises:
        UsageError: another process uses the folder; it is a file.
    """
    _check_folder(out)
    with ExitStack() as stack:
        try:
            stack.enter_context(files.locked(out / RUN, timeout_s=-1 if wait else 0))
        except TimeoutError as error:
            raise UsageError(
                f"another process is writing to {out}; wait until it has ended, or choose another --out"
            ) from error
        files.remove_leftovers(out)
        try:
            yield
        finally:
            stack.close()
            with suppress(OSError):
                out.rmdir()  # where nothing was put into it


def begun(out: Path) -> bool:
    """Tell whether a folder holds a run that can be resumed."""
    return (out / RUN).exists() or (out / checkpoint.NAME).exists()


def check_free(out: Path) -> None:
    """Raise UsageError if a run lies in the folder already, or what is not of a run."""
    _check_folder(out)
    if begun(out):
        raise UsageError(f"{out} already holds a run; add --resume to continue it, or choose another --out")
    ours = (LOG, "tensorboard")  # of a run that ended as it began
    others = sorted(path.name for path in out.glob("[!.]*") if not path.name.startswith(ours))
    if others:
        raise UsageError(f"{out} holds {others[0]}, but no run; choose a new or empty folder as --out")


def _check_folder(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is a file; choose a new or empty folder as --out")


def check_same(out: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise UsageError where what lies in a folder was made with other settings than those of now.

    This is the one place where it is asked whether two runs are the same.

    Args:
        out: the folder.
        before: the settings of what lies there.
        now: those of now; settings that may change are in neither.
    """
    for name, wanted in now.items():
        if (came := before.get(name)) != wanted:
            raise UsageError(
                f"{out} was made with {name}={came}, now {name}={wanted}; give the same to go on, or choose another"
                " --out"
            )


def create(out: Path, verb: str, config: Mapping[str, Any], *, device: str, **facts: Any) -> None:
    """Start a run folder with its `run.json`.

    Args:
        out: the folder.
        verb: what runs.
        config: what was asked of it.
        device: as torch names it.
        facts: further entries of `run.json`.

    Raises:
        UsageError: a run is described there already.
    """
    if (out / RUN).exists():
        raise UsageError(f"{out} already holds a run; choose another --out")
    described = {
        "verb": verb,
        "config": dict(config),
        **call(),
        "device": device_name(device),
        "num_threads": torch.get_num_threads(),
        "versions": checkpoint.versions(),
        **facts,
    }
    files.write_json(out / RUN, described)


def call() -> dict[str, str]:
    """Tell what was called when, by which commit."""
    return {
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
    }


def read(out: Path) -> dict[str, Any]:
    """Return `run.json`.

    Raises:
        DataError: there is none, or it is damaged.
    """
    try:
        described = json.loads((out / RUN).read_text(encoding="utf-8"))
        foreign.check_types(described, _Run, RUN)
    except foreign.UNREADABLE as error:
        raise DataError(f"{out / RUN} cannot be read ({error}); {out} is not the folder of a run") from error
    return dict(described)


def update(out: Path, **facts: Any) -> None:
    """Add facts to `run.json`."""
    files.write_json(out / RUN, read(out) | facts)


def read_log(path: Path) -> list[dict[str, float]]:
    """Return the rows of a `log.jsonl`; a line cut short by a crash, or damaged otherwise, is left out."""
    rows = []
    for line in path.read_bytes().splitlines() if path.is_file() else []:
        with suppress(*foreign.UNREADABLE):
            row = json.loads(line)
            foreign.check_types(row, dict[str, float], "row")
            if "step" in row:
                rows.append(row)
    return rows


def rewind_log(path: Path, step: int) -> None:
    """Drop the rows after a step; a run that continues there writes them again."""
    rows = [row for row in read_log(path) if row["step"] <= step]
    files.write_text(path, "".join(json.dumps(row) + "\n" for row in rows))


def commit() -> str:
    """Return the commit of the source tree, with `+` where it has been changed since; `unknown` outside a checkout."""
    here = Path(__file__).parent

    # Of this file's checkout, not of a repository that an environment with Saccade happens to lie in.
    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(here), *arguments], capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", Path(__file__).name)
        return git("rev-parse", "--short=12", "HEAD") + ("+" if git("status", "--porcelain", "-uno", ".") else "")
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def device_name(device: str) -> str:
    """Name the device in words."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    return f"{_processor()} CPU ({torch.backends.cpu.get_cpu_capability()})"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


@contextmanager
def scalars(out: Path, step: int = 0) -> Iterator[Callable[[Mapping[str, float]], None]]:
    """Give a function that writes a log row for TensorBoard too; without the extra it does nothing.

    Args:
        out: the run folder.
        step: where the run continues; rows of later steps are hidden.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        yield lambda row: None
        return
    writer = SummaryWriter(str(out / "tensorboard"), purge_step=step + 1 if step else None)

    def write(row: Mapping[str, float]) -> None:
        for name, value in row.items():
            writer.add_scalar(name, value, int(row["step"]))

    try:
        yield write
    finally:
        writer.close()
