"""A cross-validation of a training by steps, at the command line."""

from pathlib import Path
from typing import Any

from saccade.cli import train_told


def train(config: Any, folder: Any, records: Any, out: Path, num_folds: int, *, resume: bool) -> Path:
    """Train and test a model in each fold, print the accuracy beside the ladder, and train the model of all clips.

    Args:
        config: the options of the training.
        folder: the clips, of which none is held out.
        records: what was found in them; None if they are not read yet.
        out: the run folder.
        num_folds: the number of folds.
        resume: whether the cross-validation in the folder is continued.
    """
    from saccade import console
    from saccade.train import folds_run

    records = train_told.scanned(folder) if records is None else records
    console.say(f"{num_folds} trainings of {_length(config)}, one for each fold; then one on all clips")
    with console.training_bars() as bars:
        found = folds_run.cross_validate(
            config, folder, out, num_folds=num_folds, resume=resume, progress=bars.begin, say=console.say
        )
    with console.stages() as begin:
        rungs, rows = folds_run.beside_ladder(found, folder, records, begin)
    train_told.ladder(rungs, rows, train_told.in_folds(num_folds, len(rows[0].correct)))
    with console.training_bars() as bars:
        return folds_run.finish(config, folder, out, rows[0], progress=bars.begin, say=console.say)


def _length(config: Any) -> str:
    if config.steps is not None:
        return f"{config.steps} step{'s' * (config.steps != 1)}"
    return "ten minutes" if config.minutes is None else f"{config.minutes:g} minute{'s' * (config.minutes != 1)}"
