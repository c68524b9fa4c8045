"""Cross-validation of a training by steps: a model for each fold, in folders of their own, and one of all clips."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn

from saccade import checkpoint, run_folder
from saccade.baselines import Rung
from saccade.data.folder import Folder
from saccade.data.folds import Fold, folds, inner_validation
from saccade.data.scan import Record
from saccade.data.stored import StoredClips
from saccade.errors import Interrupted
from saccade.nn import attention
from saccade.train import beside, tables, temperature
from saccade.train.config import TrainConfig
from saccade.train.end_to_end import train
from saccade.train.fold_folders import Settled, done, folder_of, is_finished, num_finished, settled
from saccade.train.loop import Progress
from saccade.train.validation import some

NUM_FOLDS = "num_folds"
"""The entry of `run.json` with the number of folds."""

_WHOLE = "all-clips"

Begin = Callable[[str], Progress]
Indices = NDArray[np.intp]
Say = Callable[[str], None]


@dataclass(frozen=True)
class OutOfFold:
    """What the models of the folds say of clips that they did not learn from.

    Args:
        clips: all clips but those of a given test.
        parts: the training clips and the test clips of each fold.
        kind: what the models are called.
        logits: the logits of each clip.
        without_attention: the logits of each clip with attention switched off; None if the models have none.
    """

    clips: StoredClips
    parts: Sequence[Fold]
    kind: str
    logits: Float[Tensor, "clips classes"]
    without_attention: Float[Tensor, "clips classes"] | None


def is_begun(out: Path) -> bool:
    """Return whether a folder holds a cross-validation by steps that can be resumed.

    Raises:
        DataError: if `run.json` is damaged.
    """
    return (out / run_folder.RUN).exists() and NUM_FOLDS in run_folder.read(out)


def cross_validate(
    config: TrainConfig,
    data: Folder,
    out: Path,
    *,
    num_folds: int,
    resume: bool = False,
    progress: Begin | None = None,
    say: Say | None = None,
) -> OutOfFold:
    """Train a model in each fold by steps; return what each says of the clips that it did not learn from.

    Clips of a group are in the same fold. The step that is kept, and the temperature, are chosen on a fifth of the
    training part of the fold. Clips of a given test are not used.

    The run folder `out` gets `run.json`, `tested.csv` with the verdict of each clip, and `left_out.csv` if clips were
    left out. The folders `fold-1`, `fold-2`, ... in it are those of ordinary runs; their test clips are those of the
    fold. Folds that are finished are not trained again when the run is resumed.

    Args:
        config: everything that determines the training of one fold, except the clips; steps and minutes are per fold.
        data: the clips, already scanned, of which none is held out (`hold_out=False`).
        out: the run folder.
        num_folds: the number of folds.
        resume: whether to continue the cross-validation in `out`.
        progress: a function that is called with the name of a training, and returns that of `train` for it.
        say: a function that is called with a line about a training, or about what is done when the run is resumed.

    Raises:
        UsageError: if `out` already holds a run, another process writes to it, or the run to resume had another
            configuration.
        DataError: if clips cannot be read, or cannot be divided into folds.
        NonFiniteError: as for `train`.
        Interrupted: if Ctrl-C or SIGTERM stops training; the state is saved.
    """
    say = say or (lambda _line: None)
    clips = data.clips("train")
    parts = folds(clips.targets.numpy(), clips.groups, num_folds, config.seed, names=clips.labels.names)
    with run_folder.held(out), _interrupts_told(out, num_folds):
        _begin(config, data, out, num_folds, resume=resume)
        if resume:
            say(done(out, num_folds))
        found: list[tuple[str, Tensor, Tensor | None]] = []
        for number, (learned, held) in enumerate(parts, 1):
            title = f"fold {number} of {num_folds}"
            folder, show = folder_of(out, number), progress(title) if progress else None
            if not is_finished(folder):
                of_fold = _data_of_fold(data, clips, learned, held, config.seed)
                say_of_fold = _with_prefix(f"{title}: ", say)
                resumed = run_folder.begun(folder)
                train(config, of_fold, folder, resume=resumed, progress=show, say=say_of_fold)
            found.append(_tested(folder, some(clips, held), show))
        logits = _in_place([one for _, one, _ in found], parts, clips)
        off = [one for _, _, one in found if one is not None]
        without = _in_place(off, parts, clips) if off else None
        tables.write_tested(out, clips, [held for _, held in parts], logits)
        tables.write_left_out(out, data.left_out)
    return OutOfFold(clips, parts, found[0][0], logits, without)


def beside_ladder(
    found: OutOfFold, data: Folder, records: Sequence[Record], begin: beside.Begin
) -> tuple[list[Rung], list[Rung]]:
    """Return simple classifiers on the folds of a cross-validation, and its models with and without their attention.

    Args:
        found: the result of `cross_validate`.
        data: the clips.
        records: the result of `data.scanned()`.
        begin: a function that takes the name of a stage and returns a function of the number of clips done and the
            total.
    """
    rungs = beside.ladder_of(data, records, ("train",), found.parts, begin)
    rows = [beside.rung_of(f"model ({found.kind})", found.logits, found.clips)]
    if found.without_attention is not None:
        rows.append(beside.rung_of("without attention", found.without_attention, found.clips))
    return rungs, rows


def finish(
    config: TrainConfig, data: Folder, out: Path, model: Rung, *, progress: Begin | None = None, say: Say | None = None
) -> Path:
    """Train the model of all clips after a cross-validation; return the path of its checkpoint.

    No clip is left to validate it. So it takes as many steps as the folds kept in the median. The medians of their
    temperatures and thresholds of events become part of it. Folds without clips for validation are left out of the
    medians. Without validation in any fold, it takes as many steps as the folds took, and probabilities are not
    calibrated. If it was trained before, nothing is done.

    Args:
        config: as for `cross_validate`, as `data` and `out`.
        data: the clips.
        out: the run folder, in which all folds are finished.
        model: the accuracy of the cross-validation, which the checkpoint and `run.json` tell.
        progress: as for `cross_validate`.
        say: a function that is called with a line about steps, temperature and threshold.

    Raises:
        UsageError: if another process writes to `out`, or a fold is not finished.
        NonFiniteError: as for `train`.
        Interrupted: if Ctrl-C or SIGTERM stops training; the state is saved.
    """
    told = run_folder.read(out)
    num_folds = int(told[NUM_FOLDS])
    with run_folder.held(out), _interrupts_told(out, num_folds):
        if not told.get("finished"):
            found = settled(out, num_folds)
            if say:
                say(f"all clips: {found.told}")
            whole, show = out / _WHOLE, progress("all clips") if progress else None
            begun = run_folder.begun(whole)
            train(replace(config, steps=found.steps, minutes=None), data, whole, resume=begun, progress=show)
            tested = {"accuracy": model.accuracy, "low": model.low, "high": model.high}
            _take_over(whole, out, found, tested)
    return out / checkpoint.NAME


def _begin(config: TrainConfig, data: Folder, out: Path, num_folds: int, *, resume: bool) -> None:
    """Create the run folder, or compare its run with that which is resumed."""
    settings = {NUM_FOLDS: num_folds, **config.as_json()}
    device = settings.pop("device")  # a run may continue on another device
    if not resume:
        run_folder.check_free(out)
        facts = {NUM_FOLDS: num_folds, "data": data.as_json(), "identity": data.identity(), "finished": False}
        run_folder.create(out, "train", config.as_json(), device="cpu" if device == "auto" else device, **facts)
        return
    told = run_folder.read(out)
    before = {**told.get("config", {}), NUM_FOLDS: told.get(NUM_FOLDS)}
    run_folder.check_same(out, told.get("identity", {}), data.identity())
    run_folder.check_same(out, before, settings)


def _data_of_fold(data: Folder, clips: StoredClips, learned: Indices, held: Indices, seed: int) -> Folder:
    """Return the clips with the split of a fold: its test, and validation from its training part."""
    _, validation = inner_validation(clips.targets.numpy(), clips.groups, learned, seed)
    file_of = {clip.name: clip for clip in data.files}
    names = {
        split: [(clips.names or ())[index] for index in indices]
        for split, indices in (("test", held), ("validation", validation))
    }
    groups = {split: {file_of[name].group for name in inside} for split, inside in names.items()}
    split = {"held_out": {name: sorted(found) for name, found in groups.items()}, "clips": names}
    return Folder.from_json(data.as_json() | split)


def _tested(
    folder: Path, clips: StoredClips, progress: Progress | None
) -> tuple[str, Float[Tensor, "clips classes"], Float[Tensor, "clips classes"] | None]:
    """Return what the model of a fold is called, and its logits with and without attention."""
    model, header = checkpoint.load(folder)

    def counted(done: int, total: int) -> None:
        if progress is not None:
            progress({"clips": done, "num_clips": total})

    logits = beside.logits_of(model, clips, counted)
    if not attention.attention_layers(model):
        return header.kind, logits, None
    with attention.switched_off(model):
        return header.kind, logits, beside.logits_of(model, clips, counted)


def _in_place(found: Sequence[Tensor], parts: Sequence[Fold], clips: StoredClips) -> Float[Tensor, "clips classes"]:
    """Return the logits of all folds in the order of the clips."""
    logits = torch.full((len(clips), len(clips.labels.names)), torch.nan)
    for (_, held), of_fold in zip(parts, found, strict=True):
        logits[held] = of_fold
    return logits


def _take_over(whole: Path, out: Path, found: Settled, tested: dict[str, float]) -> None:
    """Make the run in a sub folder that of the run folder; the sub folder is removed at the very end."""
    model, header = checkpoint.load(whole)
    head = model.head
    assert isinstance(head, nn.Module)
    temperature.fold(head, found.temperature)
    training = header.training | {"accuracy": tested["accuracy"], "temperature": found.temperature}
    labels = header.labels
    if found.threshold is not None and labels is not None:
        labels = replace(labels, min_confidence=found.threshold)
    checkpoint.save(out / checkpoint.NAME, model, replace(header, labels=labels, training=training))
    shutil.copy2(whole / run_folder.LOG, out / run_folder.LOG)
    told = run_folder.read(whole)
    facts = {name: told[name] for name in ("device", "precision", "steps")}
    facts |= {"temperature": found.temperature, "threshold": found.threshold}
    run_folder.update(out, finished=True, tested=tested, **facts)
    shutil.rmtree(whole)


def _with_prefix(prefix: str, say: Say) -> Say:
    return lambda line: say(prefix + line)


@contextmanager
def _interrupts_told(out: Path, num_folds: int) -> Iterator[None]:
    """Tell what is done if Ctrl-C comes where no training holds it back."""
    try:
        yield
    except Interrupted:
        raise
    except KeyboardInterrupt as error:
        raise Interrupted(f"{num_finished(out, num_folds)} of {num_folds} folds are finished in {out}") from error
