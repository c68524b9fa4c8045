"""The trunks by name, and the frames that they expect."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from statistics import fmean
from typing import NamedTuple

from torch import nn

from saccade.clips import FrameFormat
from saccade.models import efficientnet, resnet
from saccade.models.small_trunks import close, close_wide, light, wide

SMALL_TRUNKS: dict[str, Callable[..., nn.Module]] = {"small": light, "wide": wide}
"""Constructors of trunks that learn from scratch; each takes the number of channels of the encoder's input, and
`deformable`: whether its last layers deform."""

CROP_TRUNKS: dict[str, Callable[..., nn.Module]] = {"small": close, "wide": close_wide}
"""The same for crops of several glimpses, by the same names."""


class PictureTrunk(NamedTuple):
    """A trunk for pictures, of which there are weights that others have learned.

    Args:
        make: its constructor, from the number of channels of a picture; it takes `deformable` if it deforms.
        deforms: whether its last layers can deform; otherwise a deformable layer is put on its map.
        mean: the mean of pixels in [0, 1] that its weights expect.
        std: their standard deviation.
    """

    make: Callable[..., nn.Module]
    deforms: bool
    mean: tuple[float, ...]
    std: tuple[float, ...]


PICTURE_TRUNKS: dict[str, PictureTrunk] = {
    "resnet18": PictureTrunk(resnet.ResNet18, True, resnet.MEAN, resnet.STD),
    "efficientnet-lite0": PictureTrunk(
        partial(efficientnet.EfficientNetLite0, head=False), False, efficientnet.MEAN, efficientnet.STD
    ),
}
"""The trunks for pictures. They read frames and differences of frames as pictures of their own."""

TRUNKS = (*SMALL_TRUNKS, *PICTURE_TRUNKS)
"""The names of all trunks."""

OLD_NAMES = {"light": "small"}
"""Former names of trunks, which are still accepted, with their names of today."""

PICTURE_PX = 160
"""The shorter side of the pictures that a trunk for pictures reads."""

CLOSER_PX = 320
"""The longest shorter side of frames of which a trunk for pictures reads a part, chosen by `stn`."""


def frame_px(trunk: str, attention: str | None) -> int | None:
    """Return the shorter side of frames that suits a model; None if frames need no particular size.

    >>> frame_px("efficientnet-lite0", "dcn"), frame_px("efficientnet-lite0", "stn"), frame_px("small", "stn")
    (160, 320, None)
    """
    if trunk not in PICTURE_TRUNKS:
        return None
    return CLOSER_PX if attention == "stn" else PICTURE_PX


def default_temporal(trunk: str) -> str:
    """Return the temporal part that suits a trunk: behind those for pictures the mean was more accurate (docs/log.md).

    >>> default_temporal("small"), default_temporal("resnet18")
    ('lstm', 'mean')
    """
    return "mean" if trunk in PICTURE_TRUNKS else "lstm"


def expected(trunk: str, frame_format: FrameFormat) -> FrameFormat:
    """Return a frame format with the mean and deviation that a trunk expects.

    A trunk for pictures expects those of its data; for grey frames they are averaged over the colours.
    """
    if trunk not in PICTURE_TRUNKS:
        return frame_format
    _, _, *statistics = PICTURE_TRUNKS[trunk]
    of_grey = frame_format.channels != 3
    mean, std = ((fmean(values),) if of_grey else values for values in statistics)
    return replace(frame_format, mean=mean, std=std)
