"""Files that appear whole or not at all."""

from __future__ import annotations

import errno
import json
import lzma
import os
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

LOCK_TIMEOUT_S = 60.0

UNREADABLE: tuple[type[Exception], ...] = (
    *(
        ArithmeticError,
        AttributeError,
        EOFError,
        LookupError,
        MemoryError,
        OSError,
        RuntimeError,
        TypeError,
        ValueError,
    ),
    *(lzma.LZMAError, struct.error, zipfile.BadZipFile, zlib.error),
)
"""What Python's readers raise at foreign bytes: caught around every reading of what others wrote."""


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
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keep other processes that ask for the same path out of the block: what is read in it and written anew stays true.

    An empty, hidden file beside `path` holds the lock and stays: to remove it would let a third process in.

    Raises:
        OSError: another process kept the lock for a minute, or none can be made there.
    """
    from filelock import FileLock  # every verb loads this module, few lock anything

    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f".{path.name}.lock"), timeout=LOCK_TIMEOUT_S):
        yield


def check_writable(path: Path) -> None:
    """Raise OSError if a file cannot be written at a path; nothing there changes."""
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "is no regular file", str(path))
    _beside(path).unlink()


def _beside(path: Path) -> Path:
    """Make an empty file beside `path`, and its folder where that is not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent)
    except OSError as error:
        # With the name that was asked for, not that of the temporary file.
        raise OSError(error.errno, error.strerror, str(path)) from error
    os.close(handle)
    return Path(name)


def write_text(path: Path, text: str) -> None:
    """Write a text file whole."""
    with whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


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
