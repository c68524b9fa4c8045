"""Predictions of large collections, as Parquet files that the same call completes after an interruption.

The clips are cut into parts. What does the work is one function from an address to a row, `Predictor`; an engine calls
it for the clips of each part, and writes the part when it is complete. So another engine needs an adapter only.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import fsspec
import torch

from saccade import checkpoint, files, weights
from saccade.data import video
from saccade.device import choose_device
from saccade.errors import DataError, MissingExtraError, SaccadeError, UsageError
from saccade.foreign import UNREADABLE
from saccade.predict.classifier import Classifier, classes_of
from saccade.predict.config import PredictConfig, find_all
from saccade.predict.prediction import Failure, Prediction
from saccade.processors import limit_memory

# Readers of Parquet leave out files whose name begins so.
MANIFEST = "_predictions.json"
# A drive of Windows has one letter.
_REMOTE = re.compile(r"(?!file:)[a-zA-Z][a-zA-Z0-9+.-]+://.*", re.DOTALL)
_FILE = "file://"
_NO_MEMORY = re.compile("allocate memory|out of memory|could not create a primitive")
_NO_MEMORY_STATUS = 12

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


@dataclass(frozen=True)
class Predictor:
    """What a worker does: load the model, limit its memory, and return the function from an address to a row.

    Args:
        model: the checkpoint.
        device: the device to compute on.
        max_frames: the maximum number of frames to read from each clip.
        min_confidence: the minimum confidence of a verdict; None for that in the checkpoint.
        memory_bytes: how much memory a worker may take beside what its start takes; only Linux keeps this limit. None
            for no limit.
    """

    model: Path
    device: torch.device
    max_frames: int | None
    min_confidence: float | None
    memory_bytes: int | None

    def __call__(self) -> Callable[[str], Row]:
        """Load the model in the process that works."""
        classify = Classifier(
            self.model, self.device, max_frames=self.max_frames, min_confidence=self.min_confidence, over_time=False
        )
        if self.memory_bytes is not None:
            limit_memory(self.memory_bytes)
        return partial(_row, classify)


def plan(config: PredictConfig) -> list[Part]:
    """Return the parts of the clips that paths, patterns and addresses name.

    Raises:
        DataError: if a path or an address names no clip.
    """
    given = [str(one) for one in config.clips]
    clips, missing = find_all([Path(one.removeprefix(_FILE)) for one in given if not _is_remote(one)])
    if missing:
        raise missing[0][1]
    named = [str(clip.absolute()) for clip in clips]
    for address in filter(_is_remote, given):
        named += _found(address)
    named = list(dict.fromkeys(named))
    size = config.per_file
    return [Part(first // size, tuple(named[first : first + size])) for first in range(0, len(named), size)]


class Output:
    """The folder of the Parquet files, local or remote.

    Args:
        address: the folder.
        names: the names of the model's classes.
    """

    def __init__(self, address: str, names: Sequence[str]) -> None:
        self.address, self.names = address, tuple(names)
        self._system, self._root = _system_of(address)

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
        temporary = f"{self._root}/.{uuid.uuid4().hex}.part"
        with files.errors_named(Path(path)):
            self._system.pipe_file(temporary, content)
            self._system.mv(temporary, path)


@dataclass(frozen=True)
class Call:
    """A call that is prepared: its output, all parts, those that the output lacks, and what a worker does."""

    out: Output
    parts: Sequence[Part]
    left: Sequence[Part]
    work: Predictor
    config: PredictConfig

    @classmethod
    def of(cls, config: PredictConfig) -> Call:
        """Prepare a call.

        Raises:
            MissingExtraError: if the extra `ray` is not installed.
            UsageError: if the output holds other predictions.
            DataError: if the model cannot be read, or a path or an address names no clip.
        """
        assert config.out is not None
        _check_packages(config.engine)
        device, path = choose_device(config.device), weights.find(config.model)
        labels = classes_of(checkpoint.read_header(path), path)
        parts = plan(config)
        given = str(config.out)
        out = Output(given if _is_remote(given) else str(Path(given.removeprefix(_FILE)).absolute()), labels.names)
        settings = {
            "model_sha256": files.digest_of(checkpoint.locate(path)),
            "max_frames": config.max_frames,
            "min_confidence": labels.threshold(config.min_confidence),
            "per_file": config.per_file,
        }
        left = out.begin(settings, parts)
        memory_bytes = int(config.memory_gb * 1e9)
        work = Predictor(path.resolve(), device, config.max_frames, config.min_confidence, memory_bytes)
        return cls(out, parts, left, work, config)

    def each(self) -> Iterator[Done]:
        """Make the parts that are missing; yield each once it is written."""
        module = importlib.import_module(f"saccade.predict.{self.config.engine}_engine")
        yield from module.each(self.left, self.work, self.out, num_workers=self.config.workers)


def lost(clip: str, why: str) -> Row:
    """Return the row of a clip that ended the process that read it."""
    if why == f"exit status {_NO_MEMORY_STATUS}":
        return _failed(clip, DataError(f"{clip} needs more memory than a worker may take; raise --memory-gb"))
    return _failed(clip, DataError(f"{clip} ended the process that read it ({why})"))


def _row(classify: Callable[[Path], Prediction | Failure], address: str) -> Row:
    try:
        with _fetched(address) as path:
            found = classify(path)
    except (SaccadeError, OSError, MemoryError, RuntimeError) as error:
        if _lacked_memory(error):
            os._exit(_NO_MEMORY_STATUS)  # what the clip took would be missing for the next one
        if isinstance(error, RuntimeError):
            raise
        return _failed(address, error)
    if isinstance(found, Failure):
        if _lacked_memory(found.error):
            os._exit(_NO_MEMORY_STATUS)
        return _failed(address, found.error)
    return _empty(address) | {
        "verdict": found.verdict,
        "classes": list(found.classes),
        "sure": found.sure,
        "probability": found.probability,
        "probabilities": list(found.probabilities.values()),
        "decided_at_s": found.decided_at_s,
        "num_frames": found.num_frames,
        "fps": found.fps,
        "warning": found.warning,
    }


def _lacked_memory(error: BaseException | None) -> bool:
    """Return whether memory ran out, by an error or by what it came from."""
    while error is not None:
        if isinstance(error, MemoryError) or _NO_MEMORY.search(str(error)):
            return True
        error = error.__cause__
    return False


def _failed(clip: str, error: BaseException) -> Row:
    return _empty(clip) | {"error": " ".join(str(error).split())}


def _printable(row: Row) -> Row:
    """Return a row in which bytes of file names that are not UTF-8 are escapes."""
    return {
        name: value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value
        for name, value in row.items()
    }


def _empty(clip: str) -> Row:
    return dict.fromkeys(COLUMNS) | {"clip": clip}


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


def _is_remote(given: str) -> bool:
    """Return whether what was given is an address, and not a path on this machine."""
    return _REMOTE.fullmatch(given) is not None


def _system_of(address: str) -> tuple[Any, str]:
    """Return the file system of an address, and the place there.

    Raises:
        UsageError: if fsspec does not know such addresses, or lacks a package for them.
    """
    if not _is_remote(address):
        return fsspec.filesystem("file"), address
    try:
        system, place = fsspec.core.url_to_fs(address)
    except (ImportError, ValueError) as error:
        raise UsageError(f"{address} cannot be reached: {error}") from error
    return system, place


def _found(address: str) -> list[str]:
    """Return the addresses of the clips that an address names: itself, or those in a folder or of a pattern."""
    system, place = _system_of(address)
    if "*" in place:
        inside = system.glob(place)
    elif system.isdir(place):
        inside = system.find(place)
    else:
        return [address]
    clips = sorted(name for name in inside if Path(name).suffix.lower() in video.SUFFIXES)
    if not clips:
        raise DataError(f"{address} names no clip; give a folder or a pattern of files such as {address}/**/*.mp4")
    return [system.unstrip_protocol(name) for name in clips]


@contextmanager
def _fetched(address: str) -> Iterator[Path]:
    """Yield the path of a clip, which is fetched if it is remote."""
    if not _is_remote(address):
        yield Path(address)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"clip{Path(address).suffix}"
        try:
            with fsspec.open(address, "rb") as source, path.open("wb") as target:
                shutil.copyfileobj(source, target, 1 << 20)
        except Exception as error:  # each kind of address has errors of its own
            raise DataError(f"{address} cannot be fetched ({type(error).__name__}: {error})") from error
        yield path


def _check_packages(engine: str) -> None:
    for package in ("pyarrow", "ray") if engine == "ray" else ("pyarrow",):
        try:
            __import__(package)
        except ImportError as error:
            raise MissingExtraError(package, "ray") from error
