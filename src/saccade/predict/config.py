"""The options of `saccade predict`, and the clips that they name."""

from __future__ import annotations

import glob
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from saccade.data import video
from saccade.data.finding import find_clips
from saccade.errors import DataError, UsageError, unknown_name

ENGINES = ("local", "ray")
"""What runs the prediction of large collections."""


@dataclass(frozen=True)
class PredictConfig:
    """Classify clips.

    Args:
        clips: video files, GIFs, `.npz` files (array `frames`), folders of such files, or patterns in quotes, for
            example `'clips/**/*.mp4'`.
        model: a checkpoint, a run folder, the name of a model whose weights come with the package, or hf://USER/NAME
            for a model on the Hugging Face Hub.
        max_frames: the maximum number of frames to read from each clip.
        device: auto, cpu or cuda.
        workers: the number of processes. The default is one per core that this program may use; few or small clips are
            not worth more than one. A GPU has one. With --engine ray it is the largest number of actors, by default one
            per core of the cluster, or per GPU.
        min_confidence: the minimum probability of a verdict; below it, a clip is reported as unsure. The default is
            that in the checkpoint, 0.5 for most models. If several classes can be present at once, a verdict is unsure
            if any of them is close to 50 %: at 0.5 between 25 and 75 %, at 0.8 between 10 and 90 %.
        over_time: report the verdicts over time too: at each frame of a clip of up to 100 frames, else at the last
            frame of each second. The table shows each change with the probability at that moment.
        csv: a CSV file with one row per clip. Until all clips are done, its rows are in a file whose name ends in
            `.part`; after an interruption, the same command continues it.
        out: a folder for Parquet files, local or of any address that fsspec knows, such as s3://BUCKET/FOLDER; for
            large collections. Clips may have such addresses too. A file is there as a whole or not at all; after an
            interruption, the same command makes those that are missing.
        engine: with --out: local, or ray for Ray Data, on the cluster that RAY_ADDRESS names or on this machine.
        per_file: with --out: the number of clips of a file.
        memory_gb: with --out: how much memory a worker may take for a clip, in gigabytes; a clip that needs more is
            named as failed.

    Raises:
        UsageError: if no clip is given, a number is out of range, the engine is unknown, or options do not fit
            together.
    """

    clips: Positional[tuple[str | Path, ...]]
    model: Path
    max_frames: int | None = None
    device: str = "auto"
    workers: int | None = None
    min_confidence: float | None = None
    over_time: bool = False
    csv: Path | None = None
    out: str | Path | None = None
    engine: str = "local"
    per_file: int = 1000
    memory_gb: float = 2.0

    def __post_init__(self) -> None:
        if not self.clips:
            raise UsageError("no clip was given; name a video, GIF or .npz file, or a folder of such files")
        if self.engine not in ENGINES:
            raise unknown_name("engine", self.engine, ENGINES)
        if self.out is None and self.engine != "local":
            raise UsageError(f"--engine {self.engine} writes files; name their folder with --out")
        if self.out is not None and (self.csv is not None or self.over_time):
            raise UsageError("--out writes Parquet files of last verdicts; leave out --csv and --over-time")
        if not 0.1 <= self.memory_gb < math.inf:
            raise UsageError(f"memory_gb must be at least 0.1; got {self.memory_gb}")
        for name, value in (("max_frames", self.max_frames), ("workers", self.workers), ("per_file", self.per_file)):
            if value is not None and value < 1:
                raise UsageError(f"{name} must be at least 1; got {value}")
        if self.min_confidence is not None and not 0 <= self.min_confidence <= 1:
            raise UsageError(f"min_confidence must lie in 0 to 1; got {self.min_confidence}")


def find_all(given: Sequence[str | Path]) -> tuple[list[Path], list[tuple[Path, DataError]]]:
    """Return the clips that paths and patterns name, each file once, and the errors of those that name none.

    *Conventions:* the order is that of `given`; within a folder or a pattern it is that of names. A path that exists is
    no pattern, whatever characters it has.
    """
    found: dict[str, Path] = {}
    missing = []
    for path in map(Path, given):
        try:
            for clip in find_clips(path) if path.exists() or not glob.has_magic(str(path)) else _matches(path):
                found.setdefault(os.path.realpath(clip), clip)
        except DataError as error:
            missing.append((path, error))
        except OSError as error:
            missing.append((path, DataError(f"{path}: {error.strerror}")))
    return list(found.values()), missing


def _matches(pattern: Path) -> list[Path]:
    matched = [Path(name) for name in sorted(glob.glob(str(pattern), recursive=True))]  # noqa: PTH207
    if not matched:
        raise DataError(f"no file matches {pattern}; '**' stands for folders at any depth, as in 'clips/**/*.mp4'")
    clips = [clip for path in matched for clip in _clips_of(path)]
    if not clips:
        raise DataError(f"{pattern} matches {len(matched)} files or folders, but no clip is among them")
    return clips


def _clips_of(matched: Path) -> Iterator[Path]:
    # A pattern such as 'clips/**' also matches notes beside the clips, and folders without clips.
    if matched.is_dir():
        if any(video.is_named_as_clip(path) for path in matched.rglob("*")):
            yield from find_clips(matched)
    elif video.is_named_as_clip(matched):
        yield matched
