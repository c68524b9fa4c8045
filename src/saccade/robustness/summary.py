"""The summary of robustness on a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from saccade.evaluate.rows import Row
from saccade.foreign import shown
from saccade.robustness.changes import CHANGES
from saccade.robustness.curves import FALL, curves


def summary(rows: Sequence[Row]) -> Table:
    """Return a table with a line for each curve: accuracy unchanged and at the strongest change, and where it falls."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for head in ("change", "model"):
        table.add_column(head)
    for head in ("unchanged", "strongest change", "mean", f"{100 * FALL:.0f} points lower at"):
        table.add_column(head, justify="right")
    found = curves(rows)
    for change in CHANGES:
        for curve in (one for one in found if one.change == change):
            turns = f", {curve.turns} turned copies" if curve.turns > 1 else ""
            table.add_row(
                change,
                Text(shown(curve.run + turns)),
                f"{100 * curve.unchanged.accuracy:.1f} %",
                f"{100 * curve.strongest.accuracy:.1f} % at {curve.strongest.strength:g}",
                f"{100 * curve.area:.1f} %",
                ", ".join(f"{strength:.3g}" for strength in curve.falls_at()) or "-",
            )
    return table
