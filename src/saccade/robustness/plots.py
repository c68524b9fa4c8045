"""Pictures of accuracy against the strength of a change."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

from saccade.robustness.changes import CHANGES
from saccade.robustness.curves import Curve
from saccade.visualize.figures import load_pyplot

# Told apart by people with red-green colour blindness (Tol's bright scheme), and by their markers.
_COLOURS = ("#4477aa", "#ee6677", "#228833", "#aa3377", "#ccbb44", "#66ccee", "#555555")
_MARKERS = "osD^vPX"


def plot(change: str, curves: Sequence[Curve], runs: Sequence[str], chance: Mapping[str, float]) -> str:
    """Return a picture of the curves of one change, as the address of an SVG image within a page.

    Args:
        change: the name of the change.
        curves: the curves of all runs.
        runs: the titles of all runs, which fix the colours.
        chance: the accuracy of always predicting the most frequent class, by the title of the run.

    Raises:
        MissingExtraError: if matplotlib is not installed.
    """
    pyplot = load_pyplot()
    with pyplot.rc_context({"svg.hashsalt": "saccade", "font.size": 10}):
        figure, axis = pyplot.subplots(figsize=(6.2, 3.9))
        for curve in curves:
            _draw(axis, curve, runs.index(curve.run))
        levels = sorted({round(chance[curve.run], 6) for curve in curves if curve.run in chance})
        for level in levels:
            label = "most frequent class" if level == levels[0] else None
            axis.axhline(100 * level, color="#777777", linewidth=1.2, linestyle=(0, (1, 2)), label=label)
        axis.axvline(CHANGES[change].unchanged, color="#bbbbbb", linewidth=0.8, zorder=0)
        _label(axis, change, curves)
        content = io.BytesIO()
        figure.savefig(content, format="svg", metadata={"Date": None}, bbox_inches="tight", pad_inches=0.1)
        pyplot.close(figure)
    return f"data:image/svg+xml;base64,{base64.b64encode(content.getvalue()).decode('ascii')}"


def _draw(axis: Any, curve: Curve, number: int) -> None:
    colour = _COLOURS[number % len(_COLOURS)]
    places = [point.strength for point in curve.points]
    axis.fill_between(
        places,
        [100 * point.interval.low for point in curve.points],
        [100 * point.interval.high for point in curve.points],
        color=colour,
        alpha=0.15 if curve.turns == 1 else 0.08,
        linewidth=0,
    )
    axis.plot(
        places,
        [100 * point.accuracy for point in curve.points],
        color=colour,
        marker=_MARKERS[number % len(_MARKERS)],
        markersize=4,
        linewidth=1.8,
        linestyle="-" if curve.turns == 1 else (0, (4, 2)),
        # A leading underscore would hide the label, and dollars would be read as formulas.
        label=" " + curve.run.replace("$", r"\$") + (f", {curve.turns} turned copies" if curve.turns > 1 else ""),
    )


def _label(axis: Any, change: str, curves: Sequence[Curve]) -> None:
    axis.set_xlabel(CHANGES[change].axis)
    axis.set_ylabel("accuracy (%)")
    axis.set_ylim(-2, 102)
    axis.set_yticks(range(0, 101, 20))
    if CHANGES[change].period == 360:
        axis.set_xticks(range(0, 361, 45))
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(fontsize=8, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=2)
