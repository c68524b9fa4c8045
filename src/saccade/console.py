"""What people see in the terminal while something runs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

FIGURES = {
    "loss": "loss {:.3f}",
    "accuracy": "accuracy {:6.1%}",
    "clips_per_s": "{:.0f} clips/s",
    "digits_per_s": "{:.0f} digits/s",
}

# Results go to standard output; everything that only accompanies them to standard error.
err = Console(stderr=True, highlight=False)
# A pipe or a file has no width: lines there are as long as they need to be.
out = Console(highlight=False, width=None if sys.stdout.isatty() else 250)


def say(line: str) -> None:
    """Print a line beside the results, unwrapped."""
    err.print(line, soft_wrap=True)


@contextmanager
def counting_bar(title: str) -> Iterator[Callable[[int, int], None]]:
    """Show a progress bar for things that are counted; its function takes how many are done and how many there are."""
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err, disable=not err.is_terminal) as progress:
        task = progress.add_task(title, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


@contextmanager
def training_bar(title: str) -> Iterator[Callable[[Mapping[str, float]], None]]:
    """Show a progress bar for training; the function it gives takes the log row of every step.

    Where standard error is no terminal, a plain line comes every tenth of the way instead.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[figures]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    smooth: dict[str, float] = {}
    with Progress(*columns, console=err, disable=not err.is_terminal, refresh_per_second=4) as progress:
        task = progress.add_task(title, total=None, figures="")

        def show(row: Mapping[str, float]) -> None:
            # Stage 1 of the published protocol counts digits instead of clips, and has no accuracy on the way.
            for name in FIGURES.keys() & row.keys():
                smooth[name] = 0.9 * smooth.get(name, row[name]) + 0.1 * row[name]
            figures = "  ".join(form.format(smooth[name]) for name, form in FIGURES.items() if name in smooth)
            step, total = int(row["step"]), int(row["num_steps"])
            progress.update(task, completed=step, total=total, figures=figures)
            if not err.is_terminal and (step == total or step % max(1, total // 10) == 0):
                spent = f"  {row['elapsed_s']:.0f} s" if "elapsed_s" in row else ""
                say(f"{title}  step {step}/{total}  {figures}{spent}")

        yield show


@contextmanager
def training_bars() -> Iterator[Callable[[str], Callable[[Mapping[str, float]], None]]]:
    """Give a function that shows one training after another: title -> what takes its log rows.

    A bar ends with its last row, with the next bar, or with the block, whatever ends that.
    """
    with ExitStack() as stack:

        def begin(title: str) -> Callable[[Mapping[str, float]], None]:
            show: list[Callable[[Mapping[str, float]], None]] = []

            def take(row: Mapping[str, float]) -> None:
                if not show:  # not before the first row: what is trained already has none
                    stack.close()
                    show.append(stack.enter_context(training_bar(title)))
                show[0](row)
                if row["step"] >= row["num_steps"]:
                    stack.close()

            return take

        yield begin
