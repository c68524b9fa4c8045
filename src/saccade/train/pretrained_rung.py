"""The features of the pretrained trunk for clips that a model learns by steps: for one more rung of the ladder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy.typing import NDArray
from torch import Tensor

from saccade import baselines
from saccade.clips import FrameFormat
from saccade.data.folder import Folder
from saccade.data.frame_choice import FrameChoice
from saccade.data.remembered import arguments_of
from saccade.models import efficientnet
from saccade.models.folding import folded
from saccade.models.pretrained import load_pretrained
from saccade.train.pretrained import SHORT_SIDE_PX

_FRAMES_AT_ONCE = 32

Begin = Callable[[str], Callable[[int, int], None]]


def pretrained_features(data: Folder, splits: Sequence[str], begin: Begin) -> NDArray[np.float32] | None:
    """Return statistics of the pretrained trunk's features for each clip of some splits, as `baselines.ladder` takes.

    Frames are read in the size in which the fit of the pretrained trunk reads them, through the cache. So the rung is
    the same beside every model of the same clips.

    Args:
        data: the clips, already scanned.
        splits: the splits to which the clips belong, in order.
        begin: a function that takes the name of a stage and returns a function of the number of clips done and the
            total.

    Returns:
        The features (clips, statistics, dims); None if the pretrained weights are not installed, or a clip cannot be
        read in that size.
    """
    if efficientnet.pretrained_file() is None:
        return None
    larger = _in_pretrained_size(data, begin)
    clips = larger.together(splits)
    if clips.names != data.together(splits).names:
        return None
    progress, features_of = begin("features of the pretrained trunk"), _Trunk(larger.frame_format)
    found = []
    for number, frames in enumerate(clips.frames, 1):
        found.append(baselines.summarise(features_of(frames)).numpy())
        progress(number, len(clips))
    return np.stack(found)


def _in_pretrained_size(data: Folder, begin: Begin) -> Folder:
    """Return the same clips with the same split, but with the frames of the pretrained trunk, which are read."""
    own = ("frame_format", "short_side")
    described = {name: value for name, value in data.as_json().items() if name not in own}
    choice = FrameChoice(SHORT_SIDE_PX, enlarge=True)
    found = Folder(data.root, frame_choice=choice, **arguments_of(described))
    if found.frame_format == data.frame_format:
        return data
    found.progress = begin("clips read for the pretrained trunk")
    found.scanned()
    return found


class _Trunk:
    """The whole pretrained trunk, which reads frames as pictures."""

    def __init__(self, frame_format: FrameFormat) -> None:
        self.frame_format = replace(frame_format, mean=efficientnet.MEAN, std=efficientnet.STD)
        trunk = efficientnet.EfficientNetLite0(frame_format.channels)
        load_pretrained(trunk)
        self.trunk = folded(trunk)

    @torch.inference_mode()
    def __call__(self, clip: UInt8[Tensor, "time channels height width"]) -> Float[Tensor, "time features"]:
        """Return the mean and the maximum of each channel of the last map."""
        found = []
        for frames in clip.split(_FRAMES_AT_ONCE):
            maps = self.trunk(self.frame_format.normalise(frames))
            found.append(torch.cat((maps.mean((2, 3)), maps.amax((2, 3))), 1))
        return torch.cat(found)
