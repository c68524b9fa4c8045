"""The memory layouts and index ranges of the Triton backend; see `triton_kernels`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from saccade.ops.deform_conv.geometry import Geometry, Pair

INT32_MAX = 2**31 - 1


def padded(channels: int) -> int:
    """Return the next multiple of 16."""
    return -(-channels // 16) * 16


@dataclass(frozen=True)
class Plan:
    """The division of channels into runs, each of which lies in one group and one offset group."""

    geometry: Geometry
    in_size: Pair
    runs: int
    channels: int  # of a run
    width: int  # of a run with padding
    channels_out: int  # of a group
    width_out: int  # of a group with padding, where gradients are multiplied

    @staticmethod
    def of(input: Tensor, weight: Tensor, geometry: Geometry) -> Plan:
        """Return the plan of a call."""
        runs = math.lcm(geometry.groups, geometry.offset_groups)
        channels, channels_out = input.shape[1] // runs, weight.shape[0] // geometry.groups
        # Matrix products are fast on rows of a multiple of 16 bytes.
        width_out = channels_out if channels_out % 8 == 0 else padded(channels_out)
        in_size = input.shape[2], input.shape[3]
        return Plan(geometry, in_size, runs, channels, padded(channels), channels_out, width_out)

    @property
    def positions(self) -> int:
        """The number of output positions of an image."""
        return self.geometry.out_size[0] * self.geometry.out_size[1]

    @property
    def samples(self) -> int:
        """The number of samples of an image for one offset group."""
        return self.positions * self.geometry.num_taps

    @property
    def columns(self) -> int:
        """The number of values that are sampled for an image."""
        return self.samples * self.runs * self.width

    @property
    def chains(self) -> int:
        """The number of pixels, in and around an image, that can be a sample's upper left one, over offset groups."""
        return self.geometry.offset_groups * (self.in_size[0] + 1) * (self.in_size[1] + 1)

    @property
    def cut(self) -> tuple[int, int, int, int]:
        """The division into runs in the form that kernels take."""
        runs, geometry = self.runs, self.geometry
        return runs * self.width, self.width, runs // geometry.groups, runs // geometry.offset_groups

    @property
    def most_numbers(self) -> int:
        """The largest number that kernels have to count to for one image."""
        pixels, offset_groups = self.in_size[0] * self.in_size[1], self.geometry.offset_groups
        samples, outputs = self.samples * offset_groups, self.positions * self.geometry.groups * padded(self.width_out)
        return max(self.chains, pixels * max(16, self.runs * self.width), samples * 4, self.columns, outputs)

    def chunks(self, batch: int, limit: int = INT32_MAX) -> Iterator[slice]:
        """Cut a batch into equal parts that 32 bits can number, of at most `limit` images, but at least one."""
        most = max(1, min(limit, INT32_MAX // self.most_numbers))
        step = max(1, -(-batch // max(1, -(-batch // most))))
        return (slice(first, min(first + step, batch)) for first in range(0, batch, step))

    def split(self, weight: Tensor) -> Tensor:
        """View a weight, or its gradient, as (group, output channel, run, channel, y, x)."""
        shape = self.geometry.groups, self.channels_out, self.cut[2], self.channels, *weight.shape[2:]
        return weight.view(shape)


def rows(tensor: Tensor, parts: int, width: int) -> Tensor:
    """Return (image, y, x, part, channel), contiguous, with the channels of each part padded to `width`.

    A channels-last tensor that needs no padding is returned without a copy if its memory is aligned to 16 bytes.
    """
    batch, channels, *size = tensor.shape
    split = tensor.view(batch, parts, channels // parts, *size).permute(0, 3, 4, 1, 2)
    if split.shape[4] == width:
        split = split.contiguous()
        return split if split.data_ptr() % 16 == 0 else split.clone()
    filled = torch.zeros((*split.shape[:4], width), dtype=tensor.dtype, device=tensor.device)
    filled[..., : split.shape[4]] = split
    return filled


def planes(tensor: Tensor) -> Tensor:
    """Return (image, channel, position), laid out so that offsets of 32 bits reach each element."""
    flat = tensor.flatten(2)
    reach = sum((size - 1) * stride for size, stride in zip(flat.shape, flat.stride(), strict=True))
    return flat if reach <= INT32_MAX else flat.contiguous()


def strides(tensor: Tensor | None) -> tuple[int, ...]:
    """Return the strides of planes; zeros for None."""
    return (0, 0, 0) if tensor is None else tensor.stride()


def pack(weight: Tensor, plan: Plan, block_n: int, block_k: int, dtype: torch.dtype) -> Tensor:
    """Return kernels in the order in which `convolve` reads them, padded with zeros."""
    split = plan.split(weight).flatten(4)
    groups, channels_out, runs, channels, taps = split.shape
    shape = groups, runs, plan.width // block_k, taps, block_k, -(-channels_out // block_n) * block_n
    filled = plan.width != channels or shape[5] != channels_out
    kernels = (torch.zeros if filled else torch.empty)(shape, dtype=dtype, device=weight.device)
    whole, rest = divmod(channels, block_k)
    if whole:
        blocks = split[:, :, :, : whole * block_k].view(groups, channels_out, runs, whole, block_k, taps)
        kernels[:, :, :whole, :, :, :channels_out] = blocks.permute(0, 2, 3, 5, 4, 1)
    if rest:
        kernels[:, :, whole, :, :rest, :channels_out] = split[:, :, :, whole * block_k :].permute(0, 2, 4, 3, 1)
    return kernels


def pack_back(weight: Tensor, plan: Plan) -> Tensor:
    """Return kernels as (group, output channel, tap and run and channel), padded with zeros."""
    split = plan.split(weight).permute(0, 1, 4, 5, 2, 3)
    filled = plan.width_out != plan.channels_out or plan.width != plan.channels
    shape = plan.geometry.groups, plan.width_out, *split.shape[2:5], plan.width
    kernels = (torch.zeros if filled else torch.empty)(shape, dtype=weight.dtype, device=weight.device)
    kernels[:, : plan.channels_out, ..., : plan.channels] = split
    return kernels.flatten(2)


def unpack_back(kernels: Tensor | None, weight: Tensor, plan: Plan) -> Tensor:
    """Convert kernels (group, tap and run and channel, output channel) to a gradient of `weight`; zeros for None."""
    if kernels is None:
        return torch.zeros_like(weight)
    unpacked = torch.empty_like(weight)
    parts = kernels.view(plan.geometry.groups, *plan.geometry.kernel, plan.cut[2], plan.width, plan.width_out)
    parts = parts[..., : plan.channels, : plan.channels_out].permute(0, 5, 3, 4, 1, 2)
    plan.split(unpacked).copy_(parts)
    return unpacked
