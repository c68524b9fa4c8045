"""Measure what a clip of a large collection costs: read from a file and from an archive, and named by each engine.

Reading takes one thread, the contenders alternate, and a figure is the median of processor time, with the files in
memory: what a disk takes comes on top. Each engine names a few clips and many with two workers, by turns. The
difference is the cost of a clip, the rest that of the start. Run:

    python benchmarks/large_collections.py [--clips 300] [--turns 5] [--model dcn-lstm]

The clips are made: two seconds of 320x240 px at 60 frames/s, H.264. Ray takes part if `saccade[ray]` is installed.
Writes benchmarks/results/large_collections.json.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from decoding import decode_only, make_video
from rich.console import Console
from rich.table import Table

from saccade import files
from saccade.checkpoint import versions
from saccade.data import Folder, collection
from saccade.data.video import read_clip
from saccade.processors import num_processors
from saccade.run_folder import commit, device_name

NUM_FRAMES, SIZE = 120, (240, 320)
FEW = 0.2
# Both engines have as many workers, and parts enough for them.
WORKERS, PER_FILE = 2, 10
TIMEOUT_S = 1200
ENGINES = ("local", "ray") if importlib.util.find_spec("ray") else ("local",)


def reading(clips: Path, archives: Path, num_turns: int) -> dict[str, float]:
    """Return the milliseconds of a clip: decoded alone, and read as training reads it from a file and an archive."""
    paths = sorted(path for path in clips.rglob("*.mp4"))
    members = [entry.path for entry in collection.read(archives / "*.tar").entries]
    wanted = Folder(clips).frame_format
    assert wanted.size is not None
    read = partial(read_clip, size=wanted.size, num_channels=wanted.channels, fps=wanted.fps)
    contenders: dict[str, tuple[list[Path], Callable[[Path], object]]] = {
        "decode only": (paths, partial(decode_only, _=SIZE)),
        "file": (paths, read),
        "archive": (members, read),
    }
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(num_turns + 1):
        for name, (several, get) in contenders.items():
            begun = time.process_time()
            for path in several:
                get(path)
            if turn:  # the first fills the cache of the file system
                times[name].append(1000 * (time.process_time() - begun) / len(several))
    return {name: statistics.median(found) for name, found in times.items()}


def run(*words: str) -> None:
    """Run `saccade`; Ray's workers would be less urgent than those of the local engine."""
    found = subprocess.run(
        [sys.executable, "-m", "saccade", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=TIMEOUT_S,
        env=os.environ | {"OMP_NUM_THREADS": "1", "RAY_worker_niceness": "0"},
    )
    if found.returncode:
        raise SystemExit(f"saccade {words[0]} ends with {found.returncode}: {found.stdout[-2000:]}")


def naming(clips: Path, folder: Path, model: str, num_clips: int, num_turns: int) -> dict[str, dict[str, float]]:
    """Return for each engine the milliseconds of wall-clock time of a clip, and the seconds of its start."""
    paths = sorted(map(str, clips.rglob("*.mp4")))
    few = max(1, int(FEW * num_clips))
    slopes: dict[str, list[float]] = {engine: [] for engine in ENGINES}
    starts: dict[str, list[float]] = {engine: [] for engine in ENGINES}
    for turn in range(num_turns):
        for engine in ENGINES:
            took = {}
            for num in (few, num_clips):
                out = folder / f"{engine}-{turn}-{num}"
                words = ("predict", *paths[:num], "--model", model, "--out", str(out), "--engine", engine)
                words += ("--workers", str(WORKERS), "--per-file", str(PER_FILE))
                begun = time.perf_counter()
                run(*words)
                took[num] = time.perf_counter() - begun
            slope = (took[num_clips] - took[few]) / (num_clips - few)
            slopes[engine].append(1000 * slope)
            starts[engine].append(took[few] - few * slope)
    return {
        engine: {"ms_per_clip": statistics.median(slopes[engine]), "start_s": statistics.median(starts[engine])}
        for engine in ENGINES
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=300)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--model", default="dcn-lstm")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clips, archives = folder / "clips", folder / "archives"
        for number in range(options.clips):
            path = clips / "ab"[number % 2] / f"{number:05}.mp4"
            path.parent.mkdir(parents=True, exist_ok=True)
            make_video(path, NUM_FRAMES, SIZE, seed=number)
        run("shard", "--data", str(clips), "--out", str(archives))
        read = reading(clips, archives, options.turns)
        named = naming(clips, folder, options.model, options.clips, options.turns)
    result = {
        "device": device_name("cpu"),
        "processors": num_processors(),
        "versions": versions(),
        "commit": commit(),
        "clips": {"number": options.clips, "frames": NUM_FRAMES, "size": list(SIZE)},
        "model": options.model,
        "reading_ms": read,
        "file_time_over_archive_time": read["file"] / read["archive"],
        "decoder_time_over_archive_time": read["decode only"] / read["archive"],
        "turns": options.turns,
        "naming": named,
    }
    path = Path(__file__).parent / "results" / "large_collections.json"
    files.write_json(path, result)
    console = Console()
    shown = Table("reading", "ms a clip, processor")
    for one, took_ms in read.items():
        shown.add_row(one, f"{took_ms:.1f}")
    console.print(shown)
    shown = Table("engine", "ms a clip", "start, s")
    for engine, found in named.items():
        shown.add_row(engine, f"{found['ms_per_clip']:.1f}", f"{found['start_s']:.1f}")
    console.print(shown)


if __name__ == "__main__":
    main()
