"""The verb `train`: which kind of training the options ask for, and what it prints."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from saccade.cli import train_folds, train_told, training_kind
from saccade.cli.options import flag, given
from saccade.cli.resuming import as_begun, check_folds
from saccade.errors import UsageError

ABOUT = (
    "With --data and saccade[pretrained], a linear head is fitted at once to the pretrained trunk efficientnet-lite0"
    " (model lite0-memory), unless options of a training by steps are given. Those are the config options below, apart"
    " from --seed, --device, --precision and --no-augment, and --trunk efficientnet-lite0 alone. Without the extra, and"
    " on moving digits, which come without --data, training is by steps. "
)
"""What the help says beside the summary."""


def make(words: Sequence[str]) -> Callable[..., None]:
    """Return the function of the verb, for the words that were typed."""
    from saccade import checkpoint, console, distributed, run_folder
    from saccade.clips import DataConfig
    from saccade.data import Folder
    from saccade.data.digits import TRAINING, DigitsConfig
    from saccade.train import TrainConfig, initial_weights, train
    from saccade.train.end_to_end import named

    def run(
        config: TrainConfig,
        digits: DigitsConfig = TRAINING,
        data: Path | None = None,
        group: str | None = None,
        split_seed: int = 0,
        folds: int | None = None,
        none: str | None = None,
        out: Path = Path("runs/train"),
        resume: bool = False,
    ) -> None:
        """Train a model.

        Args:
            config: options of the training.
            digits: moving digits to learn from, without --data.
            data: clips to learn from: a folder with one folder per class, or with the folders train, validation and
                test above those; or a CSV file with the columns path and class, and if needed split, group, start_s and
                end_s.
            group: with --data: a regular expression that captures a part of the file name, for example '_([0-9]+)_' for
                the number of a person. Clips with the same part are never split between training and test.
            split_seed: with --data: the seed of the split into training, validation and test.
            folds: with --data: the number of folds of a cross-validation, in which each clip is tested once. The final
                model learns from all clips but those of a given test. --steps and --minutes are per fold.
            none: with --data: the class that means that nothing happens, for streams. The default is the class `none`,
                if there is one.
            out: the run folder.
            resume: continue the run in the folder --out.
        """
        typed = given(words, digits)
        # A launcher starts failed processes again with the arguments of the beginning.
        resume = resume or distributed.from_first(distributed.is_restarted() and _began_here(out))
        of_clips = {"--folds": None if resume else folds, "--group": group, "--none": none}
        _check_options(typed, data, of_clips, folds)
        learned: DataConfig
        records = None
        if resume:
            config, begun, num_folds = as_begun(words, config, out)
            check_folds(out, num_folds, folds)
            folds = num_folds
        else:
            run_folder.check_free(out)
            initial_weights.check(named(config))
        if distributed.is_first():
            run_folder.check_writable(out)
        if data is not None:
            collection = partial(Folder, data, group=group, seed=split_seed, none=none)
            if not resume:
                if (line := training_kind.told(words, config)) is not None:
                    console.say(line)
                if training_kind.is_pretrained(words, config):
                    _check_alone("a head is fitted at once; options such as --steps train by steps")
                    _train_pretrained(config, collection, folds, out)
                    return
            with distributed.first_before_others():
                learned, records = _read_folder(collection, data, folds, config)
        elif resume:
            learned = replace(begun, **typed) if isinstance(begun, DigitsConfig) else begun
        else:
            console.say(f"digits: {digits.resolve()}")
            learned = digits
        if folds is not None:
            _check_alone("folds are trained one after the other; leave out --folds")
            path = train_folds.train(config, learned, records, out, folds, resume=resume)
        else:
            parts = {name: getattr(config, name) for name in ("trunk", "attention", "temporal")}
            with console.training_bar(checkpoint.Header(config.model, parts).kind) as progress:
                path = train(config, learned, out, resume=resume, progress=progress, say=console.say)
            if distributed.is_first():
                _print_ladder(path, learned, records)
        train_told.written(path, learned)

    return run


def _check_options(
    of_digits: Mapping[str, Any], data: Path | None, of_clips: Mapping[str, Any], folds: int | None
) -> None:
    if folds is not None and folds < 2:
        raise UsageError(f"--folds must be at least 2; got {folds}")
    if data is not None and of_digits:
        raise UsageError(f"{flag(next(iter(of_digits)))} is an option of moving digits; leave it out with --data")
    for name, value in of_clips.items():
        if data is None and value is not None:
            raise UsageError(f"{name} is an option for a folder of clips; name the folder with --data")


def _began_here(out: Path) -> bool:
    """Return whether the launcher of this process has begun the run in a folder."""
    from saccade import checkpoint, distributed, run_folder

    if (out / run_folder.RUN).exists():
        return run_folder.read(out).get("launcher") == distributed.launcher()
    # A process that is killed after the first checkpoint leaves no run.json. Whoever's run it is, it has taken no step.
    return (out / checkpoint.NAME).exists() and checkpoint.read_header(out).training.get("step") == 0


def _check_alone(reason: str) -> None:
    """Raise UsageError if this is one of several processes."""
    from saccade import distributed

    if distributed.size() > 1:
        raise UsageError(f"this training needs one process and runs without torchrun: {reason}")


def _print_ladder(path: Path, learned: Any, records: Any) -> None:
    """Print a model that learned from own clips beside simple classifiers, if clips were held out for validation."""
    from saccade import checkpoint, console
    from saccade.data import Folder
    from saccade.stream.joined import Found
    from saccade.train import beside

    validation = checkpoint.read_header(path).training.get("validation")
    if not isinstance(learned, Folder) or validation is None:
        return
    with console.stages() as begin:
        scanned = learned.scanned() if records is None else records
        rungs, rows = beside.beside_ladder(path, learned, scanned, begin)
    clips = f"{len(rows[0].correct)} validation clips, on which the step was chosen"
    train_told.ladder(rungs, rows, f" on the {clips}")
    if "events" in validation:
        train_told.events(Found(**validation["events"]))


def _train_pretrained(config: Any, collection: Callable[..., Any], num_folds: int | None, out: Path) -> None:
    from saccade import console
    from saccade.data.frame_choice import FrameChoice
    from saccade.train import pretrained, pretrained_run

    tested: list[tuple[Any, Any]] = []
    try:
        with console.stages() as begin:
            folder = collection(
                frame_choice=FrameChoice(pretrained.SHORT_SIDE_PX, enlarge=True),
                hold_out=num_folds is None,
                progress=begin("clips read"),
            )
            if num_folds is not None:
                pretrained_run.check_folds(folder, num_folds, config.seed)
            outcome = pretrained_run.train(
                config,
                folder,
                train_told.scanned(folder),
                out,
                num_folds=num_folds,
                progress=begin,
                tested=lambda rungs, model: tested.append((rungs, model)),
            )
    finally:  # the figures are not lost if the model cannot be saved
        for rungs, model in tested:
            _print_tested(rungs, model, num_folds)
    if not outcome.is_calibrated:
        console.say(
            "probabilities are not calibrated, and cautious: too few clips could be held out of the fit; add clips, or"
            " groups of each class"
        )
    if outcome.events is not None:
        train_told.events(outcome.events)
    train_told.written(outcome.path, folder)


def _print_tested(rungs: Any, model: Any, num_folds: int | None) -> None:
    num = len(model.correct)
    where = train_told.in_folds(num_folds, num) if num_folds else f" on the {num} validation clips"
    train_told.ladder(rungs, [model], where)


def _read_folder(collection: Callable[..., Any], root: Path, num_folds: int | None, config: Any) -> tuple[Any, Any]:
    """Read the clips of a folder, in the size that suits the model, and print a summary; return also the records.

    If the initial weights were trained on the same folder, the split of that training is kept. With another split,
    the model would be tested on clips that it has learned from. For folds, no clip is held out.
    """
    from saccade import checkpoint, console
    from saccade.data.frame_choice import FrameChoice
    from saccade.models.trunks import frame_px
    from saccade.train import batch_size, initial_weights, pretrained_run
    from saccade.train.end_to_end import named

    kept = {}
    begins = initial_weights.file_of(named(config)) if num_folds is None else None
    if begins is not None and not checkpoint.of_others(begins):
        header = checkpoint.read_header(begins)
        before = header.data.get("config", {})
        if before.get("root") == str(root.resolve()):
            header.data_config()  # raises where the split cannot be read
            kept = {"held_out": before["held_out"]}
    with console.stages() as begin:
        config = named(config)
        short_side = frame_px(config.trunk, config.attention)
        # Where a model looks closer, frames are as large as they are.
        choice = FrameChoice(short_side, enlarge=config.attention != "stn") if short_side else None
        folder = collection(
            frame_choice=choice, hold_out=num_folds is None, remembered=kept, progress=begin("clips read")
        )
        batch_size.check_num_clips(config.clips_per_step, len(folder.files))
        if num_folds is not None:
            pretrained_run.check_folds(folder, num_folds, config.seed)
        records = train_told.scanned(folder)
    return folder, records
