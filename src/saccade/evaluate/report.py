"""An evaluation as people read it in the terminal."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from saccade.data import labels as label_schemes
from saccade.evaluate.attention_table import attention_table
from saccade.evaluate.command import Result
from saccade.evaluate.evaluation import Evaluation
from saccade.evaluate.intervals import interval

_NUM_CONFUSIONS = 5


def render(result: Result) -> Group:
    """Lay a result out as a compact table: figures, recall of each digit, the worst confusions, what attention did."""
    row, found = result.row, result.evaluation
    title = f"{row['model']} on {row['condition']}, {row['digits']}, {row['instances']} digits, {row['split']} split"
    parts: list[RenderableType] = [
        Text(title, style="bold"),
        _figures(result),
        Text("recall of each digit"),
        _recall(found),
    ]
    num_classes = len(found.confusion_matrix)
    if found.labels != "digits" and found.num_clips < num_classes:
        parts.append(Text(f"{found.num_clips} clips show the first {found.num_clips} of {num_classes} classes only"))
    if result.looks:
        parts += [Text("where it looks"), attention_table(result.looks)]
    return Group(*parts)


def worst_confusions(evaluation: Evaluation, num: int = _NUM_CONFUSIONS) -> list[tuple[str, str, int]]:
    """Return what is confused most: what clips show, what the verdict says, and in how many clips.

    For the scheme `digits` a digit is confused with `nothing` where it is missed, and nothing with a digit where it is
    imagined.
    """
    names = label_schemes.create(evaluation.labels).names
    matrix = evaluation.confusion_matrix
    if evaluation.labels == "digits":
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
    table.add_row("most confused", ", ".join(confused) or "nothing")
    table.add_row("attention", result.attention.summary)
    return table


def _recall(found: Evaluation) -> Table:
    table = Table(box=None, padding=(0, 1), pad_edge=False)
    for digit in range(len(found.digit_recall)):
        table.add_column(str(digit), justify="right")
    table.add_row(*("none" if value is None else f"{100 * value:.1f}" for value in found.digit_recall))
    return table


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.1f} %"
