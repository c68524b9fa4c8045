"""Measure training steps of one process with one and with two threads, and of two processes that torchrun starts.

Each trains the same batches of moving digits; they take turns. A rate is the median of turns. Two processes also say
how many bytes a step sends, as the loopback device counts them: a longer run less a shorter one. Run, on Linux:

    python benchmarks/several_processes.py [--turns 3] [--steps 90]

Writes benchmarks/results/several_processes.json.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from saccade import checkpoint, files, models, run_folder
from saccade.run_folder import commit, device_name

MODELS = ("lenet-lstm", "multi-stn-lstm")
SACCADE, TORCHRUN = ("-m", "saccade"), ("-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "saccade")
# How each is started, and with how many threads a process.
KINDS = {
    "one process, one thread": (SACCADE, 1),
    "one process, two threads": (SACCADE, 2),
    "two processes, one thread each": (TORCHRUN, 1),
}
BATCH_SIZE = 16
TIMEOUT_S = 1200
RECEIVED = Path("/sys/class/net/lo/statistics/rx_bytes")


def train(kind: str, model: str, num_steps: int, out: Path) -> tuple[float, int]:
    """Train; return clips per second without the start, and how many bytes the loopback device received."""
    launcher, num_threads = KINDS[kind]
    options = ("--digits", "uci", "--short-fraction", "0", "--precision", "float32", "--batch-size", str(BATCH_SIZE))
    command = [sys.executable, *launcher, "train", "--model", model, *options, "--steps", str(num_steps)]
    before = int(RECEIVED.read_text())
    found = subprocess.run(
        [*command, "--out", str(out)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=TIMEOUT_S,
        env=os.environ | {"OMP_NUM_THREADS": str(num_threads)},
    )
    if found.returncode:
        raise SystemExit(f"{kind}, {model}: it ends with {found.returncode}: {found.stdout[-2000:]}")
    received = int(RECEIVED.read_text()) - before
    first, *_, last = run_folder.read_log(out / run_folder.LOG)
    rate = BATCH_SIZE * (last["step"] - first["step"]) / (last["elapsed_s"] - first["elapsed_s"])
    return rate, received


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--steps", type=int, default=90)
    options = parser.parse_args()
    rates: dict[str, dict[str, list[float]]] = {model: {kind: [] for kind in KINDS} for model in MODELS}
    sent: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for model in MODELS:
            for turn in range(options.turns):
                for place, kind in enumerate(KINDS):
                    rate, received = train(kind, model, options.steps, folder / f"{model}-{turn}-{place}")
                    rates[model][kind].append(rate)
            _, fewer = train(kind, model, options.steps // 3, folder / f"{model}-short")
            sent[model] = (received - fewer) / (options.steps - options.steps // 3)
    result = {
        "device": device_name("cpu"),
        "versions": checkpoint.versions(),
        "commit": commit(),
        "batch_size": BATCH_SIZE,
        "turns": options.turns,
        "clips_per_s": {
            model: {kind: statistics.median(found) for kind, found in of_model.items()}
            for model, of_model in rates.items()
        },
        "parameters": {model: sum(p.numel() for p in models.create(model).parameters()) for model in MODELS},
        "bytes_per_step": sent,
    }
    files.write_json(Path(__file__).parent / "results" / "several_processes.json", result)
    shown = Table("model", *KINDS, "MB a step")
    for model in MODELS:
        figures = (f"{value:.0f} clips/s" for value in result["clips_per_s"][model].values())
        shown.add_row(model, *figures, f"{sent[model] / 1e6:.2f}")
    Console().print(shown)


if __name__ == "__main__":
    main()
