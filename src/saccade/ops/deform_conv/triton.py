"""Deformable convolution on NVIDIA GPUs, in Triton: this module launches the kernels in `triton_kernels`.

The forward pass is one matrix product. Its left side, the columns, is interpolated a tile at a time and never stored.
The backward pass stores the columns and their gradients, for as many images at once as COLUMN_BYTES allows. Its two
matrix products are plain ones, and each pixel gathers its gradient from stored rows; scattering would take 36 atomic
additions per value for a 3x3 kernel.
"""

from __future__ import annotations

import math
import os
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from saccade.ops.deform_conv.arguments import Gradients, Needs, Tensors, empty_output
from saccade.ops.deform_conv.geometry import Geometry
from saccade.ops.deform_conv.triton_layout import (
    INT32_MAX,
    Plan,
    pack,
    pack_back,
    planes,
    rows,
    strides,
    unpack_back,
)

# Of float32 products: full precision, without tensor cores. "tf32x3", with tensor cores, took up to twice as long.
PRECISION = "ieee"
# Memory for the columns of the images processed at once; their gradients take as much again.
COLUMN_BYTES = 512 << 20
# Enough programs to keep a large GPU's multiprocessors busy.
NUM_PROGRAMS = 100
DTYPES = torch.float32, torch.bfloat16, torch.float16
Maybe = Tensor | None


@cache
def unavailable() -> str | None:
    """Return why the backend cannot run in this installation and machine, or None if it can."""
    if find_spec("triton") is None:
        return "triton is not installed: pip install triton"
    if _interpreted():
        return None
    if not torch.cuda.is_available() or torch.version.hip is not None:
        return "there is no NVIDIA GPU"
    if torch.cuda.get_device_capability() < (8, 0):
        return "the GPU has a compute capability below 8.0"
    return None


def why_not(tensors: Tensors, geometry: Geometry) -> str | None:
    """Return why this backend does not support these inputs, or None if it does."""
    input, weight = tensors.input, tensors.weight
    if input.device.type != ("cpu" if _interpreted() else "cuda"):
        return f"it supports cuda; input is on {input.device}"
    for name, tensor in (("input", input), ("weight", weight)):
        if tensor.dtype not in DTYPES:
            return f"it computes in float32, bfloat16 and float16; {name} is {tensor.dtype}"
    plan = Plan.of(input, weight, geometry)
    if plan.most_numbers > INT32_MAX or plan.runs > 65535:
        return "it numbers the values of an image in 32 bits; this image has too many"
    return None


def _interpreted() -> bool:
    """Return whether Triton's interpreter is on, which runs kernels on the CPU, for tests."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def _kernels() -> Any:
    # Imported only when needed, since importing Triton takes half a second.
    from saccade.ops.deform_conv import triton_kernels

    return triton_kernels


def forward(tensors: Tensors, geometry: Geometry) -> Tensor:
    """Return the convolution in the dtype of `weight`; `input` is sampled in float32."""
    input, offset, weight, bias, mask = tensors
    out = empty_output(tensors, geometry.out_size)
    plan, bias = Plan.of(input, weight, geometry), None if bias is None else bias.contiguous()
    with torch.cuda.device_of(input):
        for images in plan.chunks(len(input)):
            places, weights, *_ = _locate(*_moves(offset, mask, images), plan, chained=False)
            image_rows = rows(input[images], plan.runs, plan.width)
            _convolve(image_rows, (places, weights), weight, bias, out[images].flatten(2), plan)
    return out


def backward(grad: Tensor, tensors: Tensors, geometry: Geometry, needs: Needs) -> Gradients:
    """Return the gradients that are needed, each in its tensor's dtype."""
    input, offset, weight, _, mask = tensors
    need_input, need_offset, need_weight, need_bias, need_mask = needs
    plan = Plan.of(input, weight, geometry)
    grad_input = torch.empty_like(input) if need_input else None
    grad_offset = torch.empty_like(offset.flatten(2)) if need_offset else None
    grad_mask = torch.empty_like(mask.flatten(2)) if need_mask and mask is not None else None
    need_moves = grad_offset is not None or grad_mask is not None
    kernels, grad_kernels = pack_back(weight, plan), None
    with torch.cuda.device_of(input):
        for images in plan.chunks(len(input), COLUMN_BYTES // (plan.columns * weight.itemsize)):
            moves = _moves(offset, mask, images)
            places, weights, *chains = _locate(*moves, plan, chained=need_input)
            grad_out = rows(grad[images], geometry.groups, plan.width_out).flatten(0, 2).transpose(0, 1)
            grad_columns = _multiply(grad_out, kernels) if need_input or need_moves else None
            columns = grad_out.new_empty(*grad_out.shape[:2], kernels.shape[2]) if need_weight else None
            if need_moves or need_weight:
                image_rows = rows(input[images], plan.runs, plan.width)
                grads = [None if whole is None else whole[images] for whole in (grad_offset, grad_mask)]
                _differentiate(image_rows, (places, weights), moves, (grad_columns, columns), grads, plan)
            if columns is not None:
                product = _multiply(columns.mT, grad_out, full=True)
                grad_kernels = product if grad_kernels is None else grad_kernels.add_(product)
            if grad_columns is not None and grad_input is not None:
                _collect(grad_columns, weights, chains, grad_input[images], plan)
            # Free the memory before the next columns are allocated.
            del grad_columns, columns
    return (
        grad_input,
        None if grad_offset is None else grad_offset.unflatten(2, geometry.out_size),
        unpack_back(grad_kernels, weight, plan) if need_weight else None,
        grad.sum((0, 2, 3), dtype=torch.float32).to(grad.dtype) if need_bias else None,
        None if grad_mask is None else grad_mask.unflatten(2, geometry.out_size),
    )


def _moves(offset: Tensor, mask: Maybe, images: slice) -> tuple[Tensor, Maybe]:
    """Return the offsets and masks of some images, as planes."""
    return planes(offset[images]), None if mask is None else planes(mask[images])


def _locate(offset: Tensor, mask: Maybe, plan: Plan, *, chained: bool) -> tuple[Tensor, Tensor, Maybe, Maybe]:
    """Return places, weights, heads and links of all samples."""
    geometry, device, block = plan.geometry, offset.device, 128
    num_planes, num_positions = geometry.offset_groups * geometry.num_taps, len(offset) * plan.positions
    places = torch.empty(num_positions * num_planes, dtype=torch.int32, device=device)
    weights = torch.empty(num_positions * num_planes, 4, dtype=torch.float32, device=device)
    num_chains, in_order = len(offset) * plan.chains, torch.are_deterministic_algorithms_enabled()
    links = torch.empty_like(places) if chained else None
    heads = torch.full((num_chains,), -1, dtype=torch.int32, device=device) if chained and not in_order else None
    tensors = offset, mask, places, weights, heads, links, strides(offset), strides(mask)
    pairs = plan.in_size, geometry.out_size, geometry.stride, geometry.padding, geometry.dilation
    sizes = num_positions, geometry.num_taps, num_planes, geometry.kernel[1]
    how = "none" if links is None else "keys" if heads is None else "linked"
    _kernels().locate[(num_planes * -(-num_positions // block),)](
        *tensors, *pairs, sizes, HAS_MASK=mask is not None, CHAINS=how, BLOCK_M=block, num_warps=4
    )
    if links is not None and heads is None:
        heads, links = _chain_in_order(links, num_chains)
    return places, weights, heads, links


def _chain_in_order(chains: Tensor, num_chains: int) -> tuple[Tensor, Tensor]:
    """Chain samples by their numbers, so that sums are deterministic; in the kernel, the order is that of a race."""
    ordered, order = chains.sort(stable=True)
    samples, links = order.int(), torch.full_like(chains, -1)
    links[order[1:]] = torch.where(ordered[1:] == ordered[:-1], samples[:-1], -1)
    numbers = torch.arange(num_chains, dtype=chains.dtype, device=chains.device)
    last = torch.searchsorted(ordered, numbers, right=True).sub_(1).clamp_(min=0)
    return torch.where(ordered[last] == numbers, samples[last], -1), links


def _convolve_blocks(num_positions: int, channels_out: int, width: int, itemsize: int) -> dict[str, int]:
    """Return the size of a tile of `convolve` and its number of warps.

    With 16 bits, two programs of eight warps share a multiprocessor, and one interpolates while the other multiplies.
    Each thread then has 128 registers; these sizes need no more.
    """
    block_m, block_n = 64, min(512 // itemsize, max(16, 1 << (channels_out - 1).bit_length()))

    def num_programs() -> int:
        return -(-num_positions // block_m) * -(-channels_out // block_n)

    while block_n > 64 and num_programs() < NUM_PROGRAMS:
        block_n //= 2
    if num_programs() < NUM_PROGRAMS:
        block_m = 32
    block_k = math.gcd(width, 32 if itemsize == 4 else 64)
    blocks = {"BLOCK_M": block_m, "BLOCK_N": block_n, "BLOCK_K": block_k}
    blocks["num_warps"] = 8 if block_m * block_n >= 64 * 64 else 4
    return blocks | {"maxnreg": 128} if itemsize == 2 else blocks


def _convolve(
    rows: Tensor, samples: tuple[Tensor, Tensor], weight: Tensor, bias: Maybe, out: Tensor, plan: Plan
) -> None:
    num_positions = len(out) * plan.positions
    blocks = _convolve_blocks(num_positions, plan.channels_out, plan.width, weight.itemsize)
    # The interpreter would multiply bfloat16 as if it were integers.
    dtype = torch.float32 if weight.dtype == torch.bfloat16 and _interpreted() else weight.dtype
    kernels = pack(weight, plan, blocks["BLOCK_N"], blocks["BLOCK_K"], dtype)
    sizes = num_positions, plan.geometry.num_taps, plan.in_size[1]
    widths = out.stride(), plan.positions, plan.channels_out, kernels.shape[5], plan.cut, sizes
    options = {"HAS_BIAS": bias is not None, "PRECISION": PRECISION, "num_stages": 1}
    grid = -(-num_positions // blocks["BLOCK_M"]) * (kernels.shape[5] // blocks["BLOCK_N"]), plan.geometry.groups
    _kernels().convolve[grid](rows, samples, kernels, bias, out, *widths, **options, **blocks)


def _multiply(a: Tensor, b: Tensor, *, full: bool = False) -> Tensor:
    """Multiply batches of matrices with sums in float32; with `full`, the result is also in float32."""
    dtype = torch.float32 if full else a.dtype
    if dtype == a.dtype or not a.is_cuda:
        # A single product can split its long sums among multiprocessors; a product in a batch cannot.
        return torch.mm(a[0].to(dtype), b[0].to(dtype))[None] if len(a) == 1 else torch.bmm(a.to(dtype), b.to(dtype))
    return torch.mm(a[0], b[0], dtype)[None] if len(a) == 1 else torch.bmm(a, b, dtype)


def _differentiate_blocks(width: int) -> dict[str, int]:
    block_k = math.gcd(width, 64)
    return {"BLOCK_M": 2048 // block_k, "BLOCK_K": block_k, "num_warps": 4}


def _differentiate(
    rows: Tensor,
    samples: tuple[Tensor, Tensor],
    moves: tuple[Tensor, Maybe],
    columns: tuple[Maybe, Maybe],
    grads: list[Maybe],
    plan: Plan,
) -> None:
    num_samples, blocks = len(rows) * plan.samples, _differentiate_blocks(plan.width)
    needs = {"HAS_MASK": moves[1] is not None, "NEED_COLUMNS": columns[1] is not None}
    needs |= {"NEED_OFFSET": grads[0] is not None, "NEED_MASK": grads[1] is not None}
    sizes = num_samples, plan.geometry.num_taps, plan.in_size[1], plan.positions
    tensors = rows, samples, *moves, *columns, *grads, *(strides(planes) for planes in (*moves, *grads))
    grid = -(-num_samples // blocks["BLOCK_M"]), plan.geometry.offset_groups
    _kernels().differentiate[grid](*tensors, plan.cut, sizes, num_stages=1, **needs, **blocks)


def _collect_blocks(width: int) -> dict[str, int]:
    block_k = math.gcd(width, 256)
    return {"BLOCK_M": 512 // block_k, "BLOCK_K": block_k, "num_warps": 1}


def _collect(grad_columns: Tensor, weights: Tensor, chains: list[Maybe], grad: Tensor, plan: Plan) -> None:
    (height, width), blocks = plan.in_size, _collect_blocks(plan.width)
    direct = plan.width == plan.channels and grad.permute(0, 2, 3, 1).is_contiguous()
    rows = grad if direct else grad.new_empty(len(grad), height, width, plan.runs, plan.width)
    sizes = len(grad) * height * width, len(grad) * plan.samples
    grid = -(-sizes[0] // blocks["BLOCK_M"]), plan.runs, plan.width // blocks["BLOCK_K"]
    _kernels().collect[grid](
        grad_columns, weights, *chains, rows, plan.in_size, plan.cut, sizes, num_stages=1, **blocks
    )
    if not direct:
        split = grad.view(len(grad), plan.runs, plan.channels, height, width)
        split.copy_(rows[..., : plan.channels].permute(0, 3, 4, 1, 2))
