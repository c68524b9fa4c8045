"""Deformable convolution at speed with nothing but PyTorch: gathered rows, then a matrix product.

The image becomes a table with one row of channels per pixel, and a bilinear sample is a bag of four rows with four
weights, which is what `embedding_bag` sums fastest. The gradient to the image is the same operation seen from the
pixels: the bag of all samples that touched one. Tiles of the output are worked on one after another, so that the
gathered columns, nine to 25 times the size of the input, stay in the cache and never exist as a whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from saccade.ops.deform_conv.geometry import Geometry, position_dtype
from saccade.ops.deform_conv.rows import (
    PerSample,
    Rows,
    Samples,
    Table,
    Two,
    blend,
    by_sample,
    corner_rows,
    gather,
    locate,
    scatter,
    taps_by_sample,
)

# Bytes of gathered columns in a tile; on the CPU they, and as much again, should stay in the cache.
_TILE_BYTES_ON_CPU = 4 << 20
_TILE_BYTES_ELSEWHERE = 256 << 20


def why_not(
    input: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    mask: Tensor | None,
    geometry: Geometry,
) -> str | None:
    """Say why this backend cannot take these inputs."""
    if input.device.type not in ("cpu", "cuda"):
        return f"it is made for cpu and cuda; input is on {input.device}"
    return None


def run(
    input: Float[Tensor, "batch channels_in height_in width_in"],
    offset: Float[Tensor, "batch offset_channels height width"],
    weight: Float[Tensor, "channels_out channels_per_group kernel_h kernel_w"],
    bias: Float[Tensor, " channels_out"] | None,
    mask: Float[Tensor, "batch mask_channels height width"] | None,
    geometry: Geometry,
) -> Float[Tensor, "batch channels_out height width"]:
    """Return the convolution in the dtype of `weight`; `input` is sampled in float32 (float64 stays)."""
    out: Tensor = _DeformConv2d.apply(input, offset, weight, bias, mask, geometry)  # type: ignore[no-untyped-call]
    return out


class _DeformConv2d(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        input: Tensor,
        offset: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        mask: Tensor | None,
        geometry: Geometry,
    ) -> Tensor:
        ctx.save_for_backward(input, offset, weight, mask)
        ctx.geometry = geometry
        kernels = _kernels(weight, geometry)
        out = torch.empty(
            (input.shape[0], weight.shape[0], *geometry.out_size),
            dtype=weight.dtype,
            device=input.device,
            memory_format=_memory_format(input),
        )
        for tile in _tiles(input, offset, mask, geometry):
            columns = tile.columns(tile.sample(tile.lines_masked, tile.samples.columns)).to(weight.dtype)
            values = torch.bmm(columns, kernels).transpose(0, 1).flatten(1)
            if bias is not None:
                values += bias
            place = tile.cut(out)
            place.copy_(values.view(place.shape))
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        input, offset, weight, mask = ctx.saved_tensors
        with torch.autocast(grad.device.type, enabled=False):
            gradients = _Gradients(input, offset, weight, mask, ctx.geometry, ctx.needs_input_grad)
            for tile in _tiles(input, offset, mask, ctx.geometry):
                gradients.add(tile, grad)
            bias = grad.sum((0, 2, 3)) if ctx.needs_input_grad[3] else None
        return gradients.input, gradients.offset, gradients.weight, bias, gradients.mask, None


@dataclass(frozen=True)
class _Tile:
    """Some lines of some output images, and the samples that they are made of."""

    images: slice
    lines: slice
    table: Table
    samples: Samples
    corners: Int[Tensor, "sample 4"]
    mask: Float[Tensor, "*sample"]  # a single 1 if there is none
    geometry: Geometry

    def cut(self, per_output: Float[Tensor, "batch channel height width"]) -> Tensor:
        """View what lies in this tile, as (image, line, column, channel)."""
        return per_output[self.images, :, self.lines].permute(0, 2, 3, 1)

    @cached_property
    def lines_masked(self) -> Two:
        """The weights of both lines, with the mask."""
        upper, lower = self.samples.lines
        return (upper * self.mask, lower * self.mask) if self.mask.dim() else (upper, lower)

    def sample(self, lines: Two, columns: Two) -> Rows:
        """Gather every sample with the given weights of its two lines and two columns."""
        return gather(self.table, self.corners, blend(lines, columns))

    def columns(self, rows: Rows) -> Float[Tensor, "group position tap_and_channel"]:
        """Lay the samples out for the matrix product."""
        taps, groups = self.geometry.num_taps, self.geometry.groups
        return (
            rows.view(len(rows) // (taps * self.geometry.offset_groups), taps, groups, -1)
            .permute(2, 0, 1, 3)
            .flatten(2)
        )

    def rows(self, columns: Float[Tensor, "group position tap_and_channel"]) -> Rows:
        """Lay the matrix product's columns out as samples: the inverse of `columns`."""
        columns = columns.unflatten(2, (self.geometry.num_taps, -1)).permute(1, 2, 0, 3)
        return columns.reshape(len(self.samples.row), -1).to(self.table.rows.dtype)


class _Gradients:
    """The gradients of one call, each None if it is not needed, filled tile by tile."""

    def __init__(
        self,
        input: Tensor,
        offset: Tensor,
        weight: Tensor,
        mask: Tensor | None,
        geometry: Geometry,
        needs: tuple[bool, ...],
    ) -> None:
        self.input = torch.empty_like(input) if needs[0] else None
        self.offset = torch.empty_like(offset) if needs[1] else None
        self.mask = torch.empty_like(mask) if mask is not None and needs[4] else None
        self._geometry = geometry
        self._weight = weight
        self._kernels = _kernels(weight, geometry)
        # Summed over tiles in full precision, whatever the matrix product runs in.
        self._grad_kernels = torch.zeros_like(self._kernels, dtype=position_dtype(input)) if needs[2] else None
        self._images: Table | None = None
        self._one = torch.ones((), dtype=position_dtype(input), device=input.device)

    @property
    def weight(self) -> Tensor | None:
        """The gradient of the weight in the weight's own layout."""
        if self._grad_kernels is None:
            return None
        grouped: Tensor = self._grad_kernels.unflatten(1, (self._geometry.num_taps, -1))
        return grouped.permute(0, 3, 2, 1).reshape(self._weight.shape).to(self._weight.dtype)

    def add(self, tile: _Tile, grad: Tensor) -> None:
        """Add what one tile contributes."""
        samples = tile.samples
        grad_out = tile.cut(grad).flatten(0, 2).unflatten(1, (self._geometry.groups, -1)).transpose(0, 1)
        if self._grad_kernels is not None:
            columns = tile.columns(tile.sample(tile.lines_masked, samples.columns)).to(grad_out.dtype)
            self._grad_kernels += torch.bmm(columns.mT, grad_out)
        if self.input is None and self.offset is None and self.mask is None:
            return
        grad_samples = tile.rows(torch.bmm(grad_out, self._kernels.mT))
        if self.input is not None:
            self._add_images(self.input[tile.images], tile, grad_samples)
        if self.offset is not None:
            # Downwards a sample changes by its lower minus its upper neighbours, and likewise to the right.
            down = tile.sample((-tile.mask, tile.mask), samples.columns)
            right = tile.sample(tile.lines_masked, (-self._one, self._one))
            self._put(self.offset, tile, _dot(down, grad_samples), _dot(right, grad_samples))
        if self.mask is not None:
            unmasked = tile.sample(samples.lines, samples.columns)
            self._put(self.mask, tile, _dot(unmasked, grad_samples))

    def _put(self, gradient: Tensor, tile: _Tile, *parts: PerSample) -> None:
        places = by_sample(gradient, self._geometry, len(parts))[:, tile.images, tile.lines]
        for place, part in zip(places, parts, strict=True):
            place.copy_(part.view(place.shape))

    def _add_images(self, gradient: Tensor, tile: _Tile, grad_samples: Rows) -> None:
        # An image's tiles follow each other, and their samples reach into each other's lines.
        if self._images is None:
            self._images = tile.table.emptied()
        scatter(self._images, tile.samples, tile.lines_masked, grad_samples)
        if tile.lines.stop == self._geometry.out_size[0]:
            gradient.copy_(self._images.images(len(gradient)))
            self._images = None


def _tiles(input: Tensor, offset: Tensor, mask: Tensor | None, geometry: Geometry) -> Iterator[_Tile]:
    batch, (height, width) = input.shape[0], geometry.out_size
    if batch == 0:
        return
    budget = _TILE_BYTES_ON_CPU if input.device.type == "cpu" else _TILE_BYTES_ELSEWHERE
    most = max(1, budget // (width * geometry.num_taps * input.shape[1] * position_dtype(input).itemsize))
    num_images, num_lines = _even(batch, max(1, most // height)), _even(height, most)
    table = Table(num_images, input, geometry.offset_groups)
    taps = taps_by_sample(table, geometry)
    offset = by_sample(offset, geometry, 2)
    mask = None if mask is None else by_sample(mask, geometry, 1)[0]
    no_mask = taps.new_ones(())
    for first in range(0, batch, num_images):
        images = slice(first, min(first + num_images, batch))
        table.images(images.stop - first).copy_(input[images])
        for line in range(0, height, num_lines):
            lines = slice(line, min(line + num_lines, height))
            samples = locate(table, offset[:, images, lines], taps[:, :, lines])
            factor = no_mask if mask is None else mask[images, lines].to(taps.dtype).flatten()
            yield _Tile(images, lines, table, samples, corner_rows(table, samples), factor, geometry)


def _even(total: int, most: int) -> int:
    """Return the size of equal parts of `total`, none larger than `most`."""
    return -(-total // max(1, -(-total // most)))


def _dot(a: Rows, b: Rows) -> Float[Tensor, " sample"]:
    """Return the inner product of each pair of rows; `a` is overwritten."""
    return a.mul_(b).sum(1)


def _kernels(weight: Tensor, geometry: Geometry) -> Float[Tensor, "group tap_and_channel channels_out"]:
    grouped: Tensor = weight.flatten(2).unflatten(0, (geometry.groups, -1))
    return grouped.permute(0, 3, 2, 1).flatten(1, 2)


def _memory_format(input: Tensor) -> torch.memory_format:
    channels_last = input.is_contiguous(memory_format=torch.channels_last) and not input.is_contiguous()
    return torch.channels_last if channels_last else torch.contiguous_format
