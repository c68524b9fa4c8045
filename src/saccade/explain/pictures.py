"""The report as an animation of the clip with overlays, or as a film strip with overlays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from jaxtyping import UInt8
from torch import Tensor

from saccade.explain.explanation import Column, Explanation
from saccade.explain.figures import moment, named, percent, verdict
from saccade.visualize import LookPicture, LookStrip, Moving, ProbabilityChart, animate
from saccade.visualize.figures import load_pyplot, write_figure
from saccade.visualize.look_strip import as_frames

_DPI = 100
# In inches: the widths of a model's column, its frame, the view beside the frame and a strip; the height of a chart.
_COLUMN_IN, _FRAME_IN, _ASIDE_IN, _STRIP_IN, _CHART_IN = 3.6, 2.16, 1.08, 9.0, 1.1
_TITLE_IN, _PAD_IN, _TICKS_IN, _NAMES_IN = 0.32, 0.12, 0.28, 0.42
_LETTER_IN, _MOST_LETTERS = 0.075, 16  # for the name of a class
_MUTED = "#5c626c"
_MIN_RIM, _MAX_RIM = 0.03, 0.2  # around a frame, as a fraction of its width


def check_can_draw() -> None:
    """Raise MissingExtraError if matplotlib is not installed."""
    load_pyplot()


def moving(explanation: Explanation) -> UInt8[Tensor, "time 3 height width"]:
    """Draw the clip with overlays, a column for each model: the frame, its crop or saliency, and the probabilities."""
    columns = explanation.columns
    tallest = _FRAME_IN * max(height / width for height, width in (column.frame_size for column in columns))
    sheet = _Sheet(
        _COLUMN_IN * len(columns), _PAD_IN + 2 * _TITLE_IN + tallest + _TITLE_IN + _CHART_IN + _TICKS_IN, dpi=_DPI
    )
    parts: list[Moving] = []
    rim = _rim(explanation)
    for index, column in enumerate(columns):
        left, top = index * _COLUMN_IN + _PAD_IN, _PAD_IN + 2 * _TITLE_IN
        parts.append(_Title(sheet, left, column, explanation))
        parts.append(_frame(sheet.axis(left, top, _FRAME_IN, column.frame_size), column, rim))
        parts.append(_aside(sheet.axis(left + _FRAME_IN + _PAD_IN, top, _ASIDE_IN, column.frame_size), column))
        parts.append(_chart(sheet, left, top + tallest + _TITLE_IN, _COLUMN_IN - _PAD_IN, column))
    return animate(sheet.figure, parts, explanation.num_frames)


def write_strip(path: Path, explanation: Explanation) -> None:
    """Draw evenly spaced frames of the clip with overlays: two strips for each model, with the probabilities below."""
    strips = [LookStrip(_headline(c, explanation), c.clip.frames, c.look, c.colour) for c in explanation.columns]
    heights = [_STRIP_IN * strip.height_per_width for strip in strips]
    below = _PAD_IN + _CHART_IN + _TICKS_IN
    sheet = _Sheet(_STRIP_IN + 2 * _PAD_IN, sum(_TITLE_IN + 2 * h + _PAD_IN + below for h in heights) + _PAD_IN)
    top = 0.0
    for strip, height, column in zip(strips, heights, explanation.columns, strict=True):
        top += _TITLE_IN
        pair = [sheet.axis(_PAD_IN, at, _STRIP_IN, (height, _STRIP_IN)) for at in (top, top + height + _PAD_IN / 2)]
        strip.draw(*pair, line_pt=1.2)
        top += 2 * height + _PAD_IN
        chart = _chart(sheet, _PAD_IN, top + _PAD_IN, _STRIP_IN, column)
        for t in strip.times:
            chart.mark(t)
        top += below
    write_figure(sheet.figure, path)


class _Sheet:
    """A figure whose axes are placed in inches from the upper left corner."""

    def __init__(self, width_in: float, height_in: float, dpi: int | None = None) -> None:
        # Even numbers of pixels, because not every player supports the video format that odd numbers need.
        self.size = tuple(2 * round(inches * _DPI / 2) / _DPI for inches in (width_in, height_in))
        self.figure = load_pyplot().figure(figsize=self.size, dpi=dpi)

    def axis(self, left: float, top: float, width: float, proportion: tuple[float, float]) -> Any:
        """Add an axis of the given width, with its height and width in the given proportion."""
        return self.box(left, top, width, width * proportion[0] / proportion[1])

    def box(self, left: float, top: float, width: float, height: float) -> Any:
        """Add an axis at the given place and of the given size."""
        across, down = self.size
        return self.figure.add_axes((left / across, 1 - (top + height) / down, width / across, height / down))

    def text(self, left: float, top: float, words: str, **style: Any) -> Any:
        """Add text with its upper left corner at the given place."""
        return self.figure.text(left / self.size[0], 1 - top / self.size[1], words, va="top", parse_math=False, **style)


class _Title:
    """A model's name, and its verdict at the current frame."""

    def __init__(self, sheet: _Sheet, left: float, column: Column, explanation: Explanation) -> None:
        sheet.text(left, _PAD_IN, column.name, fontsize=11, fontweight="bold", color=column.colour)
        self._text = sheet.text(left, _PAD_IN + _TITLE_IN * 0.85, "", fontsize=10)
        self._column, self._start = column, explanation.num_frames - len(column.verdicts)
        self.artists = [self._text]

    def show(self, t: int) -> None:
        row, told = t - self._start, "no verdict yet"
        if row >= 0:
            said = self._column.verdicts[row]
            told = f"{named(_shortened(said.name), self._column.sure[row])}  {percent(said.probability)}"
        self._text.set_text(f"{moment(t, self._column.clip.fps)}: {told}")


def _frame(axis: Any, column: Column, rim: float) -> LookPicture:
    _prepare(axis, column, rim)
    return LookPicture(axis, column.clip.frames, column.look, colour=column.colour, layers=("quad", "points"))


def _aside(axis: Any, column: Column) -> LookPicture:
    """Show the crop of a spatial transformer, or else the saliency."""
    _prepare(axis, column, 0.0)
    words = "saliency" if column.look.crop is None else "input of its encoder"
    axis.text(0.5, -0.03, words, transform=axis.transAxes, fontsize=7, color=_MUTED, ha="center", va="top")
    if column.look.crop is None:
        return LookPicture(axis, column.clip.frames, column.look, layers=("saliency",))
    return LookPicture(axis, as_frames(column.look.crop, column.frame_size), layers=())


def _prepare(axis: Any, column: Column, rim: float) -> None:
    """Set an axis's limits to a frame with a rim, a fraction of its width, for marks on its border and beyond."""
    height, width = column.frame_size
    axis.set_xlim(-0.5 - rim * width, width - 0.5 + rim * width)
    axis.set_ylim(height - 0.5 + rim * width, -0.5 - rim * width)
    axis.set_axis_off()


def _rim(explanation: Explanation) -> float:
    """Return how far quadrilaterals extend beyond their frames, within limits; one value for all models."""
    reach = [0.0]
    for column in explanation.columns:
        if column.look.quadrilateral_px is not None:
            size = torch.tensor(column.frame_size)
            parts = (column.look.quadrilateral_px.cpu() + 0.5) / size
            reach.append(max(-parts.min().item(), parts.max().item() - 1) * (size / size[1]).max().item())
    return min(_MAX_RIM, max(_MIN_RIM, *reach))


def _chart(sheet: _Sheet, left: float, top: float, width: float, column: Column) -> ProbabilityChart:
    names = [_shortened(name) for name in column.labels.names]
    room = max(_NAMES_IN, _PAD_IN + _LETTER_IN * max(map(len, names)))
    axis = sheet.box(left + _NAMES_IN, top, width - _NAMES_IN - room, _CHART_IN)
    return ProbabilityChart(
        axis,
        column.probabilities,
        names,
        num_frames=column.prediction.num_frames,
        decided_at=column.prediction.decided_at,
    )


def _shortened(name: str) -> str:
    return name if len(name) <= _MOST_LETTERS else f"{name[: _MOST_LETTERS - 1]}…"


def _headline(column: Column, explanation: Explanation) -> str:
    said = column.prediction
    when = "" if said.decided_at is None else f", decided at {moment(said.decided_at, explanation.fps)}"
    return f"{column.name}: {verdict(said)}  {percent(said.probability)}{when}"
