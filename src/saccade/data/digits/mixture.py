"""Clips of several conditions in one data set: what one model for all of them learns from."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Int64
from torch import Tensor

from saccade.clips import ClipBatch
from saccade.data.digits.counter_random import draw_u32
from saccade.data.digits.moving_digits import MovingDigits
from saccade.errors import UsageError

# Which part a clip comes from has a counter of its own, as clutter and noise have.
_PART_SEED = 0x4D697874757265


class Mixture:
    """Take each clip from one of several data sets of moving digits, at random.

    Which one is a function of (seed, index), as everything else about a clip is. A data set that is named twice lends
    twice as many clips. A mixture of one is that data set.

    Args:
        parts: the data sets; they share digit source, labels, frame size, number of frames and seed.

    Raises:
        UsageError: no parts, or parts of which a batch cannot be made.

    >>> from saccade.data import digits
    >>> from saccade.data.digits import Motion
    >>> uci = digits.load("uci")
    >>> clips = Mixture([MovingDigits(uci, Motion(name, num_frames=8)) for name in ("normal", "rotation")])
    >>> clips.part(torch.arange(8)).tolist()
    [0, 0, 1, 1, 0, 0, 0, 1]
    """

    def __init__(self, parts: Sequence[MovingDigits]) -> None:
        self.parts = tuple(parts)
        kinds = {
            (p.source, p.split, p.scheme.name, p.motion.num_frames, p.motion.canvas_px, p.seed) for p in self.parts
        }
        if len(kinds) != 1:
            raise UsageError(
                f"a mixture needs parts of one source, split, label scheme, size, length and seed; got {len(kinds)}"
                " kinds of parts"
            )
        first = self.parts[0]
        self.source, self.split, self.labels, self.seed = first.source, first.split, first.labels, first.seed
        self.num_clips = first.num_clips

    def __len__(self) -> int:
        return self.num_clips

    @property
    def conditions(self) -> tuple[str, ...]:
        """The condition of each part."""
        return tuple(part.motion.condition for part in self.parts)

    def to(self, device: torch.device | str) -> Mixture:
        """Return the same clips with their digit images on `device`; batches are then generated there."""
        return Mixture([part.to(device) for part in self.parts])

    def part(self, indices: Int64[Tensor, "batch"]) -> Int64[Tensor, "batch"]:
        """Return which part each clip comes from."""
        return draw_u32(self.seed + _PART_SEED, 0, indices, torch.zeros_like(indices)) * len(self.parts) >> 32

    def batch(self, indices: Int64[Tensor, "batch"]) -> ClipBatch:
        """Generate the clips of the given indices; clip `i` is clip `i` of its part."""
        if len(self.parts) == 1:
            return self.parts[0].batch(indices)
        place = self.part(indices)
        batches = [self.parts[number].batch(indices[place == number]) for number in place.unique().tolist()]
        back = place.argsort(stable=True).argsort()
        frames = torch.cat([batch.frames for batch in batches])[back]
        return ClipBatch(frames, torch.cat([batch.targets for batch in batches])[back])
