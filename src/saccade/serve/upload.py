"""Videos from the page: taken with a limit, decoded in a process of its own, and forgotten."""

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
    # The page is there before torch, which this imports.
    from saccade.clips import FrameFormat

MAX_UPLOAD_BYTES = 64 << 20
MAX_UPLOAD_S = 120.0
MAX_FRAMES = 1800
"""Longest video in frames, one minute at 30 a second; later frames are dropped."""

MAX_FRAME_BYTES = 3 * 256 * 256
MAX_CLIP_BYTES = MAX_FRAMES * 256 * 256
"""What a page's video may take of the server's memory: large frames in colour are cut earlier."""

MAX_DECODE_S = 30.0
READY = b"ready\n"
"""What the decoder writes once it has loaded what it needs: only then does its time run."""

_NICENESS = 10
_MAX_START_S = 90.0
_BUFFER_BYTES = 1 << 20
# Enough for a video of 4096x4096 pixels; a file that claims more is not worth it.
MAX_EXTRA_MEMORY_BYTES = 768 << 20


@dataclass(frozen=True)
class Decoded:
    """A video as models see it.

    Args:
        pixels: the frames one after the other.
        shape: (time, channels, height, width).
        fps: frames a second; 25 where neither the models nor the file say.
        warning: one line if the file is damaged or was cut.
    """

    pixels: bytearray
    shape: tuple[int, int, int, int]
    fps: float
    warning: str | None


def most_frames(channels: int, height: int, width: int) -> int:
    """Return how many frames of a size are shown.

    >>> most_frames(1, 64, 64), most_frames(3, 256, 256)
    (1800, 600)
    """
    return min(MAX_FRAMES, MAX_CLIP_BYTES // (channels * height * width))


async def save(body: AsyncIterator[bytes], file: int, *, max_bytes: int = MAX_UPLOAD_BYTES) -> int:
    """Write what comes to an open file; return its length.

    Raises:
        DataError: it is empty, or longer than `max_bytes`; the rest is not read.
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
    """Receive a video and decode it; no trace of the file stays.

    The file lies under a name of the server's own in a folder that only its user can enter.

    Args:
        body: the file.
        decoders: how many videos may be decoded at once.
        frame_format: what the models want of a frame.
        max_bytes: longest file.

    Raises:
        DataError: too large, too slow, no video, or one that cannot be decoded within the limits.
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
    """Decode a video in a fresh process with limits on time and memory.

    Raises:
        DataError: no video, or one that cannot be decoded within the limits.
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
        # A process counts as ended only once its output is read to the end.
        while await process.stdout.read(_BUFFER_BYTES):
            pass
        await process.wait()


def _let_others_go_first(pid: int) -> None:
    """Give a process what is left of the processors: pages get their frames first."""
    if hasattr(os, "setpriority"):  # not on Windows
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, pid, _NICENESS)


async def _received(stdout: asyncio.StreamReader, wanted: FrameFormat) -> Decoded:
    """Read what the decoder writes, and believe none of it: a line of JSON, then the pixels."""
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
            raise ValueError(f"frames of {height}x{width} px are none that models see")
        pixels = await _read_exactly(stdout, math.prod(shape))
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            "the video cannot be decoded within the limits on time and memory; give a shorter or smaller one, or "
            "convert it, to H.264 for example"
        ) from error
    return Decoded(pixels, shape, min(60.0, max(1.0, fps)), warning and str(warning)[:500])


async def _read_exactly(stdout: asyncio.StreamReader, length: int) -> bytearray:
    """Read so many bytes, a few at a time: to move a video of 100 MB at once would hold up every page."""
    content = bytearray()
    while len(content) < length:
        chunk = await stdout.read(min(_BUFFER_BYTES, length - len(content)))
        if not chunk:
            raise asyncio.IncompleteReadError(b"", length - len(content))
        content += chunk
    return content
