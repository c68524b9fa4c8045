"""Run `saccade robustness`: from its options to the rows and the page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from torch import nn

from saccade import files, run_folder
from saccade.errors import Interrupted, UsageError
from saccade.evaluate.rows import Row, append_rows, read_rows
from saccade.robustness.changed_clips import ChangedClips, changed
from saccade.robustness.changes import Change, named
from saccade.robustness.config import RobustnessConfig
from saccade.robustness.measure import UNCHANGED, Step, figures_of
from saccade.robustness.page import render
from saccade.robustness.runs import Generated, Part, Run, TestSet, runs
from saccade.robustness.transfer import Transfer, transfer
from saccade.robustness.turning import TurnedCopies
from saccade.visualize.figures import load_pyplot

_KEY = ("weights", "test_set", "change", "strength", "turns", "changes_seed")
_TURN = "turn"


@dataclass(frozen=True)
class Report:
    """What was measured.

    Args:
        rows: the rows, run after run.
        transfer: the accuracy of each run on each test set, without a change.
        chance: the accuracy of always predicting the most frequent class, by the title of the run.
        notes: what a reader must know of single runs.
        page: the page that was written.
        csv: the result file.
    """

    rows: Sequence[Row]
    transfer: Transfer
    chance: dict[str, float]
    notes: Sequence[str]
    page: Path
    csv: Path


def robustness(
    config: RobustnessConfig,
    generated: Callable[[Path], Generated | None] | None = None,
    *,
    say: Callable[[str], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Measure how accurate models stay when their input changes; write `robustness.csv` and `robustness.html`.

    Each row is written as soon as it is measured.

    Args:
        config: the models and the options.
        generated: returns what a generator of clips offers for a model; None for a model of stored clips.
        say: called with a line when a change is measured.
        progress: called after every batch with the number of clips done and the total number.

    Raises:
        UsageError: if the folder holds rows and `resume` is not set, a name is unknown, or a model has no test clips.
        DataError: if a checkpoint, clips or the result file are missing or damaged.
        MissingExtraError: if matplotlib is not installed.
        NonFiniteError: if logits are NaN or infinite.
        Interrupted: after Ctrl-C; the message says how many rows are kept.
        OSError: if a file cannot be written.
    """
    # Fail before the work, not after it.
    load_pyplot()
    if config.csv.exists() and not config.resume:
        raise UsageError(f"{config.csv} exists; add --resume to continue it, or choose another --out")
    named(config.changes, ())
    kept = {_key(row): row for row in read_rows(config.csv)} if config.csv.exists() else {}
    measured = runs(config.model, config.num_clips, config.seed, generated)
    for path in (config.csv, config.page):
        files.check_writable(path)
    cells = list(_cells(measured, config))
    rows = _rows(cells, kept, config, say, progress)
    report = Report(
        rows=rows,
        transfer=transfer(measured, [(cell.run, cell.test, row) for cell, row in _plain(cells, rows)]),
        chance={run.title: _chance(run) for run in measured},
        notes=[note for run in measured for note in _notes(run)],
        page=config.page,
        csv=config.csv,
    )
    files.write_text(config.page, _page(report))
    return report


def _page(report: Report) -> str:
    call = run_folder.call()
    return render(
        report.rows,
        chance=report.chance,
        transfer=report.transfer,
        notes=report.notes,
        command=call["command"],
        started=f"{call['started']}, commit {call['commit']}",
    )


@dataclass(frozen=True)
class _Cell:
    """One row: a run on a test set with a change of a strength."""

    run: Run
    test: TestSet
    name: str = UNCHANGED
    change: Change | None = None
    strength: float = 0.0
    turns: int = 1

    @property
    def work(self) -> int:
        """The number of forward passes of one clip."""
        return self.test.num_clips * self.turns

    def facts(self, seed: int) -> Row:
        """Return the columns of the row but for what is measured."""
        told = dict(self.test.facts) | dict(self.run.facts)
        turns = self.turns if self.turns > 1 else None
        own = {"change": self.name, "strength": float(self.strength), "turns": turns}
        return told | own | {"changes_seed": seed, "test_set": self.test.digest}

    def measured(self, config: RobustnessConfig, step: Step) -> Row:
        """Return the row."""
        parts = [(self._model(part), self._clips(part, config.seed)) for part in self.test.parts]
        figures = figures_of(parts, device=config.device, step=lambda num: step(num * self.turns))
        facts = self.facts(config.seed)
        return {name: facts.pop(name) for name in ("model", "data", "seed")} | figures.columns() | facts

    def _model(self, part: Part) -> nn.Module:
        model, sample = part
        return model if self.turns == 1 else TurnedCopies(model, sample.clips.labels, self.turns)

    def _clips(self, part: Part, seed: int) -> ChangedClips:
        sample = part[1]
        if self.change is None:
            return ChangedClips(sample, seed=seed)
        return changed(sample, self.name, self.change, self.strength, seed, self.run.redraw)


def _cells(measured: Sequence[Run], config: RobustnessConfig) -> Iterator[_Cell]:
    """Yield what is to be measured."""
    for run in measured:
        for test in (run.own, *run.others):
            yield _Cell(run, test)
        changes = named(config.changes, run.default_changes)
        for name, change in changes.items():
            for strength in change.strengths:
                if strength != change.unchanged:
                    yield _Cell(run, run.own, name, change, strength)
        if config.turns > 1:
            yield _Cell(run, run.own, turns=config.turns)
            for name, change in changes.items():
                if name == _TURN:
                    angles = (angle for angle in change.strengths if angle != change.unchanged)
                    yield from (_Cell(run, run.own, name, change, angle, config.turns) for angle in angles)


def _rows(
    cells: Sequence[_Cell],
    kept: dict[tuple[str, ...], Row],
    config: RobustnessConfig,
    say: Callable[[str], None] | None,
    progress: Callable[[int, int], None] | None,
) -> list[Row]:
    """Return the rows of the cells: those that are kept, and new ones, which are written at once."""
    rows, begun, done = [], monotonic(), 0
    left = [cell for cell in cells if _key(cell.facts(config.seed)) not in kept]
    total = sum(cell.work for cell in left)
    if say is not None and kept:
        say(f"continuing: {len(cells) - len(left)} of {len(cells)} rows are done")

    def step(num: int) -> None:
        nonlocal done
        done += num
        if progress is not None:
            progress(done, total)

    try:
        for place, cell in enumerate(cells):
            key = _key(cell.facts(config.seed))
            row = kept.get(key)
            if row is None:
                row = kept[key] = cell.measured(config, step)
                append_rows(config.csv, [row])
                last = place + 1 == len(cells) or (cells[place + 1].run, cells[place + 1].name) != (cell.run, cell.name)
                if say is not None and last:
                    seconds = (monotonic() - begun) * (total - done) / max(1, done)
                    told = "unchanged clips" if cell.name == UNCHANGED else cell.name
                    told += "" if done >= total else f"; about {max(1, round(seconds / 60))} min left"
                    say(f"{cell.run.title}: {place + 1} of {len(cells)} rows: {told}")
            rows.append(row)
    except KeyboardInterrupt as error:
        if not rows:
            raise
        raise Interrupted(f"{len(rows)} of {len(cells)} rows are in {config.csv}") from error
    return rows


def _key(row: Row) -> tuple[str, ...]:
    return tuple(str(row.get(name)) for name in _KEY)


def _plain(cells: Sequence[_Cell], rows: Sequence[Row]) -> list[tuple[_Cell, Row]]:
    return [(cell, row) for cell, row in zip(cells, rows, strict=True) if cell.name == UNCHANGED and cell.turns == 1]


def _chance(run: Run) -> float:
    """Return the accuracy of always predicting the most frequent target."""
    targets = Counter(str(target) for _, sample in run.own.parts for target in sample.targets)
    return max(targets.values()) / targets.total()


def _notes(run: Run) -> Iterator[str]:
    if run.own.num_clips < 50:
        yield f"{run.title} is measured on {run.own.num_clips} clips: small differences mean nothing."
    if len(run.own.parts) > 1:
        yield f"{run.title} is a cross-validation: each clip is shown to the model of the fold that has not seen it."
    for name, why in run.omitted.items():
        yield f"{run.title} is not measured on the test clips of {name}: {why}."
