"""A training on a pretrained trunk as a run: its folder, its figures beside simple classifiers, its checkpoint."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from saccade import checkpoint, files, run_folder
from saccade.baselines import Rung
from saccade.data.collection import CLASS_SEPARATOR
from saccade.data.folder import Folder
from saccade.data.folds import Fold, folds
from saccade.data.leaks import metadata_features
from saccade.data.scan import Record
from saccade.data.stored import StoredClips
from saccade.labels import Labels
from saccade.train import pretrained, ridge
from saccade.train.config import TrainConfig
from saccade.train.pretrained import Described, Progress

PROTOCOL = "linear"
TESTED, LEFT_OUT = "tested.csv", "left_out.csv"


@dataclass(frozen=True)
class Outcome:
    """The result of a training.

    Args:
        path: the checkpoint.
        rungs: simple classifiers, tested on the same clips.
        model: the model, as one more.
        num_folds: the number of folds of the cross-validation; None if the validation clips were tested.
    """

    path: Path
    rungs: list[Rung]
    model: Rung
    num_folds: int | None


def train(
    config: TrainConfig,
    data: Folder,
    records: Sequence[Record],
    out: Path,
    *,
    num_folds: int | None = None,
    progress: Callable[[str], Progress] | None = None,
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
        progress: a function that is called with the name of a stage, and returns a function of the number of clips done
            and the total.

    Raises:
        UsageError: if `out` already holds a run, another process writes to it, or the pretrained weights are not
            installed.
        DataError: if clips cannot be read, or cannot be split.
    """
    begin = progress or (lambda stage: lambda done, total: None)
    with run_folder.held(out):
        run_folder.check_free(out)
        clips, parts = _clips_and_parts(data, num_folds, config.seed)
        described = pretrained.describe(
            clips,
            data.frame_format,
            longest=max(record.num_frames or 0 for record in records),
            progress=begin("features of the pretrained trunk"),
        )
        logits = pretrained.out_of_fold(described, parts, seed=config.seed)
        record_of = {data.collection.name_of_entry(record.entry): record for record in records}
        _, metadata = metadata_features([record_of[name] for name in clips.names or ()])
        rungs, model = pretrained.beside_ladder(
            described, parts, logits, metadata=metadata, progress=begin("simple classifiers")
        )
        learned = np.arange(len(clips)) if num_folds else parts[0][0]
        head = pretrained.fitted(described, learned, seed=config.seed)
        path = _save(
            config, data, described, head, out, {"accuracy": model.accuracy, "low": model.low, "high": model.high}
        )
        files.write_text(out / TESTED, _tested(described, parts, logits))
        if data.left_out:
            files.write_text(out / LEFT_OUT, _as_csv([("path", "reason"), *data.left_out.items()]))
    return Outcome(path, rungs, model, num_folds)


def _clips_and_parts(data: Folder, num_folds: int | None, seed: int) -> tuple[StoredClips, list[Fold]]:
    learned = data.clips("train")
    if num_folds:
        return learned, folds(learned.targets.numpy(), learned.groups, num_folds, seed, names=learned.labels.names)
    together = data.together(("train", "validation"))
    return together, [(np.arange(len(learned)), np.arange(len(learned), len(together)))]


def _save(
    config: TrainConfig, data: Folder, described: Described, head: ridge.Linear, out: Path, tested: dict[str, float]
) -> Path:
    linear = described.model.head
    assert isinstance(linear, nn.Linear)
    with torch.no_grad():
        linear.weight.copy_(head.weight)
        linear.bias.copy_(head.bias)
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
        "penalty": head.penalty,
        "block_weights": list(head.block_weights),
    }
    run_folder.create(out, "train", config_json, device="cpu", finished=True, **facts)
    return out / checkpoint.NAME


def _tested(described: Described, parts: Sequence[Fold], logits: Float[Tensor, "clips classes"]) -> str:
    """Return a CSV file with the verdict of each tested clip."""
    clips = described.clips
    rows: list[tuple[object, ...]] = [("path", "group", "fold", "class", "verdict", "probability")]
    for number, (_, held) in enumerate(parts):
        for index, verdict in zip(held, clips.labels.verdicts(logits[held]), strict=True):
            name = clips.names[index] if clips.names else index
            group = clips.groups[index] if clips.groups else ""
            true, said = (_joined(clips.labels, classes) for classes in (_present(clips, index), verdict.classes))
            rows.append((name, group, number, true, said, round(verdict.probability, 4)))
    return _as_csv(rows)


def _present(clips: StoredClips, index: int) -> Sequence[int]:
    """Return the classes of a clip."""
    target = clips.targets[index]
    return [int(target)] if clips.labels.exclusive else target.nonzero().flatten().tolist()


def _joined(labels: Labels, classes: Sequence[int]) -> str:
    """Return names of classes as in the CSV file of a collection."""
    return CLASS_SEPARATOR.join(labels.names[index] for index in classes)


def _as_csv(rows: Iterable[tuple[object, ...]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
