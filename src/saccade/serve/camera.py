"""Conversion of camera and video frames to the input of digit models: light strokes on a dark background."""

from __future__ import annotations

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional as F

# The background is estimated in windows of 24 px, 8 px apart: wider than a stroke, narrower than a shadow.
_STEP_PX, _WINDOW_PX = 8, 24
# Ink is the smaller part of a window, so the quartile on the side opposite to ink is background.
_GROUND_QUANTILE = 0.25
# Ink with less contrast than this, in grey levels, is not stretched to white: it may be noise.
_LEAST_INK = 48.0
_MOST_REST = 40.0
# If a frame contains a digit, even a small one, its brightest 0.5 % is ink.
_INK_QUANTILE = 0.995
_NOISE_DEVIATIONS = 3.0
_MAD_TO_DEVIATION = 1.4826
_LUMA = (0.299, 0.587, 0.114)


def light_on_dark(frame: UInt8[Tensor, "channels height width"]) -> UInt8[Tensor, "1 height width"]:
    """Convert a frame of digits, dark on light or light on dark, in any even light, to light strokes on black.

    The background (paper, shadows, dark corners of the lens) is estimated locally and subtracted. The pixels that
    differ most from it, darker or lighter, are ink. Noise in the background becomes black. Ink is stretched to white
    unless it is so faint that it may be noise. A frame of the generator is unchanged except for noise and the faintest
    grey.

    *Conventions:* grey or RGB in [0, 255]; RGB is converted to luma.

    >>> paper = torch.full((1, 64, 64), 200, dtype=torch.uint8)
    >>> paper[:, 20:44, 30:34] = 40
    >>> seen = light_on_dark(paper)
    >>> int(seen[0, 30, 32]), int(seen[0, 5, 5])
    (255, 0)
    """
    grey = frame.float()
    if len(grey) == 3:
        grey = (grey * grey.new_tensor(_LUMA).view(3, 1, 1)).sum(0, keepdim=True)
    off_median = grey - _ground(grey, 0.5)
    deviation = float(off_median.abs().median()) * _MAD_TO_DEVIATION
    lightest, darkest = (float(torch.quantile(sign * off_median, _INK_QUANTILE)) for sign in (1, -1))
    if darkest > lightest:
        ground = _ground(grey, 1 - _GROUND_QUANTILE).clamp_min(32.0)
        # A shadow multiplies the grey levels of paper and ink by the same factor.
        ink = (ground - grey) * (255 / ground)
        deviation *= 255 / float(ground.median())
    else:
        ink = grey - _ground(grey, _GROUND_QUANTILE)
    # A gradient of light leaves a residue, since a quantile of a slope is not its middle.
    rest = _ground(ink, 0.5).clamp(max=_MOST_REST)
    ink = (ink - rest - _NOISE_DEVIATIONS * deviation).clamp_min(0)
    white = max(float(torch.quantile(ink, _INK_QUANTILE)), _LEAST_INK)
    return (ink * (255 / white)).round().clamp(0, 255).to(torch.uint8)


def _ground(grey: Float[Tensor, "1 height width"], quantile: float) -> Float[Tensor, "1 height width"]:
    """Return the local quantile of the grey levels, interpolated smoothly over the frame."""
    height, width = grey.shape[-2:]
    rest = (-height % _STEP_PX, -width % _STEP_PX)
    margin = (_WINDOW_PX - _STEP_PX) // 2
    padded = F.pad(grey.unsqueeze(0), (margin, margin + rest[1], margin, margin + rest[0]), mode="reflect")
    windows = padded[0, 0].unfold(0, _WINDOW_PX, _STEP_PX).unfold(1, _WINDOW_PX, _STEP_PX).flatten(2)
    coarse = windows.kthvalue(1 + round(quantile * (windows.shape[-1] - 1)), dim=-1).values
    size = (height + rest[0], width + rest[1])
    smooth = F.interpolate(coarse[None, None], size=size, mode="bilinear", align_corners=False)
    return smooth[0, :, :height, :width]
