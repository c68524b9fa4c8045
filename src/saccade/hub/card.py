"""The model card: what a model on the hub is, what it learned from, how accurate it was, how to use it."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple, TypedDict

from saccade import foreign
from saccade.checkpoint import Header
from saccade.errors import DataError, UsageError

NAME = "README.md"

_LICENSE = re.compile(r"[a-z0-9][a-z0-9.+-]*")
# The verdicts that a training writes into its run folder.
_TESTED, _COLUMNS = "tested.csv", ("fold", "class", "verdict")

_CARD = """\
---
library_name: saccade
pipeline_tag: video-classification
tags:
- saccade
- {kind}
{license}---

# {name}

A video classifier of the Python package Saccade ({kind}), {num}.

## Use

```bash
pip install 'saccade[hub]'
saccade predict CLIP.mp4 --model hf://{repository}
```

```python
from saccade import hub
model, header = hub.load("{repository}")
```

## Classes

{classes}

{reading}

## Frames

{frames}

## Training

{training}

## Accuracy

{accuracy}

## Limits

- {closed}
- Accuracy on clips of other cameras, places or persons may be lower than the figures above.
- What the classes may be used for, and under which licence, the owner of this repository says.
"""


class _Validation(TypedDict, total=False):
    accuracy: float | None
    num_clips: int


class Figure(NamedTuple):
    """A measured accuracy.

    Args:
        clips: the clips on which it was measured.
        accuracy: the fraction of clips whose verdict was right.
        num_clips: the number of clips.
    """

    clips: str
    accuracy: float
    num_clips: int


def figures(checkpoint: Path, header: Header) -> list[Figure]:
    """Return the accuracies that a training recorded: from the verdicts beside a checkpoint, or from its header.

    Raises:
        DataError: if the file of verdicts or the record in the header is damaged.
    """
    validation = header.training.get("validation") or {}
    chosen = "validation clips, on which the step of training was chosen"
    path = checkpoint.parent / _TESTED
    if path.is_file():
        rows = _verdicts(path)
        num_right = sum(row["class"] == row["verdict"] for row in rows)
        num_folds = len({row["fold"] for row in rows})
        clips = chosen if validation else "validation clips, which the model did not learn from"
        if num_folds > 1:
            clips = (
                f"all clips, each by one of {num_folds} models that had not learned from it; this one learned from all"
            )
        return [Figure(clips, num_right / len(rows), len(rows))] if rows else []
    try:
        foreign.check_types(validation, _Validation)
    except TypeError as error:
        raise DataError(f"{checkpoint} has a damaged record of its validation ({error}); train again") from error
    if validation.get("accuracy") is not None and validation.get("num_clips"):
        return [Figure(chosen, validation["accuracy"], validation["num_clips"])]
    return []


def _verdicts(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(encoding="utf-8", newline="") as opened:
            rows = list(csv.DictReader(opened, strict=True))
    except (ValueError, csv.Error) as error:
        raise DataError(f"{path} is damaged ({error}); remove it to push the model without its figures") from error
    if any(row.get(column) is None for row in rows for column in _COLUMNS):
        raise DataError(f"{path} lacks one of {', '.join(_COLUMNS)}; remove it to push the model without its figures")
    return rows


def text(repository: str, header: Header, figures: Iterable[Figure], license: str | None) -> str:
    """Return the model card in Markdown, with the fields in YAML that the hub reads.

    Raises:
        UsageError: if the licence is no identifier.
    """
    if license is not None and not _LICENSE.fullmatch(license):
        raise UsageError(f"{foreign.shown(license)} is no identifier of a licence; write one such as apache-2.0")
    labels = header.labels
    names = labels.names if labels else ()
    exclusive = labels is None or labels.exclusive
    return _CARD.format(
        kind=header.kind,
        license=f"license: {license}\n" if license else "",
        name=foreign.in_markdown(repository.rpartition("/")[2]),
        repository=repository,
        num=f"for {len(names)} {'class' if len(names) == 1 else 'classes'}" if labels else "without names of classes",
        classes=_table(("index", "class"), enumerate(names))
        if labels
        else "The checkpoint does not say what its classes are.",
        reading="A clip has exactly one of them." if exclusive else "A clip has any number of them, or none.",
        frames=_frames(header),
        training=_table(("", ""), _facts(header).items()),
        accuracy=_accuracy(list(figures)),
        closed="A clip that shows none of the classes still gets one of them."
        if exclusive
        else "Something that is no class is not named.",
    )


def _frames(header: Header) -> str:
    """Describe the frames that the model expects."""
    frames = header.frame_format
    if frames is None:
        return "The checkpoint does not say which frames the model expects."
    size = f"{frames.size[0]} x {frames.size[1]} px (height, width)" if frames.size else "small frames as they are"
    rows = {
        "channels": "grey" if frames.channels == 1 else "red, green, blue" if frames.channels == 3 else frames.channels,
        "size": size,
        "rate": f"{frames.fps:g} frames per second" if frames.fps else "as they come",
        "mean, deviation": f"{frames.mean}, {frames.std}, of pixels in [0, 1]",
    }
    return f"Saccade converts clips to this format.\n\n{_table(('', ''), rows.items())}"


def _facts(header: Header) -> dict[str, object]:
    """Return what the checkpoint says about its training."""
    steps = {"steps": header.training["step"]} if header.training.get("step") else {}
    facts = {name: value for name, value in header.facts.items() if value not in (None, "")}
    return {**facts, **steps, "seed": header.seed, **header.versions}


def _accuracy(figures: list[Figure]) -> str:
    if not figures:
        return "No figure is recorded with this checkpoint. `saccade evaluate` measures it."
    rows = [(f.clips, f"{f.accuracy:.1%}".replace("%", " %"), f.num_clips) for f in figures]
    return _table(("clips", "accuracy", "number of clips"), rows)


def _table(columns: Iterable[str], rows: Iterable[tuple[object, ...]]) -> str:
    columns = list(columns)
    lines = [columns, ["---"] * len(columns), *([foreign.in_markdown(str(cell)) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
