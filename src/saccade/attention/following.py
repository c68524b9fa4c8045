"""How closely a spatial transformer follows the rotation and scale of objects."""

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
    """Return the rotation angle of the sampled quadrilateral, in degrees, and its relative size.

    *Conventions:* the angle is counter-clockwise as seen on the screen, like an object's angle. If a transformer turns
    with an object, so that the object is upright in the crop, both angles are equal. The angle is that of the rotation
    in the polar decomposition of the map from crop pixels to frame pixels, which is the rotation nearest to the map.
    For a mirrored map it is the nearest proper rotation. The size is the square root of the sampled area divided by the
    frame's area; the sampled area includes any part outside the frame. The size is 1 for the whole frame, and
    proportional to an object's scale if the transformer follows the object.

    >>> upper_right_quarter = torch.tensor([[0.5, 0.0, 0.5], [0.0, 0.5, -0.5]])
    >>> turn_and_zoom(upper_right_quarter, (64, 64), (64, 64))[1].item()
    0.5
    """
    (height, width), (crop_height, crop_width) = frame_size, crop_size
    linear = theta[..., :2].double()
    pixels = linear * linear.new_tensor(
        [[width / crop_width, width / crop_height], [height / crop_width, height / crop_height]]
    )
    # y points down, so a rotation from x towards y is clockwise on the screen.
    clockwise = torch.atan2(pixels[..., 1, 0] - pixels[..., 0, 1], pixels[..., 0, 0] + pixels[..., 1, 1])
    return -torch.rad2deg(clockwise), torch.linalg.det(linear).abs().sqrt()


def circular_mean(angle_deg: Float[Tensor, "*any n"]) -> Float[Tensor, "*any"]:
    """Return the circular mean of angles in degrees: the direction of the mean of their unit vectors.

    >>> round(circular_mean(torch.tensor([170.0, -170.0])).abs().item())
    180
    """
    angle = torch.deg2rad(angle_deg)
    return torch.rad2deg(torch.atan2(angle.sin().mean(-1), angle.cos().mean(-1)))


def following(
    said: Float[Tensor, "*any time"], true: Float[Tensor, "*any time"], *, angles: bool = False
) -> tuple[Float[Tensor, "*any"], Float[Tensor, "*any"]]:
    """Return the regression slope and the correlation of a quantity against its true value over time.

    A slope of 1 means that the quantity follows fully, 0 that it does not follow, and a negative slope that it changes
    in the opposite direction. Angles, in degrees, are replaced by their deviations from the circular mean, from -180 to
    180. Both results are NaN if the true value is constant; the correlation is also NaN if the quantity is constant.

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
