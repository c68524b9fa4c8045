"""Terminal output: messages, progress bars and results."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from saccade.foreign import shown

FIGURES = {
    "loss": "loss {:.3f}",
    "accuracy": "training accuracy {:4.0%}",
    "validation_accuracy": "validation {:4.0%}",
    "clips_per_s": "{:.1f} clips/s",
}
# On a narrow terminal, some are shorter and some are omitted.
_SHORT = FIGURES | {"accuracy": "training {:4.0%}"}
_OMITTED = ("clips_per_s",)
# Those of single batches go up and down from step to step, so that their running mean is shown.
_OF_BATCHES = ("loss", "accuracy", "clips_per_s")

# Names of files and classes are untrusted: markup and emoji codes in them are not interpreted.
_PLAIN: dict[str, Any] = {"highlight": False, "markup": False, "emoji": False}
# Results go to standard output, all other messages to standard error.
err = Console(stderr=True, **_PLAIN)
# A pipe or a file has no width: 250 columns keep result lines from wrapping.
out = Console(width=None if sys.stdout.isatty() else 250, **_PLAIN)


def say(text: str) -> None:
    """Print a message to standard error, without wrapping its lines."""
    for line in text.split("\n"):
        err.print(shown(line), soft_wrap=True)


@contextmanager
def counting_bar(title: str, *, hidden: bool = False) -> Iterator[Callable[[int, int], None]]:
    """Show a progress bar unless it is `hidden`; yield a function that takes the number of items done and the total."""
    with _bars(hidden=hidden) as begin:
        yield begin(title)


@contextmanager
def stages() -> Iterator[Callable[[str], Callable[[int, int], None]]]:
    """Show one progress bar per stage; if standard error is not a terminal, print a line once each has begun to count.

    Yield a function that takes the name of a stage and returns a function as that of `counting_bar`.
    """
    with _bars(hidden=False) as add:
        told: set[str] = set()

        def begin(stage: str) -> Callable[[int, int], None]:
            count = add(stage)

            def counted(done: int, total: int) -> None:
                if not err.is_terminal and stage not in told:
                    told.add(stage)
                    say(f"{stage} ...")
                count(done, total)

            return counted

        yield begin


@contextmanager
def _bars(*, hidden: bool) -> Iterator[Callable[[str], Callable[[int, int], None]]]:
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=err, disable=hidden or not err.is_terminal) as progress:

        def add(stage: str) -> Callable[[int, int], None]:
            task = progress.add_task(stage, total=None)
            return lambda done, total: progress.update(task, completed=done, total=total)

        yield add


class TrainingBars:
    """One progress bar per training, and below them the remaining time of all trainings.

    If standard error is not a terminal, a plain line is printed after each tenth of a training instead.
    """

    def __init__(self) -> None:
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            *([] if _narrow() else [BarColumn(bar_width=10)]),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}", markup=False),
            TimeRemainingColumn(),
            console=err,
        )
        self._left = ""

    def __rich__(self) -> Group:
        return Group(self._progress, *([Text(self._left)] if self._left else []))

    def begin(self, title: str) -> Callable[[Mapping[str, float]], None]:
        """Add a bar for a training; return a function that takes its log rows, and then the rows of its test."""
        for other in self._progress.tasks:
            if other.finished:  # finished bars would fill the screen
                self._progress.update(other.id, visible=False)
        title = shown(title)
        task = self._progress.add_task(title, total=None, figures="getting ready")
        smooth: dict[str, float] = {}

        def show(row: Mapping[str, float]) -> None:
            if "clips" in row:
                done, total = row["clips"], row["num_clips"]
                what = "clips tested" if smooth else "clips prepared"
                self._progress.update(task, completed=done, total=total, figures=what, visible=True)
                if not err.is_terminal and done == 1:
                    say(f"{title}  {what} ...")
                return
            for name in FIGURES.keys() & row.keys():
                weight = 0.1 if name in _OF_BATCHES else 1.0
                smooth[name] = (1 - weight) * smooth.get(name, row[name]) + weight * row[name]
            shown = [name for name in FIGURES if name in smooth and not (name in _OMITTED and _narrow())]
            figures = "  ".join((_SHORT if _narrow() else FIGURES)[name].format(smooth[name]) for name in shown)
            step, total = int(row["step"]), int(row["num_steps"])
            self._progress.update(task, completed=step, total=total, figures=figures)
            if not err.is_terminal and (step == total or step % max(1, total // 10) == 0):
                spent = f"  {row['elapsed_s']:.0f} s" if "elapsed_s" in row else ""
                say(f"{title}  step {step}/{total}  {figures}{spent}{f';  {self._left}' if self._left else ''}")

        return show

    def left(self, seconds: float) -> None:
        """Set the remaining time of all trainings, in seconds."""
        self._left = f"about {duration(seconds)} left in total"


def _narrow() -> bool:
    return err.is_terminal and err.width < 100


def duration(seconds: float) -> str:
    """Format a duration: in minutes below 90 minutes, else in hours.

    >>> duration(42), duration(100), duration(3600), duration(9000)
    ('1 min', '2 min', '60 min', '2.5 h')
    """
    return f"{max(1, round(seconds / 60))} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


@contextmanager
def training_bars() -> Iterator[TrainingBars]:
    """Show the progress of sequential or parallel trainings until the block ends, also if an error ends it."""
    bars = TrainingBars()
    if not err.is_terminal:
        yield bars
        return
    with Live(bars, console=err, refresh_per_second=4):
        yield bars


@contextmanager
def training_bar(title: str) -> Iterator[Callable[[Mapping[str, float]], None]]:
    """Show the progress of one training; yield a function that takes the log row of every step."""
    with training_bars() as bars:
        yield bars.begin(title)
