"""One feature vector for each clip, of fixed length for clips of any length and size."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Float32, UInt8
from torch import Tensor
from torch.nn import functional as F

SIDE_PX = 64
"""The height and width of the frames from which the features are computed."""

_FRAMES_AT_ONCE = 64
_MEAN_PX = 16
_NUM_BINS = 8
_NUM_CELLS, _NUM_COARSE = 8, 4  # along each side of the frame
_NUM_PARTS, _NUM_FINE = 4, 8  # of the time
# Changes and gradients below these fractions of the range of brightness are taken for noise.
_NOISE, _FLAT = 0.02, 0.01


def shrunk(clip: UInt8[Tensor, "time channels height width"]) -> Float32[Tensor, "time 3 side side"]:
    """Return small colour frames with values in [0, 1]; a grey clip gets three equal channels.

    >>> shrunk(torch.zeros(5, 1, 120, 160, dtype=torch.uint8)).shape
    torch.Size([5, 3, 64, 64])
    """
    parts = [F.adaptive_avg_pool2d(part.float(), SIDE_PX) for part in clip.split(_FRAMES_AT_ONCE)]
    return (torch.cat(parts) / 255).expand(-1, 3, -1, -1)


def mean_frame(frames: Float32[Tensor, "time channels height width"]) -> Float32[Tensor, "features"]:
    """Return the mean over time of the frames at 16x16 px: what a clip shows without any motion.

    Args:
        frames: frames as `shrunk` returns them.

    >>> mean_frame(torch.zeros(5, 3, 64, 64)).shape
    torch.Size([768])
    """
    return F.adaptive_avg_pool2d(frames.mean(0), _MEAN_PX).flatten()


def motion(frames: Float32[Tensor, "time channels height width"]) -> Float32[Tensor, "features"]:
    """Return features of gradients over space and time: where, when and in which direction something moves.

    The vector has four parts: the energy of change in a grid, for each quarter of the clip; the histogram of
    orientations in a grid; the histogram of directions of motion in a grid, for each quarter; and the path of the
    centroid of change, with its spread and its displacements. A mirrored clip and a reversed clip have other features.

    *Conventions:* the direction of motion is that of the normal flow, against the gradient where brightness increases.
    Centroids are (y, x) in [-1, 1]. Histograms are square roots, because a few strong edges would dominate sums.

    Args:
        frames: frames as `shrunk` returns them; a clip of one frame does not move.

    Source: after Kläser et al., "A spatio-temporal descriptor based on 3D-gradients", 2008, with a fixed grid.

    >>> motion(torch.rand(5, 3, 64, 64)).shape
    torch.Size([1360])
    """
    grey = frames.mean(1)
    if len(grey) == 1:
        grey = grey.expand(2, -1, -1)
    change, still = grey.diff(dim=0), (grey[1:] + grey[:-1]) / 2
    dy, dx = torch.gradient(still, dim=(1, 2))
    edge = torch.hypot(dy, dx)
    energy = _by_time(F.adaptive_avg_pool2d(change.abs(), _NUM_CELLS), _NUM_PARTS)
    # Opposite gradients have one orientation: the doubled angle is the same for both.
    orientations = _by_time(_histogram(2 * torch.atan2(dy, dx), edge, _NUM_CELLS), 1)
    moving = torch.sqrt(change.abs() * edge) * (edge > _FLAT)
    directions = _by_time(_histogram(torch.atan2(-change * dy, -change * dx), moving, _NUM_COARSE), _NUM_PARTS)
    overall = directions.sum((2, 3))
    roots = [part.flatten().sqrt() for part in (energy, orientations, directions, overall)]
    return torch.cat([*roots, _centroid_path(change.abs())])


def summarise(features: Float[Tensor, "time dims"]) -> Float[Tensor, "statistics dims"]:
    """Return four statistics of the features of a clip's frames, such as those of a pretrained trunk.

    The rows are the mean over time, the standard deviation, and the mean and standard deviation of the differences of
    successive frames. The mean tells what is there, the other rows tell how it changes.

    >>> summarise(torch.tensor([[0.0], [1.0], [2.0]])).flatten().tolist()
    [1.0, 0.8164966106414795, 1.0, 0.0]
    """
    change = features.diff(dim=0) if len(features) > 1 else torch.zeros_like(features)
    statistics = [one for over in (features, change) for one in (over.mean(0), over.std(0, correction=0))]
    return torch.stack(statistics)


def _by_time(values: Float[Tensor, "time *cells"], num_parts: int) -> Float[Tensor, "parts *cells"]:
    """Return the means over equal parts of the time; parts of a short clip overlap."""
    rows = F.adaptive_avg_pool1d(values.flatten(1).T.unsqueeze(0), num_parts).squeeze(0).T
    return rows.reshape(num_parts, *values.shape[1:])


def _histogram(
    angles: Float[Tensor, "time height width"], amounts: Float[Tensor, "time height width"], num_cells: int
) -> Float[Tensor, "time bins cells cells"]:
    """Return the mean amount with an angle in each bin, for each cell; angles are in radians."""
    bins = (angles * (_NUM_BINS / (2 * math.pi))).floor().long() % _NUM_BINS
    by_bin = amounts.new_zeros(len(angles), _NUM_BINS, *angles.shape[1:]).scatter_(
        1, bins.unsqueeze(1), amounts.unsqueeze(1)
    )
    return F.adaptive_avg_pool2d(by_bin, num_cells)


def _centroid_path(energy: Float[Tensor, "time height width"]) -> Float[Tensor, "features"]:
    """Return the centroid of the energy in each eighth of the time, its spread and its displacements."""
    parts = _by_time((energy - _NOISE).clamp(min=0), _NUM_FINE)
    total = parts.sum((1, 2)) + 1e-3  # a part without motion has its centroid in the middle
    found = []
    for side in (1, 2):
        places = torch.linspace(-1, 1, parts.shape[side])
        share = parts.sum(3 - side) / total.unsqueeze(1)
        centre = share @ places
        spread = (share @ places.square() - centre.square()).clamp(min=0).sqrt()
        found += [centre, spread, centre.diff(), centre[-1:] - centre[:1]]
    return torch.cat(found)
