"""A check's findings as text and tables for the terminal."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import median

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from saccade.check.report import Report
from saccade.data.collection import Entry
from saccade.data.duplicates import Duplicate
from saccade.data.grouping import RECORDED
from saccade.data.leaks import Leak
from saccade.data.scan import Record
from saccade.foreign import shown

_MAX_CLASSES = 20
_MAX_LINES = 10


def render(report: Report) -> Group:
    """Return the findings: what the collection holds, what is wrong with it, and what needs attention."""
    parts: list[RenderableType] = [Text(_summary(report)), _classes(report), *_properties(report)]
    parts += _files("cannot be read", report.unreadable, report)
    parts += _files("damaged and read in part", report.damaged, report)
    parts += _others(report)
    parts += _duplicates([one for one in report.duplicates if one.exact], "equal files", report)
    parts += _duplicates([one for one in report.duplicates if not one.exact], "clips that look alike", report)
    parts += [Text(f"note: {shown(line)}") for line in report.collection.problems]
    parts += [Text(f"note: {line}") for line in _warnings(report)]
    if report.leak is not None:
        parts.append(Text(_leak(report.leak)))
    verdict = "; ".join(report.attention)
    parts.append(Text(f"Needs attention: {verdict}" if verdict else "Nothing needs attention", style="bold"))
    return Group(*parts)


def _summary(report: Report) -> str:
    found = report.collection
    groups = {entry.group for entry in found.entries if entry.group is not None}
    lasts_s = sum(record.duration_s or 0.0 for record in report.records)
    together = "" if found.exclusive else ", of which several can be present"
    return (
        f"{shown(found.source)}: {len(found.entries)} clips of {len(found.classes)} classes{together}"
        f"{f', {len(groups)} groups' if groups else ''}, {_time(lasts_s)} in total"
    )


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _classes(report: Report) -> Table:
    """Return a table of the classes, the largest first; of many classes, the largest and the smallest."""
    records = {name: [r for r in report.records if name in r.entry.classes] for name in report.collection.classes}
    ordered = sorted(records, key=lambda name: -len(records[name]))
    table = Table()
    table.add_column("class", overflow="fold")
    splits = report.collection.splits
    for name in ("clips", "share", *(["groups"] if report.has_groups else []), *splits, "median duration"):
        table.add_column(name, justify="right")
    half = _MAX_CLASSES // 2
    omitted = len(ordered) - 2 * half
    for place, name in enumerate(ordered):
        if omitted > 0 and half <= place < half + omitted:
            if place == half:
                table.add_row(f"... {omitted} more")
            continue
        entries = [record.entry for record in records[name]]
        cells = [str(len(entries)), f"{100 * len(entries) / len(report.records):.1f} %"]
        cells += [str(len({entry.group for entry in entries}))] if report.has_groups else []
        cells += [str(sum(entry.split == split for entry in entries)) for split in splits]
        known = [record.duration_s for record in records[name] if record.duration_s is not None]
        table.add_row(Text(shown(name)), *cells, f"{median(known):.2f} s" if known else "")
    return table


def _properties(report: Report) -> list[RenderableType]:
    """Return a table of the range of each property, and a line of the codecs."""
    readable = [record for record in report.records if record.error is None]
    if not readable:
        return []
    rows: dict[str, tuple[Callable[[Record], float | None], str]] = {
        "duration in s": (lambda r: r.duration_s, ".2f"),
        "frames": (lambda r: r.num_frames, ".0f"),
        "frames/s": (lambda r: r.fps, ".4g"),
        "width in px": (lambda r: r.size[1] if r.size else None, ".0f"),
        "height in px": (lambda r: r.size[0] if r.size else None, ".0f"),
        "kbit/s": (lambda r: None if r.bit_rate_bps is None else r.bit_rate_bps / 1000, ".0f"),
    }
    table = Table()
    table.add_column("property")
    for name in ("smallest", "median", "largest"):
        table.add_column(name, justify="right")
    for name, (value_of, form) in rows.items():
        known = [value for record in readable if (value := value_of(record)) is not None]
        if known:
            table.add_row(name, *(format(value, form) for value in (min(known), median(known), max(known))))
    codecs = Counter(record.codec or "unknown" for record in readable)
    return [table, Text("codecs: " + ", ".join(f"{shown(name)} {num}" for name, num in codecs.most_common()))]


def _files(what: str, found: Sequence[tuple[Path, str]], report: Report) -> list[RenderableType]:
    """Return a table of files with reasons, which no longer name the file themselves."""
    if not found:
        return []
    table = Table(title=Text(f"{what}: {len(found)}"), title_justify="left")
    table.add_column("file", overflow="fold")
    table.add_column("reason", overflow="fold")
    for path, why in found[:_MAX_LINES]:
        table.add_row(Text(_name(path, report)), Text(shown(why.removeprefix(f"{path} ").removeprefix("is damaged: "))))
    return [table, *_more(len(found))]


def _others(report: Report) -> list[RenderableType]:
    endings = Counter(path.suffix or path.name for path, _ in report.others)
    if not endings:
        return []
    named = ", ".join(f"{shown(ending)} ({num})" for ending, num in endings.most_common(_MAX_LINES))
    return [Text(f"left out, since their endings are not those of videos: {named}")]


def _duplicates(found: Sequence[Duplicate], what: str, report: Report) -> list[RenderableType]:
    if not found:
        return []
    num_clips = sum(len(one.entries) for one in found)
    table = Table(title=Text(f"{what}: {len(found)} sets, {num_clips} clips"), title_justify="left")
    table.add_column("clips", overflow="fold")
    table.add_column("in different")
    ordered = sorted(found, key=lambda one: -(2 * one.across_classes + one.across_splits))
    for one in ordered[:_MAX_LINES]:
        names = [_entry(entry, report) for entry in one.entries[:4]]
        more = [f"... {len(one.entries) - 4} more"] if one.entries[4:] else []
        across = [kind for kind in ("classes", "splits") if getattr(one, f"across_{kind}")]
        table.add_row(Text(", ".join([*names, *more])), " and ".join(across))
    return [table, *_more(len(found))]


def _more(num: int) -> list[Text]:
    return [Text(f"... {num - _MAX_LINES} more; --csv FILE lists all")] if num > _MAX_LINES else []


def _entry(entry: Entry, report: Report) -> str:
    part = "" if entry.start_s is None and entry.end_s is None else f" from {entry.start_s or 0:g} s"
    return _name(entry.path, report) + part


def _name(path: Path, report: Report) -> str:
    """Return the path of a file below the folder that holds all files."""
    return shown(path.relative_to(report.root))


def _warnings(report: Report) -> Iterable[str]:
    if not report.has_groups and not report.collection.splits:
        yield (
            "no groups: clips of one person or scene may be both in training and in test, and the accuracy is then too"
            f" high; where names tell the person, give --group PATTERN, such as '{_pattern(report)}'"
        )
    if report.duplicates:
        yield "of each set of duplicates, keep one clip, or give all the same group in a CSV file"


def _pattern(report: Report) -> str:
    """Return a pattern for `--group`: that of recordings, if the files have their names."""
    recorded = all(re.search(RECORDED, entry.path.name) for entry in report.collection.entries)
    return RECORDED if recorded else r"_(\d+)_"


def _leak(leak: Leak) -> str:
    interval = f"{100 * leak.accuracy:.1f} % of clips (95 % interval {100 * leak.low:.1f} to {100 * leak.high:.1f})"
    largest = f"{100 * leak.largest_share:.1f} %"
    what = "class" if leak.exclusive else "classes"
    if not leak.found:
        return (
            f"metadata: size, rate, duration, codec and bit rate alone tell the {what} of {interval};"
            f" that is no more than the {leak.most_frequent} has, {largest}"
        )
    name, share = leak.fields[0]
    return (
        f"metadata: size, rate, duration, codec and bit rate alone tell the {what} of {interval}; the"
        f" {leak.most_frequent} has {largest}. The {name} tells most, {100 * share:.1f} % by itself. Unless that"
        " belongs to the classes, they were recorded differently, and a model can be right for that reason: make the"
        " clips alike, or record again"
    )
