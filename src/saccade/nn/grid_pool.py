"""Pooling of a feature map that keeps roughly where things are."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from saccade.ops.deform_conv.geometry import count


class GridPool(nn.Module):
    """Average a feature map over each cell of a square grid.

    The result has one size for maps of any size. It tells in which part of the frame something is, which a mean over
    the whole map does not.

    *Conventions:* channels first, then the cells row by row. Cells of a map whose size is no multiple of the grid
    overlap by one position, as those of `torch.nn.AdaptiveAvgPool2d` do.

    Args:
        size: the number of cells along each axis.

    >>> import torch
    >>> GridPool()(torch.zeros(2, 320, 5, 7)).shape
    torch.Size([2, 2880])
    """

    def __init__(self, size: int = 3) -> None:
        super().__init__()
        self.size = count(size, "size")

    @property
    def num_cells(self) -> int:
        """The number of results for each channel."""
        return self.size**2

    def forward(self, maps: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch cells"]:
        """Return the mean of each channel in each cell."""
        if maps.shape[-2:] == (self.size, self.size):
            return maps.flatten(1)  # a mean of one position each would cost as much as pooling
        return F.adaptive_avg_pool2d(maps, self.size).flatten(1)
