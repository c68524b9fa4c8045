"""The tables of a run on own clips: the verdict of each tested clip, and the clips that were left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from saccade import files
from saccade.data.collection import CLASS_SEPARATOR
from saccade.data.stored import StoredClips
from saccade.labels import Labels

TESTED, LEFT_OUT = "tested.csv", "left_out.csv"


def write_tested(
    out: Path, clips: StoredClips, parts: Sequence[NDArray[np.intp]], logits: Float[Tensor, "clips classes"]
) -> None:
    """Write `tested.csv`: path, group, fold, class, verdict and probability of each tested clip.

    Args:
        out: the run folder.
        clips: the clips.
        parts: the indices of the clips that each fold tests; one part without folds.
        logits: the logits of each clip.

    Raises:
        OSError: if the file cannot be written.
    """
    rows: list[tuple[object, ...]] = [("path", "group", "fold", "class", "verdict", "probability")]
    for number, held in enumerate(parts):
        for index, verdict in zip(held, clips.labels.verdicts(logits[held]), strict=True):
            name = clips.names[index] if clips.names else index
            group = clips.groups[index] if clips.groups else ""
            true, said = (_joined(clips.labels, classes) for classes in (_present(clips, index), verdict.classes))
            rows.append((name, group, number, true, said, round(verdict.probability, 4)))
    files.write_text(out / TESTED, files.csv_text(rows))


def write_left_out(out: Path, left_out: Mapping[str, str]) -> None:
    """Write `left_out.csv`, the names of clips that were left out with the reasons, if there are some.

    Raises:
        OSError: if the file cannot be written.
    """
    if left_out:
        files.write_text(out / LEFT_OUT, files.csv_text([("path", "reason"), *left_out.items()]))


def _present(clips: StoredClips, index: int) -> Sequence[int]:
    """Return the classes of a clip."""
    target = clips.targets[index]
    return [int(target)] if clips.labels.exclusive else target.nonzero().flatten().tolist()


def _joined(labels: Labels, classes: Sequence[int]) -> str:
    """Return names of classes as in the CSV file of a collection."""
    return CLASS_SEPARATOR.join(labels.names[index] for index in classes)
