"""The verb `train`: which kind of training the options ask for, and what it prints."""

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from saccade.cli import training_kind
from saccade.cli.options import flag, given, names
from saccade.errors import DataError, UsageError
from saccade.foreign import check_types

_MAX_NAMED = 10

ABOUT = (
    "With --data and saccade[pretrained], a linear head is fitted at once to the pretrained trunk efficientnet-lite0"
    " (model lite0-memory), unless options of a training by steps are given. Those are the config options below, apart"
    " from --seed, --device, --precision and --no-augment, and --trunk efficientnet-lite0 alone. Without the extra, and"
    " on moving digits, which come without --data, training is by steps. "
)
"""What the help says beside the summary."""


def make(words: Sequence[str]) -> Callable[..., None]:
    """Return the function of the verb, for the words that were typed."""
    from saccade import checkpoint, console, run_folder
    from saccade.clips import DataConfig
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
            folds: with --data and a pretrained trunk: the number of folds of a cross-validation, in which each clip is
                tested once. The final model learns from all clips but those of a given test.
            out: the run folder.
            resume: continue the run in the folder --out.
        """
        typed = given(words, digits)
        _check_options(typed, data, group, folds)
        learned: DataConfig
        records = None
        if folds is not None:
            training_kind.check_folds(words, config, resume=resume)
        if resume:
            config, begun = _as_begun(words, config, out)
        else:
            run_folder.check_free(out)
            initial_weights.check(named(config))
        run_folder.check_writable(out)
        if data is not None:
            if not resume:
                if (line := training_kind.told(words, config)) is not None:
                    console.say(line)
                if training_kind.is_pretrained(words, config):
                    _train_pretrained(config, data, group, split_seed, folds, out)
                    return
            learned, records = _read_folder(data, group, split_seed, config)
        elif resume:
            learned = replace(begun, **typed) if isinstance(begun, DigitsConfig) else begun
        else:
            console.say(f"digits: {digits.resolve()}")
            learned = digits
        parts = {name: getattr(config, name) for name in ("trunk", "attention", "temporal")}
        with console.training_bar(checkpoint.Header(config.model, parts).kind) as progress:
            path = train(config, learned, out, resume=resume, progress=progress, say=console.say)
        _print_ladder(path, learned, records)
        _say_written(path, learned)

    return run


def _check_options(of_digits: Mapping[str, Any], data: Path | None, group: str | None, folds: int | None) -> None:
    if folds is not None and folds < 2:
        raise UsageError(f"--folds must be at least 2; got {folds}")
    if data is not None and of_digits:
        raise UsageError(f"{flag(next(iter(of_digits)))} is an option of moving digits; leave it out with --data")
    for name, value in (("--folds", folds), ("--group", group)):
        if data is None and value is not None:
            raise UsageError(f"{name} is an option for a folder of clips; name the folder with --data")


def _print_ladder(path: Path, learned: Any, records: Any) -> None:
    """Print a model that learned from own clips beside simple classifiers, if clips were held out for validation."""
    from saccade import baselines, checkpoint, console
    from saccade.data import Folder
    from saccade.train import beside

    if not isinstance(learned, Folder) or "validation" not in checkpoint.read_header(path).training:
        return
    with console.stages() as begin:
        scanned = learned.scanned() if records is None else records
        rungs, rows = beside.beside_ladder(path, learned, scanned, begin)
    clips = f"{len(rows[0].correct)} validation clips, on which the step was chosen"
    console.out.print(f"accuracy on the {clips} ({_method(rows[0])}):")
    console.out.print(baselines.render(rungs, rows))


def _method(row: Any) -> str:
    """Return how the intervals beside a rung are computed."""
    return f"bootstrap intervals over {'clips' if row.groups is None else 'groups'}"


def _say_written(path: Path, learned: Any) -> None:
    """Print where the model is, and what can be done with it next."""
    from saccade import console
    from saccade.data import Folder

    model = shlex.quote(str(path.parent))
    evaluate = f"saccade evaluate --model {model}"
    console.say(f"wrote {path}")
    if not isinstance(learned, Folder):
        console.say(f"evaluate it with: {evaluate}")
    elif num := _num_test(learned):
        console.say(f"evaluate it on {num} test clips, which it has not seen, with: {evaluate}")
    console.say(f"use it with: saccade predict FILE --model {model}")
    console.say(f"see what it sees with: saccade explain FILE --model {model}")


def _num_test(learned: Any) -> int:
    try:
        return len(learned.clips("test"))
    except UsageError:  # none was held out
        return 0


def _train_pretrained(
    config: Any, root: Path, group: str | None, split_seed: int, num_folds: int | None, out: Path
) -> None:
    from saccade import console
    from saccade.data import Folder
    from saccade.data.frame_choice import FrameChoice
    from saccade.train import pretrained, pretrained_run

    tested: list[tuple[Any, Any]] = []
    try:
        with console.stages() as begin:
            folder = Folder(
                root,
                group=group,
                seed=split_seed,
                frame_choice=FrameChoice(pretrained.SHORT_SIDE_PX, enlarge=True),
                hold_out=num_folds is None,
                progress=begin("clips read"),
            )
            if num_folds is not None:
                pretrained_run.check_folds(folder, num_folds, config.seed)
            outcome = pretrained_run.train(
                config,
                folder,
                _scanned(folder),
                out,
                num_folds=num_folds,
                progress=begin,
                tested=lambda rungs, model: tested.append((rungs, model)),
            )
    finally:  # the figures are not lost if the model cannot be saved
        for rungs, model in tested:
            _print_tested(rungs, model, num_folds)
    _say_written(outcome.path, folder)


def _print_tested(rungs: Any, model: Any, num_folds: int | None) -> None:
    from saccade import baselines, console

    num = len(model.correct)
    what = f", {num_folds} folds, each of {num} clips tested once" if num_folds else f" on the {num} validation clips"
    console.out.print(f"accuracy{what} ({_method(model)}):")
    console.out.print(baselines.render(rungs, [model]))


def _scanned(folder: Any) -> Any:
    """Read all clips of a collection; print a summary, what was left out, and whether metadata tells the class."""
    from saccade import console
    from saccade.data.leaks import check_leak
    from saccade.data.scan import cache_warning

    before = folder.summary()
    console.say(f"{folder.root}: {before}")
    records = folder.scanned()
    reasons = list(folder.left_out.values())
    for reason in reasons[:_MAX_NAMED]:
        console.say(f"left out: {reason}")
    if reasons[_MAX_NAMED:]:
        console.say(f"left out: {len(reasons) - _MAX_NAMED} more clips; saccade check --csv lists all of them")
    if (warning := cache_warning()) is not None:
        console.say(f"warning: {warning}")
    if (left := folder.summary()) != before:
        console.say(f"without them: {left.splitlines()[0]}")
    if (leak := check_leak(records)) is not None and leak.found:
        console.say(
            f"warning: size, rate, duration and codec alone name the class of {100 * leak.accuracy:.0f} % of clips,"
            f" the {leak.most_frequent} has {100 * leak.largest_share:.0f} %; {leak.fields[0][0]} tells most:"
            " a model may learn this instead of what the clips show"
        )
    return records


def _as_begun(words: Sequence[str], config: Any, out: Path) -> tuple[Any, Any]:
    """Return the configuration of a run, updated with the options typed now, and its data."""
    from saccade import checkpoint, run_folder

    if not out.exists():
        raise DataError(f"there is no run to continue at {out}; name its folder with --out")
    if out.is_dir() and not run_folder.begun(out):
        raise DataError(f"nothing has been saved in {out} yet; leave out --resume to begin")
    header = checkpoint.read_header(out)
    if header.model == "lite0-memory":
        raise UsageError(f"{out} is finished: a head on a pretrained trunk is fitted at once; choose another --out")
    before = {name: value for name, value in header.training.get("config", {}).items() if name in names(config)}
    try:
        check_types(before, type(config))
    except TypeError as error:
        raise DataError(f"{out} has a damaged checkpoint ({error}); take an earlier copy or train again") from error
    if before.get("start_from"):
        before["start_from"] = Path(before["start_from"])
    typed = given(words, config)
    if "steps" in typed or "minutes" in typed:
        before |= {"steps": None, "minutes": None}
    return replace(config, **before | typed), header.data_config()


def _read_folder(root: Path, group: str | None, split_seed: int, config: Any) -> tuple[Any, Any]:
    """Read the clips of a folder, in the size that suits the model, and print a summary; return also the records.

    If the initial weights were trained on the same folder, the split of that training is kept. With another split,
    the model would be tested on clips that it has learned from.
    """
    from saccade import checkpoint, console, weights
    from saccade.data import Folder
    from saccade.data.frame_choice import FrameChoice
    from saccade.models.trunks import frame_px
    from saccade.train import batch_size
    from saccade.train.end_to_end import named

    kept = {}
    if config.start_from is not None and not checkpoint.of_others(config.start_from):
        header = checkpoint.read_header(weights.find(config.start_from))
        before = header.data.get("config", {})
        if before.get("root") == str(root.resolve()):
            header.data_config()  # raises where the split cannot be read
            kept = {"held_out": before["held_out"]}
    with console.counting_bar("clips read") as counted:
        config = named(config)
        short_side = frame_px(config.trunk, config.attention)
        # Where a model looks closer, frames are as large as they are.
        choice = FrameChoice(short_side, enlarge=config.attention != "stn") if short_side else None
        folder = Folder(root, group=group, seed=split_seed, frame_choice=choice, remembered=kept, progress=counted)
        batch_size.check_num_clips(config.clips_per_step, len(folder.files))
        records = _scanned(folder)
    return folder, records
