"""Rows of measurements that say when, with which code and on what they were made."""

import csv
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import saccade
from saccade import files
from saccade.run_folder import commit, device_name

# Of the code that runs: a measurement takes hours, and the checkout may go on meanwhile.
_COMMIT = commit()


def stamp() -> dict[str, str]:
    """Return date, version, commit and processor.

    >>> list(stamp())
    ['date', 'version', 'commit', 'processor']
    """
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "version": saccade.__version__,
        "commit": _COMMIT,
        "processor": device_name("cpu"),
    }


def replace_row(table: Path, row: Mapping[str, Any], keys: Sequence[str]) -> None:
    """Add a row with its stamp to a CSV file, in the place of an older one with the same values of `keys`.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     table = Path(folder) / "rows.csv"
    ...     for num in (1, 2):
    ...         replace_row(table, {"kind": "a", "num": num}, ["kind"])
    ...     table.read_text().splitlines()[1].split(",")[:2]
    ['a', '2']
    """
    rows: list[dict[str, str]] = []
    if table.exists():
        with table.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    new = {name: str(value) for name, value in {**row, **stamp()}.items()}
    at = next((at for at, old in enumerate(rows) if all(old.get(key) == new[key] for key in keys)), len(rows))
    rows[at : at + 1] = [new]
    names = list(dict.fromkeys(name for one in rows for name in one))
    table.parent.mkdir(parents=True, exist_ok=True)
    files.write_text(table, files.csv_text([names, *([one.get(name, "") for name in names] for one in rows)]))
