"""Deformable convolution that predicts its own offsets (Dai et al. 2017, arXiv 1703.06211; v2: Zhu et al. 2019)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from saccade.nn.attention import AttentionLayer
from saccade.ops import deform_conv2d

Pair = tuple[int, int]


class DeformConv2d(AttentionLayer):
    """Convolve with kernel taps that each look where a convolution of the same input says.

    It starts as the plain convolution of its weights, exactly: what `positions` says starts at zero. `weight` and
    `bias` have the layout of `torch.nn.Conv2d`, so a plain convolution's state loads with `strict=False`.

    *Conventions:* `positions` says, for each offset group and tap (row by row), dy and dx in pixels; with `modulated`
    then a number for each group and tap whose `2 * sigmoid` is the tap's factor. (The paper's factor is the sigmoid
    itself, so its layer starts at half a convolution; doubled, zero means plain.) Positions are computed in float32
    under every autocast, since bfloat16 would round an offset of 4 pixels to 1/32.

    Papers give `positions` a tenth of the learning rate; `layer.positions.parameters()` is what goes in such a group.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: height and width of the kernel, or one number for both; `positions` has the same.
        stride: as for `torch.nn.Conv2d`.
        padding: as for `torch.nn.Conv2d`, zeros only.
        dilation: as for `torch.nn.Conv2d`.
        groups: as for `torch.nn.Conv2d`.
        offset_groups: how many equal parts of the input channels are moved independently.
        bias: whether the convolution has one; `positions` always has.
        modulated: whether each tap has a factor as well (version 2).
        max_offset_px: no offset gets longer than this in y or x: `m * tanh(offset / m)`, which leaves small offsets and
            their gradients alone. None: no limit.

    >>> layer = DeformConv2d(3, 8, kernel_size=3, padding=1)
    >>> layer(torch.rand(1, 3, 16, 16)).shape, layer.positions.weight.abs().max().item()
    (torch.Size([1, 8, 16, 16]), 0.0)
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Pair,
        *,
        stride: int | Pair = 1,
        padding: int | Pair = 0,
        dilation: int | Pair = 1,
        groups: int = 1,
        offset_groups: int = 1,
        bias: bool = True,
        modulated: bool = False,
        max_offset_px: float | None = None,
    ) -> None:
        super().__init__()
        if in_channels % offset_groups:
            raise ValueError(f"{in_channels} input channels do not divide into {offset_groups} offset groups")
        plain = nn.Conv2d(in_channels, out_channels, kernel_size, groups=groups, bias=bias)
        self.weight, self.bias = plain.weight, plain.bias
        self.stride, self.padding, self.dilation = stride, padding, dilation
        taps = offset_groups * self.weight.shape[2] * self.weight.shape[3]
        self.num_offset_channels = 2 * taps
        self.positions = PositionConv2d(
            in_channels,
            3 * taps if modulated else 2 * taps,
            kernel_size,
            stride=stride,
            padding=padding,
            dilation=dilation,
            limited_channels=self.num_offset_channels,
            max_offset_px=max_offset_px,
        )

    def neutral(self, positions: Tensor) -> Tensor:
        """Return positions that make this the plain convolution."""
        return torch.zeros_like(positions)

    def offset_px(
        self, positions: Float[Tensor, "batch position_channels height width"]
    ) -> Float[Tensor, "batch offset_channels height width"]:
        """Return the part of what `positions` said that is offsets, (dy, dx) for each group and tap."""
        return positions[:, : self.num_offset_channels]

    def forward(
        self, input: Float[Tensor, "batch in_channels height_in width_in"]
    ) -> Float[Tensor, "batch out_channels height width"]:
        """Return the convolved map, in the dtype that a plain convolution would give."""
        positions = self.positions(input)
        logits = positions[:, self.num_offset_channels :]
        mask = 2 * logits.sigmoid() if logits.shape[1] else None
        return deform_conv2d(
            input,
            self.offset_px(positions),
            self.weight,
            self.bias,
            self.stride,
            self.padding,
            self.dilation,
            mask,
        )


class PositionConv2d(nn.Conv2d):
    """A convolution whose output is positions: zero when training starts, float32 at least, and limited if asked."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Pair,
        *,
        stride: int | Pair,
        padding: int | Pair,
        dilation: int | Pair,
        limited_channels: int,
        max_offset_px: float | None,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride=stride, padding=padding, dilation=dilation)
        if max_offset_px is not None and not max_offset_px > 0:
            raise ValueError(f"max_offset_px is {max_offset_px}; it must be a positive number of pixels or None")
        self.limited_channels, self.max_offset_px = limited_channels, max_offset_px

    def reset_parameters(self) -> None:
        """Let every position start at zero."""
        nn.init.zeros_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, input: Float[Tensor, "batch channel y x"]) -> Float[Tensor, "batch positions height width"]:
        """Return offsets in pixels, then whatever else is predicted."""
        dtype = torch.promote_types(self.weight.dtype, torch.float32)
        bias = None if self.bias is None else self.bias.to(dtype)
        with torch.autocast(input.device.type, enabled=False):
            said = F.conv2d(input.to(dtype), self.weight.to(dtype), bias, self.stride, self.padding, self.dilation)
        if self.max_offset_px is None:
            return said
        limited, free = said.tensor_split([self.limited_channels], 1)
        return torch.cat((self.max_offset_px * (limited / self.max_offset_px).tanh(), free), 1)
