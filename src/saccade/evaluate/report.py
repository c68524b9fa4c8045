"""An evaluation as a table for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from saccade.evaluate.attention_table import attention_table
from saccade.evaluate.command import Result
from saccade.evaluate.evaluation import Evaluation
from saccade.evaluate.intervals import interval

_NUM_CONFUSIONS = 5
_SHORT_NAME = 3


def render(result: Result) -> Group:
    """Return a result as a compact table: metrics, recall, the worst confusions and the effect of attention."""
    row, found = result.row, result.evaluation
    split = f", {row['split']} split" if row.get("split") else ""
    title = f"{row['model']} on {_what(row)}{split}"
    parts: list[RenderableType] = [
        Text(title, style="bold"),
        _figures(result),
        Text("recall of each"),
        _recall(found),
    ]
    num_classes = len(found.confusion_matrix)
    if _by_turns(row) and found.labels.exclusive and found.num_clips < num_classes:
        parts.append(Text(f"{found.num_clips} clips show the first {found.num_clips} of {num_classes} classes only"))
    if result.looks:
        parts += [Text("where it looks"), attention_table(result.looks)]
    return Group(*parts)


def worst_confusions(evaluation: Evaluation, num: int = _NUM_CONFUSIONS) -> list[tuple[str, str, int]]:
    """Return the most frequent confusions: the true class, the predicted class and the number of clips.

    If classes do not exclude each other, a class that is missed is confused with `nothing`, and `nothing` is confused
    with a class that is predicted but absent.
    """
    names = evaluation.labels.names
    matrix = evaluation.confusion_matrix
    if not evaluation.labels.exclusive:
        missed = [(name, "nothing", cells[1][0]) for name, cells in zip(names, matrix, strict=True)]
        imagined = [("nothing", name, cells[0][1]) for name, cells in zip(names, matrix, strict=True)]
        wrong = missed + imagined
    else:
        wrong = [(shown, said, matrix[i][j]) for i, shown in enumerate(names) for j, said in enumerate(names) if i != j]
    return sorted((cell for cell in wrong if cell[2]), key=lambda cell: -cell[2])[:num]


def _figures(result: Result) -> Table:
    found = result.evaluation
    low, high, label = interval([result.row])
    table = Table.grid(padding=(0, 2))
    table.add_row("accuracy", f"{_percent(found.accuracy)} ({100 * low:.1f} to {100 * high:.1f}; {label})")
    table.add_row("cross entropy", f"{found.cross_entropy:.3f} nats")
    if found.top5_accuracy is not None:
        table.add_row("top-5 accuracy", _percent(found.top5_accuracy))
    table.add_row("calibration error", f"{found.calibration_error:.3f}")
    confused = [f"{shown} as {said} ({num})" for shown, said, num in worst_confusions(found)]
    table.add_row("most confused", Text(", ".join(confused) or "nothing"))
    table.add_row("attention", result.attention.summary)
    return table


def _recall(found: Evaluation) -> Table:
    table = Table(box=None, padding=(0, 1), pad_edge=False)
    shown = {name: "none" if value is None else f"{100 * value:.1f}" for name, value in found.recall.items()}
    if all(len(name) <= _SHORT_NAME for name in shown):
        for name in shown:
            table.add_column(Text(name), justify="right")
        table.add_row(*shown.values())
        return table
    for name, value in shown.items():
        table.add_row(Text(name), value)
    table.show_header = False
    return table


def _what(row: Mapping[str, Any]) -> str:
    """Return a description of the clips."""
    if "condition" not in row:
        return str(row["data"])
    return f"{row['condition']}, {row['digits']}, {row['instances']} digits"


def _by_turns(row: Mapping[str, Any]) -> bool:
    """Return whether the clips cycle through the classes, as generated clips do."""
    return "condition" in row


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.1f} %"
