"""Read clips from `.npz` files frame by frame; memory is allocated for the data, not for the claims of a header."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from saccade import foreign
from saccade.data import members
from saccade.errors import DataError

_NAME = "frames"
_WANTED = "uint8 (time, channels, height, width) with 1 or 3 channels or (time, height, width)"
# Far above any video: a frame of 8192x8192 in colour has 201 MB, an hour at 64x64 in grey 440 MB.
_MAX_FRAME_BYTES, _MAX_BYTES_AT_ONCE = 1 << 28, 1 << 31

Shape = tuple[int, ...]


def read_frames(path: Path) -> Generator[NDArray[np.uint8]]:
    """Yield the frames of the array `frames`, each (height, width) in grey or (height, width, 3) in RGB.

    Raises:
        DataError: if the file is not a complete `.npz` file, or does not hold such an array of uint8.
    """
    try:
        with (
            members.opened(path) as file,
            zipfile.ZipFile(file) as archive,
            archive.open(_member_of(archive, path)) as member,
        ):
            shape, lies_reversed = _header_of(member, path)
            frames = _transposed(member, shape) if lies_reversed else _one_by_one(member, shape)
            for frame in frames:
                yield frame[0] if shape[1] == 1 else np.ascontiguousarray(frame.transpose(1, 2, 0))
            member.read(1)  # zipfile compares the checksum at the end of the member
    except foreign.UNREADABLE as error:
        raise DataError(
            f"{path} is not a complete .npz file ({error!s:.100}); save it again with numpy.savez"
        ) from error


def _member_of(archive: zipfile.ZipFile, path: Path) -> zipfile.ZipInfo:
    for info in archive.infolist():
        if info.filename in (_NAME, f"{_NAME}.npy"):
            return info
    raise DataError(f"{path} has no array called {_NAME}; save one with numpy.savez(path, {_NAME}=...)")


def _header_of(member: IO[bytes], path: Path) -> tuple[Shape, bool]:
    """Return the shape (time, channels, height, width) and whether the array is in Fortran order."""
    version = npy.read_magic(member)
    read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}.get(version)
    if read is None:
        raise ValueError(f"array of format {version}")
    shape, lies_reversed, dtype = read(member)
    with_channels = (shape[0], 1, *shape[1:]) if len(shape) == 3 else shape
    is_clip = len(with_channels) == 4 and with_channels[1] in (1, 3) and math.prod(with_channels) > 0
    if dtype != np.uint8 or not is_clip:
        raise DataError(f"{path} has frames of {dtype} {shape}; {_WANTED} is needed")
    if math.prod(with_channels[1:]) > _MAX_FRAME_BYTES:
        raise DataError(f"{path} claims frames of {shape[-2]}x{shape[-1]} px; at most 8192x8192 px can be read")
    return with_channels, lies_reversed


def _one_by_one(member: IO[bytes], shape: Shape) -> Iterator[NDArray[np.uint8]]:
    for _ in range(shape[0]):
        yield np.frombuffer(_exactly(member, math.prod(shape[1:])), np.uint8).reshape(shape[1:])


def _transposed(member: IO[bytes], shape: Shape) -> Iterator[NDArray[np.uint8]]:
    if math.prod(shape) > _MAX_BYTES_AT_ONCE:
        raise ValueError("a clip of over 2 GiB in Fortran order; convert it to C order with numpy.ascontiguousarray")
    # If the file has no channel dimension, the added dimension of size 1 does not change the order of the others.
    yield from np.frombuffer(_exactly(member, math.prod(shape)), np.uint8).reshape(shape[::-1]).T


def _exactly(member: IO[bytes], num: int) -> bytes:
    found = member.read(num)
    if len(found) < num:
        raise ValueError("the array ends within a frame")
    return found
