"""A training on a pretrained trunk as a run: its folder, its figures beside simple classifiers, its checkpoint."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from saccade import checkpoint, run_folder
from saccade.baselines import Rung
from saccade.data.folder import Folder
from saccade.data.folds import Fold, folds
from saccade.data.labelled import targets_of
from saccade.data.leaks import metadata_features
from saccade.data.scan import Record
from saccade.data.stored import StoredClips
from saccade.nn.memory import MemoryHead
from saccade.stream.joined import Found
from saccade.train import beside, pretrained, tables
from saccade.train.config import TrainConfig
from saccade.train.pretrained import Described, Fitted, Progress

PROTOCOL = "linear"
# Of a frame: durations are sums of rounded time stamps.
_ROUNDING = 0.1


@dataclass(frozen=True)
class Outcome:
    """The result of a training.

    Args:
        path: the checkpoint.
        rungs: simple classifiers, tested on the same clips.
        model: the model, as one more.
        num_folds: the number of folds of the cross-validation; None if the validation clips were tested.
        is_calibrated: whether probabilities were fitted to clips that were held out.
        events: how well the events of streams of these clips are found, at the threshold that was chosen on them; None
            if no class means that nothing happens.
    """

    path: Path
    rungs: list[Rung]
    model: Rung
    num_folds: int | None
    is_calibrated: bool
    events: Found | None


def train(
    config: TrainConfig,
    data: Folder,
    records: Sequence[Record],
    out: Path,
    *,
    num_folds: int | None = None,
    progress: Callable[[str], Progress] | None = None,
    tested: Callable[[list[Rung], Rung], None] | None = None,
) -> Outcome:
    """Fit a linear head to the features of a pretrained trunk; compare it with simple classifiers.

    Without folds, the head is fitted to the training clips and tested on the validation clips. With folds, each clip is
    tested by a head that was fitted to the other folds, and the final head is fitted to all clips. Clips of a given
    test are not used at all.

    The run folder `out` gets `run.json`, the checkpoint, `tested.csv` with the verdict of each tested clip, and
    `left_out.csv` if clips were left out.

    Args:
        config: the seed; the other settings of a training by steps do not apply.
        data: the clips, already scanned.
        records: the result of `data.scanned()`.
        out: the run folder.
        num_folds: the number of folds of a cross-validation; None for none.
        progress: a function that is called with the name of a stage as it begins, and returns a function of the number
            of clips, or of parts, done and the total.
        tested: a function that is called with the simple classifiers and the model once they are tested, before
            anything is saved.

    Raises:
        UsageError: if `out` already holds a run, another process writes to it, or the pretrained weights are not
            installed.
        DataError: if clips cannot be read, or cannot be split.
    """
    begin = progress or (lambda stage: lambda done, total: None)
    with run_folder.held(out):
        run_folder.check_free(out)
        clips, parts = _clips_and_parts(data, num_folds, config.seed)
        used = beside.records_of(data, records, clips)  # and no clip of a given test
        described = pretrained.describe(
            clips,
            data.frame_format,
            longest=_longest(used, data),
            progress=begin("features of the pretrained trunk"),
        )
        fitted, heads = begin("heads fitted and tested"), []
        for number, (learned, _) in enumerate(parts, 1):
            heads.append(pretrained.fitted(described, learned, seed=config.seed))
            fitted(number, len(parts) + 1)
        logits = pretrained.out_of_fold(described, parts, heads)[:, 0]
        found = pretrained.events_found(described, parts, heads, seed=config.seed)
        fitted(len(parts) + 1, len(parts) + 1)
        _, metadata = metadata_features(used)
        rungs, model = pretrained.beside_ladder(
            described, parts, logits, metadata=metadata, progress=begin("simple classifiers")
        )
        if tested is not None:
            tested(rungs, model)
        head = pretrained.fitted(described, np.arange(len(clips)), seed=config.seed) if num_folds else heads[0]
        accuracy = {"accuracy": model.accuracy, "low": model.low, "high": model.high}
        path = _save(config, data, described, head, out, accuracy, found)
        tables.write_tested(out, clips, [held for _, held in parts], logits)
        tables.write_left_out(out, data.left_out)
    return Outcome(path, rungs, model, num_folds, head.linear.is_calibrated, found)


def check_folds(data: Folder, num_folds: int, seed: int) -> None:
    """Raise the errors of `folds` for clips that are listed but not read yet; clips of a given test do not count."""
    learned = [clip for clip in data.files if clip.entry.split != "test"]
    groups = [clip.group for clip in learned] if any(clip.entry.group is not None for clip in data.files) else None
    folds(targets_of(learned, data.labels).numpy(), groups, num_folds, seed, names=data.labels.names)


def _clips_and_parts(data: Folder, num_folds: int | None, seed: int) -> tuple[StoredClips, list[Fold]]:
    if num_folds:
        learned = data.clips("train")
        return learned, folds(learned.targets.numpy(), learned.groups, num_folds, seed, names=learned.labels.names)
    together, part = beside.train_and_validation(data)
    return together, [part]


def _longest(records: Sequence[Record], data: Folder) -> int:
    """Return the number of frames of the longest event; where no class means that nothing happens, of all clips."""
    none = data.labels.none
    events = [record for record in records if none is None or none not in record.entry.classes]
    return max(_num_frames(record, data.frame_format.fps) for record in events or records)


def _num_frames(record: Record, fps: float | None) -> int:
    """Return the number of frames of a clip at the model's rate, at which the window of its memory is counted."""
    if fps is None or record.duration_s is None:
        return record.num_frames or 0
    return math.ceil(record.duration_s * fps - _ROUNDING)


def _save(
    config: TrainConfig,
    data: Folder,
    described: Described,
    head: Fitted,
    out: Path,
    tested: dict[str, float],
    events: Found | None,
) -> Path:
    assert isinstance(described.model.head, MemoryHead)
    head.copy_to(described.model.head)
    if events is not None:
        described.model.labels = replace(described.model.labels, min_confidence=events.threshold)
    # The settings of a training by steps do not apply.
    config_json = {
        "model": pretrained.MODEL,
        "trunk": "efficientnet-lite0",
        "input": "both",
        "seed": config.seed,
    }
    about_data = {"config": data.as_json(), "facts": {**data.facts, "protocol": PROTOCOL}}
    training = {"config": config_json, "data": data.identity(), "before": {}, "accuracy": tested["accuracy"]}
    header = pretrained.header_of(described, about_data, training)
    checkpoint.save(out / checkpoint.NAME, described.model, header)
    facts = {
        "data": data.as_json(),
        "tested": tested,
        "penalty": head.linear.penalty,
        "block_weights": list(head.linear.block_weights),
        "temperature": {"early": head.early, "decay": head.decay},
        "events": None if events is None else asdict(events),
    }
    run_folder.create(out, "train", config_json, device="cpu", finished=True, **facts)
    return out / checkpoint.NAME
