"""Figures of Matplotlib, which is an optional dependency, and their files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from saccade import files
from saccade.errors import MissingExtraError

DPI = 120


def load_pyplot() -> Any:
    """Return `matplotlib.pyplot`, with a backend that needs no screen.

    Raises:
        MissingExtraError: if matplotlib is not installed.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise MissingExtraError("matplotlib", "plot") from error
    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def write_figure(figure: Any, path: Path) -> None:
    """Write a figure to a file atomically, replacing an older file, and close the figure."""
    with files.whole(path) as temporary:
        figure.savefig(temporary, dpi=DPI)
    load_pyplot().close(figure)
