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
    """Resample every value of a feature map at its own offset, which a convolution of the map predicts.

    This is not a deformable convolution: there is one offset for each position *and channel* of the map, and no weights
    are applied to the samples. For a deformable convolution, see `DeformConv2d`.

    *Conventions:* `positions` has two output channels for each channel of the map: dy at `2 * c`, dx at `2 * c + 1`, in
    pixels. A position outside the map is clipped to the border, as in the original, and then has a zero gradient.
    Coordinates and interpolation are float32 under any autocast.

    Args:
        channels: the number of channels of the map.
        kernel_size: the size of the square kernel that predicts the offsets; it has `2 * channels ** 2 * kernel_size
            ** 2` parameters and no bias.

    Raises:
        ValueError: if the kernel size is even; in `forward`, if the map has another shape or dtype.

    >>> layer = OffsetResample2d(20)
    >>> layer(torch.rand(1, 20, 16, 16)).shape, sum(p.numel() for p in layer.parameters())
    (torch.Size([1, 20, 16, 16]), 7200)

    Source: the Keras layer ConvOffset2D of 2017. As there, the initial weights are normal with standard deviation 0.01.
    Two things differ. That layer took dy and dx from flattened memory, and so from neighbouring positions of one
    channel; here both come from one position, as the paper says. At exactly integer positions its gradient was zero;
    here it is the one-sided gradient of the interpolation.
    """

    def __init__(self, channels: int, kernel_size: int = 3) -> None:
        super().__init__()
        channels, kernel_size = count(channels, "channels"), count(kernel_size, "kernel_size")
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size is {kernel_size}; it must be odd, so that every position has an offset")
        self.channels = channels
        # In bfloat16 under autocast: in float32 this convolution would cost three times as much as everything else.
        self.positions = nn.Conv2d(channels, 2 * channels, kernel_size, padding=kernel_size // 2, bias=False)
        nn.init.normal_(self.positions.weight, std=0.01)

    def neutral(self, positions: Tensor) -> Tensor:
        """Return zero offsets, which leave the map unchanged."""
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
    # grid_sample expects (x, y) with -1 and 1 at the outer edges of the border pixels. In these units, whole pixels are
    # exact if the sides of the map are powers of two.
    y, x = ((2 * torch.arange(n).to(map) + 1) / n - 1 for n in (height, width))
    down, right = offset_px.reshape(-1, 2, height, width).unbind(1)
    xy = (torch.add(x, right, alpha=2 / width), torch.add(y[:, None], down, alpha=2 / height))
    grid = torch.stack(xy, 1).permute(0, 2, 3, 1)
    values = map.reshape(-1, 1, height, width)
    return F.grid_sample(values, grid, padding_mode="border", align_corners=False).view(map.shape)
