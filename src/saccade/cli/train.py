"""The verb `train`: which kind of training the options ask for, and what it prints."""

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from saccade.cli.options import flag, given, names
from saccade.errors import DataError, UsageError
from saccade.foreign import check_types

_MAX_NAMED = 10


def make(words: Sequence[str]) -> Callable[..., None]:
    """Return the function of the verb, for the words that were typed."""
    from saccade import checkpoint, console, run_folder
    from saccade.clips import DataConfig
    from saccade.data.digits import TRAINING, DigitsConfig
    from saccade.train import TrainConfig, train

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
        """Train a model end to end.

        Args:
            config: options of the training.
            digits: moving digits to learn from, without --data.
            data: clips to learn from: a folder with one folder per class, or a CSV file with the columns path, class.
            group: with --data: a regular expression that captures a part of the file name, for example '_([0-9]+)_' for
                the number of a person. Clips with the same part are never split between training and test.
            split_seed: with --data: the seed of the split into training, validation and test.
            folds: with --data and a pretrained trunk: the number of folds of a cross-validation, in which each clip is
                tested once. The final model learns from all clips.
            out: the run folder.
            resume: continue the run in the folder --out.
        """
        typed = given(words, digits)
        _check_options(typed, data, group, folds)
        learned: DataConfig
        records = None
        if resume:
            config, begun = _as_begun(words, config, out)
        else:
            run_folder.check_free(out)
        if data is not None:
            if not resume and _is_pretrained(words, config):
                _train_pretrained(config, data, group, split_seed, folds, out)
                return
            if folds is not None:
                raise UsageError(
                    "--folds needs the pretrained trunk: install it with pip install 'saccade[pretrained]', and leave"
                    " out the options of a training by steps"
                )
            if not resume and not given(words, config):
                console.say(
                    "no pretrained trunk: a small model learns from scratch; few clips are learned better with"
                    " pip install 'saccade[pretrained]'"
                )
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
        console.say(f"wrote {path}\nevaluate it with: saccade evaluate --model {shlex.quote(str(out))}")

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
    console.out.print(f"accuracy on the {len(rows[0].correct)} validation clips, on which the step was chosen:")
    console.out.print(baselines.render(rungs, rows))


def _is_pretrained(words: Sequence[str], config: Any) -> bool:
    """Return whether a head is fitted at once to the pretrained trunk: only that trunk is asked for, or nothing is."""
    from saccade.models import efficientnet

    if given(words, config).keys() - {"trunk", "seed"}:
        return False
    if config.trunk == "efficientnet-lite0":
        return True
    return "trunk" not in given(words, config) and efficientnet.pretrained_file() is not None


def _train_pretrained(
    config: Any, root: Path, group: str | None, split_seed: int, num_folds: int | None, out: Path
) -> None:
    from saccade import baselines, console
    from saccade.data import Folder
    from saccade.data.frame_choice import FrameChoice
    from saccade.train import pretrained, pretrained_run

    with console.stages() as begin:
        folder = Folder(
            root,
            group=group,
            seed=split_seed,
            frame_choice=FrameChoice(pretrained.SHORT_SIDE_PX, enlarge=True),
            hold_out=num_folds is None,
            progress=begin("clips read"),
        )
        records = _scanned(folder)
        outcome = pretrained_run.train(config, folder, records, out, num_folds=num_folds, progress=begin)
    what = f"{num_folds} folds, every clip tested once" if num_folds else "on the validation clips"
    console.out.print(f"accuracy, {what}:")
    console.out.print(baselines.render(outcome.rungs, [outcome.model]))
    console.say(f"wrote {outcome.path}\nuse it with: saccade predict FILE --model {shlex.quote(str(out))}")


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
            f" the largest class has {100 * leak.largest_share:.0f} %; {leak.fields[0][0]} tells most:"
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
        records = _scanned(folder)
    return folder, records
