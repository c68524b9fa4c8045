"""How far a spatial transformer turns and zooms with the things."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from saccade.attention.geometry import Size

_CONSTANT = 1e-6


def turn_and_zoom(
    theta: Float[Tensor, "*any 2 3"], crop_size: Size, frame_size: Size
) -> tuple[Float[Tensor, "*any"], Float[Tensor, "*any"]]:
    """Return by what angle the sampled quadrilateral is turned, in degrees, and how large it is.

    *Conventions:* the angle counts counter-clockwise as seen on the screen, like a thing's, so that a transformer which
    turns with a thing, and shows it upright in the crop, has the thing's angle. It is that of the rotation in the polar
    decomposition of the map from crop pixels to frame pixels, the rotation nearest to the map; a mirrored map counts by
    the nearest proper rotation. The size is the square root of the sampled area, outside the frame too, over the
    frame's: 1 for the whole frame, and proportional to a thing's scale where the transformer follows it.

    >>> upper_right_quarter = torch.tensor([[0.5, 0.0, 0.5], [0.0, 0.5, -0.5]])
    >>> turn_and_zoom(upper_right_quarter, (64, 64), (64, 64))[1].item()
    0.5
    """
    (height, width), (crop_height, crop_width) = frame_size, crop_size
    linear = theta[..., :2].double()
    pixels = linear * linear.new_tensor(
        [[width / crop_width, width / crop_height], [height / crop_width, height / crop_height]]
    )
    # (x, y) with y down: what turns x towards y is clockwise on the screen.
    clockwise = torch.atan2(pixels[..., 1, 0] - pixels[..., 0, 1], pixels[..., 0, 0] + pixels[..., 1, 1])
    return -torch.rad2deg(clockwise), torch.linalg.det(linear).abs().sqrt()


def circular_mean(angle_deg: Float[Tensor, "*any n"]) -> Float[Tensor, "*any"]:
    """Return the direction of the mean of unit vectors at some angles, in degrees.

    >>> round(circular_mean(torch.tensor([170.0, -170.0])).abs().item())
    180
    """
    angle = torch.deg2rad(angle_deg)
    return torch.rad2deg(torch.atan2(angle.sin().mean(-1), angle.cos().mean(-1)))


def following(
    said: Float[Tensor, "*any time"], true: Float[Tensor, "*any time"], *, angles: bool = False
) -> tuple[Float[Tensor, "*any"], Float[Tensor, "*any"]]:
    """Return how a quantity follows the true one over time: slope of the regression line, and correlation.

    Slope 1 follows wholly, 0 not at all, and a negative one goes the other way. Angles, in degrees, count by their
    deviations from their circular means, from -180 to 180. NaN where the truth is constant, and for the correlation
    where either is.

    >>> turning = torch.tensor([0.0, 10.0, 20.0, 30.0])
    >>> [round(value.item(), 3) for value in following(0.5 * turning + 179, turning, angles=True)]
    [0.5, 1.0]
    """
    x, y = (_deviations(values.double(), angles) for values in (true, said))
    scale = math.sqrt(true.shape[-1]) * _CONSTANT
    length_x, length_y = (torch.linalg.vector_norm(values, dim=-1) for values in (x, y))
    product = (x * y).sum(-1)
    slope = torch.where(length_x > scale, product / length_x.square(), torch.nan)
    correlation = product / (length_x * length_y)
    return slope, torch.where((length_x > scale) & (length_y > scale), correlation, torch.nan)


def _deviations(values: Float[Tensor, "*any time"], angles: bool) -> Float[Tensor, "*any time"]:
    if angles:
        values = values - circular_mean(values).unsqueeze(-1)
        values = (values + 180) % 360 - 180
    return values - values.mean(-1, keepdim=True)
