"""Predictions as a table for people, who count frames from 1."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from rich.table import Table
from rich.text import Text

from saccade.foreign import shown
from saccade.predict.prediction import OverTime, Prediction

_NUM_TOP = 5
# Longer rows are cut in the middle: the beginning and the end say most.
_MAX_CHANGES, _NUM_FIRST = 8, 6


def render(predictions: Sequence[Prediction]) -> Table:
    """Return predictions as a table with one row per clip, and warnings about damaged files below it.

    *Conventions:* frames are counted from 1. Verdicts over time are shown where they change or become sure or unsure,
    each with its probability in percent at this moment.
    """
    # Names of files and classes come from outside; `Text` never reads them as markup.
    warnings = [shown(p.warning) for p in predictions if p.warning]
    table = Table(caption=Text("\n".join(warnings)) if warnings else None, caption_justify="left")
    table.add_column("clip", overflow="fold")
    table.add_column("verdict", style="bold", overflow="fold")  # a long name must leave room for the clip
    for name in ("probability", "decided at"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column(f"top {max((len(p.top) for p in predictions), default=_NUM_TOP)}")
    over_time = any(p.over_time is not None for p in predictions)
    if over_time:
        table.add_column("over time", overflow="fold")
    for p in predictions:
        top = "  ".join(f"{shown(name)} {100 * probability:.1f}" for name, probability in p.top)
        verdict = shown(p.verdict) if p.sure else f"unsure: {shown(p.verdict)}"
        cells: list[Text | str] = [
            Text(shown(p.clip)),
            Text(verdict),
            f"{100 * p.probability:.1f} %",
            _moment(p),
            Text(top),
        ]
        table.add_row(*cells, *([Text(_changes(p.over_time))] if over_time else []))
    return table


def _moment(prediction: Prediction) -> str:
    if not prediction.sure:
        return "not decided"
    if prediction.decided_at is None:
        return "the end"
    seconds = "" if prediction.decided_at_s is None else f" ({prediction.decided_at_s:.1f} s)"
    return f"frame {prediction.decided_at + 1} of {prediction.num_frames}{seconds}"


def _changes(over_time: OverTime | None) -> str:
    if over_time is None:
        return ""
    names = [verdict.name if sure else None for verdict, sure in zip(over_time.verdicts, over_time.sure, strict=True)]
    told = []
    for name, run in groupby(range(len(names)), key=names.__getitem__):
        first = next(run)
        verdict = "unsure" if name is None else f"{shown(name)} {100 * over_time.verdicts[first].probability:.1f}"
        told.append(f"{_when(over_time, first)} {verdict}")
    if len(told) > _MAX_CHANGES:
        num_last = _MAX_CHANGES - _NUM_FIRST
        told[_NUM_FIRST:-num_last] = [f"... {len(told) - _MAX_CHANGES} more ..."]
    return ", ".join(told)


def _when(over_time: OverTime, moment: int) -> str:
    if over_time.seconds is None:
        return f"frame {over_time.frames[moment] + 1}"
    return f"{over_time.seconds[moment]:.1f} s"
