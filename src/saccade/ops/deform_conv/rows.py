"""Images as tables of rows, one for each pixel, and bilinear samples as weighted bags of four rows."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from saccade.ops.deform_conv.geometry import FAR_PX, Geometry

# In shapes, sample runs over (image, output line, output column, tap, offset group), in that order.
PerSample = Float[Tensor, " sample"]
Rows = Float[Tensor, "row channel"]
Two = tuple[Tensor, Tensor]


class Table:
    """Some images, channels last, with two lines of zeros above each and two columns of zeros left of each line.

    The zeros of the next line follow the end of a line, and those of the next image the end of an image, so that
    zeros surround every pixel. Samples that are partly or wholly outside then need no test: positions -2 and `size`
    give zero, with zero gradient. With several offset groups, a pixel has one row for the channels of each group.
    """

    def __init__(self, num_images: int, like: Float[Tensor, "batch channel height width"], groups: int) -> None:
        _, channels, self.height, self.width = like.shape
        self._line, self._image = self.width + 2, (self.height + 2) * (self.width + 2)
        num_pixels = num_images * self._image + 2 * self._line + 2
        dtype = torch.promote_types(like.dtype, torch.float32)
        self.rows: Rows = torch.zeros(num_pixels * groups, channels // groups, dtype=dtype, device=like.device)
        # Rows are numbered in integers, since float32 is exact only up to 2 ** 24, and in narrow ones for speed.
        index = torch.int32 if len(self.rows) < 2**31 else torch.int64
        self.numbers = torch.arange(len(self.rows), dtype=index, device=like.device)
        # The row of the pixel at (0, 0), by image and offset group.
        first = self.numbers[(2 * self._line + 2) * groups :].unfold(0, groups, self._image * groups)
        self._first = first[:num_images, None, None, None]
        # The distance in rows to the pixel itself, and to its right, lower and lower right neighbours.
        self.corners = (0, groups, self._line * groups, (self._line + 1) * groups)

    def emptied(self) -> Table:
        """Return a table of the same shape that holds zeros."""
        table = copy(self)
        table.rows = torch.zeros_like(self.rows)
        return table

    def images(self, count: int) -> Float[Tensor, "count channel height width"]:
        """Return a view of the first images without their margins."""
        rows = self.rows[: count * self._image * self.corners[1]]
        lines = rows.view(count, self.height + 2, self._line, -1)
        return lines[:, 2:, 2:].permute(0, 3, 1, 2)

    def number(self, line: Tensor, column: Tensor) -> Int[Tensor, "image line column tap group"]:
        """Return the row numbers of pixels from their lines and columns; overwrites `line`."""
        row: Tensor = line.mul_(self.corners[2]).add_(column, alpha=self.corners[1])
        return row.add_(self._first[: len(line)])


def by_sample(tensor: Tensor, geometry: Geometry, parts: int) -> Float[Tensor, "part image line column tap group"]:
    """View offsets (2 parts) or a mask (1 part) in the order of the samples."""
    parted: Tensor = tensor.unflatten(1, (geometry.offset_groups, geometry.num_taps, parts))
    return parted.permute(3, 0, 4, 5, 2, 1)


def taps_by_sample(table: Table, geometry: Geometry) -> Float[Tensor, "2 1 line column tap 1"]:
    """Return the positions at which a plain convolution samples."""
    height, width = geometry.out_size
    y = geometry.tap_positions(0, table.rows.dtype, table.rows.device)[:, None].expand(-1, width, -1)
    x = geometry.tap_positions(1, table.rows.dtype, table.rows.device).expand(height, -1, -1)
    return torch.stack((y, x))[:, None, ..., None]


@dataclass(frozen=True)
class Samples:
    """The positions of samples: the row of the upper left pixel, and the weights of both lines and both columns."""

    row: Int[Tensor, " sample"]
    lines: tuple[PerSample, PerSample]
    columns: tuple[PerSample, PerSample]


def locate(
    table: Table,
    offset: Float[Tensor, "2 image line column tap group"],
    taps: Float[Tensor, "2 1 line column tap 1"],
) -> Samples:
    """Add offsets to the positions of the taps, and find the surrounding pixels.

    Only the whole part of an offset is added. The fraction is kept apart, and so is that of the exact sum.
    """
    high = torch.empty(offset.shape, dtype=taps.dtype, device=taps.device).copy_(offset)
    high.nan_to_num_(nan=-FAR_PX).clamp_(-FAR_PX, FAR_PX)
    low = high.floor()
    high = high.sub_(low).flatten(1)
    low.add_(taps)
    # At -2 and at `size`, both neighbours are outside.
    low[0].clamp_(-2, table.height)
    low[1].clamp_(-2, table.width)
    row = table.number(*low.to(table.numbers.dtype)).flatten()
    return Samples(row, *((1 - w, w) for w in high))


def blend(lines: Two, columns: Two) -> Float[Tensor, "sample 4"]:
    """Return the weights of the four pixels, which are products of the weights of two lines and two columns."""
    weights = lines[0].new_empty(max(lines[0].numel(), columns[0].numel()), 4)
    for corner, weight in enumerate(weights.unbind(1)):
        torch.mul(lines[corner // 2], columns[corner % 2], out=weight)
    return weights


def corner_rows(table: Table, samples: Samples) -> Int[Tensor, "sample 4"]:
    """Return the rows of the four pixels around each sample."""
    rows = samples.row.new_empty(len(samples.row), 4)
    for after, row in zip(table.corners, rows.unbind(1), strict=True):
        torch.add(samples.row, after, out=row)
    return rows


def gather(table: Table, rows: Int[Tensor, "sample 4"], weights: Float[Tensor, "sample 4"]) -> Rows:
    """Return the weighted sum of each sample's four rows."""
    return F.embedding_bag(rows, table.rows, mode="sum", per_sample_weights=weights)


def scatter(table: Table, samples: Samples, lines: Two, values: Rows) -> None:
    """Add each sample's value to its four pixels by their weights: the transpose of `gather`.

    For a pixel this is a weighted sum of rows as well, once the samples are sorted by their upper left pixel.
    """
    ordered, order = samples.row.sort(stable=True)
    first = torch.searchsorted(ordered, table.numbers)
    for corner, after in enumerate(table.corners):
        weight = lines[corner // 2] * samples.columns[corner % 2]
        bags = F.embedding_bag(order, values, first, mode="sum", per_sample_weights=weight.index_select(0, order))
        table.rows[after:] += bags[: len(bags) - after]
