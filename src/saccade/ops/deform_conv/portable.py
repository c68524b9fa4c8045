"""Fast deformable convolution in plain PyTorch: gathered rows, then a matrix product.

The image becomes a table with one row of channels per pixel. A bilinear sample is a bag of four weighted rows, which
`embedding_bag` sums fastest. The gradient of a pixel is the same operation: the bag of all samples that read it. The
output is processed in tiles, so that the gathered columns, 9 to 25 times the size of the input, stay in the cache and
never exist as a whole.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from saccade.ops.deform_conv.arguments import Gradients, Needs, Tensors, empty_gradients, empty_output
from saccade.ops.deform_conv.geometry import Geometry
from saccade.ops.deform_conv.rows import PerSample, Rows, Table, by_sample, scatter
from saccade.ops.deform_conv.tiles import Tile, in_threads, tiles

Kernels = Float[Tensor, "group tap_and_channel channels_out"]


def unavailable() -> str | None:
    """Return None: every machine can run this backend."""
    return None


def why_not(tensors: Tensors, geometry: Geometry) -> str | None:
    """Return why this backend does not support these inputs, or None if it does."""
    if tensors.input.device.type not in ("cpu", "cuda"):
        return f"it supports cpu and cuda; input is on {tensors.input.device}"
    return None


def forward(tensors: Tensors, geometry: Geometry) -> Float[Tensor, "batch channels_out height width"]:
    """Return the convolution in the dtype of `weight`; `input` is sampled in float32 (float64 input in float64)."""
    input, offset, weight, bias, mask = tensors
    kernels, out = _as_kernels(weight, geometry), empty_output(tensors, geometry.out_size)

    def work(images: slice) -> None:
        for tile in tiles(input, offset, mask, geometry, images):
            values = torch.bmm(_columns(tile, weight.dtype), kernels).transpose(0, 1).flatten(1)
            if bias is not None:
                values += bias
            place = tile.cut(out)
            place.copy_(values.view(place.shape))

    in_threads(work, input, geometry)
    return out


def backward(
    grad: Float[Tensor, "batch channels_out height width"], tensors: Tensors, geometry: Geometry, needs: Needs
) -> Gradients:
    """Return the gradients that are needed, each in its tensor's dtype."""
    input, offset, weight, _, mask = tensors
    need_input, need_offset, need_weight, need_bias, need_mask = needs
    kernels = _as_kernels(weight, geometry)
    filled_in = need_input, need_offset, False, False, need_mask
    grad_input, grad_offset, _, _, grad_mask = empty_gradients(tensors, filled_in)

    def work(images: slice) -> Tensor:
        gradients = _Gradients(grad_input, grad_offset, grad_mask, kernels, need_weight, geometry)
        for tile in tiles(input, offset, mask, geometry, images):
            gradients.add(tile, grad)
        return gradients.kernels

    grad_kernels = torch.stack(in_threads(work, input, geometry)).sum(0)
    grad_weight = _as_weight(grad_kernels, weight) if need_weight else None
    grad_bias = grad.sum((0, 2, 3)) if need_bias else None
    return grad_input, grad_offset, grad_weight, grad_bias, grad_mask


class _Gradients:
    """The gradients from one thread, which writes those of input, offset and mask, and sums that of the kernels."""

    def __init__(
        self,
        input: Tensor | None,
        offset: Tensor | None,
        mask: Tensor | None,
        kernels: Kernels,
        need_kernels: bool,
        geometry: Geometry,
    ) -> None:
        self.input, self.offset, self.mask = input, offset, mask
        # Summed over tiles in at least float32, whatever the dtype of the matrix product.
        dtype = torch.promote_types(kernels.dtype, torch.float32)
        self.kernels = torch.zeros_like(kernels, dtype=dtype)
        self._need_kernels = need_kernels
        self._back = kernels.mT
        self._geometry = geometry
        self._images: Table | None = None

    def add(self, tile: Tile, grad: Float[Tensor, "batch channels_out height width"]) -> None:
        """Add the contribution of one tile, given the gradient of the output."""
        grad_out = tile.cut(grad).flatten(0, 2).unflatten(1, (self._geometry.groups, -1)).transpose(0, 1)
        if self._need_kernels:
            self.kernels += torch.bmm(_columns(tile, grad_out.dtype).mT, grad_out)
        if self.input is None and self.offset is None and self.mask is None:
            return
        grad_samples = tile.rows(torch.bmm(grad_out, self._back))
        if self.input is not None:
            self._add_images(self.input[tile.images], tile, grad_samples)
        lines, columns, one = tile.samples.lines, tile.samples.columns, grad_samples.new_ones(())
        if self.offset is not None:
            # The derivative of a sample in y is its lower minus its upper neighbours, and likewise in x.
            down = _dot(tile.sample((-tile.mask, tile.mask), columns), grad_samples)
            right = _dot(tile.sample(tile.lines_masked, (-one, one)), grad_samples)
            self._put(self.offset, tile, down, right)
        if self.mask is not None:
            self._put(self.mask, tile, _dot(tile.sample(lines, columns), grad_samples))

    def _put(self, gradient: Tensor, tile: Tile, *parts: PerSample) -> None:
        places = by_sample(gradient, self._geometry, len(parts))[:, tile.images, tile.lines]
        for place, part in zip(places, parts, strict=True):
            place.copy_(part.view(place.shape))

    def _add_images(self, gradient: Tensor, tile: Tile, grad_samples: Rows) -> None:
        # Copied only after an image's last tile: the samples of its tiles read each other's lines.
        if self._images is None:
            self._images = tile.table.emptied()
        scatter(self._images, tile.samples, tile.lines_masked, grad_samples)
        if tile.lines.stop == self._geometry.out_size[0]:
            gradient.copy_(self._images.images(len(gradient)))
            self._images = None


def _columns(tile: Tile, dtype: torch.dtype) -> Float[Tensor, "group position tap_and_channel"]:
    return tile.columns(tile.sample(tile.lines_masked, tile.samples.columns)).to(dtype)


def _dot(a: Rows, b: Rows) -> PerSample:
    """Return the inner product of each pair of rows; `a` is overwritten."""
    return a.mul_(b).sum(1)


def _as_kernels(weight: Tensor, geometry: Geometry) -> Kernels:
    grouped: Tensor = weight.flatten(2).unflatten(0, (geometry.groups, -1))
    return grouped.permute(0, 3, 2, 1).flatten(1, 2)


def _as_weight(kernels: Kernels, weight: Tensor) -> Tensor:
    """Return kernels in the layout and dtype of `weight`: the inverse of `_as_kernels`."""
    taps: Tensor = kernels.unflatten(1, (-1, weight.shape[1]))
    return taps.permute(0, 3, 2, 1).reshape(weight.shape).to(weight.dtype)
