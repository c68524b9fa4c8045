"""A model that was trained by steps, beside simple classifiers and beside itself without attention."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from saccade import baselines, checkpoint
from saccade.baselines import Rung
from saccade.data.folder import Folder
from saccade.data.folds import Fold
from saccade.data.leaks import metadata_features
from saccade.data.scan import Record
from saccade.data.stored import StoredClips
from saccade.evaluate.forward import Setup, run_clips
from saccade.nn import attention
from saccade.train import tables
from saccade.train.pretrained_rung import pretrained_features

_FRAMES_PER_PASS = 128

Progress = Callable[[int, int], None]
Begin = Callable[[str], Progress]


def beside_ladder(path: Path, data: Folder, records: Sequence[Record], begin: Begin) -> tuple[list[Rung], list[Rung]]:
    """Return simple classifiers, and a trained model with and without its attention, all on the validation clips.

    The classifiers are fitted to the training clips. The model was chosen by the validation clips, which flatters it a
    little; the test clips stay untouched for `saccade evaluate`. The run folder gets `tested.csv` with the verdict of
    the model on each validation clip.

    Args:
        path: the checkpoint in its run folder.
        data: the clips that the model learned from, already scanned.
        records: the result of `data.scanned()`.
        begin: a function that takes the name of a stage and returns a function of the number of clips done and the
            total.

    Raises:
        UsageError: if no clips were held out for validation.
    """
    held = data.clips("validation")
    rungs = ladder_of(data, records, ("train", "validation"), [train_and_validation(data)[1]], begin)
    model, header = checkpoint.load(path)
    logits = logits_of(model, held, begin("the model on validation clips"))
    tables.write_tested(path.parent, held, [np.arange(len(held))], logits)
    rows = [rung_of(f"model ({header.kind})", logits, held)]
    if attention.attention_layers(model):
        with attention.switched_off(model):
            logits = logits_of(model, held, begin("the model without attention"))
        rows.append(rung_of("without attention", logits, held))
    return rungs, rows


def ladder_of(
    data: Folder, records: Sequence[Record], splits: Sequence[str], parts: Sequence[Fold], begin: Begin
) -> list[Rung]:
    """Return simple classifiers of some clips, also one of pretrained features if the pretrained weights are installed.

    Args:
        data: the clips, already scanned.
        records: the result of `data.scanned()`.
        splits: the splits to which the clips belong, in order.
        parts: the training clips and the test clips of each fold, as indices into these clips.
        begin: as for `beside_ladder`.
    """
    clips = data.together(splits)
    _, metadata = metadata_features(records_of(data, records, clips))
    return baselines.ladder(
        clips.frames,
        clips.targets.numpy(),
        clips.groups,
        parts,
        metadata=metadata,
        pretrained=pretrained_features(data, splits, begin),
        progress=begin("simple classifiers"),
    )


def train_and_validation(data: Folder) -> tuple[StoredClips, Fold]:
    """Return the clips of both splits as one, and which of them are for training and which for validation."""
    num_learned, together = len(data.clips("train")), data.together(("train", "validation"))
    return together, (np.arange(num_learned), np.arange(num_learned, len(together)))


def records_of(data: Folder, records: Sequence[Record], clips: StoredClips) -> list[Record]:
    """Return what a scan found in some of its clips, in their order."""
    record_of = {data.collection.name_of_entry(record.entry): record for record in records}
    return [record_of[name] for name in clips.names or ()]


def logits_of(model: nn.Module, clips: StoredClips, progress: Progress) -> Float[Tensor, "clips classes"]:
    """Return the logits of a model for whole clips, computed on the processor and in float32."""
    batch_size = max(1, _FRAMES_PER_PASS // max(len(frames) for frames in clips.frames))
    setup = Setup(len(clips), batch_size, torch.device("cpu"), torch.float32)
    return run_clips(model, clips, setup, progress=progress).logits


def rung_of(name: str, logits: Float[Tensor, "clips classes"], clips: StoredClips) -> Rung:
    """Return the verdicts of a model as a row beside the ladder."""
    said = clips.labels.decide(logits).long().numpy()
    return baselines.judged(name, said, clips.targets.numpy(), clips.groups)
