"""The command `saccade predict`: the class of each clip, and the frame from which the verdict stays and is sure."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import partial
from itertools import chain
from pathlib import Path

import torch

from saccade import checkpoint, files, weights
from saccade.device import choose_device
from saccade.errors import DataError, SaccadeError
from saccade.labels import Labels
from saccade.predict.classifier import Classifier, classes_of
from saccade.predict.config import PredictConfig, find_all
from saccade.predict.csv_file import Rows, no_rows, rows_into
from saccade.predict.prediction import Failure, Prediction
from saccade.predict.processes import in_order
from saccade.processors import num_processors

# Processes take three seconds to start. To classify this much takes twice as long; a small file counts as 64 KiB.
_WORTH_PROCESSES_BYTES, _LEAST_BYTES = 12 << 20, 1 << 16


def predict(config: PredictConfig) -> list[Prediction]:
    """Classify clips with a checkpoint; after an interrupted call with the same CSV file, only the clips that it lacks.

    Raises:
        UsageError: if the device is unknown.
        DataError: if a clip or the checkpoint cannot be read, or if they do not fit each other.
        NonFiniteError: if the model gives NaN or infinity.
        OSError: if the CSV file cannot be written.
    """
    return list(each(config))


def each(
    config: PredictConfig,
    *,
    unreadable: Callable[[SaccadeError], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
    continued: Callable[[int], None] | None = None,
) -> Iterator[Prediction]:
    """Classify clips with a checkpoint; yield the predictions in order of the clips.

    After Ctrl-C, the predictions that are there are yielded before KeyboardInterrupt is raised. If an earlier call was
    interrupted while it wrote the same CSV file, only the predictions that it lacks are made and yielded.

    Args:
        config: the clips, the model and the options.
        unreadable: called with the error for each clip that cannot be classified, which is then skipped. If None, the
            error is raised.
        progress: called after each clip with the number of clips done and the total number.
        continued: called with the number of clips that an interrupted call has done, if there are any.

    Raises:
        UsageError: if the device is unknown, or if an interrupted call had another model, other options or other clips.
        DataError: if the checkpoint cannot be read, or, without `unreadable`, if a clip cannot be classified.
        NonFiniteError: without `unreadable`, if the model gives NaN or infinity.
        OSError: if the CSV file cannot be written.
    """
    device, path = choose_device(config.device), weights.find(config.model)
    labels = classes_of(checkpoint.read_header(path), path)
    clips, missing = find_all(config.clips)
    failed = [Failure(given, error) for given, error in missing]
    with _rows(config, path, labels, [*(failure.clip for failure in failed), *clips]) as rows:
        left = [clip for clip in clips if not rows.has(clip)]
        num, num_done = len(failed) + len(clips), len(clips) - len(left)
        if continued is not None and num_done:
            continued(num_done)
        if progress is not None:
            progress(num_done, num)
        outcomes = chain(failed, _classified(left, path, device, config))
        for done, outcome in enumerate(outcomes, start=num_done + 1):
            rows.add(outcome)
            if progress is not None:
                progress(done, num)
            if isinstance(outcome, Prediction):
                yield outcome
            elif unreadable is None:
                raise outcome.error
            else:
                unreadable(outcome.error)


def _rows(config: PredictConfig, model: Path, labels: Labels, clips: Sequence[Path]) -> AbstractContextManager[Rows]:
    if config.csv is None:
        return no_rows()
    settings = {
        "model": f"{config.model} (SHA-256 {files.digest_of(checkpoint.locate(model))})",
        "max_frames": config.max_frames,
        "min_confidence": labels.threshold(config.min_confidence),
    }
    return rows_into(config.csv, labels, settings, clips)


def _classified(
    clips: Sequence[Path], path: Path, device: torch.device, config: PredictConfig
) -> Iterator[Prediction | Failure]:
    load = partial(
        Classifier,
        path,
        device,
        max_frames=config.max_frames,
        min_confidence=config.min_confidence,
        over_time=config.over_time,
    )
    num_processes = _num_processes(clips, device, config.workers)
    if num_processes > 1:
        yield from in_order(load, clips, num_processes=num_processes, lost=_lost)
    elif clips:
        yield from map(load(), clips)


def _num_processes(clips: Sequence[Path], device: torch.device, asked: int | None) -> int:
    # Elsewhere, a process does not inherit the connection to this one.
    if device.type != "cpu" or os.name != "posix":
        return 1
    if asked is not None:
        return min(asked, len(clips))
    if len(clips) < 3 or sum(max(_LEAST_BYTES, _size(clip)) for clip in clips) < _WORTH_PROCESSES_BYTES:
        return 1
    return min(num_processors(), len(clips))


def _size(clip: Path) -> int:
    try:
        return clip.stat().st_size
    except OSError:  # told of when it is read
        return 0


def _lost(clip: Path, why: str) -> Failure:
    return Failure(
        clip,
        DataError(
            f"{clip} ended the process that read it ({why}); if memory ran out, use fewer processes with --workers"
        ),
    )
