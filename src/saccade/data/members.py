"""Files inside tar archives, named as if the archive were a folder: `shards/train-000000.tar/000017.mp4`.

Every function takes such a name or that of a plain file. Archives are untrusted: nothing is extracted, and members that
are no plain files, or that end behind the archive, are not there.
"""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from saccade import files
from saccade.errors import DataError

SUFFIX = ".tar"


@dataclass(frozen=True)
class Member:
    """A file inside an archive: its bytes from `start` on."""

    archive: Path
    start: int
    size: int


def names(archive: Path) -> list[str]:
    """Return the names of the files in an archive, in their order there.

    Raises:
        DataError: if the archive cannot be read.
    """
    return list(_places(archive))


def find(path: Path) -> Member | None:
    """Return where the file of a name lies in an archive; None if the name is not that of a file in an archive.

    Raises:
        DataError: if the archive cannot be read.
    """
    archive = next((parent for parent in path.parents if parent.suffix == SUFFIX and parent.is_file()), None)
    if archive is None:
        return None
    place = _places(archive).get(path.relative_to(archive).as_posix())
    return None if place is None else Member(archive, *place)


def is_file(path: Path) -> bool:
    """Return whether there is a file of a name, in an archive or by itself."""
    return path.is_file() or find(path) is not None


def opened(path: Path) -> BinaryIO:
    """Open a file for reading.

    Raises:
        OSError: if it cannot be opened.
        DataError: if its archive cannot be read.
    """
    member = find(path)
    return path.open("rb") if member is None else io.BufferedReader(_Part(member))


def address(path: Path) -> str:
    """Return the address of a file for FFmpeg."""
    # Without "file:", FFmpeg takes the part of the file name before a colon for a protocol.
    if (member := find(path)) is None:
        return f"file:{path}"
    return f"subfile,,start,{member.start},end,{member.start + member.size},,:file:{member.archive}"


def state(path: Path) -> tuple[int, int]:
    """Return the size of a file, and when it was changed last, in nanoseconds.

    Raises:
        OSError: if there is no such file.
        DataError: if its archive cannot be read.
    """
    member = find(path)
    status = (path if member is None else member.archive).stat()
    return status.st_size if member is None else member.size, status.st_mtime_ns


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file as hexadecimal digits.

    Raises:
        OSError: if the file cannot be read.
        DataError: if its archive cannot be read.
    """
    if find(path) is None:
        return files.digest_of(path)
    with opened(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]


def _places(archive: Path) -> Mapping[str, tuple[int, int]]:
    try:
        status = archive.stat()
        return _read(archive, status.st_size, status.st_mtime_ns)
    except (OSError, tarfile.TarError, ValueError, EOFError) as error:
        raise DataError(f"{archive} cannot be read as a tar archive ({error}); write it again") from error


@cache
def _read(archive: Path, size: int, _changed_ns: int) -> Mapping[str, tuple[int, int]]:
    found: dict[str, tuple[int, int]] = {}
    with tarfile.open(archive, "r:") as members:
        for member in members:
            name = PurePosixPath(member.name)
            lies_inside = not name.is_absolute() and ".." not in name.parts
            if member.isreg() and not member.sparse and lies_inside and member.offset_data + member.size <= size:
                found[str(name)] = member.offset_data, member.size
            members.members.clear()  # type: ignore[attr-defined]  # tarfile would keep every header
        end = members.offset
    with archive.open("rb") as file:
        file.seek(end)
        if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):  # tarfile ends at a damaged header without a word
            raise tarfile.ReadError(f"damaged at byte {end}")
    return found


class _Part(io.RawIOBase):
    """The bytes of a member as a file."""

    def __init__(self, member: Member) -> None:
        self._file = member.archive.open("rb", buffering=0)
        self._start, self._size, self._at = member.start, member.size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise OSError("a place before the beginning of the file")
        self._at = base + offset
        return self._at

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        left = memoryview(buffer)[: max(0, min(len(buffer), self._size - self._at))]
        self._file.seek(self._start + self._at)
        num = self._file.readinto(left)
        self._at += num or 0
        return num or 0

    def close(self) -> None:
        self._file.close()
        super().close()
