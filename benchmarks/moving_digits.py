"""Measure the speed of `MovingDigits` and of a plain NumPy/SciPy generator, and memory by length of the dataset.

64x64 uint8, two digits, 50 frames a clip. Run:

    python benchmarks/moving_digits.py [--turns 15]

The generators take turns, and a rate (frames per second) is the median over turns. The plain generator runs on one
core, as is usual.
Writes benchmarks/results/moving_digits.json.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import plain_generator
import scipy
import torch
from rich.console import Console
from rich.table import Table

from saccade import files
from saccade.checkpoint import versions
from saccade.data import digits
from saccade.data.digits import CONDITIONS, Motion, MovingDigits
from saccade.run_folder import commit, device_name

# The conditions that are compared: the plain generator has no counterpart of the others.
PLAIN = {"normal": plain_generator.paste, "rotation_scaling": plain_generator.affine}
CPU_CLIPS, GPU_CLIPS, PLAIN_CLIPS = 64, 8192, 4
MEBIBYTE = 2**20


def ours(images: digits.Digits, condition: str, device: str) -> Callable[[int], int]:
    """Return a function that makes new clips each turn and returns how many frames it made."""
    clips = MovingDigits(images, Motion(condition)).to(device)
    num_clips = CPU_CLIPS if device == "cpu" else GPU_CLIPS

    def make(turn: int) -> int:
        frames = clips.batch(torch.arange(turn * num_clips, (turn + 1) * num_clips)).frames
        if device == "cuda":
            torch.cuda.synchronize()
        return frames.shape[0] * frames.shape[1]

    return make


def plain(images: digits.Digits, condition: str) -> Callable[[int], int]:
    """Return the same function for the plain generator."""
    pool, min_scale = images.images.numpy(), 0.5 if condition == "rotation_scaling" else 1.0

    def make(turn: int) -> int:
        rng = np.random.default_rng(turn)
        for _ in range(PLAIN_CLIPS):
            pair = [pool[k] for k in rng.integers(len(pool), size=2)]
            plain_generator.clip(pair, rng, PLAIN[condition], min_scale)
        return PLAIN_CLIPS * plain_generator.NUM_FRAMES

    return make


def frames_per_second(makers: dict[str, Callable[[int], int]], num_turns: int) -> dict[str, float]:
    """Let all makers take turns, the first of which does not count; return the median rate of each."""
    rates: dict[str, list[float]] = {name: [] for name in makers}
    for turn in range(num_turns + 1):
        for name, make in makers.items():
            start = time.perf_counter()
            num_frames = make(turn)
            rates[name].append(num_frames / (time.perf_counter() - start))
    return {name: statistics.median(several[1:]) for name, several in rates.items()}


def peak_mib(num_clips: int) -> float:
    """Return this process's peak memory after batches from all over a dataset of `num_clips`."""
    clips = MovingDigits(digits.load("uci"), num_clips=num_clips)
    for start in range(0, num_clips, num_clips // 10):
        clips.batch(torch.arange(start, start + CPU_CLIPS))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / MEBIBYTE


def peak_mib_by_length() -> dict[str, float]:
    """Measure each length in a separate process."""
    peaks = {}
    for num_clips in (1_000, 1_000_000):
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
            peaks[f"{num_clips:,} clips"] = process.submit(peak_mib, num_clips).result()
    return peaks


def measure(images: digits.Digits, condition: str, num_turns: int) -> dict[str, float | str]:
    """Return the row of one condition."""
    devices = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    makers = {device: ours(images, condition, device) for device in devices}
    if condition in PLAIN:
        makers["plain"] = plain(images, condition)
    rates = frames_per_second(makers, num_turns)
    ratio = {"ratio": rates["cpu"] / rates["plain"]} if "plain" in rates else {}
    return {"condition": condition} | rates | ratio


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "moving_digits.json")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    images = digits.load("uci")
    rows = [measure(images, condition, arguments.turns) for condition in CONDITIONS]
    peaks = peak_mib_by_length()
    device = f"{device_name('cpu')}, {torch.get_num_threads()} threads"
    if torch.cuda.is_available():
        device += f"; {device_name('cuda')}"
    table = Table(title=f"moving digits, frames/s, {device}, torch {torch.__version__}, commit {commit()}")
    columns = {
        "condition": "condition",
        "cpu": "ours",
        "plain": "plain, one core",
        "ratio": "ratio",
        "cuda": "ours, GPU",
    }
    for heading in columns.values():
        table.add_column(heading, justify="left" if heading == "condition" else "right")
    for row in rows:
        table.add_row(*(_cell(name, row.get(name)) for name in columns))
    Console().print(table)
    print("peak memory: " + ", ".join(f"{name} {peak:,.0f} MiB" for name, peak in peaks.items()))
    result = {
        "device": device,
        "versions": versions() | {"numpy": np.__version__, "scipy": scipy.__version__},
        "commit": commit(),
        "turns": arguments.turns,
        "rows": rows,
        "peak_mib": peaks,
    }
    files.write_json(arguments.out, result)


def _cell(name: str, value: float | str | None) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    return f"{value:.1f}" if name == "ratio" else f"{value:,.0f}"


if __name__ == "__main__":
    main()
