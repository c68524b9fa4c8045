"""Files that appear whole or not at all."""

from __future__ import annotations

import errno
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

LOCK_TIMEOUT_S = 60.0
# In the name of a file that is being written; it stays where the process is killed.
_LEFTOVER = ".part-"


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; once the block ends without an error it takes the place of `path`.

    The content is on disk before the rename, so that a power cut leaves the old file or the new one.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder, whole(Path(folder) / "a.txt") as temporary:
    ...     _ = temporary.write_text("all of it")
    """
    temporary = _beside(path)
    try:
        with errors_named(path):
            yield temporary
            with temporary.open("rb") as written:
                os.fsync(written.fileno())
            temporary.chmod(0o666 & ~_umask())
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def errors_named(path: Path) -> Iterator[None]:
    """Let an OSError of the block name a path where it names none, as that of a full disk, or a temporary file.

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
    """Keep other processes that ask for the same path out of the block: what is read in it and written anew stays true.

    A hidden file beside `path` holds the lock, which ends with the process.

    Args:
        path: what is locked.
        timeout_s: how long to wait for another process; below 0 without end.

    Raises:
        TimeoutError: another process kept the lock for that long.
        OSError: no lock can be made there.
    """
    from filelock import FileLock  # every verb loads this module, few lock anything

    path.parent.mkdir(parents=True, exist_ok=True)
    lock = path.with_name(f".{path.name}.lock")
    with FileLock(lock, timeout=timeout_s):
        try:
            yield
        finally:
            with suppress(OSError):
                lock.unlink()  # one who waits for it sees that it is gone, and makes another


def remove_leftovers(folder: Path) -> None:
    """Remove what processes that were killed left unfinished in a folder; no other may write there at the time."""
    for path in folder.glob(f".*{_LEFTOVER}*"):
        path.unlink(missing_ok=True)


def check_writable(path: Path) -> None:
    """Raise OSError if a file cannot be written at a path; nothing there changes."""
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "is no regular file", str(path))
    _beside(path).unlink()


def _beside(path: Path) -> Path:
    """Make an empty file beside `path`, and its folder where that is not there."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise OSError(errno.ENOTDIR, "is a file; a folder is needed there", str(path.parent)) from error
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.stem}{_LEFTOVER}", suffix=path.suffix, dir=path.parent)
    except OSError as error:
        # With the name that was asked for, not that of the temporary file.
        raise OSError(error.errno, error.strerror, str(path)) from error
    os.close(handle)
    return Path(name)


def write_text(path: Path, text: str) -> None:
    """Write a text file whole."""
    with whole(path) as temporary:
        # A name that is no UTF-8 must not keep the rest from being written; in JSON its escapes read back as the same.
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path: Path, value: Mapping[str, Any] | list[Any]) -> None:
    """Write a JSON file whole, indented for people."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n")


def json_fields(config: Any) -> dict[str, Any]:
    """Return the fields of a dataclass as they read back from JSON: paths as text, tuples as lists."""
    found: dict[str, Any] = json.loads(json.dumps(asdict(config), default=str))
    return found


def _umask() -> int:
    # There is no call that reads the mask without setting it.
    mask = os.umask(0)
    os.umask(mask)
    return mask
