"""The commands that write files, and what of their files must be the same after a fault."""

import csv
import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from safetensors.numpy import load_file

from saccade import run_folder

Digest = dict[str, object]
# One thread, so that two trainings have equal bits wherever they run.
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "100"}
TRAINING = ("--digits", "uci", "--num-frames", "4", "--short-fraction", "0", "--batch-size", "8")


@dataclass(frozen=True)
class Verb:
    """A command, how it goes on after a fault, and what of its result is compared.

    Args:
        words: the command; its files go to `--out`.
        digest: returns what must be the same after a fault.
        resumes: whether a run that was begun is continued with `--resume`; other verbs repeat their command.
        is_file: whether `--out` is a file.
    """

    words: tuple[str, ...]
    digest: Callable[[Path], Digest]
    resumes: bool = False
    is_file: bool = False

    def command(self, out: Path) -> list[str]:
        """Return the command for a folder, whatever state it is in."""
        resume = ["--resume"] if self.resumes and run_folder.begun(out) else []
        return [sys.executable, "-m", "saccade", *self.words, "--out", str(out), *resume]

    def start(self, out: Path, **variables: str) -> subprocess.Popen[str]:
        """Start the command in a process group of its own, with environment variables of its own."""
        return subprocess.Popen(
            self.command(out),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=ENVIRONMENT | variables,
            start_new_session=True,
        )

    def run(self, out: Path, **variables: str) -> tuple[int, str]:
        """Run the command to its end; return its exit status and what it printed."""
        process = self.start(out, **variables)
        try:
            told, _ = process.communicate(timeout=600)
        except subprocess.TimeoutExpired:
            process.kill()
            return -1, "hangs"
        return process.returncode, told


def verbs(clips: Path) -> dict[str, Verb]:
    """Return the commands that write files, on a folder of clips."""
    return {
        "train": Verb(("train", *TRAINING, "--steps", "120"), weights_of, resumes=True),
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
        "evaluate": Verb(
            ("evaluate", "--model", "lenet-lstm", "--digits", "uci", "--num-clips", "100"), rows_of, is_file=True
        ),
    }


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


def names_in(out: Path) -> list[str]:
    """Return the files below a folder; of a file, those beside it that bear its name."""
    if not out.is_dir():
        return sorted(path.name for path in out.parent.glob(f"*{out.name}*"))
    return sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file())


def processes_of(out: Path) -> list[int]:
    """Return the processes whose command line names a folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if str(out).encode() in path.read_bytes() and int(path.parent.name) != os.getpid():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found
