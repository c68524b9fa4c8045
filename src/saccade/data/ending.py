"""Whether a file is as long as its format says: formats that record their length, or mark their end."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from saccade.data import members

_LAST_PAGE_FLAG, _ASF_BROADCAST_FLAG = 0x04, 0x01
_FLV_SIZE = b"\0\x08filesize\0"  # a name and the mark of a number, in the data of the first tag
_FILE_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
# Boxes at the top of an MP4 or QuickTime file; other bytes behind the last one do not belong to it.
_BOXES = frozenset(
    b"ftyp moov mdat free skip wide moof mfra sidx ssix styp prft emsg uuid meta pdin udta pnot PICT".split()
)
_SEGMENT = b"\x18\x53\x80\x67"
_TAGS = (8, 9, 18)  # sound, video, script data


def is_cut_off(path: Path) -> bool:
    """Return whether a file ends before the end that its format records.

    MP4 and QuickTime, Matroska and WebM, AVI, FLV, ASF, Ogg, GIF and PNG record a length or mark their end. Other
    formats, and files that were written as a live stream, count as complete.
    """
    with members.opened(path) as file:
        head = file.read(12)
        check = _check_for(head)
        if check is None:
            return False
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        return check(file, size)


def _check_for(head: bytes) -> Callable[[BinaryIO, int], bool] | None:
    if head[4:8] in _BOXES:
        return _mp4
    by_signature = {
        b"GIF8": _gif,
        b"OggS": _ogg,
        b"RIFF": _avi,
        b"FLV\x01": _flv,
        b"\x89PNG": _png,
        b"\x1a\x45\xdf\xa3": _matroska,
        b"\x30\x26\xb2\x75": _asf,
    }
    return by_signature.get(head[:4])


def _mp4(file: BinaryIO, size: int) -> bool:
    position = 0
    while position < size:
        file.seek(position)
        head = file.read(16)
        if head[4:8] not in _BOXES:
            return False
        length = int.from_bytes(head[:4], "big")
        if length == 1:
            length = int.from_bytes(head[8:16], "big")
        if length == 0:  # to the end of the file, wherever that is
            return False
        position += max(length, 8)
    return position > size


def _matroska(file: BinaryIO, size: int) -> bool:
    file.seek(4)
    header_size = _vint(file)
    file.seek(header_size or 0, os.SEEK_CUR)
    if file.read(4) != _SEGMENT:
        return False
    length = _vint(file)
    return length is not None and file.tell() + length > size


def _vint(file: BinaryIO) -> int | None:
    """Read an EBML number of variable length; None if all of its bits are 1, which means unknown."""
    first = file.read(1)
    if not first or not first[0]:
        return None
    num_bytes = 9 - first[0].bit_length()
    value = int.from_bytes(first + file.read(num_bytes - 1), "big") & ((1 << 7 * num_bytes) - 1)
    return None if value == (1 << 7 * num_bytes) - 1 else value


def _avi(file: BinaryIO, size: int) -> bool:
    position = 0
    while file.seek(position) + 8 <= size and file.read(4) == b"RIFF":  # several in files of over 1 GB
        length = int.from_bytes(file.read(4), "little")
        if length in (0, 0xFFFF_FFFF):  # a live stream
            return False
        position += 8 + length + length % 2
    # The last byte pads to an even length, and is often left out.
    return position - 1 > size


def _flv(file: BinaryIO, size: int) -> bool:
    start = file.read(1 << 12)
    found = start.find(_FLV_SIZE) + len(_FLV_SIZE)
    if found >= len(_FLV_SIZE) and len(start) >= found + 8 and struct.unpack_from(">d", start, found)[0] > size:
        return True
    file.seek(5)
    position = int.from_bytes(file.read(4), "big") + 4
    while position + 11 <= size:
        file.seek(position)
        head = file.read(4)
        if head[0] & 0x1F not in _TAGS:
            return False
        position += 11 + int.from_bytes(head[1:], "big") + 4
    file.seek(position)
    next_tag = file.read(1)
    # The length behind the last tag repeats the one before it, and may be missing.
    return position - 4 > size or (next_tag != b"" and next_tag[0] & 0x1F in _TAGS)


def _asf(file: BinaryIO, size: int) -> bool:
    start = file.read(1 << 16)
    found = start.find(_FILE_PROPERTIES)
    if found < 0 or start[found + 88 : found + 89] == b"" or start[found + 88] & _ASF_BROADCAST_FLAG:
        return False
    return int.from_bytes(start[found + 40 : found + 48], "little") > size


def _ogg(file: BinaryIO, size: int) -> bool:
    file.seek(max(0, size - (1 << 17)))  # longer than the longest page
    tail = file.read()
    start = tail.rfind(b"OggS")
    page = tail[start:]
    if start < 0 or len(page) < 27 or not page[5] & _LAST_PAGE_FLAG:
        return True
    num_segments = page[26]
    return len(page) < 27 + num_segments + sum(page[27 : 27 + num_segments])


def _png(file: BinaryIO, size: int) -> bool:
    position = 8
    while position + 12 <= size:
        file.seek(position)
        head = file.read(8)
        position += 12 + int.from_bytes(head[:4], "big")
        if head[4:] == b"IEND":
            return position > size
    return True


def _gif(file: BinaryIO, _size: int) -> bool:
    file.seek(10)
    _skip_colours(file, file.read(3)[:1])
    while kind := file.read(1):
        match kind:
            case b";":
                return False
            case b"!":  # an extension: a label, then blocks
                file.seek(1, os.SEEK_CUR)
            case b",":  # an image: its position, an optional colour table, the code size, then blocks
                _skip_colours(file, file.read(9)[8:])
                file.seek(1, os.SEEK_CUR)
            case _:
                return True
        while (length := file.read(1)) and length != b"\0":
            file.seek(length[0], os.SEEK_CUR)
    return True


def _skip_colours(gif: BinaryIO, flags: bytes) -> None:
    if flags and flags[0] & 0x80:
        gif.seek(3 << (flags[0] & 7) + 1, os.SEEK_CUR)
