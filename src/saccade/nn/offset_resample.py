"""The attention layer of Shan and Atanasov (2017, arXiv 1707.02069): resample a feature map by learned offsets."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from saccade.nn.attention import AttentionLayer
from saccade.nn.shapes import check_dtype, check_shape
from saccade.ops.deform_conv.geometry import count


class OffsetResample2d(AttentionLayer):
    """Move every value of a feature map by an offset of its own, predicted from the map by a convolution.

    This is no deformable convolution: the offsets act on a finished map, one for each position *and channel*, and no
    weights follow. See `DeformConv2d` for the real one.

    *Conventions:* `positions` has two output channels for each channel of the map: dy at `2 * c`, dx at `2 * c + 1`, in
    pixels. A position outside is clipped to the border, as in the original; from there its gradient is zero. Offsets
    are added to coordinates and interpolated in float32 under every autocast.

    Args:
        channels: channels of the map.
        kernel_size: of the square kernel that predicts the offsets; without bias, it has `2 * channels ** 2 *
            kernel_size ** 2` parameters.

    Raises:
        ValueError: an even kernel; in `forward` a map of another shape or dtype.

    >>> layer = OffsetResample2d(20)
    >>> layer(torch.rand(1, 20, 16, 16)).shape, sum(p.numel() for p in layer.parameters())
    (torch.Size([1, 20, 16, 16]), 7200)

    Source: the Keras layer ConvOffset2D of 2017, whose normal distribution with standard deviation 0.01 starts the
    weights here as well. (It cut a position's pair out of flattened memory, so its two numbers came from neighbouring
    positions of one channel; here they come from one position, as the paper says. At exactly integer positions its
    gradient was zero; here it is that of the interpolation to one side.)
    """

    def __init__(self, channels: int, kernel_size: int = 3) -> None:
        super().__init__()
        channels, kernel_size = count(channels, "channels"), count(kernel_size, "kernel_size")
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size is {kernel_size}; it must be odd, so that every position has an offset")
        self.channels = channels
        # A plain convolution, in bfloat16 under autocast: in float32 it would cost three times as much as all the rest.
        self.positions = nn.Conv2d(channels, 2 * channels, kernel_size, padding=kernel_size // 2, bias=False)
        nn.init.normal_(self.positions.weight, std=0.01)

    def neutral(self, positions: Tensor) -> Tensor:
        """Return zero offsets, which leave the map as it is."""
        return torch.zeros_like(positions)

    def forward(
        self, input: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height width"]:
        """Return the resampled map, in the dtype of the input."""
        check_shape("maps", input, "batch", self.channels, "height", "width")
        check_dtype("maps", input, self.positions)
        dtype = torch.promote_types(input.dtype, torch.float32)
        offset_px = self.positions(input)
        with torch.autocast(input.device.type, enabled=False):
            return _resample(input.to(dtype), offset_px.to(dtype)).to(input.dtype)


def _resample(
    map: Float[Tensor, "batch channels height width"], offset_px: Float[Tensor, "batch 2*channels height width"]
) -> Float[Tensor, "batch channels height width"]:
    height, width = map.shape[2:]
    # grid_sample wants (x, y) with -1 and 1 at the outer edges of the border pixels. Counted so, whole pixels of a
    # map whose sides are powers of two are exact.
    y, x = ((2 * torch.arange(n).to(map) + 1) / n - 1 for n in (height, width))
    down, right = offset_px.reshape(-1, 2, height, width).unbind(1)
    xy = (torch.add(x, right, alpha=2 / width), torch.add(y[:, None], down, alpha=2 / height))
    grid = torch.stack(xy, 1).permute(0, 2, 3, 1)
    values = map.reshape(-1, 1, height, width)
    return F.grid_sample(values, grid, padding_mode="border", align_corners=False).view(map.shape)
