"""What a slower camera costs: the accuracies that `saccade evaluate --camera` measured, in a file of the run folder."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from saccade import checkpoint, files, foreign

NAME = "camera.json"
_MOST_CLIPS = 10**9

Cost = Callable[[float], str]
"""A function from the rate of a source, in frames per second, to what is known of its cost."""


@dataclass(frozen=True)
class AtRate:
    """The accuracy on clips of a camera with a frame rate.

    Args:
        fps: the frames per second.
        accuracy: the accuracy, as a fraction.
    """

    fps: float
    accuracy: float


@dataclass(frozen=True)
class MeasuredRates:
    """The accuracy of a checkpoint at the rate that it learned at and at lower ones, on the same clips.

    Args:
        split: the part of the data that the clips are: test or validation.
        num_clips: the number of clips.
        rates: the accuracy at each rate.
        checkpoint_sha256: the SHA-256 of the checkpoint; figures of another one do not count.

    Raises:
        ValueError: if there are not several rates, a number is out of range, or the split is another.
    """

    split: str
    num_clips: int
    rates: tuple[AtRate, ...]
    checkpoint_sha256: str

    def __post_init__(self) -> None:
        # The file may come from anywhere, and what it holds is printed.
        if self.split not in ("validation", "test"):
            raise ValueError(f"split is {foreign.shown(self.split)}; validation or test is needed")
        if len(self.rates) < 2 or not 1 <= self.num_clips <= _MOST_CLIPS:
            raise ValueError(f"{len(self.rates)} rates and {self.num_clips} clips compare nothing")
        for one in self.rates:
            if not 0 < one.fps < math.inf or not 0 <= one.accuracy <= 1:
                raise ValueError(f"an accuracy of {one.accuracy} at {one.fps} frames/s is none")

    @classmethod
    def from_json(cls, described: dict[str, Any]) -> MeasuredRates:
        """Create the figures from JSON.

        Raises:
            ArithmeticError, TypeError, ValueError: if `described` does not describe such figures.
        """
        foreign.check_types(described, cls)
        # JSON has numbers that are too large for a fraction.
        rates = tuple(AtRate(**{name: float(value) for name, value in one.items()}) for one in described["rates"])
        return cls(**described | {"rates": rates})

    def told(self, fps: float) -> str:
        """Return the accuracy at the lower rate that is nearest to a source's, beside that at the full one.

        >>> rates = tuple(AtRate(fps, accuracy) for fps, accuracy in ((15.0, 0.9), (7.5, 0.825), (5.0, 0.6)))
        >>> MeasuredRates("test", 40, rates, "").told(6.5)
        '82.5 % of 40 test clips were classified correctly at 7.5 frames/s, 90.0 % at 15'
        """
        full = max(self.rates, key=lambda one: one.fps)
        lower = [one for one in self.rates if one.fps < full.fps] or [full]
        nearest = min(lower, key=lambda one: abs(math.log(one.fps) - math.log(fps)))
        return (
            f"{100 * nearest.accuracy:.1f} % of {self.num_clips} {self.split} clips were classified correctly at"
            f" {nearest.fps:.3g} frames/s, {100 * full.accuracy:.1f} % at {full.fps:.3g}"
        )


def not_measured(_fps: float) -> str:
    """Return what is told of the cost where nothing was measured: the command that does it."""
    return "`saccade evaluate --camera` tells what this costs"


def keep(model: Path, split: str, num_clips: int, rates: tuple[AtRate, ...]) -> None:
    """Write the accuracies of the checkpoint of a run folder into the folder; those of other checkpoints are not kept.

    Raises:
        OSError: if the file cannot be written.
    """
    path = checkpoint.locate(model)
    if path.name == checkpoint.NAME:
        found = MeasuredRates(split, num_clips, rates, files.digest_of(path))
        files.write_json(path.with_name(NAME), asdict(found))


def cost_of(model: Path) -> Cost:
    """Return what a slower camera costs a checkpoint, as far as it was measured.

    A file that is damaged, or about other weights, counts as missing.
    """
    path = checkpoint.locate(model)
    try:
        if path.name == checkpoint.NAME and path.with_name(NAME).exists():
            found = MeasuredRates.from_json(json.loads(path.with_name(NAME).read_text(encoding="utf-8")))
            if found.checkpoint_sha256 == files.digest_of(path):
                return found.told
    except foreign.UNREADABLE:
        pass
    return not_measured
