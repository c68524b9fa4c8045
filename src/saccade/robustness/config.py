"""The options of `saccade robustness`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from saccade.errors import UsageError

CSV, PAGE = "robustness.csv", "robustness.html"


@dataclass(frozen=True)
class RobustnessConfig:
    """Measure how accurate models stay when their input changes.

    The default takes about two minutes a model on two cores, for the models of the package. It grows with the number of
    clips and of their frames.

    Args:
        model: checkpoints, run folders, or names of models whose weights come with the package. A run folder of a
            cross-validation by steps is measured by the models of its folds, each on the clips that it has not seen.
        changes: turn, scale, speed, dim, compress, occlude, noise, drop. Moving digits are not dimmed and compressed
            unless that is named.
        num_clips: the number of clips, drawn from the test split if it has more.
        turns: also measure test-time turning: probabilities averaged over so many turned copies of a clip, unchanged
            and with the change turn. It takes as many times the time of that change.
        seed: the seed of the choice of clips, and of what changes draw, such as noise.
        device: auto, cpu or cuda.
        out: the folder to which robustness.csv and robustness.html are written.
        resume: keep the rows that are in the folder, and measure those that are missing.

    Raises:
        UsageError: if no model is named, or a number is too small.
    """

    model: tuple[Path, ...]
    changes: tuple[str, ...] = ()
    num_clips: int = 100
    turns: int = 1
    seed: int = 0
    device: str = "auto"
    out: Path = Path("robustness")
    resume: bool = False

    def __post_init__(self) -> None:
        if not self.model:
            raise UsageError("no model is named; give a checkpoint, a run folder or a name with --model")
        for name, value, least in (("num_clips", self.num_clips, 1), ("turns", self.turns, 1), ("seed", self.seed, 0)):
            if value < least:
                raise UsageError(f"{name} must be at least {least}; got {value}")

    @property
    def csv(self) -> Path:
        """The result file."""
        return self.out / CSV

    @property
    def page(self) -> Path:
        """The page."""
        return self.out / PAGE
