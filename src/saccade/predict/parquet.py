"""The Parquet files of predictions, one for each part of the clips, in a folder that is local or remote."""

from __future__ import annotations

import hashlib
import json
import os
import re
import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saccade import files
from saccade.errors import DataError, UsageError
from saccade.foreign import UNREADABLE
from saccade.predict.addresses import is_remote, system_of

# Readers of Parquet leave out files whose name begins so.
MANIFEST = "_predictions.json"
_UNFINISHED = re.compile(r"\.[0-9a-f]{32}\.part-")

COLUMNS = (
    *("clip", "verdict", "classes", "sure", "probability", "probabilities", "decided_at_s", "num_frames", "fps"),
    *("warning", "error"),
)
"""The columns of a file; of a clip that cannot be classified only the first and the last are set."""

Row = dict[str, Any]


@dataclass(frozen=True)
class Part:
    """A part of the clips, which has a file of its own.

    Args:
        number: its number, from 0.
        clips: the addresses of its clips.
    """

    number: int
    clips: tuple[str, ...]

    @property
    def name(self) -> str:
        """The name of its file."""
        return f"part-{self.number:06d}.parquet"


@dataclass(frozen=True)
class Done:
    """A part that is written: its number, the number of its clips, and those that could not be classified."""

    number: int
    num_clips: int
    num_failed: int


class Output:
    """The folder of the Parquet files, local or remote.

    Args:
        address: the folder.
        names: the names of the model's classes.
    """

    def __init__(self, address: str, names: Sequence[str]) -> None:
        self.address, self.names = address, tuple(names)
        self._system, self._root = system_of(address)
        self._left: list[str] = []

    def begin(self, settings: dict[str, Any], parts: Sequence[Part]) -> list[Part]:
        """Claim the folder for a call; return the parts that it lacks.

        Raises:
            UsageError: if the folder holds predictions of other clips, or by another model or other options.
            DataError: if its description is damaged.
        """
        self._system.makedirs(self._root, exist_ok=True)
        listed = "\n".join(clip for part in parts for clip in part.clips)
        settings = settings | {"clips_sha256": hashlib.sha256(os.fsencode(listed)).hexdigest(), "num_files": len(parts)}
        manifest = f"{self._root}/{MANIFEST}"
        there = {Path(name).name for name in self._system.ls(self._root, detail=False)}
        self._left = [name for name in there if _UNFINISHED.fullmatch(name)]
        if MANIFEST in there:
            self._check(manifest, settings)
        elif visible := sorted(name for name in there if not name.startswith((".", "_"))):
            raise UsageError(
                f"{self.address} holds {visible[0]}, but no {MANIFEST}; choose a new or empty folder as --out"
            )
        else:
            self._put(manifest, (json.dumps(settings | {"classes": self.names}, indent=2) + "\n").encode())
        return [part for part in parts if part.name not in there]

    def write(self, part: Part, rows: Sequence[Row]) -> Done:
        """Write the file of a part, which is there as a whole or not at all."""
        import pyarrow
        from pyarrow import parquet

        described = {b"saccade.classes": json.dumps(self.names).encode()}
        table = pyarrow.Table.from_pylist(list(map(_printable, rows)), schema=_schema().with_metadata(described))
        sink = pyarrow.BufferOutputStream()
        parquet.write_table(table, sink)
        self._put(f"{self._root}/{part.name}", sink.getvalue().to_pybytes())
        return Done(part.number, len(rows), sum(row["error"] is not None for row in rows))

    def num_failed(self, parts: Sequence[Part]) -> int:
        """Return how many rows of some parts that are written have an error."""
        from pyarrow import parquet

        num = 0
        for part in parts:
            with self._system.open(f"{self._root}/{part.name}", "rb") as file:
                column = parquet.read_table(file, columns=["error"])["error"]
                num += len(column) - column.null_count
        return num

    def finish(self) -> None:
        """Remove the unfinished files that were there when the call began; to be called when all parts are there.

        A file that another process was writing then is finished, and has another name by now.
        """
        for name in self._left:
            with suppress(OSError):
                self._system.rm(f"{self._root}/{name}")

    def _check(self, manifest: str, settings: dict[str, Any]) -> None:
        try:
            came = json.loads(self._system.cat_file(manifest))
            for name, wanted in settings.items():
                if came[name] != wanted:
                    what = (
                        "other clips" if name in ("clips_sha256", "num_files") else f"{name}={came[name]}, now {wanted}"
                    )
                    raise UsageError(f"{self.address} was made with {what}; give the same, or choose another --out")
        except UNREADABLE as error:
            raise DataError(f"{manifest} cannot be read ({error}); choose another --out") from error

    def _put(self, path: str, content: bytes) -> None:
        temporary = f"{self._root}/.{uuid.uuid4().hex}.part-"
        with files.errors_named(Path(path)):
            try:
                self._system.pipe_file(temporary, content)
                if not is_remote(self.address):  # so that a power cut leaves no empty file under the final name
                    files.sync(Path(temporary))
                self._system.mv(temporary, path)
            except OSError:
                with suppress(OSError):
                    self._system.rm(temporary)  # a full disk has no room for half a file
                raise


def _printable(row: Row) -> Row:
    """Return a row in which bytes of file names that are not UTF-8 are escapes."""
    return {
        name: value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value
        for name, value in row.items()
    }


def _schema() -> Any:
    import pyarrow as pa

    kinds = {
        "classes": pa.list_(pa.string()),
        "sure": pa.bool_(),
        "probability": pa.float32(),
        "probabilities": pa.list_(pa.float32()),
        "decided_at_s": pa.float64(),
        "num_frames": pa.int64(),
        "fps": pa.float64(),
    }
    return pa.schema([(name, kinds.get(name, pa.string())) for name in COLUMNS])
