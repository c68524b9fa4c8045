"""Clips of several conditions in one data set, to train one model for all of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Int64
from torch import Tensor

from saccade.clips import ClipBatch
from saccade.data.digits.counter_random import draw_u32
from saccade.data.digits.moving_digits import MovingDigits
from saccade.errors import UsageError

# Added to the seed, so that the choice of the part has its own random numbers, like clutter and noise.
_PART_SEED = 0x4D697874757265


class Mixture:
    """A data set whose clips come from several data sets of moving digits, chosen at random for each clip.

    The choice is a function of (seed, index), like everything else about a clip. A data set that is listed twice is
    chosen twice as often. A mixture of one data set has the clips of this data set.

    Args:
        parts: the data sets; they share digit source, labels, frame size, number of frames and seed.

    Raises:
        UsageError: if there are no parts, or the clips of the parts do not fit into one batch.

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
        """Return the same clips with their digit images on `device`, where batches are then generated."""
        return Mixture([part.to(device) for part in self.parts])

    def part(self, indices: Int64[Tensor, "batch"]) -> Int64[Tensor, "batch"]:
        """Return the index of the part that each clip comes from."""
        return draw_u32(self.seed + _PART_SEED, 0, indices, torch.zeros_like(indices)) * len(self.parts) >> 32

    def batch(self, indices: Int64[Tensor, "batch"]) -> ClipBatch:
        """Generate the clips at `indices`; clip `i` of the mixture is clip `i` of its part."""
        if len(self.parts) == 1:
            return self.parts[0].batch(indices)
        place = self.part(indices)
        batches = [self.parts[number].batch(indices[place == number]) for number in place.unique().tolist()]
        back = place.argsort(stable=True).argsort()
        frames = torch.cat([batch.frames for batch in batches])[back]
        return ClipBatch(frames, torch.cat([batch.targets for batch in batches])[back])
