"""Predictions of large collections, as Parquet files that the same call completes after an interruption.

The clips are cut into parts. What does the work is one function from an address to a row, `Predictor`; an engine calls
it for the clips of each part, and writes the part when it is complete. So another engine needs an adapter only.
"""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from saccade import checkpoint, files, weights
from saccade.device import choose_device
from saccade.errors import DataError, MissingExtraError, SaccadeError
from saccade.predict.addresses import FILE, fetched, found_at, is_remote
from saccade.predict.classifier import Classifier, classes_of
from saccade.predict.config import PredictConfig, find_all
from saccade.predict.parquet import COLUMNS, Done, Output, Part, Row
from saccade.predict.prediction import Failure, Prediction
from saccade.processors import limit_memory

_NO_MEMORY = re.compile("allocate memory|out of memory|could not create a primitive")
_NO_MEMORY_STATUS = 12


@dataclass(frozen=True)
class Predictor:
    """What a worker does: load the model, limit its memory, and return the function from an address to a row.

    Args:
        model: the checkpoint.
        device: the device to compute on.
        max_frames: the maximum number of frames to read from each clip.
        min_confidence: the minimum confidence of a verdict; None for that in the checkpoint.
        memory_bytes: how much memory a worker may take beside what its start takes; only Linux keeps this limit. None
            for no limit.
    """

    model: Path
    device: torch.device
    max_frames: int | None
    min_confidence: float | None
    memory_bytes: int | None

    def __call__(self) -> Callable[[str], Row]:
        """Load the model in the process that works."""
        classify = Classifier(
            self.model, self.device, max_frames=self.max_frames, min_confidence=self.min_confidence, over_time=False
        )
        if self.memory_bytes is not None:
            limit_memory(self.memory_bytes)
        return partial(_row, classify)


def plan(config: PredictConfig) -> list[Part]:
    """Return the parts of the clips that paths, patterns and addresses name.

    Raises:
        DataError: if a path or an address names no clip.
    """
    given = [str(one) for one in config.clips]
    clips, missing = find_all([Path(one.removeprefix(FILE)) for one in given if not is_remote(one)])
    if missing:
        raise missing[0][1]
    named = [str(clip.absolute()) for clip in clips]
    for address in filter(is_remote, given):
        named += found_at(address)
    named = list(dict.fromkeys(named))
    size = config.per_file
    return [Part(first // size, tuple(named[first : first + size])) for first in range(0, len(named), size)]


@dataclass(frozen=True)
class Call:
    """A call that is prepared: its output, all parts, those that the output lacks, and what a worker does."""

    out: Output
    parts: Sequence[Part]
    left: Sequence[Part]
    work: Predictor
    config: PredictConfig

    @classmethod
    def of(cls, config: PredictConfig) -> Call:
        """Prepare a call.

        Raises:
            MissingExtraError: if the extra `ray` is not installed.
            UsageError: if the output holds other predictions.
            DataError: if the model cannot be read, or a path or an address names no clip.
        """
        assert config.out is not None
        _check_packages(config.engine)
        device, path = choose_device(config.device), weights.find(config.model)
        labels = classes_of(checkpoint.read_header(path), path)
        parts = plan(config)
        given = str(config.out)
        out = Output(given if is_remote(given) else str(Path(given.removeprefix(FILE)).absolute()), labels.names)
        settings = {
            "model_sha256": files.digest_of(checkpoint.locate(path)),
            "max_frames": config.max_frames,
            "min_confidence": labels.threshold(config.min_confidence),
            "per_file": config.per_file,
        }
        left = out.begin(settings, parts)
        memory_bytes = int(config.memory_gb * 1e9)
        work = Predictor(path.resolve(), device, config.max_frames, config.min_confidence, memory_bytes)
        return cls(out, parts, left, work, config)

    def each(self) -> Iterator[Done]:
        """Make the parts that are missing; yield each once it is written."""
        module = importlib.import_module(f"saccade.predict.{self.config.engine}_engine")
        yield from module.each(self.left, self.work, self.out, num_workers=self.config.workers)
        self.out.finish()


def lost(clip: str, why: str) -> Row:
    """Return the row of a clip that ended the process that read it."""
    if why == f"exit status {_NO_MEMORY_STATUS}":
        return _failed(clip, DataError(f"{clip} needs more memory than a worker may take; raise --memory-gb"))
    return _failed(clip, DataError(f"{clip} ended the process that read it ({why})"))


def _row(classify: Callable[[Path], Prediction | Failure], address: str) -> Row:
    try:
        with fetched(address) as path:
            found = classify(path)
    except (SaccadeError, OSError, MemoryError, RuntimeError) as error:
        if _lacked_memory(error):
            os._exit(_NO_MEMORY_STATUS)  # what the clip took would be missing for the next one
        if isinstance(error, RuntimeError):
            raise
        return _failed(address, error)
    if isinstance(found, Failure):
        if _lacked_memory(found.error):
            os._exit(_NO_MEMORY_STATUS)
        return _failed(address, found.error)
    return _empty(address) | {
        "verdict": found.verdict,
        "classes": list(found.classes),
        "sure": found.sure,
        "probability": found.probability,
        "probabilities": list(found.probabilities.values()),
        "decided_at_s": found.decided_at_s,
        "num_frames": found.num_frames,
        "fps": found.fps,
        "warning": found.warning,
    }


def _lacked_memory(error: BaseException | None) -> bool:
    """Return whether memory ran out, by an error or by what it came from."""
    while error is not None:
        if isinstance(error, MemoryError) or _NO_MEMORY.search(str(error)):
            return True
        error = error.__cause__
    return False


def _failed(clip: str, error: BaseException) -> Row:
    return _empty(clip) | {"error": " ".join(str(error).split())}


def _empty(clip: str) -> Row:
    return dict.fromkeys(COLUMNS) | {"clip": clip}


def _check_packages(engine: str) -> None:
    for package in ("pyarrow", "ray") if engine == "ray" else ("pyarrow",):
        try:
            __import__(package)
        except ImportError as error:
            raise MissingExtraError(package, "ray") from error
