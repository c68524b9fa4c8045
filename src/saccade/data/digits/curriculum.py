"""Training batches of moving digits: short clips first, long ones then; each a function of (seed, step)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from saccade.clips import CPU, ClipBatch
from saccade.data.digits.mixture import Mixture

# The order of the phases is fixed: short clips teach digits quickly, long ones teach what to remember.
SHORT_FRAMES = 4


@dataclass(frozen=True)
class Curriculum:
    """Batches of short clips, stage by stage, then of clips of full length; no clip comes twice.

    Args:
        long: the clips of full length.
        short: the short ones, stage by stage; a batch holds as many frames in more clips.
        size: clips of full length in a batch.
        short_fraction: part of the steps that use short clips.
        device: where batches are generated.
    """

    long: Mixture
    short: Sequence[Mixture]
    size: int
    short_fraction: float
    device: torch.device = CPU

    def __call__(self, step: int, num_steps: int) -> ClipBatch:
        """Return the batch of a step."""
        num_frames, num_short = self.long.parts[0].motion.num_frames, self.short_fraction * num_steps
        short = step < num_short and num_frames > SHORT_FRAMES
        size = self.size * num_frames // SHORT_FRAMES if short else self.size
        # Steps count in clips of the larger batch, so that no index comes twice whatever the phase.
        first = step * max(size, self.size * num_frames // SHORT_FRAMES)
        clips = self.short[int(step * len(self.short) / num_short)] if short else self.long
        return clips.batch(torch.arange(first, first + size, device=self.device))

    def to(self, device: torch.device | str) -> Curriculum:
        """Return the same batches on a device."""
        short = tuple(clips.to(device) for clips in self.short)
        return replace(self, long=self.long.to(device), short=short, device=torch.device(device))
