"""The rows of a CSV file that people or spreadsheets wrote, with their line numbers."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from saccade.errors import DataError

if TYPE_CHECKING:
    from _csv import Reader

_DELIMITERS = ",;\t"
_MAX_HEADER = 1 << 16
Row = tuple[int, dict[str, str]]


def read(source: Path, *, needed: Sequence[str]) -> tuple[tuple[str, ...], list[Row]]:
    """Return the columns of a CSV file, and its rows: the number of the line, and the cells by column.

    *Conventions:* cells are separated by commas, semicolons or tabs, as the header shows. The text is UTF-8, with or
    without a byte order mark. Blanks around cells and names of columns are dropped, and names of columns are in lower
    case. Empty lines are skipped.

    Args:
        source: the file.
        needed: the columns that the header must have.

    Raises:
        DataError: if the file is not text, lacks a column or has one twice, or a row has another number of cells.
    """
    try:
        with source.open(encoding="utf-8-sig", newline="") as file:
            header = file.readline(_MAX_HEADER)
            delimiter, columns = _header(source, header, needed)
            reader = csv.reader(chain([header], file), delimiter=delimiter, strict=True)
            rows = _rows(source, reader)
            next(rows)  # the header
            return columns, list(_checked(source, columns, rows))
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"{source} cannot be read as a CSV file of UTF-8 text ({error}); save it as one") from error
    except OSError as error:
        raise DataError(f"{source} cannot be opened: {error.strerror}") from error


def _header(source: Path, header: str, needed: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    """Return the delimiter and the columns."""
    for delimiter in _DELIMITERS:
        columns = tuple(name.strip().casefold() for name in next(csv.reader([header], delimiter=delimiter), []))
        if set(needed) <= set(columns):
            if twice := [name for name, num in Counter(columns).items() if num > 1]:
                raise DataError(f"{source} line 1 names the column {twice[0]!r} twice; keep one of them")
            return delimiter, columns
    came = f"is {header.strip()!r:.80}" if header.strip() else "is empty"
    raise DataError(f"{source} line 1 {came}; a header with the columns {' and '.join(needed)} is needed")


def _rows(source: Path, reader: Reader) -> Iterator[tuple[int, list[str]]]:
    """Yield the number of the last line of each row, and its cells without blanks around them."""
    while True:
        first = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise DataError(
                f"{source} line {first} cannot be read as cells ({error}); close the quotation mark that is open there,"
                " or write it twice within a cell in quotation marks"
            ) from error
        yield reader.line_num, [cell.strip() for cell in cells]


def _checked(source: Path, columns: Sequence[str], rows: Iterator[tuple[int, list[str]]]) -> Iterator[Row]:
    for line, cells in rows:
        if not any(cells):
            continue
        if len(cells) != len(columns):
            raise DataError(
                f"{source} line {line} has {len(cells)} cells; the header has {len(columns)}:"
                " put cells with a separator in quotation marks"
            )
        yield line, dict(zip(columns, cells, strict=True))
