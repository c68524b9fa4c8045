"""The models that are measured, and the test sets that each of them can be measured on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from saccade import checkpoint, files, run_folder, weights
from saccade.checkpoint import Header
from saccade.clips import DataConfig
from saccade.data import Folder
from saccade.errors import DataError
from saccade.evaluate import standard_test
from saccade.robustness.changed_clips import Redraw, Sample
from saccade.robustness.changes import CHANGES

DRAWN_CHANGES = ("turn", "scale", "speed", "occlude", "noise", "drop")
"""The changes of generated clips if none is named."""

_NUM_FOLDS = "num_folds"  # the entry of run.json of a cross-validation by steps


@dataclass(frozen=True)
class Generated:
    """What a generator offers for the clips that a model learned.

    Args:
        base: the clips as they are, from which changes start.
        conditions: other test sets by name, for the transfer matrix.
        redraw: draws clips anew with a change, where the generator can.
    """

    base: DataConfig
    conditions: Mapping[str, DataConfig]
    redraw: Redraw


Part = tuple[nn.Module, Sample]
"""A model, and clips that it has not learned from."""


@dataclass(frozen=True)
class TestSet:
    """A test set as a run is measured on it.

    Args:
        title: its name in the transfer matrix.
        parts: the models of the run, each with clips that it has not seen; one, or one for each fold.
        digest: what a result file knows the clips by.
    """

    title: str
    parts: Sequence[Part]
    digest: str

    @property
    def num_clips(self) -> int:
        """The number of clips."""
        return sum(len(sample.chosen) for _, sample in self.parts)

    @property
    def facts(self) -> Mapping[str, Any]:
        """A description of the clips, as columns of a result row."""
        return self.parts[0][1].clips.facts


@dataclass(frozen=True)
class Run:
    """A trained model, or the models of the folds of one training.

    Args:
        path: the path or name that was given.
        facts: the columns of a result row that describe the model.
        own: the test set of its training, in which clips are changed.
        others: further test sets.
        omitted: a line for each test set that the run is not measured on, by the title of the set.
        redraw: draws generated clips anew; None for stored clips.
    """

    path: Path
    facts: Mapping[str, Any]
    own: TestSet
    others: Sequence[TestSet] = ()
    omitted: Mapping[str, str] = field(default_factory=dict)
    redraw: Redraw | None = None

    @property
    def title(self) -> str:
        """The kind of the model, and the path if it differs."""
        kind = str(self.facts["model"])
        return kind if str(self.path) == kind else f"{kind} ({self.path})"

    @property
    def default_changes(self) -> tuple[str, ...]:
        """The changes that are measured if none is named."""
        return tuple(CHANGES) if self.redraw is None else DRAWN_CHANGES


@dataclass(frozen=True)
class _Loaded:
    """A checkpoint with the configuration of its clips."""

    path: Path
    model: nn.Module
    header: Header
    data: DataConfig


def runs(
    models: Sequence[Path], num_clips: int, seed: int, generated: Callable[[Path], Generated | None] | None = None
) -> list[Run]:
    """Return the runs with their test sets.

    Args:
        models: checkpoints, run folders or names.
        num_clips: the number of clips of a test set that are measured.
        seed: the seed of their choice.
        generated: returns what a generator offers for a model; None for a model of stored clips.

    Raises:
        UsageError: if a model has no test clips.
        DataError: if a checkpoint or the clips are missing or damaged.
    """
    loaded = {path: [_load(one, generated) for one in _checkpoints(path)] for path in dict.fromkeys(models)}
    return [_run(path, parts, loaded, num_clips, seed, generated) for path, parts in loaded.items()]


def _checkpoints(path: Path) -> list[Path]:
    """Return the checkpoints of the folds of a cross-validation by steps, or the only one."""
    found = weights.find(path)
    if found.is_dir() and (found / run_folder.RUN).is_file():
        num_folds = run_folder.read(found).get(_NUM_FOLDS)
        if isinstance(num_folds, int):
            return [found / f"fold-{number}" for number in range(1, num_folds + 1)]
    return [found]


def _load(path: Path, generated: Callable[[Path], Generated | None] | None) -> _Loaded:
    model, header = checkpoint.load(path)
    offered = generated(path) if generated is not None else None
    data = standard_test(path) if offered is None else offered.base
    if isinstance(data, Folder) and not data.root.exists():
        raise DataError(f"{path} learned from clips in {data.root}, which does not exist; put the clips there again")
    return _Loaded(path, model, header, data)


def _run(
    path: Path,
    parts: Sequence[_Loaded],
    all_loaded: Mapping[Path, Sequence[_Loaded]],
    num_clips: int,
    seed: int,
    generated: Callable[[Path], Generated | None] | None,
) -> Run:
    offered = generated(parts[0].path) if generated is not None else None
    first = parts[0].header
    each = -(-num_clips // len(parts))
    own = _test_set(_title(parts[0].data), [(one.model, one.data) for one in parts], each, seed)
    facts = {
        "model": first.kind,
        "seed": first.seed,
        "trained_on": first.facts.get("condition", first.facts.get("data")),
        "checkpoint": str(path),
        "weights": _digest(parts),
    }
    if offered is not None:
        others = [
            _test_set(title, [(parts[0].model, data)], num_clips, seed) for title, data in offered.conditions.items()
        ]
        return Run(path, facts, own, others, redraw=offered.redraw)
    omitted: dict[str, str] = {}
    others = []
    for other_path, others_parts in all_loaded.items():
        title = _title(others_parts[0].data)
        if other_path == path:
            continue
        why = _why_not(parts, others_parts)
        if why is not None:
            omitted[f"{title} ({other_path})"] = why
            continue
        other = _in_format(others_parts[0].data, parts[0].header)
        test = _test_set(title, [(parts[0].model, other)], num_clips, seed)
        if test.digest != own.digest:
            others.append(test)
    return Run(path, facts, own, others, omitted)


def _why_not(parts: Sequence[_Loaded], other: Sequence[_Loaded]) -> str | None:
    """Return why a run is not measured on the test clips of another; None if it is."""
    one, two = parts[0].data, other[0].data
    if not isinstance(one, Folder) or not isinstance(two, Folder):
        return "the clips are of another kind"
    if one.labels.names != two.labels.names or one.labels.exclusive != two.labels.exclusive:
        return "the classes differ"
    if len(parts) > 1 or len(other) > 1:
        return "cross-validation has no test clips of its own"
    digest_of = {clip.name: clip.digest for clip in two.files}
    tested = {digest_of[name] for name in two.clips("test").names or ()}
    if learned := tested & _learned(one):
        return f"its training used {len(learned)} of the {len(tested)} clips"
    return None


def _learned(data: Folder) -> set[str]:
    """Return the contents that a training used, for its steps or for validation."""
    tested = set(data.clips("test").names or ())
    return {clip.digest for clip in data.files if clip.name not in tested}


def _in_format(data: DataConfig, header: Header) -> DataConfig:
    """Return the clips of a folder in the frames that another model expects."""
    if not isinstance(data, Folder) or header.frame_format is None:
        return data
    return Folder.from_json(data.as_json() | {"frame_format": header.frame_format.as_json()})


def _test_set(title: str, parts: Sequence[tuple[nn.Module, DataConfig]], num_clips: int, seed: int) -> TestSet:
    sampled = [(model, Sample.of(data.clips("test"), num_clips, seed)) for model, data in parts]
    return TestSet(title, sampled, "+".join(sample.described() for _, sample in sampled))


def _title(data: DataConfig) -> str:
    facts = data.facts
    return str(facts.get("condition") or facts["data"])


def _digest(parts: Sequence[_Loaded]) -> str:
    """Return a digest of the weights, by which a result file tells one training from a later one."""
    return "sha256:" + "+".join(files.digest_of(checkpoint.locate(one.path))[:16] for one in parts)
