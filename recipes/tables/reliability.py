"""Tables of docs/reliability.md: what came of damaged files, interrupted commands, and runs without end."""

import csv
import json
from pathlib import Path

from .layout import table

_FIGURES = {"p50_ms": "median, ms", "p99_ms": "99th percentile, ms", "memory_mb": "memory, MB"}


def damaged(path: Path) -> str:
    """Show how many damaged files of each kind were read, refused, or neither."""
    return _counted(
        path, {"kind": "kind", "files": "files", "read": "read", "refused": "refused", "neither": "neither"}
    )


def faults(path: Path) -> str:
    """Show how many trials of each fault came before the end of the run, and how many ended as promised."""
    names = {
        "fault": "fault",
        "verb": "command",
        "trials": "trials",
        "struck": "before the end",
        "after_first_file": "of these, after the first file",
        "good": "as promised",
        "most_steps_repeated": "steps taken twice, at most",
    }
    return _counted(path, names)


def soak(path: Path) -> str:
    """Show times and memory of the first tenth of a long run, and of its last."""
    found = json.loads(path.read_text(encoding="utf-8"))
    stream, requests = found["stream"], found["requests"]
    lines = []
    for name, measured in (
        (f"{stream['frames']:,} frames of a stream", stream),
        (f"{requests['requests']:,} requests to the page", requests["small"] | {"memory_mb": requests["memory_mb"]}),
        ("uploads among them", requests["uploads"]),
    ):
        for figure, label in _FIGURES.items():
            if figure in measured:
                first, *_, last = measured[figure]
                lines.append([name, label, f"{first:,}", f"{last:,}"])
    hostile = found["hostile clients"]
    beside = f"{hostile['minutes']:g} minutes of a page beside hostile clients"
    first, *_, last = hostile["memory_mb"]
    lines.append([beside, "memory before and after, MB", f"{first:,}", f"{last:,}"])
    lines.append([beside, "its rate, as a share of that without them", "", f"{hostile['ratio']:.2f}"])
    return table(["", "figure", "first tenth", "last tenth"], lines)


def _counted(path: Path, names: dict[str, str]) -> str:
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    lines = [
        [*(f"{int(row[name]):,}" if row[name].isdecimal() else row[name] for name in names), row["commit"], row["date"]]
        for row in rows
    ]
    return table([*names.values(), "commit", "date"], lines)
