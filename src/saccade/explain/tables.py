"""The tables of a report, which need no script."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from saccade import weights
from saccade.explain.explanation import Column, Explanation
from saccade.explain.figures import Figure, figures_of, named, percent
from saccade.labels import Labels


def figures(explanation: Explanation) -> str:
    """Return the table of figures, with a row for each figure and a column for each model."""
    rows = []
    for group, members in figures_of(explanation).items():
        rows.append(
            f'<tr class="group"><th scope="rowgroup" colspan="{len(explanation.columns) + 1}">{group}</th></tr>'
        )
        rows += [_row(figure.name, map(escape, _marked(figure))) for figure in members]
    return _table("Figure", [column.name for column in explanation.columns], rows)


def every_frame(explanation: Explanation) -> str:
    """Return the table of the verdict of each model at each frame."""
    said = [_said(column, explanation.num_frames) for column in explanation.columns]
    rows = [_row(str(t + 1), map(escape, cells)) for t, cells in enumerate(zip(*said, strict=True))]
    return _table("Frame", [column.name for column in explanation.columns], rows)


def checkpoints(explanation: Explanation) -> str:
    """Return the table of the metadata of each checkpoint."""
    columns = explanation.columns
    named: dict[str, list[Any]] = {
        "Checkpoint": [_origin(column.path) for column in columns],
        "Model": [_with_arguments(column) for column in columns],
        "Trained on": [column.header.facts.get("data") for column in columns],
        "Digits": [column.header.facts.get("digits") for column in columns],
        "Condition": [column.header.facts.get("condition") for column in columns],
        "Classes": [_classes(column.labels) for column in columns],
        "Frames": [_frames(column) for column in columns],
        "Training steps": [column.header.training.get("step") for column in columns],
        "Started from": [_before(column.header.training.get("before")) for column in columns],
        "Protocol": [column.header.facts.get("protocol") for column in columns],
        "Made with": [_listed(column.header.versions) for column in columns],
    }
    kept = {name: values for name, values in named.items() if any(value not in (None, "") for value in values)}
    rows = [_row(name, (escape("" if v is None else str(v)) for v in values)) for name, values in kept.items()]
    return _table("Metadata of the checkpoint", [column.name for column in columns], rows)


def _marked(figure: Figure) -> Iterable[str]:
    words = {True: " (right)", False: " (wrong)", None: ""}
    judged = figure.good or (None,) * len(figure.values)
    return (value + words[good] if value else "none" for value, good in zip(figure.values, judged, strict=True))


def _said(column: Column, num_frames: int) -> list[str]:
    """Return the verdict at each frame; a model that predicts at the end has none before."""
    told = [
        f"{named(said.name, sure)}  {percent(said.probability)}"
        for said, sure in zip(column.verdicts, column.sure, strict=True)
    ]
    return ["none"] * (num_frames - len(told)) + told


def _with_arguments(column: Column) -> str:
    return f"{column.header.model} ({_listed(column.header.arguments)})"


def _classes(labels: Labels) -> str:
    few = ", ".join(labels.names[:4]) + (", ..." if len(labels.names) > 4 else "")
    return f"{len(labels.names)}: {few}"


def _frames(column: Column) -> str:
    wanted = column.header.frame_format
    if wanted is None:
        return ""
    rate = f", {wanted.fps:.4g} frames/s" if wanted.fps else ""
    return ("grey" if wanted.channels == 1 else "colour") + rate


def _before(before: Any) -> str:
    if not isinstance(before, Mapping) or not before:
        return ""
    return f"{before.get('before_steps')} steps on {before.get('before_condition')}"


def _listed(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


def _table(corner: str, names: Sequence[str], rows: Sequence[str]) -> str:
    heads = "".join(f'<th scope="col">{escape(name)}</th>' for name in (corner, *names))
    return f"<table><thead><tr>{heads}</tr></thead><tbody>\n" + "\n".join(rows) + "\n</tbody></table>"


def _row(name: str, cells: Iterable[str]) -> str:
    return f'<tr><th scope="row">{escape(name)}</th>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>'


def _origin(path: Path) -> str:
    """Return the path of a checkpoint; for weights of the package a phrase, which keeps the package's path private."""
    return "comes with saccade" if path in weights.paths().values() else str(path)
