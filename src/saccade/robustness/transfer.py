"""The transfer matrix: the accuracy of each run on each test set, without a change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from saccade.evaluate.rows import Row
from saccade.robustness.runs import Run, TestSet


@dataclass(frozen=True)
class Transfer:
    """A matrix with a row for each run and a column for each test set.

    Args:
        columns: the titles of the test sets.
        lines: the title of each run, with its result row on each test set; None where it was not measured.
    """

    columns: Sequence[str]
    lines: Sequence[tuple[str, Sequence[Row | None]]]


def transfer(runs: Sequence[Run], measured: Sequence[tuple[Run, TestSet, Row]]) -> Transfer:
    """Return the matrix.

    Args:
        runs: the runs, in order.
        measured: the result row of each run on each of its test sets.
    """
    titles: dict[str, str] = {}
    for run, test, _ in measured:
        key, title = _key(run, test), test.title
        if key not in titles:
            titles[key] = title if title not in titles.values() else f"{title}, test of {run.path}"
    rows = {(run.title, _key(run, test)): row for run, test, row in measured}
    lines = [(run.title, [rows.get((run.title, key)) for key in titles]) for run in runs]
    return Transfer(list(titles.values()), lines)


def _key(run: Run, test: TestSet) -> str:
    """Return what tells test sets apart: generated clips of one condition count as one set, whatever their labels."""
    return test.title if run.redraw is not None else test.digest
