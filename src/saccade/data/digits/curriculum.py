"""Training batches of moving digits: first short clips, then long clips; each batch is a function of (seed, step)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from saccade.clips import CPU, ClipBatch, part_of
from saccade.data.digits.mixture import Mixture


@dataclass(frozen=True)
class Curriculum:
    """Batches of short clips in stages, then of clips of full length; no clip occurs twice.

    The order of the phases is fixed: short clips teach many digits quickly, then long clips teach memory over time.

    Args:
        long: the clips of full length.
        short: the short clips of each stage; a batch holds more of them, with the same number of frames in total.
        size: the number of full-length clips in a batch.
        short_fraction: the fraction of steps that use short clips.
        device: the device on which batches are generated.
        part: which part of each batch comes, and of how many: (0, 1) for all of it.
    """

    long: Mixture
    short: Sequence[Mixture]
    size: int
    short_fraction: float
    device: torch.device = CPU
    part: tuple[int, int] = (0, 1)

    def __call__(self, step: int, num_steps: int) -> ClipBatch:
        """Return the batch of a step."""
        num_frames, num_short = self.long.parts[0].motion.num_frames, self.short_fraction * num_steps
        short_frames = self.short[0].parts[0].motion.num_frames
        short = step < num_short and num_frames > short_frames
        size = self.size * num_frames // short_frames if short else self.size
        # Every step advances by the larger batch size, so that no index occurs in both phases.
        first = step * max(size, self.size * num_frames // short_frames)
        clips = self.short[int(step * len(self.short) / num_short)] if short else self.long
        own = part_of(range(first, first + size), self.part)
        return clips.batch(torch.arange(own.start, own.stop, device=self.device))

    def shard(self, number: int, num: int) -> Curriculum:
        """Return batches of part `number` of `num` of each batch."""
        return replace(self, part=(number, num))

    def to(self, device: torch.device | str) -> Curriculum:
        """Return the same batches on a device."""
        short = tuple(clips.to(device) for clips in self.short)
        return replace(self, long=self.long.to(device), short=short, device=torch.device(device))
