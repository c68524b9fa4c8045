"""Tables of where models attend, with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any, NamedTuple

from rich.table import Table

from saccade.errors import UsageError
from saccade.evaluate.cells import CELL, MIN_SEEDS
from saccade.intervals import t_interval, t_quantile

_GROUP = (*CELL, "trained", "attention", "measure")
_MEASURES = {
    "gradient": "gradient",
    "sampled_area": "sampled area",
    "sampling_points": "sampling points",
    "ink": "brightness (no model)",
}
CAPTION = (
    "Digit: share of the attention on a digit divided by the digit's share of the frame, mean over frames. 1 is chance"
    " for attention that is even over the frame. Weakest digit: the smallest value in each frame. Elsewhere: the same"
    " attention on the digits of another clip, which is chance for attention that prefers some places in every clip."
    " Angle and size: slope and correlation r of the regression of the sampled area's angle and size on those of the"
    " digits; slope 1 follows fully, 0 not at all. One each: the share of the frames in which the middle of every digit"
    " lies in a glimpse, and no two digits have the same best glimpse. Alone: each is the only digit in some glimpse."
    " IoU: intersection over union of a digit's box and its best glimpse. After ±: half the 95 % interval, Student's t"
    " over clips, or over three or more seeds if that is wider."
)


class MeanInterval(NamedTuple):
    """A mean of result rows with its interval; the bounds are None if there is only one row of one clip."""

    mean: float
    low: float | None
    high: float | None


def mean_interval(rows: Sequence[Mapping[str, Any]], column: str, level: float = 0.95) -> MeanInterval | None:
    """Return the mean of a figure over the rows of one cell, with its interval; None if no row has the figure.

    The interval is a t-interval over clips, computed from the standard errors in the rows. Runs on the same clips are
    not independent trials, so several runs do not narrow it. For three or more seeds, the wider of this interval and a
    t-interval over seeds is returned: the interval over seeds ignores the variation between clips.

    Args:
        rows: rows of one cell, network and measure.
        column: a figure; `column + "_se"` holds its standard error over clips.
        level: the confidence level.

    Raises:
        UsageError: if the rows belong to several cells.

    >>> row = {"seed": 0, "ratio": 3.0, "ratio_se": 0.1, "num_clips": 200}
    >>> [round(bound, 3) for bound in mean_interval([row], "ratio")]
    [3.0, 2.803, 3.197]
    """
    for name in _GROUP:
        if len(found := {row.get(name) for row in rows}) > 1:
            raise UsageError(
                f"an interval needs rows of one cell; these rows have the {name}"
                f" {' and '.join(sorted(map(str, found)))}: group them first"
            )
    rows = [row for row in rows if row.get(column) is not None]
    if not rows:
        return None
    by_seed: dict[Any, list[float]] = {}
    for row in rows:
        by_seed.setdefault(row["seed"], []).append(row[column])
    values = [fmean(several) for several in by_seed.values()]
    errors = [row[f"{column}_se"] for row in rows if row.get(f"{column}_se") is not None]
    reaches = [t_quantile(min(int(row["num_clips"]) for row in rows) - 1, level) * fmean(errors)] if errors else []
    mean = fmean(values)
    if len(values) >= MIN_SEEDS:
        reaches.append(t_interval(values, level)[1] - mean)
    return MeanInterval(mean, mean - max(reaches), mean + max(reaches)) if reaches else MeanInterval(mean, None, None)


def attention_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Return rows on attention as a table for the terminal, with a line for each network and measure."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, caption=CAPTION, caption_justify="left")
    header, lines = _cells(rows)
    for name in header:
        table.add_column(name)
    for line in lines:
        table.add_row(*line)
    return table


def _cells(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    # Besides model and condition, only columns with more than one value are shown. Rows of untrained networks are not
    # counted, because their columns on training are empty.
    trained = [row for row in rows if row["trained"] == "trained"] or rows
    apart = [n for n in CELL if n not in ("model", "condition") and len({row.get(n) for row in trained}) > 1]
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(tuple(row.get(name) for name in _GROUP), []).append(row)
    measured = [digit for digit in range(1, 6) if any(row.get(f"ratio_digit_{digit}") is not None for row in rows)]
    num_digits = max(measured, default=2)
    header = ["model", "condition", *(name.replace("_", " ") for name in apart), "network", "attention by"]
    header += [f"digit {digit}" for digit in range(1, num_digits + 1)]
    header += ["weakest digit", "elsewhere", "all above 1", "elsewhere"]
    follows = any(row.get("angle_slope") is not None or row.get("scale_slope") is not None for row in rows)
    if follows:
        header += ["angle", "size"]
    glimpses = any(row.get("one_each") is not None for row in rows)
    if glimpses:
        header += ["one each", "elsewhere", "alone", "elsewhere", "IoU", "elsewhere"]
    return header, [_line(several, apart, num_digits, follows, glimpses) for several in groups.values()]


def _line(
    rows: Sequence[Mapping[str, Any]], apart: Sequence[str], num_digits: int, follows: bool, glimpses: bool
) -> list[str]:
    first = rows[0]
    network = "attention off" if first["attention"] == "off" else first["trained"]
    columns = [f"ratio_digit_{digit}" for digit in range(1, num_digits + 1)] + ["ratio_min", "ratio_min_elsewhere"]
    line = [
        first["model"],
        first["condition"],
        *("" if first.get(name) is None else str(first[name]) for name in apart),
    ]
    line += [network, _MEASURES[first["measure"]]]
    line += [_number(mean_interval(rows, name)) for name in columns]
    line += [_number(mean_interval(rows, name), percent=True) for name in ("all_above", "all_above_elsewhere")]
    if follows:
        line += [_followed(rows, name) for name in ("angle", "scale")]
    if glimpses:
        shares = ("one_each", "one_each_elsewhere", "alone", "alone_elsewhere")
        line += [_number(mean_interval(rows, name), percent=True) for name in shares]
        line += [_number(mean_interval(rows, name)) for name in ("iou", "iou_elsewhere")]
    return line


def _followed(rows: Sequence[Mapping[str, Any]], name: str) -> str:
    slope, correlation = (mean_interval(rows, f"{name}_{kind}") for kind in ("slope", "correlation"))
    if slope is None:
        return ""
    return f"{_number(slope)}, " + ("constant" if correlation is None else f"r {_number(correlation)}")


def _number(found: MeanInterval | None, *, percent: bool = False) -> str:
    if found is None:
        return ""
    factor, digits, unit = (100, 0, " %") if percent else (1, 2, "")
    mean = f"{factor * found.mean:.{digits}f}"
    if found.high is None:
        return mean + unit
    return f"{mean} ± {factor * (found.high - found.mean):.{digits}f}{unit}"
