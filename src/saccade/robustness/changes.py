"""The changes of a clip by which robustness is measured: each a function of the frames, a strength and a seed.

*Conventions:* clips are uint8 (time, channels, height, width), grey or RGB. A change is the same for all frames of a
clip, apart from noise and dropped frames. At its `unchanged` strength it returns the very frames it was given. What is
drawn at random depends on the seed and the clip alone, so that a stronger change adds to a weaker one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional as F

from saccade.errors import UsageError, unknown_name
from saccade.evaluate import losing
from saccade.robustness.compression import MAX_CRF, compressed

Frames = UInt8[Tensor, "time channels height width"]
Draw = tuple[int, int]
"""The seed and the number of the clip, on which random numbers depend."""

# Keep the draws of changes apart, and those of other users of the same seed.
_PLACE, _NOISE = 0x706C6163, 0x6E6F6973
_FRAMES_PER_PASS = 8  # a few small frames fit into the cache of a processor; a whole clip would not


@dataclass(frozen=True)
class Change:
    """A kind of change, with the strengths at which it is measured.

    Args:
        apply: a function from frames, a strength and a draw to the changed frames.
        strengths: the strengths, rising; `unchanged` is one of them.
        axis: what the strength is, with its unit.
        lowest: the smallest strength that has a meaning.
        highest: the largest strength that has one.
        unchanged: the strength at which clips stay as they are.
        period: the strength that equals strength 0, such as a full turn; None if there is none.
    """

    apply: Callable[[Frames, float, Draw], Frames]
    strengths: tuple[float, ...]
    axis: str
    lowest: float
    highest: float
    unchanged: float = 0.0
    period: float | None = None

    def __call__(self, frames: Frames, strength: float, draw: Draw = (0, 0)) -> Frames:
        """Return the frames with the change.

        Args:
            frames: a clip; it is not written to.
            strength: the strength.
            draw: the seed and the number of the clip.

        Raises:
            UsageError: if the strength has no meaning, or the frames are not uint8 in the expected layout.
        """
        if not self.lowest <= strength <= self.highest:
            raise UsageError(
                f"{self.axis} is {strength:g}; a number from {self.lowest:g} to {self.highest:g} is needed"
            )
        if frames.dtype != torch.uint8 or frames.ndim != 4 or frames.shape[1] not in (1, 3) or not frames.numel():
            raise UsageError(
                f"a clip is {frames.dtype} of shape {tuple(frames.shape)}; uint8 (time, channels, height, width) with 1"
                " or 3 channels is needed"
            )
        return frames if strength == self.unchanged else self.apply(frames, strength, draw)


def named(names: tuple[str, ...], default: tuple[str, ...]) -> dict[str, Change]:
    """Return changes by name, without repetition; the default ones if none is named.

    Raises:
        UsageError: if a name is unknown.
    """
    for name in names:
        if name not in CHANGES:
            raise unknown_name("change", name, CHANGES)
    return {name: CHANGES[name] for name in dict.fromkeys(names or default)}


def turned(frames: Frames, angle_deg: float) -> Frames:
    """Turn a clip about the middle of the frame, counter-clockwise as seen on the screen; bilinear.

    Outside the frame lies the median colour of the clip's border.
    """
    quarters = angle_deg / 90
    height, width = frames.shape[-2:]
    if quarters == int(quarters) and (height == width or quarters % 2 == 0):
        return torch.rot90(frames, int(quarters) % 4, (-2, -1))  # no pixel is interpolated
    angle = math.radians(angle_deg)
    cosine, sine, wide = math.cos(angle), math.sin(angle), width / height
    # In units of half the height, rotations keep shapes.
    return _moved(frames, ((cosine, -sine / wide), (sine * wide, cosine)))


def scaled(frames: Frames, factor: float) -> Frames:
    """Scale a clip about the middle of the frame, which keeps its size; bilinear, averaged over pixels if it shrinks.

    Outside the frame lies the median colour of the clip's border.
    """
    if factor >= 1:
        return _moved(frames, ((1 / factor, 0.0), (0.0, 1 / factor)))
    height, width = frames.shape[-2:]
    size = [max(1, round(edge * factor)) for edge in (height, width)]
    small = F.interpolate(frames.float(), size=size, mode="bilinear", antialias=True, align_corners=False)
    found = background(frames).round().to(torch.uint8).expand(frames.shape).clone()
    top, left = (height - size[0]) // 2, (width - size[1]) // 2
    found[..., top : top + size[0], left : left + size[1]] = small.round_().clamp_(0, 255).to(torch.uint8)
    return found


def background(frames: Frames) -> Float[Tensor, "1 channels 1 1"]:
    """Return the median colour of the outermost pixels of a clip."""
    edges = (frames[..., 0, :], frames[..., -1, :], frames[..., :, 0], frames[..., :, -1])
    border = torch.cat([edge.transpose(0, 1).flatten(1) for edge in edges], 1)
    return border.float().median(1).values.view(1, -1, 1, 1)


def _moved(frames: Frames, matrix: tuple[tuple[float, float], tuple[float, float]]) -> Frames:
    """Sample frames at places that a matrix makes of places of the result, (x, y) in [-1, 1]."""
    theta = frames.new_zeros((1, 2, 3), dtype=torch.float32)
    theta[0, :, :2] = torch.tensor(matrix)
    channels, height, width = frames.shape[1:]
    grid = F.affine_grid(theta, [1, channels, height, width], align_corners=False)
    level, found = background(frames), []
    for some in frames.split(_FRAMES_PER_PASS):
        # Zeros outside the frame thus mean the background.
        sampled = F.grid_sample(some.float() - level, grid.expand(len(some), -1, -1, -1), align_corners=False)
        found.append((sampled + level).round_().clamp_(0, 255).to(torch.uint8))
    return torch.cat(found)


def _sped_up(frames: Frames, factor: float) -> Frames:
    """Return the frames at even distances of `factor` frames; below 1, frames are repeated."""
    num = max(1, round(len(frames) / factor))
    return frames[(torch.arange(num) * factor).long().clamp_(max=len(frames) - 1)]


def _dimmed(frames: Frames, share: float) -> Frames:
    return (frames.float() * (1 - share)).round_().to(torch.uint8)


def _occluded(frames: Frames, share: float, draw: Draw) -> Frames:
    """Cover a share of the frame by a black rectangle of its proportions, at a random place."""
    at, found = _generator(draw, _PLACE).random(2), frames.clone()
    spans = []
    for edge, place in zip(frames.shape[-2:], at, strict=True):
        side = max(1, round(math.sqrt(share) * edge))
        start = round(place * (edge - side))
        spans.append(slice(start, start + side))
    found[..., spans[0], spans[1]] = 0
    return found


def _noisy(frames: Frames, deviation: float, draw: Draw) -> Frames:
    """Add normal noise, drawn for each pixel of each frame and channel."""
    noise = torch.from_numpy(_generator(draw, _NOISE).standard_normal(frames.shape, dtype=np.float32))
    return (frames.float() + deviation * noise).round_().clamp_(0, 255).to(torch.uint8)


def _with_drops(frames: Frames, share: float, draw: Draw) -> Frames:
    """Let each frame but the first repeat the one before with the probability `share`."""
    seed, clip = draw
    return frames[losing(share, seed)(clip, len(frames))]


def _generator(draw: Draw, purpose: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(draw, spawn_key=(purpose,))))


CHANGES: Mapping[str, Change] = {
    "turn": Change(
        lambda frames, angle_deg, _draw: turned(frames, angle_deg),
        (0, 15, 30, 45, 60, 90, 120, 150, 180, 210, 240, 270, 300, 330),
        "angle (degrees, counter-clockwise)",
        *(0.0, 360.0),
        period=360.0,
    ),
    "scale": Change(
        lambda frames, factor, _draw: scaled(frames, factor),
        (0.4, 0.5, 0.6, 0.8, 1, 1.25, 1.5, 2),
        "scale (factor)",
        *(0.05, 20.0),
        unchanged=1.0,
    ),
    "speed": Change(
        lambda frames, factor, _draw: _sped_up(frames, factor),
        (0.5, 0.75, 1, 1.5, 2, 3),
        "speed (factor)",
        *(0.05, 20.0),
        unchanged=1.0,
    ),
    "dim": Change(
        lambda frames, share, _draw: _dimmed(frames, share), (0, 0.25, 0.5, 0.7, 0.85, 0.95), "light lost (share)", 0, 1
    ),
    "compress": Change(
        lambda frames, crf, _draw: compressed(frames, crf),
        (0, 23, 29, 35, 41, 47, MAX_CRF),
        "H.264 quantiser (constant rate factor)",
        *(0, MAX_CRF),
    ),
    "occlude": Change(_occluded, (0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5), "share of the frame covered", 0, 1),
    "noise": Change(_noisy, (0, 8, 16, 32, 48, 64, 96), "noise (standard deviation, grey levels)", 0, 255),
    "drop": Change(_with_drops, (0, 0.1, 0.2, 0.4, 0.6, 0.8), "share of frames that repeat the one before", 0, 1),
}
"""The changes by name, in the order of the report."""
