"""Draw moving digits: rotate and scale digits into patches, paste patches into frames, add clutter and noise.

The dataset of clips and the endless stream of the live page both draw with these functions.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float, Float64, Int64, UInt8
from torch import Tensor
from torch.nn import functional as F

PIECE_PX = 10
"""Side of the square that is cut out of a 28x28 digit image as clutter."""

_JITTER_KNOTS, _JITTER_BEND_PX = 4, 1.5
_JITTER_TURN, _JITTER_STRETCH = math.radians(8), 0.15
# The edge of a stroke lies at one grey level. A steeper step there undoes the blur of resampling; moving the level
# makes strokes thicker or thinner.
_JITTER_EDGE, _JITTER_STEEPNESS, _JITTER_STROKE = 110, 1.7, 75
NUM_JITTER = 7 + 2 * _JITTER_KNOTS**2
"""The number of strengths that `jittered` takes for each image."""

# Mean and standard deviation of the sum of the four bytes of a random word.
_BYTES_MEAN, _BYTES_STD = 510, math.sqrt(4 * (256**2 - 1) / 12)


def patch_side(digit_px: int, largest_scale: float, *, turns: bool) -> int:
    """Return the side of a square that holds a digit at any angle and scale; it is odd if `digit_px` is odd."""
    reach = digit_px * largest_scale * (math.sqrt(2.0) if turns else 1.0)
    return digit_px + 2 * math.ceil(max(0.0, reach - digit_px) / 2)


def draw_patches(
    images: UInt8[Tensor, "num source source"],
    angle_deg: Float64[Tensor, "num"],
    scale: Float64[Tensor, "num"],
    *,
    digit_px: int,
    patch_px: int,
    bend: Float[Tensor, "num 2 knots knots"] | None = None,
) -> UInt8[Tensor, "num patch patch"]:
    """Rotate, scale and bend every image in the middle of its own patch; bilinear, black outside the image.

    *Conventions:* angles are counter-clockwise as seen on the screen. At scale 1 an image is `digit_px` wide. A bend is
    a grid of (x, y) shifts in pixels, interpolated over the patch.
    """
    # Sine and cosine are computed in float64: rounded to float32, their bits do not depend on the place in the batch.
    angle = torch.deg2rad(angle_deg)
    shrink = scale * digit_px / 2
    cos = (angle.cos() / shrink).float()[..., None, None]
    sin = (angle.sin() / shrink).float()[..., None, None]
    offset = torch.arange(patch_px, device=images.device, dtype=torch.float32) - (patch_px - 1) / 2
    y, x = offset.view(-1, 1), offset.view(1, -1)
    grid = torch.stack((cos * x - sin * y, sin * x + cos * y), -1)
    if bend is not None:
        spread = F.interpolate(bend, size=(patch_px, patch_px), mode="bicubic", align_corners=True)
        grid = grid + spread.permute(0, 2, 3, 1) * (2 / digit_px)
    patches = F.grid_sample(
        images.unsqueeze(1).float(), grid, mode="bilinear", padding_mode="zeros", align_corners=False
    )
    return patches.round_().to(torch.uint8).squeeze(1)


def jittered(
    images: UInt8[Tensor, "num source source"], strengths: Float[Tensor, "num kinds"]
) -> UInt8[Tensor, "num source source"]:
    """Change each image as handwriting differs: turned, sheared, stretched, shifted, bent, with other strokes.

    *Conventions:* strengths lie in [-1, 1] for changes that still look like handwriting. They are those of a rotation
    of 8 degrees, a shear and two stretches of 15 %, two shifts of a pixel, a stroke whose edge moves by 75 grey levels,
    which is about a third of a pixel, and the (x, y) shifts of a grid of 4x4 knots by 1.5 pixels. An image whose
    strengths are all zero stays as it is; edges of others are made as sharp as those of MNIST.

    Args:
        images: the images.
        strengths: `NUM_JITTER` strengths for each image.

    Source: Simard, Steinkraus and Platt 2003, "Best practices for convolutional neural networks applied to visual
    document analysis", for bending.
    """
    side = images.shape[-1]
    turn, shear, wide, high, right, down, stroke = strengths[:, : -2 * _JITTER_KNOTS**2].unbind(-1)
    turn = turn * _JITTER_TURN
    cos, sin = turn.cos(), turn.sin()
    across, along = (_JITTER_STRETCH * wide).exp(), (_JITTER_STRETCH * high).exp()
    shear = _JITTER_STRETCH * shear
    theta = torch.stack(
        (
            torch.stack((across * cos, across * (shear * cos - sin), 2 / side * right), -1),
            torch.stack((along * sin, along * (shear * sin + cos), 2 / side * down), -1),
        ),
        1,
    )
    knots = strengths[:, -2 * _JITTER_KNOTS**2 :].view(-1, 2, _JITTER_KNOTS, _JITTER_KNOTS)
    spread = F.interpolate(knots * (_JITTER_BEND_PX * 2 / side), size=(side, side), mode="bicubic", align_corners=True)
    grid = F.affine_grid(theta, [len(images), 1, side, side], align_corners=False) + spread.permute(0, 2, 3, 1)
    drawn = F.grid_sample(images.unsqueeze(1).float(), grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    edge = _JITTER_EDGE + _JITTER_STROKE * stroke.view(-1, 1, 1, 1)
    drawn = edge + _JITTER_STEEPNESS * (drawn - _JITTER_EDGE)
    drawn = torch.where((strengths == 0).all(1).view(-1, 1, 1, 1), images.unsqueeze(1).float(), drawn)
    return drawn.clamp_(0, 255).round_().to(torch.uint8).squeeze(1)


def paste(
    patches: UInt8[Tensor, "num p p"],
    shown: Int64[Tensor, "frames layers"],
    corner_px: Int64[Tensor, "frames layers 2"],
    out: UInt8[Tensor, "frames height width"],
) -> None:
    """Paste patches into frames; where patches overlap, the brighter pixel wins.

    All patch rows lie in one byte table, with zeros between them. Each row of a layer is a stretch of `width` bytes of
    this table, so that a layer consists of `height` copies.

    Args:
        patches: all patches.
        shown: the index of the patch in each layer of each frame; -1 for none.
        corner_px: the (y, x) of the upper left pixel of each patch; it may lie outside the frame.
        out: the frames; their pixels are overwritten.
    """
    num, p, _ = patches.shape
    height, width = out.shape[-2:]
    pitch = p + width - 1
    table = torch.zeros(num * p * pitch + 2 * width, dtype=torch.uint8, device=patches.device)
    # The first row starts after `width - 1` zeros; the zeros after a row are also those before the next row.
    table.as_strided((num, p, p), (p * pitch, pitch, 1), width - 1).copy_(patches)
    blank = table.numel() - width
    windows = table.as_strided((table.numel() - width + 1, width), (1, 1))
    row = torch.arange(height, device=out.device) - corner_px[..., :1]
    begin = (shown.unsqueeze(-1) * p + row) * pitch + (width - 1) - corner_px[..., 1:]
    # A patch to the right or left of the frame would read rows of its neighbour in the table.
    beside = (corner_px[..., 1:] >= width) | (corner_px[..., 1:] <= -p)
    begin = torch.where((row >= 0) & (row < p) & ~beside & (shown.unsqueeze(-1) >= 0), begin, blank)
    for index in range(shown.shape[1]):
        layer = windows.index_select(0, begin[:, index].reshape(-1)).view(out.shape)
        if index == 0:
            out.copy_(layer)
        else:
            torch.maximum(out, layer, out=out)


def cut_pieces(
    images: UInt8[Tensor, "num source source"], corner_px: Int64[Tensor, "num 2"]
) -> UInt8[Tensor, "num source source"]:
    """Cut a square of side `PIECE_PX` out of every image and move it to the middle, as clutter."""
    source = images.shape[-1]
    kept = torch.arange(PIECE_PX, device=images.device)
    rows = (corner_px[:, :1] + kept).unsqueeze(-1)
    columns = (corner_px[:, 1:] + kept).unsqueeze(-2)
    pieces = images[torch.arange(len(images), device=images.device).view(-1, 1, 1), rows, columns]
    border = (source - PIECE_PX) // 2
    return F.pad(pieces, (border, source - PIECE_PX - border) * 2)


def add_noise(
    frames: UInt8[Tensor, "num height width"],
    words: Int64[Tensor, "num height width"],
    deviation: Float64[Tensor, "num"],
) -> None:
    """Add noise to frames in place, clipped to [0, 255].

    Args:
        frames: the frames.
        words: random integers, uniform in [0, 2**32). The sum of the four bytes of a word is nearly normal, and exact
            on every device.
        deviation: the standard deviation of the noise of each frame in grey levels, before clipping.
    """
    total = (words & 255) + (words >> 8 & 255) + (words >> 16 & 255) + (words >> 24)
    level = (deviation * (1 << 16) / _BYTES_STD).round().long().view(-1, 1, 1)
    noise = ((total - _BYTES_MEAN) * level + (1 << 15)) >> 16
    frames.copy_((frames + noise).clamp_(0, 255))


def ink_box(patches: UInt8[Tensor, "... patch patch"]) -> Int64[Tensor, "... 4"]:
    """Return (top, left, bottom, right) of the ink in each patch, bottom and right exclusive; all zero without ink."""
    (top, bottom), (left, right) = (_ink_extent((patches > 0).any(dim)).unbind(-1) for dim in (-1, -2))
    return torch.stack((top, left, bottom, right), -1)


def box_in_frame(
    box_px: Int64[Tensor, "... 4"], corner_px: Int64[Tensor, "... 2"], canvas_px: int
) -> Int64[Tensor, "... 4"]:
    """Shift boxes by the corners of their patches and clip them to the frame; all zero if no part is visible."""
    box = (box_px + torch.cat((corner_px, corner_px), -1)).clamp(0, canvas_px)
    shows = (box[..., 2:] > box[..., :2]).all(-1, keepdim=True)
    return torch.where(shows, box, 0)


def _ink_extent(inked: Bool[Tensor, "... size"]) -> Int64[Tensor, "... 2"]:
    """Return (first, last + 1) of the true entries along the last dimension; (0, 0) if there are none."""
    size = inked.shape[-1]
    position = torch.arange(size, device=inked.device)
    first = torch.where(inked, position, size).amin(-1)
    last = torch.where(inked, position + 1, 0).amax(-1)
    return torch.stack((torch.minimum(first, last), last), -1)
