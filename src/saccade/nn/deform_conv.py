"""Deformable convolution that predicts its own offsets (Dai et al. 2017, arXiv 1703.06211; v2: Zhu et al. 2019)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from saccade.nn.attention import AttentionLayer
from saccade.nn.shapes import check_shape
from saccade.ops import deform_conv2d
from saccade.ops.deform_conv.geometry import Pair, count, out_size, pair


class DeformConv2d(AttentionLayer):
    """Deformable convolution: each kernel tap moves by an offset that a convolution of the same input predicts.

    A new layer is exactly the plain convolution with its weights, since `positions` first predicts zero. `weight` and
    `bias` have the layout of `torch.nn.Conv2d`, so a plain convolution's state loads with `strict=False`.

    *Conventions:* `positions` predicts dy and dx in pixels for each offset group and tap (row by row). With `modulated`
    it then predicts one number for each group and tap, and `2 * sigmoid` of it is the tap's factor. (The paper's factor
    is the sigmoid itself, so its layer starts at half a convolution.) Positions are computed in float32 under any
    autocast, since bfloat16 would round an offset of 4 pixels to a multiple of 1/32.

    In the papers, `positions` learns at a tenth of the learning rate: put `layer.positions.parameters()` in a parameter
    group of its own.

    Args:
        in_channels: the number of channels of the input.
        out_channels: the number of channels of the output.
        kernel_size: the height and width of the kernel, or one number for both; `positions` has the same kernel size.
        stride: as for `torch.nn.Conv2d`.
        padding: as for `torch.nn.Conv2d`, including "same" and "valid"; zeros only.
        dilation: as for `torch.nn.Conv2d`.
        groups: as for `torch.nn.Conv2d`.
        offset_groups: the number of equal parts of the input channels that move independently.
        bias: whether the convolution has a bias; `positions` always has one.
        modulated: whether each tap also has a factor (version 2).
        max_offset_px: the limit of offsets in y and in x, applied as `m * tanh(offset / m)`, which hardly changes small
            offsets and their gradients; None for no limit.
        backend: as for `deform_conv2d`; use "reference" under `torch.func`.

    Raises:
        ValueError: if a number is out of range, or "same" comes with a stride; in `forward`, if the input does not fit.

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
        padding: int | Pair | str = 0,
        dilation: int | Pair = 1,
        groups: int = 1,
        offset_groups: int = 1,
        bias: bool = True,
        modulated: bool = False,
        max_offset_px: float | None = None,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        in_channels, offset_groups = count(in_channels, "in_channels"), count(offset_groups, "offset_groups")
        if in_channels % offset_groups:
            raise ValueError(f"{in_channels} input channels do not divide into {offset_groups} offset groups")
        kernel = pair(kernel_size, "kernel_size", 1)
        self.stride, self.dilation = pair(stride, "stride", 1), pair(dilation, "dilation", 1)
        self.padding, self.padding_behind = _paddings(padding, kernel, self.stride, self.dilation)
        plain = nn.Conv2d(
            in_channels, count(out_channels, "out_channels"), kernel, groups=count(groups, "groups"), bias=bias
        )
        self.weight, self.bias = plain.weight, plain.bias
        self.in_channels, self.backend = in_channels, backend
        taps = offset_groups * kernel[0] * kernel[1]
        self.num_offset_channels = 2 * taps
        self.positions = PositionConv2d(
            in_channels,
            3 * taps if modulated else 2 * taps,
            kernel,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            limited_channels=self.num_offset_channels,
            max_offset_px=max_offset_px,
        )

    @classmethod
    def identity(cls, channels: int, *, groups: int = 1) -> DeformConv2d:
        """Return a 3x3 layer that passes on its map unchanged, until it learns what to sample and where.

        Args:
            channels: the number of channels of the map.
            groups: as for `torch.nn.Conv2d`.

        >>> map = torch.rand(1, 4, 5, 7)
        >>> torch.equal(DeformConv2d.identity(4)(map), map)
        True
        """
        layer = cls(channels, channels, 3, padding=1, groups=groups, bias=False)
        nn.init.dirac_(layer.weight, groups)
        return layer

    def neutral(self, positions: Tensor) -> Tensor:
        """Return zero positions, with which this layer is the plain convolution."""
        return torch.zeros_like(positions)

    def offset_px(
        self, positions: Float[Tensor, "batch position_channels height width"]
    ) -> Float[Tensor, "batch offset_channels height width"]:
        """Return the offsets among the predicted positions: (dy, dx) for each group and tap."""
        return positions[:, : self.num_offset_channels]

    def forward(
        self, input: Float[Tensor, "batch in_channels height_in width_in"]
    ) -> Float[Tensor, "batch out_channels height width"]:
        """Return the convolved map, in the dtype that a plain convolution would give."""
        check_shape("maps", input, "batch", self.in_channels, "height", "width")
        if any(self.padding_behind):
            # Samples outside the input are zero too, so this padding changes none of them.
            input = F.pad(input, (0, self.padding_behind[1], 0, self.padding_behind[0]))
        out_size(input, (self.weight.shape[2], self.weight.shape[3]), self.stride, self.padding, self.dilation)
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
            backend=self.backend,
        )


def _paddings(padding: int | Pair | str, kernel: Pair, stride: Pair, dilation: Pair) -> tuple[Pair, Pair]:
    """Return the padding on all sides as (y, x), and the extra padding at the bottom and on the right."""
    if not isinstance(padding, str):
        return pair(padding, "padding", 0), (0, 0)
    if padding not in ("same", "valid"):
        raise ValueError(f"padding is {padding!r}; it must be 'same', 'valid', an int or a pair (y, x) of ints")
    if padding == "valid":
        return (0, 0), (0, 0)
    if stride != (1, 1):
        raise ValueError(f"padding is 'same' and stride {stride}; 'same' needs stride 1, as for torch.nn.Conv2d")
    y, x = (d * (k - 1) for d, k in zip(dilation, kernel, strict=True))
    return (y // 2, x // 2), (y % 2, x % 2)


class PositionConv2d(nn.Conv2d):
    """A convolution that predicts positions: initially zero, in at least float32, and limited if asked."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Pair,
        *,
        stride: Pair,
        padding: Pair,
        dilation: Pair,
        limited_channels: int,
        max_offset_px: float | None,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride=stride, padding=padding, dilation=dilation)
        if max_offset_px is not None and not max_offset_px > 0:
            raise ValueError(f"max_offset_px is {max_offset_px}; it must be a positive number of pixels or None")
        self.limited_channels, self.max_offset_px = limited_channels, max_offset_px

    def reset_parameters(self) -> None:
        """Set weight and bias to zero, so that every position is zero."""
        nn.init.zeros_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, input: Float[Tensor, "batch channel y x"]) -> Float[Tensor, "batch positions height width"]:
        """Return the offsets in pixels, followed by any unlimited channels."""
        dtype = torch.promote_types(self.weight.dtype, torch.float32)
        bias = None if self.bias is None else self.bias.to(dtype)
        with torch.autocast(input.device.type, enabled=False):
            said = F.conv2d(input.to(dtype), self.weight.to(dtype), bias, self.stride, self.padding, self.dilation)
        if self.max_offset_px is None:
            return said
        limited, free = said.tensor_split([self.limited_channels], 1)
        return torch.cat((self.max_offset_px * (limited / self.max_offset_px).tanh(), free), 1)
