"""Read IDX files of bytes, plain or packed with gzip; http://yann.lecun.com/exdb/mnist describes the format.

The sizes in a header are claims: they are compared with the length of the file before memory is allocated.
"""

from __future__ import annotations

import gzip
import io
import math
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from saccade.errors import DataError

# No digit file is near a gibibyte; the largest file of MNIST has 47 MB.
MAX_BYTES = 1 << 30
GZIP = b"\x1f\x8b"
# Deflate packs at most 258 bytes into 2 bits.
MOST_UNPACKED = 1032
_BLOCK_BYTES = 1 << 20

Stream = io.BufferedReader | gzip.GzipFile


def read(path: Path, item: tuple[int, ...] = ()) -> NDArray[np.uint8]:
    """Read an array of items of one shape.

    Args:
        path: the file; gzip is recognised by its content.
        item: the shape of an item: height and width for images, empty for labels.

    Raises:
        DataError: if the file cannot be read, is truncated, or does not match its header or `item`.
    """
    with _told(path), path.open("rb") as file:
        file_size = os.fstat(file.fileno()).st_size
        packed = file.read(len(GZIP)) == GZIP
        file.seek(0)
        stream = gzip.GzipFile(fileobj=file) if packed else file
        shape = _read_shape(path, stream, item)
        header_size, size, sizes = 4 + 4 * len(shape), math.prod(shape), " x ".join(map(str, shape))
        if size > MAX_BYTES:
            raise DataError(f"{path} claims {sizes} = {size} bytes; at most {MAX_BYTES} are read")
        most = file_size * MOST_UNPACKED if packed else file_size
        values = np.empty(max(0, min(size, most - header_size)), np.uint8)
        came = _fill(values, stream)
        if came < size:
            raise DataError(f"{path} is truncated: {sizes} = {size} bytes wanted, {came} came; download it again")
        if stream.read(1):
            raise DataError(f"{path} continues after the {sizes} = {size} bytes that its header announces")
    return values.reshape(shape)


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Turn the errors of reading and unpacking into DataError."""
    try:
        yield
    except EOFError as error:
        raise DataError(f"{path} is truncated: its gzip stream has no end; download it again") from error
    except (OSError, zlib.error) as error:
        raise DataError(f"cannot read {path}: {error}") from error


def _read_shape(path: Path, stream: Stream, item: tuple[int, ...]) -> tuple[int, ...]:
    """Read the header; return the shape of the array."""
    header = np.zeros(8 + 4 * len(item), np.uint8)
    came = _fill(header, stream)
    found, magic = header[: min(came, 4)].tobytes(), bytes([0, 0, 8, 1 + len(item)])
    if found[:2] == magic[:2] and len(found) > 2 and found[2] != magic[2]:
        raise DataError(f"{path} has values of IDX type 0x{found[2]:02x}; unsigned bytes (0x08) are wanted")
    if found != magic[: len(found)]:
        wanted = f"an IDX file of {1 + len(item)} dimensions starts with {magic.hex(' ')}"
        raise DataError(f"{path} starts with {found.hex(' ')}; {wanted}")
    if came < len(header):
        raise DataError(f"{path} is truncated: its header has {came} of {len(header)} bytes")
    num, *size = header[4:].view(">u4").tolist()
    if tuple(size) != item:
        came_px, wanted_px = ("x".join(map(str, pixels)) for pixels in (size, item))
        raise DataError(f"{path} has images of {came_px} pixels; digits are {wanted_px}")
    return (num, *item)


def _fill(values: NDArray[np.uint8], stream: Stream) -> int:
    """Read into an array until it is full or the stream ends; return the number of bytes read."""
    came = 0
    while came < len(values):
        try:
            # `read` would lose the bytes before the end of a truncated file.
            block = stream.read1(min(_BLOCK_BYTES, len(values) - came))
        except EOFError:  # raised by a truncated gzip file
            break
        if not block:
            break
        values[came : came + len(block)] = np.frombuffer(block, np.uint8)
        came += len(block)
    return came
