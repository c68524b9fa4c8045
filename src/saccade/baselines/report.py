"""A model beside the ladder of simple classifiers, for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from saccade.baselines.ladder import Rung, difference
from saccade.foreign import shown
from saccade.intervals import Difference


def render(rungs: Sequence[Rung], model_rows: Sequence[Rung] = ()) -> Group:
    """Return a table of the ladder and the model with intervals, and sentences that say whether the model beats it.

    Args:
        rungs: the ladder.
        model_rows: the model, then variants of it, for example with its attention switched off; all tested on the
            clips of the ladder. The model is compared with the most accurate rung and with each variant.

    Raises:
        UsageError: if the model was tested on another number of clips.
    """
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column("classifier")
    table.add_column("accuracy", justify="right")
    table.add_column("95 % interval", justify="right")
    for row in rungs:
        table.add_row(*_cells(row))
    for row in model_rows:
        table.add_row(*_cells(row), style="bold")
    parts: list[RenderableType] = [table]
    if model_rows and rungs:
        model = model_rows[0]
        best = max(rungs, key=lambda rung: rung.accuracy)
        parts.append(Text(_verdict(model, best)))
        parts += [Text(_compared(model, variant)) for variant in model_rows[1:]]
    return Group(*parts)


def _cells(row: Rung) -> tuple[Text, str, str]:
    return Text(shown(row.name)), f"{100 * row.accuracy:.1f} %", f"{100 * row.low:.1f} to {100 * row.high:.1f}"


def _verdict(model: Rung, best: Rung) -> str:
    found = difference(model, best)
    name, against = shown(model.name), f"the best baseline, {shown(best.name)}"
    if found.low > 0:
        return f"{name} beats {against}: {_points(found)}."
    if found.high < 0:
        return f"{name} is worse than {against}: {_points(found)}. Use the baseline, or train on more clips."
    return f"{name} does not clearly beat {against}: {_points(found)}. The interval includes 0."


def _compared(model: Rung, variant: Rung) -> str:
    found = difference(model, variant)
    if (model.correct == variant.correct).all():
        return f"{shown(model.name)} and {shown(variant.name)} are right on the same clips: no difference."
    clear = "" if found.low > 0 or found.high < 0 else " The interval includes 0."
    return f"{shown(model.name)} beside {shown(variant.name)}: {_points(found)}.{clear}"


def _points(found: Difference) -> str:
    low, high = 100 * found.low, 100 * found.high
    return f"{100 * found.mean:+.1f} points (95 % interval {low:+.1f} to {high:+.1f}, same clips)"
