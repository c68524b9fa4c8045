"""The run folder: its lock, its description in `run.json`, and its log."""

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
from saccade.processors import described

RUN, LOG = "run.json", "log.jsonl"
# A program that a killed process was starting, such as git, holds the lock of that process until it has begun.
_STARTING_S = 1.0


class _Run(TypedDict, total=False):
    """The types of the fields that are read from `run.json`."""

    config: dict[str, Any]
    later_calls: tuple[Any, ...]
    training_steps: int
    finished: bool


@contextmanager
def held(out: Path, *, wait: bool = False) -> Iterator[None]:
    """Lock a run folder while the block runs, and remove temporary files that a killed process left there.

    Args:
        out: the folder; it is created if needed, and removed at the end if it is empty.
        wait: whether to wait for other processes instead of raising an error.

    Raises:
        UsageError: if another process uses the folder, or `out` is a file.
    """
    _check_folder(out)
    with ExitStack() as stack:
        try:
            stack.enter_context(files.locked(out / RUN, timeout_s=-1 if wait else _STARTING_S))
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
                out.rmdir()  # fails if the folder is not empty


def begun(out: Path) -> bool:
    """Return whether a folder holds a run that can be resumed."""
    return (out / RUN).exists() or (out / checkpoint.NAME).exists()


def check_free(out: Path) -> None:
    """Raise UsageError if the folder already holds a run, or files that do not belong to a run."""
    _check_folder(out)
    if begun(out):
        if _is_finished(out):
            raise UsageError(f"{out} already holds a finished run; choose another --out")
        raise UsageError(f"{out} already holds a run; add --resume to continue it, or choose another --out")
    ours = (LOG, "tensorboard")  # left by a run that ended right after its start
    others = sorted(path.name for path in out.glob("[!.]*") if not path.name.startswith(ours))
    if others:
        raise UsageError(f"{out} holds {others[0]}, but no run; choose a new or empty folder as --out")


def check_writable(out: Path) -> None:
    """Find out before the work whether a run can be saved in a folder; leave the folder as it was.

    Raises:
        UsageError: if another process uses the folder, or `out` is a file.
        OSError: if nothing can be written there.
    """
    with held(out):
        files.check_writable(out / checkpoint.NAME)


def _is_finished(out: Path) -> bool:
    try:
        return bool(read(out).get("finished"))
    except DataError:  # resuming tells what is wrong
        return False


def _check_folder(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is a file; choose a new or empty folder as --out")


def check_same(out: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise UsageError if the content of a folder was made with settings that differ from the current ones.

    All verbs use this function to decide whether two runs are the same.

    Args:
        out: the folder.
        before: the settings of the content.
        now: the current settings. Both mappings lack the settings that may change.
    """
    for name, wanted in now.items():
        if (came := before.get(name)) != wanted:
            raise UsageError(
                f"{out} was made with {name}={came}, now {name}={wanted}; give the same to continue, or choose another"
                " --out"
            )


def create(out: Path, verb: str, config: Mapping[str, Any], *, device: str, **facts: Any) -> None:
    """Create a run folder with its `run.json`.

    Args:
        out: the folder.
        verb: the verb that runs.
        config: the options of the run.
        device: the device, as torch names it.
        facts: further entries of `run.json`.

    Raises:
        UsageError: if the folder already holds a `run.json`.
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
    """Return the command, its start time and the commit of the source tree."""
    return {
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
    }


def read(out: Path) -> dict[str, Any]:
    """Return the content of `run.json`.

    Raises:
        DataError: if the file is missing or damaged.
    """
    try:
        described = json.loads((out / RUN).read_text(encoding="utf-8"))
        foreign.check_types(described, _Run, RUN)
    except foreign.UNREADABLE as error:
        raise DataError(f"{out / RUN} cannot be read ({error}); {out} is not the folder of a run") from error
    return dict(described)


def update(out: Path, **facts: Any) -> None:
    """Add entries to `run.json`, or replace them."""
    files.write_json(out / RUN, read(out) | facts)


def read_log(path: Path) -> list[dict[str, float]]:
    """Return the rows of a `log.jsonl`; lines that are truncated by a crash or damaged otherwise are skipped."""
    rows = []
    for line in path.read_bytes().splitlines() if path.is_file() else []:
        with suppress(*foreign.UNREADABLE):
            row = json.loads(line)
            foreign.check_types(row, dict[str, float], "row")
            if "step" in row:
                rows.append(row)
    return rows


def rewind_log(path: Path, step: int) -> None:
    """Remove the rows after a step; a run that continues from this step writes them again."""
    rows = [row for row in read_log(path) if row["step"] <= step]
    files.write_text(path, "".join(json.dumps(row) + "\n" for row in rows))


def commit() -> str:
    """Return the commit of the source tree, with `+` if files have changed since; `unknown` outside a checkout."""
    here = Path(__file__).parent

    # The checkout must be that of this file, not a repository that contains the environment with Saccade.
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
    """Return a readable name of the device."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    processor = described("model name") or platform.processor() or platform.machine()
    return f"{processor} CPU ({torch.backends.cpu.get_cpu_capability()})"


@contextmanager
def scalars(out: Path, step: int = 0) -> Iterator[Callable[[Mapping[str, float]], None]]:
    """Yield a function that writes a log row for TensorBoard; it does nothing if TensorBoard is not installed.

    Args:
        out: the run folder.
        step: the step from which the run continues; rows of later steps are hidden.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        yield lambda row: None
        return
    place = out / "tensorboard"
    with files.errors_named(place):
        writer = SummaryWriter(str(place), purge_step=step + 1 if step else None)

    def write(row: Mapping[str, float]) -> None:
        with files.errors_named(place):
            for name, value in row.items():
                writer.add_scalar(name, value, int(row["step"]))

    try:
        yield write
    finally:
        with files.errors_named(place):
            writer.close()
