"""Images as tables of rows, one for each pixel, and bilinear samples as weighted bags of four rows."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from saccade.ops.deform_conv.geometry import FAR_PX, Geometry

# sample: every (image, output line, output column, tap, offset group), in that order.
PerSample = Float[Tensor, " sample"]
Rows = Float[Tensor, "row channel"]
Two = tuple[Tensor, Tensor]


class Table:
    """Some images, channels last, with two lines of zeros above each and two columns of zeros left of each line.

    A line's end runs into the next line's zeros and an image's end into the next image's, so that zeros surround
    every pixel. A sample that is partly or wholly outside then needs no test: positions -2 and `size` give zero,
    with zero gradient. With several offset groups a pixel has as many rows, each with its share of the channels.
    """

    def __init__(self, num_images: int, like: Float[Tensor, "batch channel height width"], groups: int) -> None:
        _, channels, self.height, self.width = like.shape
        self._line, self._image = self.width + 2, (self.height + 2) * (self.width + 2)
        num_pixels = num_images * self._image + 2 * self._line + 2
        dtype = torch.promote_types(like.dtype, torch.float32)
        self.rows: Rows = torch.zeros(num_pixels * groups, channels // groups, dtype=dtype, device=like.device)
        # Rows are numbered in integers, since floats know them only up to 2 ** 24, and in narrow ones for speed.
        index = torch.int32 if len(self.rows) < 2**31 else torch.int64
        self.numbers = torch.arange(len(self.rows), dtype=index, device=like.device)
        # By image and offset group: the row of the pixel at (0, 0).
        first = self.numbers[(2 * self._line + 2) * groups :].unfold(0, groups, self._image * groups)
        self._first = first[:num_images, None, None, None]
        # How many rows further to the same, the right, the lower and the lower right pixel.
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
        """Return the rows of pixels, given their (image, line, column, tap, group); overwrites `line`."""
        row: Tensor = line.mul_(self.corners[2]).add_(column, alpha=self.corners[1])
        return row.add_(self._first[: len(line)])


def by_sample(tensor: Tensor, geometry: Geometry, parts: int) -> Float[Tensor, "part image line column tap group"]:
    """View offsets (2 parts) or a mask (1 part) in the order of the samples."""
    parted: Tensor = tensor.unflatten(1, (geometry.offset_groups, geometry.num_taps, parts))
    return parted.permute(3, 0, 4, 5, 2, 1)


def taps_by_sample(table: Table, geometry: Geometry) -> Float[Tensor, "2 1 line column tap 1"]:
    """Return where a plain convolution samples."""
    height, width = geometry.out_size
    y = geometry.tap_positions(0, table.rows.dtype, table.rows.device)[:, None].expand(-1, width, -1)
    x = geometry.tap_positions(1, table.rows.dtype, table.rows.device).expand(height, -1, -1)
    return torch.stack((y, x))[:, None, ..., None]


@dataclass(frozen=True)
class Samples:
    """Where samples lie: the row of each one's upper left pixel, and the weights of both lines and both columns."""

    row: Int[Tensor, " sample"]
    lines: tuple[PerSample, PerSample]
    columns: tuple[PerSample, PerSample]


def locate(
    table: Table,
    offset: Float[Tensor, "2 image line column tap group"],
    taps: Float[Tensor, "2 1 line column tap 1"],
) -> Samples:
    """Add offsets to the taps' own positions, and find the pixels around.

    The whole part of an offset is added, and the fraction kept apart, which so is that of the exact sum.
    """
    high = torch.empty(offset.shape, dtype=taps.dtype, device=taps.device).copy_(offset)
    high.nan_to_num_(nan=-FAR_PX).clamp_(-FAR_PX, FAR_PX)
    low = high.floor()
    high = high.sub_(low).flatten(1)
    low.add_(taps)
    # Both neighbours of -2 and of `size` are outside.
    low[0].clamp_(-2, table.height)
    low[1].clamp_(-2, table.width)
    row = table.number(*low.to(table.numbers.dtype)).flatten()
    return Samples(row, *((1 - w, w) for w in high))


def blend(lines: Two, columns: Two) -> Float[Tensor, "sample 4"]:
    """Multiply the weights of two lines and two columns to those of the four pixels."""
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

    Seen from a pixel that is a weighted sum of rows as well, once the samples are sorted by where they lie.
    """
    ordered, order = samples.row.sort(stable=True)
    first = torch.searchsorted(ordered, table.numbers)
    for corner, after in enumerate(table.corners):
        weight = lines[corner // 2] * samples.columns[corner % 2]
        bags = F.embedding_bag(order, values, first, mode="sum", per_sample_weights=weight.index_select(0, order))
        table.rows[after:] += bags[: len(bags) - after]
