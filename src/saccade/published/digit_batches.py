"""The digits that stage 1 of the published protocol learns from; each batch is a function of (seed, step)."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional as F

from saccade.clips import CPU, ClipBatch
from saccade.data.digits import Digits

BATCH_SIZE = 32
FRAME_PX = 64
MAX_ZOOM = 2.5
MAX_SHIFT = 0.2
ORDER, AUGMENTATION, TEST, RETRAINING = range(4)
"""The purposes of random generators, each the first counter of `draw_generator`."""


def draw_generator(seed: int, *counters: int) -> torch.Generator:
    """Return a generator that is a function of the seed and the counters, none of which may be negative.

    >>> first, again = draw_generator(0, 1, 7), draw_generator(0, 1, 7)
    >>> bool(torch.rand((), generator=first) == torch.rand((), generator=again))
    True
    """
    mixed = np.random.SeedSequence((seed, *counters)).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(mixed[0] >> 1))


def augment(images: UInt8[Tensor, "batch height width"], generator: torch.Generator) -> Float[Tensor, "batch 1 64 64"]:
    """Enlarge each digit to the frame, shift it by up to 0.2 of the frame, and zoom out by a factor of 1 to 2.5.

    *Conventions:* zoom and shift are uniform and independent in x and y; frames are black outside the digit's
    image, and in [0, 1]. The shift comes before the zoom, which is about the centre, as in Keras's
    `ImageDataGenerator(zoom_range=(1, 2.5), width_shift_range=0.2, height_shift_range=0.2)`: a digit zoomed
    out by `z` moves by up to `0.2 / z` of the frame. (That this generator was used is inferred.) Sampling is
    bilinear.

    Args:
        images: the digits, light on dark.
        generator: the generator of zooms and shifts.

    >>> augment(torch.zeros(3, 28, 28, dtype=torch.uint8), torch.Generator()).shape
    torch.Size([3, 1, 64, 64])
    """
    zoom = 1 + (MAX_ZOOM - 1) * torch.rand(len(images), 2, generator=generator)
    shift = MAX_SHIFT * (2 * torch.rand(len(images), 2, generator=generator) - 1)
    # The affine grid spans [-1, 1]: a shift of the whole frame is 2.
    theta = torch.cat((torch.diag_embed(zoom), 2 * shift.unsqueeze(-1)), dim=-1)
    grid = F.affine_grid(theta, [len(images), 1, FRAME_PX, FRAME_PX], align_corners=False)
    filling = F.interpolate(images.unsqueeze(1).float() / 255, size=(FRAME_PX, FRAME_PX), mode="bilinear")
    return F.grid_sample(filling, grid, padding_mode="zeros", align_corners=False)


def steps_per_epoch(digits: Digits) -> int:
    """Return the number of batches in one pass over the digits; the last one may be smaller."""
    return math.ceil(len(digits.labels) / BATCH_SIZE)


@dataclass(frozen=True)
class DigitBatches:
    """Batches of augmented digits, each a function of (seed, step): each epoch shows every digit once.

    Args:
        digits: the digits.
        seed: the seed of order and augmentation.
        device: the device of the batches.
    """

    digits: Digits
    seed: int
    device: torch.device = CPU

    def __call__(self, step: int, num_steps: int) -> ClipBatch:
        """Return the batch of a step, with single frames (batch, 1, 64, 64) instead of clips."""
        epoch, place = divmod(step, steps_per_epoch(self.digits))
        order = torch.randperm(len(self.digits.labels), generator=draw_generator(self.seed, ORDER, epoch))
        chosen = order[place * BATCH_SIZE : (place + 1) * BATCH_SIZE]
        frames = augment(self.digits.images[chosen], draw_generator(self.seed, AUGMENTATION, step))
        return ClipBatch(frames, self.digits.labels[chosen]).to(self.device)

    def to(self, device: torch.device | str) -> DigitBatches:
        """Return the same batches on a device."""
        return replace(self, device=torch.device(device))
