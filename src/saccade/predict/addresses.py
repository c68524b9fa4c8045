"""Addresses of clips and folders: paths on this machine, and what fsspec knows."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fsspec

from saccade.data import video
from saccade.errors import DataError, UsageError

FILE = "file://"
"""What addresses of this machine begin with."""

# A drive of Windows has one letter.
_REMOTE = re.compile(r"(?!file:)[a-zA-Z][a-zA-Z0-9+.-]+://.*", re.DOTALL)


def is_remote(given: str) -> bool:
    """Return whether what was given is an address, and not a path on this machine.

    >>> is_remote("s3://bucket/clips"), is_remote("file:///clips"), is_remote("C:/clips")
    (True, False, False)
    """
    return _REMOTE.fullmatch(given) is not None


def system_of(address: str) -> tuple[Any, str]:
    """Return the file system of an address, and the place there.

    Raises:
        UsageError: if fsspec does not know such addresses, or lacks a package for them.
    """
    if not is_remote(address):
        return fsspec.filesystem("file"), address
    try:
        system, place = fsspec.core.url_to_fs(address)
    except (ImportError, ValueError) as error:
        raise UsageError(f"{address} cannot be reached: {error}") from error
    return system, place


def found_at(address: str) -> list[str]:
    """Return the addresses of the clips that an address names: itself, or those in a folder or of a pattern.

    Raises:
        UsageError: as for `system_of`.
        DataError: if a folder or a pattern names no clip.
    """
    system, place = system_of(address)
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
def fetched(address: str) -> Iterator[Path]:
    """Yield the path of a clip, which is fetched if it is remote.

    Raises:
        DataError: if it cannot be fetched.
    """
    if not is_remote(address):
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
