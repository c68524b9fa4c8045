"""Figures of Matplotlib, which comes with an extra, as files that appear whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from saccade import files
from saccade.errors import MissingExtraError

DPI = 120


def load_pyplot() -> Any:
    """Return `matplotlib.pyplot`, which draws without a screen.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise MissingExtraError("matplotlib", "plot") from error
    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def write_figure(figure: Any, path: Path) -> None:
    """Write a figure whole, replacing an older one, and close it."""
    with files.whole(path) as temporary:
        figure.savefig(temporary, dpi=DPI)
    load_pyplot().close(figure)
