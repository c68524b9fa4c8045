"""Rows of measurements that say when, with which code and on what they were made."""

import csv
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import saccade
from saccade.run_folder import commit, device_name


def stamp() -> dict[str, str | None]:
    """Return date, version, commit and processor.

    >>> list(stamp())
    ['date', 'version', 'commit', 'processor']
    """
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "version": saccade.__version__,
        "commit": commit(),
        "processor": device_name("cpu"),
    }


def replace_row(table: Path, row: Mapping[str, Any], keys: Sequence[str]) -> None:
    """Add a row with its stamp to a CSV file, in the place of an older one with the same values of `keys`."""
    old: list[dict[str, str]] = []
    if table.exists():
        with table.open(encoding="utf-8", newline="") as file:
            old = list(csv.DictReader(file))
    new = {name: "" if value is None else str(value) for name, value in {**row, **stamp()}.items()}
    rows = [new if all(known[key] == new[key] for key in keys) else known for known in old]
    rows += [] if new in rows else [new]
    table.parent.mkdir(parents=True, exist_ok=True)
    with table.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(new), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
