"""Small trunks: four convolutions from a frame or a crop to a feature map.

For frames they are plain, or the two deepest convolutions are deformable.

Pooling comes before normalisation, which then processes a quarter of the pixels.
"""

from __future__ import annotations

from typing import cast

from torch import nn

from saccade.nn.deform_conv import DeformConv2d


class ConvBlock(nn.Sequential):
    """A convolution, 2x2 max pooling if asked, batch normalisation and a ReLU."""

    def __init__(self, conv: nn.Module, out_channels: int, *, pool: bool) -> None:
        parts = [
            conv,
            nn.MaxPool2d(2) if pool else nn.Identity(),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
        ]
        super().__init__(*parts)


class SmallTrunk(nn.Sequential):
    """A sequence of blocks that turns frames into a feature map of `out_channels` channels."""

    def __init__(self, *blocks: ConvBlock, out_channels: int) -> None:
        super().__init__(*blocks)
        self.out_channels = out_channels

    def path(self) -> list[nn.Module]:
        """Return the layers between the pixels and the feature map, in order."""
        return [layer for block in self for layer in cast(ConvBlock, block)]


# The two deepest layers deform: their inputs have 1/16 and 1/64 of the pixels, so an object is a few positions wide.
def light(channels: int, *, deformable: bool) -> SmallTrunk:
    """Build the trunk that learns fastest on a CPU: its second layer has a stride of 2 instead of pooling."""
    deep = DeformConv2d if deformable else nn.Conv2d
    return SmallTrunk(
        ConvBlock(nn.Conv2d(channels, 16, 5, stride=2, padding=2, bias=False), 16, pool=False),
        ConvBlock(nn.Conv2d(16, 32, 3, stride=2, padding=1, bias=False), 32, pool=False),
        ConvBlock(deep(32, 64, 3, padding=1, bias=False), 64, pool=True),
        ConvBlock(deep(64, 128, 3, padding=1, bias=False), 128, pool=False),
        out_channels=128,
    )


def wide(channels: int, *, deformable: bool) -> SmallTrunk:
    """Build the trunk of version 0.1, with which a training step takes two and a half times as long."""
    deep = DeformConv2d if deformable else nn.Conv2d
    return SmallTrunk(
        ConvBlock(nn.Conv2d(channels, 24, 5, stride=2, padding=2, bias=False), 24, pool=False),
        ConvBlock(nn.Conv2d(24, 48, 3, padding=1, bias=False), 48, pool=True),
        ConvBlock(deep(48, 96, 3, padding=1, bias=False), 96, pool=True),
        ConvBlock(deep(96, 128, 3, padding=1, bias=False), 128, pool=False),
        out_channels=128,
    )


# A crop has fewer pixels than a frame, and one object in place of several: layers can be wider in equal time.
def close(channels: int) -> SmallTrunk:
    """Build the trunk for crops of 32 pixels, which become a map of 4x4."""
    return SmallTrunk(
        ConvBlock(nn.Conv2d(channels, 24, 5, stride=2, padding=2, bias=False), 24, pool=False),
        ConvBlock(nn.Conv2d(24, 64, 3, stride=2, padding=1, bias=False), 64, pool=False),
        ConvBlock(nn.Conv2d(64, 96, 3, padding=1, bias=False), 96, pool=True),
        ConvBlock(nn.Conv2d(96, 128, 3, padding=1, bias=False), 128, pool=False),
        out_channels=128,
    )


def close_wide(channels: int) -> SmallTrunk:
    """Build the trunk for crops with a second layer without a stride, for long trainings."""
    return SmallTrunk(
        ConvBlock(nn.Conv2d(channels, 32, 5, stride=2, padding=2, bias=False), 32, pool=False),
        ConvBlock(nn.Conv2d(32, 64, 3, padding=1, bias=False), 64, pool=True),
        ConvBlock(nn.Conv2d(64, 128, 3, padding=1, bias=False), 128, pool=True),
        ConvBlock(nn.Conv2d(128, 128, 3, padding=1, bias=False), 128, pool=False),
        out_channels=128,
    )


def searching(channels: int) -> SmallTrunk:
    """Build the trunk that looks for the places of crops: it halves its input, and keeps the places of things."""
    return SmallTrunk(
        ConvBlock(nn.Conv2d(channels, 16, 5, stride=2, padding=2, bias=False), 16, pool=False),
        ConvBlock(nn.Conv2d(16, 16, 3, padding=1, bias=False), 16, pool=False),
        ConvBlock(nn.Conv2d(16, 16, 3, padding=1, bias=False), 16, pool=False),
        out_channels=16,
    )
