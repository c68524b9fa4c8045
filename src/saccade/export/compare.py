"""The comparison of exported files with the model, at other shapes than they were traced with."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import UInt8
from torch import Tensor
from torch.nn import functional as F

from saccade.clips import Size
from saccade.errors import DataError
from saccade.models import VideoClassifier

TOLERANCE = 1e-4
"""The largest difference of a probability between an exported file and the model."""

SHAPES = ((1, 1), (3, 5), (1, 70))
"""Numbers of clips and frames that are compared. The longest clip is longer than the windows of temporal parts."""

Run = Callable[[Sequence[Tensor]], list[Tensor]]


@torch.no_grad()
def largest_difference(model: VideoClassifier, size: Size, clip: Run, step: Run) -> float:
    """Return the largest difference of a probability from the model's.

    Args:
        model: the model.
        size: (height, width) of the frames.
        clip: the exported model for clips.
        step: the exported model for single frames, which starts each clip with a state of zeros.

    Raises:
        DataError: if it is above `TOLERANCE`, or no number.
    """
    largest = 0.0
    for batch, num_frames in SHAPES:
        frames = _clips(batch, num_frames, (model.frame_format.channels, *size))
        wanted = model.labels.probabilities(model(frames))
        state: Sequence[Tensor] = [torch.zeros_like(part) for part in model.initial_state(batch, size)]
        by_step = []
        for frame in frames.unbind(1):
            _, said, *state = step([frame.contiguous(), *state])
            by_step.append(said)
        for form, found in (("clip", clip([frames])[1]), ("step", torch.stack(by_step, 1))):
            difference = float((found - wanted).abs().max())
            if not difference <= TOLERANCE:
                raise DataError(
                    f"the exported {form} model differs from the model by {difference:.2g} in a probability, with"
                    f" {batch} clips of {num_frames} frames; {TOLERANCE:g} is allowed: nothing was written; try the"
                    " other --format or --deform, and report this"
                )
            largest = max(largest, difference)
    return largest


def _clips(batch: int, num_frames: int, shape: tuple[int, int, int]) -> UInt8[Tensor, "batch time channels y x"]:
    """Draw clips of smooth blobs that move, under noise."""
    generator = torch.Generator().manual_seed(batch)
    channels, height, width = shape
    blobs = F.interpolate(torch.rand(batch, channels, 6, 6, generator=generator), (height, width), mode="bicubic")
    moved = torch.stack([blobs.roll((time, 2 * time), (2, 3)) for time in range(num_frames)], 1)
    noise = torch.rand(moved.shape, generator=generator)
    return (255 * (0.8 * moved + 0.2 * noise)).clamp(0, 255).to(torch.uint8)
