"""An evaluation as a table for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from saccade.evaluate.attention_table import attention_table
from saccade.evaluate.breakdown import FEW_CLIPS, ClassFigures, GroupFigures, Share, worst_first
from saccade.evaluate.camera import CameraFigures
from saccade.evaluate.command import Result
from saccade.evaluate.evaluation import Evaluation
from saccade.foreign import shown

_NUM_CONFUSIONS = 5
_NUM_SHOWN = 10
_NUM_NAMED = 8


def render(result: Result) -> Group:
    """Return a result as compact tables.

    Of many classes or groups, only the worst are shown; the page and the JSON output have all.
    """
    row, found = result.row, result.evaluation
    classes = sorted(found.by_class(), key=worst_first)
    parts: list[RenderableType] = [Text(title_of(row), style="bold"), Text(_figures(result))]
    parts += [Text("by class, the lowest recall first"), _classes(classes)]
    parts += _left_out(len(classes), "classes")
    # Generated clips cycle through the classes.
    num_classes, by_turns = len(found.confusion_matrix), "condition" in row
    if by_turns and found.labels.exclusive and found.num_clips < num_classes:
        parts.append(Text(f"{found.num_clips} clips show the first {found.num_clips} of {num_classes} classes only"))
    elif few := classes_with_few_clips(classes):
        parts.append(Text(few, style="yellow"))
    if groups := found.by_group():
        parts += [Text("by group, the lowest accuracy first"), _groups(groups), *_left_out(len(groups), "groups")]
        told = one_group(found) or "intervals of classes and groups are Wilson's: they treat clips as independent"
        parts.append(Text(told, style="yellow" if len(groups) == 1 else ""))
    if result.camera:
        parts.append(_camera(result.camera, result.fps))
    if result.looks:
        parts += [Text("where it looks"), attention_table(result.looks)]
    return Group(*parts)


def title_of(row: Mapping[str, Any]) -> str:
    """Return a title for a result row: the model, the clips and the split."""
    split = f", {row['split']} split" if row.get("split") else ""
    what = f"{row['condition']}, {row['digits']}, {row['instances']} digits" if "condition" in row else row["data"]
    return shown(f"{row['model']} on {what}{split}")


def classes_with_few_clips(figures: Sequence[ClassFigures]) -> str | None:
    """Return a sentence that names the classes with few clips; None if there are none."""
    few = [one for one in figures if one.num_clips < FEW_CLIPS]
    if not few:
        return None
    named = ", ".join(f"{shown(one.name)} ({one.num_clips})" for one in few[:_NUM_NAMED])
    more = f" and {len(few) - _NUM_NAMED} more" if len(few) > _NUM_NAMED else ""
    return f"fewer than {FEW_CLIPS} clips: {named}{more}; the figures of these classes say little"


def one_group(evaluation: Evaluation) -> str | None:
    """Return a sentence that says what is not known if all clips are of one group; None if they are not."""
    groups = evaluation.by_group()
    if len(groups) != 1:
        return None
    return f"all clips are of the group {shown(groups[0].name)}: the intervals say nothing about clips of other groups"


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
        wrong = [(shows, said, matrix[i][j]) for i, shows in enumerate(names) for j, said in enumerate(names) if i != j]
    return sorted((cell for cell in wrong if cell[2]), key=lambda cell: -cell[2])[:num]


def _figures(result: Result) -> str:
    found = result.evaluation
    low, high, label = found.interval
    told = {
        "accuracy": f"{_percent(found.accuracy)} ({100 * low:.1f} to {100 * high:.1f}; {label})",
        "cross entropy": f"{found.cross_entropy:.3f} nats",
    }
    if found.top5_accuracy is not None:
        told["top-5 accuracy"] = _percent(found.top5_accuracy)
    told["calibration error"] = f"{found.calibration_error:.3f}"
    confused = [f"{shows} as {said} ({num})" for shows, said, num in worst_confusions(found)]
    told["most confused"] = shown(", ".join(confused)) or "nothing"
    if result.attention.layers:
        told["attention"] = result.attention.summary
    width = max(map(len, told))
    # Not a table: its cells would end in blanks.
    return "\n".join(f"{name:<{width}}  {value}" for name, value in told.items())


def _classes(figures: Sequence[ClassFigures]) -> Table:
    table = _table("class", "clips", "recall", "precision")
    for one in figures[:_NUM_SHOWN]:
        table.add_row(Text(shown(one.name)), str(one.num_clips), _share(one.recall), _share(one.precision))
    return table


def _groups(figures: Sequence[GroupFigures]) -> Table:
    table = _table("group", "clips", "accuracy")
    for one in figures[:_NUM_SHOWN]:
        table.add_row(Text(shown(one.name)), str(one.accuracy.num_clips), _share(one.accuracy))
    return table


def _camera(figures: Sequence[CameraFigures], fps: float | None) -> Table:
    table = _table("camera", "accuracy", "difference in points")
    for one in figures:
        table.add_row(one.told(fps), _told(one.accuracy, one.low, one.high), one.difference_text or "-")
    return table


def _table(name: str, *columns: str) -> Table:
    table = Table(box=None, padding=(0, 1), pad_edge=False)
    table.add_column(name)
    for column in columns:
        table.add_column(column, justify="right")
    return table


def _left_out(num: int, what: str) -> list[Text]:
    if num <= _NUM_SHOWN:
        return []
    return [Text(f"the worst {_NUM_SHOWN} of {num} {what}; --report FILE.html and --json show all")]


def _share(share: Share | None) -> str:
    return "none" if share is None else _told(share.value, *share.interval)


def _told(value: float, low: float, high: float) -> str:
    return f"{100 * value:.1f} % ({100 * low:.0f} to {100 * high:.0f})"


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.1f} %"
