"""The trunk of ResNet-18, with torchvision's parameter names and shapes.

Source: He et al. 2015, arXiv 1512.03385; deformable layers in the last stage: Dai et al. 2017, arXiv 1703.06211.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from jaxtyping import Float
from torch import Tensor, nn

from saccade.models.foreign_weights import colours_fitted
from saccade.nn.deform_conv import DeformConv2d

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""The mean and deviation of red, green and blue in [0, 1], by which torchvision's weights expect frames scaled."""

_WIDTHS = (64, 128, 256, 512)


class ResNet18(nn.Module):
    """The convolutions of ResNet-18, without its classifier.

    `foreign_weights.load(trunk, FILE)` gives it anyone's weights of that network; frames are then expected as
    `(levels - MEAN) / STD` of the data that they were learned on.

    *Conventions:* a map has 512 channels and 1/32 of the size of the frame, rounded up.

    Args:
        channels: the number of channels of the frames.
        deformable: whether the 3x3 convolutions of the last stage are deformable. With the weights of a plain network
            they are plain convolutions, until they learn where to look.

    >>> import torch
    >>> ResNet18(channels=1, deformable=True)(torch.zeros(1, 1, 64, 80)).shape
    torch.Size([1, 512, 2, 3])
    """

    def __init__(self, channels: int = 3, *, deformable: bool = False) -> None:
        super().__init__()
        self.channels, self.out_channels = channels, _WIDTHS[-1]
        self.conv1 = nn.Conv2d(channels, _WIDTHS[0], 7, stride=2, padding=3, bias=False)
        self.bn1, self.relu = nn.BatchNorm2d(_WIDTHS[0]), nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = _stage(_WIDTHS[0], _WIDTHS[0], stride=1)
        self.layer2 = _stage(_WIDTHS[0], _WIDTHS[1], stride=2)
        self.layer3 = _stage(_WIDTHS[1], _WIDTHS[2], stride=2)
        self.layer4 = _stage(_WIDTHS[2], _WIDTHS[3], stride=2, deformable=deformable)
        for name, weight in self.named_parameters():
            # A layer's `positions` start at zero.
            if weight.dim() == 4 and "positions" not in name:
                nn.init.kaiming_normal_(weight, mode="fan_out", nonlinearity="relu")

    def path(self) -> list[nn.Module]:
        """Return the layers between the pixels and the feature map, in order, without the shortcuts."""
        blocks = (cast(BasicBlock, block) for stage in self._stages() for block in stage)
        return [self.conv1, self.bn1, self.relu, self.maxpool, *(layer for block in blocks for layer in block.path())]

    def blocks(self) -> list[list[nn.Module]]:
        """Return the layers in groups, from the pixels to the map, each of which has a learning rate of its own."""
        return [[self.conv1, self.bn1], *([block] for stage in self._stages() for block in stage)]

    def forward(self, frames: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch 512 y x"]:
        """Return the feature map."""
        found: Tensor = self.maxpool(self.relu(self.bn1(self.conv1(frames))))
        for stage in self._stages():
            found = stage(found)
        return found

    def fitted(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the weights of a whole ResNet-18 without its classifier.

        Those of the first convolution are summed over the colours if the frames are grey.
        """
        kept = {name: weight for name, weight in weights.items() if not name.startswith("fc.")}
        return colours_fitted(kept, "conv1.weight", self.channels)

    def _stages(self) -> tuple[nn.Sequential, ...]:
        return self.layer1, self.layer2, self.layer3, self.layer4


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut, which is a 1x1 convolution where the shape changes."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int, deformable: bool) -> None:
        super().__init__()
        conv = DeformConv2d if deformable else nn.Conv2d
        self.conv1 = conv(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)
        self.bn1, self.relu1 = nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True)
        self.conv2 = conv(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2, self.relu2 = nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True)
        self.downsample: nn.Module | None = None
        if stride != 1 or in_channels != out_channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False), nn.BatchNorm2d(out_channels)
            )

    def path(self) -> list[nn.Module]:
        """Return the layers on the pixels' way, in order, without the shortcut."""
        return [self.conv1, self.bn1, self.relu1, self.conv2, self.bn2, self.relu2]

    def forward(self, maps: Float[Tensor, "batch channels y_in x_in"]) -> Float[Tensor, "batch features y x"]:
        """Return the block's map."""
        shortcut = maps if self.downsample is None else self.downsample(maps)
        found: Tensor = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(maps)))))
        summed: Tensor = self.relu2(found + shortcut)
        return summed


def _stage(in_channels: int, out_channels: int, *, stride: int, deformable: bool = False) -> nn.Sequential:
    return nn.Sequential(
        BasicBlock(in_channels, out_channels, stride=stride, deformable=deformable),
        BasicBlock(out_channels, out_channels, stride=1, deformable=deformable),
    )
