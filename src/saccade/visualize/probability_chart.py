"""A chart of class probabilities over time, with one line for each class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

# The same as the colours of a light page in `overlay.js`.
SERIES_COLOURS = (
    *("#0b6bb5", "#c24e00", "#00785a", "#a2418f", "#7d6600"),
    *("#b3202c", "#4b55c8", "#3f6f1f", "#0f7f93", "#5d6470"),
)


class ProbabilityChart:
    """The probability of each class over time: the most probable classes in colour and with names, the others pale.

    *Conventions:* arguments count frames from 0; the axis counts them from 1, as people do.

    Args:
        axis: a Matplotlib axis.
        probabilities: one row for each frame; a single row belongs to the last frame.
        names: the names of the classes.
        num_frames: the number of frames of the clip.
        decided_at: the first frame from which the verdict stays the same.
        strongest: the number of classes to name.
    """

    def __init__(
        self,
        axis: Any,
        probabilities: Float[Tensor, "time classes"],
        names: Sequence[str],
        *,
        num_frames: int,
        decided_at: int | None = None,
        strongest: int = 5,
    ) -> None:
        self._axis = axis
        self._rows = probabilities.detach().float().cpu()
        self._start, self._end = num_frames - len(self._rows), max(2, num_frames)
        self._named = strongest_classes(self._rows, strongest)
        self._prepare(axis, decided_at)
        times = torch.arange(self._start + 1, num_frames + 1).tolist()
        marker = "o" if len(times) == 1 else ""
        paint = paints(self._named)
        for k in range(len(names)):
            style = {"color": paint[k], "linewidth": 1.5} if k in paint else {"color": "0.6", "linewidth": 0.5}
            axis.plot(times, self._rows[:, k].tolist(), marker=marker, markersize=4, zorder=2 + (k in paint), **style)
        self._write_names(axis, names, paint)
        self._cursor = axis.axvline(1, color="#1c1f24", linewidth=1.2, zorder=4)
        colours = [paint[k] for k in self._named]
        self._dots = axis.scatter([], [], c=[], s=22, edgecolors="white", linewidths=0.8, zorder=5)
        self._dots.set_facecolor(colours)
        self.artists = [self._cursor, self._dots]

    def show(self, t: int) -> None:
        """Mark frame `t`."""
        self._cursor.set_xdata([t + 1, t + 1])
        rows = self._rows[t - self._start : t - self._start + 1] if t >= self._start else self._rows[:0]
        self._dots.set_offsets([(t + 1, row[k].item()) for row in rows for k in self._named] or [(-1, 0.0)])

    def mark(self, t: int) -> None:
        """Add a permanent mark at frame `t`."""
        self._axis.axvline(t + 1, ymax=0.04, color="#1c1f24", linewidth=1.0)

    def _prepare(self, axis: Any, decided_at: int | None) -> None:
        axis.set_xlim(1, self._end)
        axis.set_ylim(-0.03, 1.03)
        axis.set_yticks([0, 0.5, 1], ["0", "50", "100 %"])
        axis.tick_params(labelsize=7, length=2)
        axis.xaxis.get_major_locator().set_params(integer=True)
        _label_left(axis, "frame")
        axis.grid(axis="y", alpha=0.35, linewidth=0.6)
        axis.spines[["top", "right"]].set_visible(False)
        if decided_at is not None:
            axis.axvline(decided_at + 1, color="#1c1f24", linewidth=0.9, linestyle=(0, (4, 3)))
            side = "right" if decided_at + 1 > self._end / 2 else "left"
            axis.annotate(
                "decided",
                (decided_at + 1, 1.03),
                (-3 if side == "right" else 3, 2),
                textcoords="offset points",
                fontsize=7,
                ha=side,
            )

    def _write_names(self, axis: Any, names: Sequence[str], paint: dict[int, str]) -> None:
        order = sorted(self._named, key=lambda k: self._rows[-1, k].item())
        for k, y in zip(order, spread_out([self._rows[-1, k].item() for k in order]), strict=True):
            axis.annotate(
                names[k],
                (1, y),
                (4, 0),
                xycoords=("axes fraction", "data"),
                textcoords="offset points",
                color=paint[k],
                fontsize=8,
                fontweight="bold",
                va="center",
                annotation_clip=False,
                parse_math=False,
            )


def _label_left(axis: Any, text: str) -> None:
    """Name the horizontal axis at the left of its ticks, where there is no row of its own for it."""
    from matplotlib.transforms import ScaledTranslation

    moved = ScaledTranslation(-8 / 72, -5 / 72, axis.figure.dpi_scale_trans)  # in inches
    axis.set_xlabel(text, fontsize=7, ha="right", va="top")
    axis.xaxis.set_label_coords(0, 0, transform=axis.transAxes + moved)


def spread_out(heights: Sequence[float], apart: float = 0.17) -> list[float]:
    """Move increasing heights up until each is `apart` from the next, and then down from 1 where they exceed it.

    >>> [round(y, 2) for y in spread_out([0.0, 0.01, 0.95, 1.0])]
    [0.0, 0.17, 0.83, 1.0]
    """
    found: list[float] = []
    for y in heights:
        found.append(max(y, found[-1] + apart) if found else y)
    for index in reversed(range(len(found))):
        found[index] = min(found[index], found[index + 1] - apart if index + 1 < len(found) else 1.0)
    return found


def strongest_classes(probabilities: Float[Tensor, "time classes"], count: int) -> list[int]:
    """Return the classes with the largest sum of mean probability and probability at the last frame."""
    strength = probabilities.mean(0) + probabilities[-1]
    return list(strength.topk(min(count, len(strength))).indices.tolist())


def paints(classes: Sequence[int]) -> dict[int, str]:
    """Give each class the colour at its own index, or the next free colour."""
    paint: dict[int, str] = {}
    for k in classes:
        wanted = [SERIES_COLOURS[(k + i) % len(SERIES_COLOURS)] for i in range(len(SERIES_COLOURS))]
        paint[k] = next((colour for colour in wanted if colour not in paint.values()), wanted[0])
    return paint
