"""The commands that write files, and what of their files must be the same after a fault."""

from __future__ import annotations

import csv
import hashlib
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from safetensors.numpy import load_file

from saccade import run_folder

Digest = dict[str, object]
# One thread, so that two trainings have equal bits wherever they run.
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "100"}
TRAINING = ("--digits", "uci", "--num-frames", "4", "--short-fraction", "0", "--batch-size", "8")
# Checkpoints every half second in place of every minute, so that a moment between two of them is usual. The first
# process writes the number of every step that it begins, so that one sees which were repeated.
OFTEN = """
import os, sys, threading
def often():
    import time
    while not hasattr(sys.modules.get("saccade.train.loop"), "_checked"):  # the last function of the module
        time.sleep(0.01)
    loop = sys.modules["saccade.train.loop"]
    loop.run.__kwdefaults__["save_every_s"] = 0.5
    if os.environ.get("RANK", "0") == "0":
        steps, advance = open(os.environ["SACCADE_FAULT_STEPS"], "a", buffering=1), loop.advance
        def counted(trainer):
            steps.write(f"{trainer.step}\\n")
            return advance(trainer)
        loop.advance = counted
if "saccade" in " ".join(sys.orig_argv):
    threading.Thread(target=often, daemon=True).start()
"""
TIMEOUT_S = 600
HANGS = -1000
MARK = "SACCADE_FAULT_TRIAL"


@dataclass(frozen=True)
class Verb:
    """A command, how it goes on after a fault, and what of its result is compared.

    Args:
        words: the command; its files go to `--out`.
        digest: returns what must be the same after a fault.
        resumes: whether a run that was begun is continued with `--resume`; other verbs repeat their command.
        patch: a folder with code that Python runs first.
        launcher: the words between Python and those of the command.
    """

    words: tuple[str, ...]
    digest: Callable[[Path], Digest]
    resumes: bool = False
    patch: Path | None = None
    launcher: tuple[str, ...] = ("-m", "saccade")

    def command(self, out: Path) -> list[str]:
        """Return the command for a folder, whatever state it is in."""
        resume = ["--resume"] if self.resumes and run_folder.begun(out) else []
        return [sys.executable, *self.launcher, *self.words, "--out", str(out), *resume]

    def start(self, out: Path, printed: str = "told", **variables: str) -> Running:
        """Start the command, with environment variables of its own; what it prints goes to a file two folders above."""
        patched = {"PYTHONPATH": str(self.patch), "SACCADE_FAULT_STEPS": str(steps_file(out))} if self.patch else {}
        mark = uuid.uuid4().hex
        # Not to a pipe, which would stay open as long as a process that is left; not beside `out`, where a disk may be
        # full.
        path = out.parent.parent / f".{printed}"
        with path.open("w") as told:
            process = subprocess.Popen(
                self.command(out),
                stdout=told,
                stderr=subprocess.STDOUT,
                env=ENVIRONMENT | patched | variables | {MARK: mark},
                start_new_session=True,
            )
        return Running(process, mark, path)


@dataclass(frozen=True)
class Running:
    """A command that was started.

    Args:
        process: its process.
        mark: the value of an environment variable that all processes share which it starts.
        printed: the file with what it printed.
    """

    process: subprocess.Popen[bytes]
    mark: str
    printed: Path

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self.process.poll() is None

    def end(self) -> tuple[int, str]:
        """Wait for the end; return the exit status and what was printed. What hangs is killed."""
        try:
            self.process.wait(TIMEOUT_S)
        except subprocess.TimeoutExpired:
            for number in self.processes():
                with suppress(ProcessLookupError):
                    os.kill(number, signal.SIGKILL)
            self.process.wait()
            return HANGS, "it hangs"
        return self.process.returncode, self.printed.read_text(encoding="utf-8")

    def workers(self) -> list[int]:
        """Return the processes that a launcher has started."""
        path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        numbers = path.read_text().split() if path.exists() else []
        return [int(number) for number in numbers]

    def processes(self) -> list[int]:
        """Return the processes that run, the command's own and those that it has started."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if f"{MARK}={self.mark}".encode() in (folder / "environ").read_bytes():
                    found.append(int(folder.name))
        return found


def verbs(clips: Path, patch: Path) -> dict[str, Verb]:
    """Return the commands that write files, on a folder of clips; a training saves often by a patch."""
    patch.mkdir(parents=True, exist_ok=True)
    (patch / "sitecustomize.py").write_text(OFTEN)
    return {
        "train": Verb(("train", *TRAINING, "--steps", "200"), weights_of, resumes=True, patch=patch),
        "generate": Verb(("generate", "--digits", "uci", "--num-clips", "150", "--num-frames", "20"), files_of),
        "shard": Verb(("shard", "--data", str(clips), "--shard-mb", "0.05"), files_of),
        "predict": Verb(("predict", str(clips), "--model", "lenet-lstm", "--per-file", "20"), files_of),
        "reproduce": Verb(
            (
                *("reproduce", "--digits", "uci", "--models", "lenet-lstm", "stn-lstm", "--conditions", "normal"),
                *("--trained-on", "condition", "--steps", "10", "--num-clips", "20", "--seeds", "1", "--jobs", "2"),
            ),
            table_of,
        ),
        "evaluate": Verb(("evaluate", "--model", "lenet-lstm", "--digits", "uci", "--num-clips", "100"), rows_of),
    }


def in_two_processes(train: Verb) -> Verb:
    """Return a training in two processes, which their launcher starts again if one fails."""
    launcher = ("-m", "torch.distributed.run", "--nproc-per-node", "2", "--max-restarts", "3")
    return replace(train, launcher=(*launcher, *train.launcher))


def weights_of(out: Path) -> Digest:
    """Return the tensors of the checkpoint: weights, and the state of the optimiser."""
    tensors = load_file(out / "checkpoint.safetensors")
    return {name: hashlib.sha256(tensor.tobytes()).hexdigest() for name, tensor in tensors.items()}


def files_of(out: Path) -> Digest:
    """Return the bytes of every file."""
    return {name: hashlib.sha256((out / name).read_bytes()).hexdigest() for name in names_in(out)}


def table_of(out: Path) -> Digest:
    """Return the figures of a table."""
    return rows_of(out / "table.csv")


def rows_of(path: Path) -> Digest:
    """Return the figures of a result file."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return {
        f"{number} {row['model']} {row['condition']}": (row["accuracy"], row["cross_entropy"], row["num_clips"])
        for number, row in enumerate(rows)
    }


def steps_file(out: Path) -> Path:
    """Return the file in which a training of `OFTEN` writes the steps that it begins."""
    return out.parent.parent / ".steps"


def steps_begun(out: Path) -> list[list[int]]:
    """Return the steps that a training began, a list for each time that it was started."""
    path = steps_file(out)
    found: list[list[int]] = []
    # The last line of a killed process may lack its end.
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        if line.isdecimal():
            if not found or int(line) <= found[-1][-1]:
                found.append([])
            found[-1].append(int(line))
    return found


def names_in(out: Path) -> list[str]:
    """Return the files below a folder; of a file, those beside it that bear its name."""
    if out.is_dir():
        return sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file())
    return sorted(path.name for path in out.parent.glob(f"*{out.name}*") if path.is_file())
