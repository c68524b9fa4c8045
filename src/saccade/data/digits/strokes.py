"""Digits as drawn with a mouse or a finger: few strokes of one width, straight between the sampled points.

The shapes are defined here as strokes, in several variants of each digit. Each image is a variant that is bent, slanted
and jittered. It is a function of split and index alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy.typing import NDArray
from torch import Tensor

SIZES = {"train": 12_000, "validation": 2_000, "test": 4_000}
"""The number of images in each split; all classes are equally frequent."""

IMAGE_PX, DIGIT_PX = 28, 20
_STROKE_WIDTHS_PX = (1.6, 3.4)

Points = NDArray[np.float64]


def _arc(cx: float, cy: float, rx: float, ry: float, start_deg: float, end_deg: float) -> Points:
    """Return points on an ellipse; 0 degrees is right, 90 is up."""
    turn = np.deg2rad(np.linspace(start_deg, end_deg, max(3, round(abs(end_deg - start_deg) / 25) + 1)))
    return np.stack((cx + rx * np.cos(turn), cy - ry * np.sin(turn)), -1)


def _line(*points: tuple[float, float]) -> Points:
    return np.array(points, dtype=np.float64)


def _path(*parts: Points) -> Points:
    return np.concatenate(parts)


# Variants of each digit: strokes of (x, y) points, x to the right and y down, from 0 to 1.
_WAYS: dict[int, list[list[Points]]] = {
    0: [
        [_arc(0.5, 0.5, 0.33, 0.5, 90, 450)],
        [_arc(0.5, 0.5, 0.3, 0.5, 70, -280)],
        [_arc(0.5, 0.5, 0.42, 0.5, 110, 465)],
    ],
    1: [
        [_line((0.5, 0.0), (0.5, 1.0))],
        [_line((0.3, 0.25), (0.52, 0.0), (0.52, 1.0))],
        [_line((0.6, 0.0), (0.42, 1.0))],
        [_line((0.3, 0.22), (0.5, 0.0), (0.5, 1.0)), _line((0.28, 1.0), (0.72, 1.0))],
    ],
    2: [
        [_path(_arc(0.5, 0.28, 0.33, 0.28, 160, -30), _line((0.2, 1.0), (0.85, 1.0)))],
        [_path(_arc(0.5, 0.27, 0.3, 0.27, 170, -40), _line((0.3, 0.85)), _line((0.2, 1.0), (0.82, 0.97)))],
        [_path(_arc(0.48, 0.3, 0.34, 0.3, 150, -50), _arc(0.26, 0.88, 0.12, 0.1, 60, 320), _line((0.85, 1.0)))],
    ],
    3: [
        [_path(_arc(0.45, 0.25, 0.32, 0.25, 150, -90), _arc(0.45, 0.75, 0.36, 0.25, 90, -150))],
        [_path(_line((0.18, 0.0), (0.78, 0.0), (0.42, 0.4)), _arc(0.45, 0.7, 0.34, 0.3, 80, -150))],
        [_path(_arc(0.42, 0.24, 0.3, 0.24, 140, -70), _line((0.4, 0.48)), _arc(0.44, 0.74, 0.36, 0.27, 75, -145))],
    ],
    4: [
        [_line((0.6, 0.0), (0.15, 0.65), (0.9, 0.65)), _line((0.65, 0.35), (0.65, 1.0))],
        [_line((0.22, 0.0), (0.18, 0.5), (0.8, 0.5)), _line((0.75, 0.0), (0.72, 1.0))],
        [_line((0.68, 1.0), (0.68, 0.0), (0.12, 0.68), (0.92, 0.68))],
        [
            _path(_line((0.25, 0.05), (0.2, 0.45)), _arc(0.45, 0.42, 0.25, 0.14, 200, 350)),
            _line((0.72, 0.0), (0.7, 1.0)),
        ],
    ],
    5: [
        [_path(_line((0.8, 0.0), (0.25, 0.0), (0.22, 0.42)), _arc(0.46, 0.68, 0.34, 0.32, 120, -150))],
        [
            _path(_line((0.28, 0.02), (0.25, 0.42)), _arc(0.46, 0.68, 0.34, 0.32, 125, -155)),
            _line((0.28, 0.02), (0.82, 0.0)),
        ],
        [_path(_line((0.82, 0.0), (0.3, 0.0), (0.2, 0.45), (0.5, 0.4)), _arc(0.48, 0.7, 0.32, 0.3, 60, -160))],
    ],
    6: [
        [_path(_arc(0.75, 0.65, 0.55, 0.65, 95, 180), _arc(0.5, 0.72, 0.3, 0.28, 180, 530))],
        [_path(_line((0.7, 0.0), (0.3, 0.5), (0.2, 0.75)), _arc(0.48, 0.74, 0.28, 0.26, 190, 520))],
        [_path(_line((0.38, 0.0), (0.24, 0.4), (0.2, 0.7)), _arc(0.48, 0.74, 0.28, 0.26, 180, 525))],
    ],
    7: [
        [_line((0.15, 0.0), (0.85, 0.0), (0.4, 1.0))],
        [_line((0.15, 0.05), (0.85, 0.0), (0.45, 1.0)), _line((0.35, 0.5), (0.8, 0.48))],
        [_path(_line((0.15, 0.15), (0.18, 0.0), (0.8, 0.0)), _line((0.5, 0.5), (0.42, 1.0)))],
    ],
    8: [
        [
            _path(
                _arc(0.5, 0.25, 0.28, 0.25, 60, 270),
                _arc(0.5, 0.75, 0.34, 0.25, 90, -270),
                _arc(0.5, 0.25, 0.28, 0.25, -90, 60),
            )
        ],
        [_arc(0.5, 0.24, 0.27, 0.24, 90, 450), _arc(0.5, 0.74, 0.33, 0.26, 90, 450)],
        [
            _path(
                _line((0.75, 0.1)),
                _arc(0.5, 0.24, 0.27, 0.24, 40, 240),
                _line((0.7, 0.62)),
                _arc(0.5, 0.76, 0.3, 0.24, 20, -190),
                _line((0.4, 0.48), (0.75, 0.1)),
            )
        ],
    ],
    9: [
        [_path(_arc(0.48, 0.28, 0.3, 0.28, 0, 360), _line((0.78, 0.28), (0.72, 1.0)))],
        [_path(_arc(0.48, 0.27, 0.3, 0.27, 20, 350), _line((0.78, 0.1), (0.76, 0.6), (0.55, 1.0)))],
        [_path(_arc(0.48, 0.28, 0.28, 0.28, 10, 370), _arc(0.3, 0.5, 0.46, 0.5, 20, -90))],
    ],
}


def draw(strokes: Sequence[Points], *, width_px: float = 2.4) -> UInt8[Tensor, "28 28"]:
    """Draw pen strokes as a digit image framed like MNIST's: 20 pixels large, with the centre of mass in the middle.

    *Conventions:* points are (x, y), x to the right and y down, in any unit; the drawing keeps its proportions. Light
    on dark. A stroke of one point is a dot.

    Args:
        strokes: the strokes; strokes without points are ignored.
        width_px: the line width in pixels of the 28x28 image.

    Raises:
        ValueError: if there is no point, a point is not finite, or the extent of the drawing is outside 1e-9 to 1e9 (an
            extent of 0 is a dot).

    >>> int(draw([np.array([[0.0, 0.0], [0.0, 100.0]])]).amax())
    255
    """
    kept = [np.asarray(stroke, dtype=np.float64).reshape(-1, 2) for stroke in strokes if len(stroke)]
    if not kept:
        raise ValueError("the drawing has no point; draw at least one stroke")
    if not all(np.isfinite(stroke).all() for stroke in kept):
        raise ValueError("the drawing has a point that is not finite")
    with np.errstate(over="ignore"):
        extent = float(np.ptp(np.concatenate(kept), axis=0).max())
    if not (extent == 0 or 1e-9 < extent < 1e9):
        raise ValueError(f"the drawing is {extent:g} wide or high; scale its points to between 1e-9 and 1e9")
    return _drawn([kept], np.array([width_px]))[0]


@cache
def images(split: str) -> tuple[UInt8[Tensor, "num 28 28"], Tensor]:
    """Return all images of a split, and their labels."""
    num = SIZES[split]
    chance = np.random.Generator(np.random.Philox(key=tuple(SIZES).index(split)))
    labels = np.arange(num) % 10
    written = [_written(int(label), chance) for label in labels]
    widths = chance.uniform(*_STROKE_WIDTHS_PX, num)
    # Small parts, so that their pixels fit into the CPU's cache.
    parts = [_drawn(written[i : i + 50], widths[i : i + 50]) for i in range(0, num, 50)]
    return torch.cat(parts), torch.from_numpy(labels)


def _written(digit: int, chance: np.random.Generator) -> list[Points]:
    """Return the strokes of a random example of a digit: a variant that is slanted, stretched, bent and jittered."""
    ways = _WAYS[digit]
    strokes = ways[chance.integers(len(ways))]
    slant, turn = chance.normal(0, 0.12), chance.normal(0, 0.08)
    stretch = chance.uniform(0.7, 1.15)
    cos, sin = np.cos(turn), np.sin(turn)
    linear = np.array([[cos, sin], [-sin, cos]]) @ np.array([[stretch, 0.0], [slant, 1.0]])
    # A smooth bend of the whole drawing: a slow wave along each axis.
    depth, phase, tempo = chance.normal(0, 0.045, 2), chance.uniform(0, 2 * np.pi, 2), chance.uniform(2, 5, 2)
    shake = abs(chance.normal(0, 0.018))
    found = []
    for stroke in strokes:
        points = _resampled(stroke, chance.uniform(0.07, 0.2))
        points = points + depth * np.sin(points[:, ::-1] * tempo + phase)
        points = points + chance.normal(0, shake, points.shape)
        # The ends of a stroke vary most.
        points[[0, -1]] += chance.normal(0, 0.035, (2, 2))
        found.append((points - 0.5) @ linear)
    return found


def _resampled(stroke: Points, step: float) -> Points:
    """Return points about `step` apart along a stroke, including both ends."""
    lengths = np.linalg.norm(np.diff(stroke, axis=0), axis=1)
    along = np.concatenate(([0.0], np.cumsum(lengths)))
    wanted = np.linspace(0, along[-1], max(2, round(along[-1] / step) + 1))
    return np.stack([np.interp(wanted, along, stroke[:, axis]) for axis in (0, 1)], -1)


def _drawn(drawings: Sequence[Sequence[Points]], width_px: NDArray[np.float64]) -> UInt8[Tensor, "num 28 28"]:
    begin, end = _segments([_fitted(drawing) for drawing in drawings])
    width = torch.from_numpy(width_px).float()
    return (_rasterised(begin, end, width) * 255).round().to(torch.uint8)


def _fitted(strokes: Sequence[Points]) -> list[Points]:
    """Scale a drawing to `DIGIT_PX` along its longer side, and move its centre of mass to the middle of the image."""
    points = np.concatenate(strokes)
    extent = float((points.max(0) - points.min(0)).max())
    # The factor 0.9 leaves room for the width of the line.
    zoom = 0.9 * DIGIT_PX / extent if extent > 0 else 0.0
    pairs = np.concatenate([np.stack((s[:-1], s[1:])) for s in strokes], 1)
    lengths = np.linalg.norm(pairs[1] - pairs[0], axis=1)
    middle = (points.max(0) + points.min(0)) / 2
    if lengths.sum() > 0:
        mass = (pairs.mean(0) * lengths[:, None]).sum(0) / lengths.sum()
        # At most 2.5 pixels from the middle, so that the digit stays in the image.
        middle = middle + np.clip((mass - middle) * zoom, -2.5, 2.5) / zoom
    return [(stroke - middle) * zoom + (IMAGE_PX - 1) / 2 for stroke in strokes]


def _segments(drawings: list[list[Points]]) -> tuple[Float[Tensor, "num segments 2"], Float[Tensor, "num segments 2"]]:
    """Return the start and the end of every straight segment; a drawing with fewer segments repeats its first."""
    pieces = []
    for drawing in drawings:
        parts = [np.stack((s[:-1], s[1:]), 1) if len(s) > 1 else np.stack((s, s), 1) for s in drawing]
        pieces.append(np.concatenate(parts))
    most = max(len(piece) for piece in pieces)
    filled = np.stack([np.concatenate((p, np.repeat(p[:1], most - len(p), 0))) for p in pieces])
    both = torch.from_numpy(filled).float()
    return both[:, :, 0], both[:, :, 1]


def _rasterised(
    begin: Float[Tensor, "num segments 2"], end: Float[Tensor, "num segments 2"], width: Float[Tensor, "num"]
) -> Float[Tensor, "num 28 28"]:
    """Return the share of every pixel that the line covers, from the distance to the nearest segment; in [0, 1]."""
    axis = torch.arange(IMAGE_PX, dtype=torch.float32)
    along = end - begin
    direction = along / along.square().sum(-1, keepdim=True).clamp_min(1e-9)
    nearest = torch.full((len(begin), IMAGE_PX, IMAGE_PX), torch.inf)
    for k in range(begin.shape[1]):
        x, y = ((axis - begin[:, k, i, None]) for i in (0, 1))
        x, y = x[:, None, :], y[:, :, None]
        # The position of the nearest point along the segment, from 0 to 1.
        share = x * direction[:, k, 0, None, None] + y * direction[:, k, 1, None, None]
        share.clamp_(0, 1)
        across = share * -along[:, k, 0, None, None]
        across.add_(x).square_()
        share.mul_(-along[:, k, 1, None, None]).add_(y).square_().add_(across)
        torch.minimum(nearest, share, out=nearest)
    return (width.view(-1, 1, 1) / 2 + 0.5 - nearest.sqrt_()).clamp_(0, 1)
