"""Uploaded videos: received with limits, decoded in a separate process, and deleted."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import os
import sys
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from saccade.errors import DataError

if TYPE_CHECKING:
    # This imports torch, which would delay the page.
    from saccade.clips import FrameFormat

MAX_UPLOAD_BYTES = 64 << 20
MAX_UPLOAD_S = 120.0
MAX_FRAMES = 1800
"""The maximum number of frames, one minute at 30 frames per second; later frames are dropped."""

MAX_FRAME_BYTES = 3 * 256 * 256
MAX_CLIP_BYTES = MAX_FRAMES * 256 * 256
"""The maximum size of a decoded video in memory; it allows fewer frames if they are large and in colour."""

MAX_DECODE_S = 30.0
READY = b"ready\n"
"""The line that the decoder writes once its imports are done; its time limit starts then."""

_NICENESS = 10
_MAX_START_S = 90.0
_BUFFER_BYTES = 1 << 20
# Enough for a video of 4096x4096 pixels; decoding a larger one fails.
MAX_EXTRA_MEMORY_BYTES = 768 << 20


@dataclass(frozen=True)
class Decoded:
    """A decoded video, in the frame format of the models.

    Args:
        pixels: the frames in order.
        shape: (time, channels, height, width).
        fps: frames per second; 25 if neither the models nor the file state it.
        warning: one line if the file is damaged or frames were dropped.
    """

    pixels: bytearray
    shape: tuple[int, int, int, int]
    fps: float
    warning: str | None


def most_frames(channels: int, height: int, width: int) -> int:
    """Return the maximum number of frames of a size.

    >>> most_frames(1, 64, 64), most_frames(3, 256, 256)
    (1800, 600)
    """
    return min(MAX_FRAMES, MAX_CLIP_BYTES // (channels * height * width))


async def save(body: AsyncIterator[bytes], file: int, *, max_bytes: int = MAX_UPLOAD_BYTES) -> int:
    """Write a request body to an open file; return its length in bytes.

    Raises:
        DataError: if the body is empty, or longer than `max_bytes`; the rest is then not read.
    """
    length = 0
    async for chunk in body:
        length += len(chunk)
        if length > max_bytes:
            raise DataError(f"the file is larger than {max_bytes >> 20} MB; give a shorter or smaller video")
        view = memoryview(chunk)
        while view:
            view = view[os.write(file, view) :]
    if not length:
        raise DataError("the file is empty; give a video, GIF or .npz file")
    return length


async def take(
    body: AsyncIterator[bytes],
    decoders: asyncio.Semaphore,
    frame_format: FrameFormat,
    *,
    max_bytes: int = MAX_UPLOAD_BYTES,
) -> Decoded:
    """Receive a video, decode it, and delete the file.

    The server chooses the name of the file. Only the server's user can enter its folder.

    Args:
        body: the content of the file.
        decoders: limits the number of videos that are decoded at once.
        frame_format: the frames that the models expect.
        max_bytes: the maximum length of the file.

    Raises:
        DataError: if the file is too large, the upload too slow, or the file not a video that can be decoded within the
            limits.
    """
    with tempfile.TemporaryDirectory(prefix="saccade-upload-") as folder:
        path = Path(folder) / "upload"
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            async with asyncio.timeout(MAX_UPLOAD_S):
                await save(body, file, max_bytes=max_bytes)
        except TimeoutError as error:
            raise DataError(f"the upload took longer than {MAX_UPLOAD_S:.0f} s; give a smaller file") from error
        finally:
            os.close(file)
        async with decoders:
            return await decode(path, frame_format)


async def decode(path: Path, frame_format: FrameFormat, *, max_seconds: float = MAX_DECODE_S) -> Decoded:
    """Decode a video in a new process with limits on time and memory.

    Raises:
        DataError: if the file is not a video that can be decoded within the limits.
    """
    wanted = json.dumps(frame_format.as_json())
    command = [sys.executable, "-m", "saccade.serve.decode", str(path), str(round(max_seconds)), wanted]
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        cwd=path.parent,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        limit=_BUFFER_BYTES,
    )
    assert process.stdout is not None
    _let_others_go_first(process.pid)
    try:
        async with asyncio.timeout(_MAX_START_S):
            await process.stdout.readline()
        async with asyncio.timeout(max_seconds):
            return await _received(process.stdout, frame_format)
    except TimeoutError as error:
        raise DataError(f"decoding took longer than {max_seconds:.0f} s; give a shorter or smaller video") from error
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        # asyncio reports the end of a process only after all of its output was read.
        while await process.stdout.read(_BUFFER_BYTES):
            pass
        await process.wait()


def _let_others_go_first(pid: int) -> None:
    """Lower the priority of a process, so that frames for pages come first."""
    if hasattr(os, "setpriority"):  # not on Windows
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, pid, _NICENESS)


async def _received(stdout: asyncio.StreamReader, wanted: FrameFormat) -> Decoded:
    """Read the decoder's output, a line of JSON and the pixels; validate it, since it is not trusted."""
    try:
        header = json.loads(await stdout.readuntil(b"\n"))
        if "error" in header:
            raise DataError(str(header["error"])[:500])
        time, height, width = (int(header[name]) for name in ("time", "height", "width"))
        fps, warning = float(wanted.fps or header["fps"] or 25.0), header["warning"]
        shape = (time, wanted.channels, height, width)
        if not (min(shape) > 0 and math.prod(shape[1:]) <= MAX_FRAME_BYTES and time <= most_frames(*shape[1:])):
            raise ValueError(f"{time} frames of {height}x{width} px")
        if wanted.fit((height, width)) != (height, width):
            raise ValueError(f"frames of {height}x{width} px do not fit the models")
        pixels = await _read_exactly(stdout, math.prod(shape))
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            "the video cannot be decoded within the limits on time and memory; give a shorter or smaller one, or "
            "convert it, to H.264 for example"
        ) from error
    return Decoded(pixels, shape, min(60.0, max(1.0, fps)), warning and str(warning)[:500])


async def _read_exactly(stdout: asyncio.StreamReader, length: int) -> bytearray:
    """Read `length` bytes in small parts, since copying 100 MB at once would block the event loop."""
    content = bytearray()
    while len(content) < length:
        chunk = await stdout.read(min(_BUFFER_BYTES, length - len(content)))
        if not chunk:
            raise asyncio.IncompleteReadError(b"", length - len(content))
        content += chunk
    return content
