"""Atomic file writes, locks between processes, and digests."""

from __future__ import annotations

import csv
import errno
import hashlib
import io
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

LOCK_TIMEOUT_S = 60.0
# Part of the name of a temporary file. The file remains if the process is killed.
_LEFTOVER = ".part-"


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the folder of `path`; its file replaces `path` if the block ends without an error.

    The content is on disk before the rename, so that a power cut leaves either the old file or the new one.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder, whole(Path(folder) / "a.txt") as temporary:
    ...     _ = temporary.write_text("all of it")
    """
    temporary = _beside(path)
    try:
        with errors_named(path):
            yield temporary
            sync(temporary)
            temporary.chmod(0o666 & ~_umask())
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Wait until the content of a file is on disk."""
    with path.open("rb") as written:
        os.fsync(written.fileno())


@contextmanager
def errors_named(path: Path) -> Iterator[None]:
    """Name `path` in an OSError of the block that names no file, as on a full disk, or only a temporary file.

    >>> with errors_named(Path("a.csv")):
    ...     raise OSError(errno.ENOSPC, "No space left on device")
    Traceback (most recent call last):
    OSError: [Errno 28] No space left on device: 'a.csv'
    """
    try:
        yield
    except OSError as error:
        named = error.filename is not None and _LEFTOVER not in Path(os.fsdecode(error.filename)).name
        if named or error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


@contextmanager
def locked(path: Path, *, timeout_s: float = LOCK_TIMEOUT_S) -> Iterator[None]:
    """Lock `path` against other processes that lock it too, so that the block can read a file and rewrite it.

    The lock is a hidden file in the folder of `path`. It ends with the process.

    Args:
        path: the path to lock.
        timeout_s: how long to wait for another process, in seconds; a negative value waits forever.

    Raises:
        TimeoutError: if another process holds the lock for longer.
        OSError: if the lock file cannot be created.
    """
    from filelock import FileLock  # imported here because every verb loads this module, and few verbs lock

    path.parent.mkdir(parents=True, exist_ok=True)
    lock = path.with_name(f".{path.name}.lock")
    with FileLock(lock, timeout=timeout_s):
        try:
            yield
        finally:
            with suppress(OSError):
                lock.unlink()  # a waiting process notices the removal and creates a new lock file


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files of killed processes from a folder; no other process may write there meanwhile."""
    for path in folder.glob(f".*{_LEFTOVER}*"):
        path.unlink(missing_ok=True)


def check_writable(path: Path) -> None:
    """Raise OSError if a file cannot be written at `path`; an existing file is not changed."""
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "is not a regular file", str(path))
    _beside(path).unlink()


def _beside(path: Path) -> Path:
    """Create an empty temporary file in the folder of `path`; create the folder if needed."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise OSError(errno.ENOTDIR, "is a file; a folder is needed there", str(path.parent)) from error
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.stem}{_LEFTOVER}", suffix=path.suffix, dir=path.parent)
    except OSError as error:
        # The error names the path of the caller, not the temporary file.
        raise OSError(error.errno, error.strerror, str(path)) from error
    os.close(handle)
    return Path(name)


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file as hexadecimal digits; a file is read again only if its size or time has changed.

    Raises:
        OSError: if the file cannot be read.
    """
    status = path.stat()
    return _digest(path, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=1 << 16)
def _digest(path: Path, *_state: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def csv_text(rows: Iterable[Sequence[object]]) -> str:
    """Return rows as the text of a CSV file.

    >>> csv_text([("path", "class"), ("a, b.mp4", "wave")])
    'path,class\\n"a, b.mp4",wave\\n'
    """
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    with whole(path) as temporary:
        # Names that are not UTF-8 become escapes, so that the rest is written; in JSON they read back unchanged.
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path: Path, value: Mapping[str, Any] | list[Any]) -> None:
    """Write an indented JSON file atomically."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n")


def json_fields(config: Any) -> dict[str, Any]:
    """Return the fields of a dataclass as JSON types: paths become strings, tuples become lists."""
    found: dict[str, Any] = json.loads(json.dumps(asdict(config), default=str))
    return found


def _umask() -> int:
    # No function reads the mask without setting it.
    mask = os.umask(0)
    os.umask(mask)
    return mask
