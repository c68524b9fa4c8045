"""The run folders of the folds of a cross-validation by steps: which are finished, and what they settle."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from statistics import median, median_high

from saccade import run_folder
from saccade.errors import UsageError


@dataclass(frozen=True)
class Settled:
    """What the folds settle for the model of all clips: the medians of those that had clips for validation.

    Args:
        steps: the number of steps; without validation in any fold, the median of those that the folds took.
        temperature: the temperature; 1 without validation in any fold.
        threshold: the threshold of events; None if no fold chose one.
        num_validated: the number of folds that had clips for validation.
        num_folds: the number of all folds.
    """

    steps: int
    temperature: float
    threshold: float | None
    num_validated: int
    num_folds: int

    @property
    def told(self) -> str:
        """The line about it."""
        steps = f"{self.steps} step{'s' * (self.steps != 1)}"
        if not self.num_validated:
            return f"{steps}; probabilities are not calibrated, since no fold had clips for validation"
        threshold = "" if self.threshold is None else f", the threshold {self.threshold:g}"
        of = "the folds"
        if self.num_validated < self.num_folds:
            of = f"{self.num_validated} of {self.num_folds} folds; the others had no clips for validation"
        return f"{steps}{threshold} and the temperature {self.temperature:.2f}, the medians of {of}"


def folder_of(out: Path, number: int) -> Path:
    """Return the run folder of a fold, counted from 1, in the folder of its cross-validation."""
    return out / f"fold-{number}"


def is_finished(folder: Path) -> bool:
    """Return whether a folder holds a finished run.

    Raises:
        DataError: if `run.json` is damaged.
    """
    return (folder / run_folder.RUN).exists() and bool(run_folder.read(folder).get("finished"))


def num_finished(out: Path, num_folds: int) -> int:
    """Return the number of finished folds of a cross-validation; they are trained in their order."""
    return sum(is_finished(folder_of(out, number)) for number in range(1, num_folds + 1))


def done(out: Path, num_folds: int) -> str:
    """Return a line about what a cross-validation that is resumed has done, and with what it continues."""
    if is_finished(out):
        return "all folds and the model of all clips are done"
    num = num_finished(out, num_folds)
    following = "all clips" if num == num_folds else f"fold {num + 1}"
    if num == 0:
        return f"no fold is done; continuing with {following}"
    folds = "fold 1 is" if num == 1 else f"folds 1 {'and' if num == 2 else 'to'} {num} are"
    return f"{folds} done; continuing with {following}"


def settled(out: Path, num_folds: int) -> Settled:
    """Return what the folds settle.

    A fold without clips for validation kept its last step and has no temperature of its own. It counts only if no fold
    had such clips.

    Args:
        out: the folder of the cross-validation.
        num_folds: the number of folds.

    Raises:
        UsageError: if a fold is not finished.
        DataError: if a `run.json` is damaged.
    """
    folders = [folder_of(out, number) for number in range(1, num_folds + 1)]
    for folder in folders:
        if not is_finished(folder):
            raise UsageError(f"{folder} is not finished; cross-validate first")
    runs = [run_folder.read(folder) for folder in folders]
    found = [run["validation"] for run in runs if "validation" in run]
    if not found:
        return Settled(median_high(int(run["steps"]) for run in runs), 1.0, None, 0, len(runs))
    thresholds = [float(one["events"]["threshold"]) for one in found if "events" in one]
    return Settled(
        steps=median_high(int(one["kept_step"]) for one in found),
        temperature=median(float(one["temperature"]) for one in found),
        threshold=median(thresholds) if thresholds else None,
        num_validated=len(found),
        num_folds=len(runs),
    )
