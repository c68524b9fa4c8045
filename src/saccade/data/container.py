"""Video containers, opened and decoded. What a header claims is compared with what comes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice, pairwise
from pathlib import Path
from statistics import mean
from typing import Any, BinaryIO

import av
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition
from av.video.stream import VideoStream

from saccade.errors import DataError

ADVICE = "give a video, GIF or .npz file"
# A file's last packets may lack a duration, and sound ends a little before or after the pictures.
_END_TOLERANCE_S = 0.1
# Longest time for which a picture is taken to stand still, in a file of variable rate.
LONGEST_STILL_S = 60.0
_OTHER_KINDS = {"audio": "sound"}
_ANIMATION_FLAG, _LAST_PAGE_FLAG = 0x02, 0x04


def opened(path: Path) -> InputContainer:
    """Open a video file.

    Raises:
        DataError: it is none.
    """
    try:
        # "file:" keeps a colon in the file's name from being taken for a protocol.
        container = av.open(f"file:{path}", metadata_errors="replace")
    except av.FFmpegError as error:
        raise DataError(f"{path} cannot be read as a video ({error.strerror}); {ADVICE}") from error
    if container.format.name == "tty":
        container.close()
        raise DataError(f"{path} holds text; {ADVICE}")
    return container


class Decoder:
    """The frames of a file's video stream, in the order in which they are shown, and what they tell of the file.

    What cannot be decoded is left out and remembered. The stream is the one that the file marks as its default, else
    the first; a cover picture is none.

    Args:
        container: opened, and closed by others.
        path: the file, for messages.

    Raises:
        DataError: no stream of pictures that this FFmpeg can decode.
    """

    def __init__(self, container: InputContainer, path: Path) -> None:
        self._container, self._path = container, path
        self._stream = _video_stream(container, path)
        self._errors: list[str] = []
        self._times = Times()
        self._num_frames = self._num_incomplete = 0
        self._end_s = 0.0

    def __iter__(self) -> Iterator[av.VideoFrame]:
        try:
            # Packets of sound too: they tell where the file ends.
            for packet in self._container.demux():
                if packet.size and packet.pts is not None:
                    self._end_s = max(self._end_s, float((packet.pts + (packet.duration or 0)) * packet.time_base))
                if packet.stream is self._stream:
                    yield from self._decode(packet)
        except av.FFmpegError as error:  # the container itself breaks off
            self._errors.append(str(error.strerror))

    def _decode(self, packet: Packet[Any]) -> Iterator[av.VideoFrame]:
        try:
            frames = packet.decode()
        except av.FFmpegError as error:
            self._errors.append(str(error.strerror))
            return
        for frame in frames:
            assert isinstance(frame, av.VideoFrame)
            self._num_frames += 1
            self._num_incomplete += frame.is_corrupt
            if frame.time is not None and frame.time_base is not None:
                self._times.add(frame.time, float((frame.duration or 0) * frame.time_base))
            yield frame

    @property
    def fps(self) -> float | None:
        """Average frames per second of the frames that came; None where nothing tells."""
        return self._times.fps(claimed_fps(self._stream))

    def nothing(self) -> DataError:
        """Return the error for a file of which no frame came."""
        if _is_animated_webp(self._path):
            return DataError(
                f"{self._path} is an animated WebP, which this FFmpeg cannot read; convert it to a GIF or to MP4"
            )
        why = f" ({self._failed()})" if self._errors else ""
        return DataError(
            f"{self._path} holds {self._stream.name} video, but no frame of it can be decoded{why};"
            " take another copy of the file"
        )

    def damage(self) -> str | None:
        """Say in a line what is missing, after all frames were read; None for a whole file."""
        found = [self._failed()] if self._errors else []
        if self._num_incomplete:
            found.append(f"incomplete frames: {self._num_incomplete}")
        promised_s = (self._container.duration or 0) / av.time_base
        if promised_s - self._end_s > _END_TOLERANCE_S + 2 * self._times.longest_step_s:
            found.append(f"it ends at {self._end_s:.1f} s of {promised_s:.1f} s")
        elif _lacks_its_end(self._path):
            found.append("its end is missing")
        if not found:
            return None
        promised = f" of {self._stream.frames}" if self._stream.frames > self._num_frames else ""
        return f"{self._path} is damaged: {self._num_frames}{promised} frames could be read; {'; '.join(found)}"

    def _failed(self) -> str:
        return f"packets that failed: {len(self._errors)}, {self._errors[0]}"


class Times:
    """The moments at which frames are shown, of which the rate follows.

    *Conventions:* moments and durations are in seconds.

    >>> times = Times()
    >>> for moment in (0.0, 0.1, 0.5):
    ...     times.add(moment, 0.1)
    >>> round(times.fps(claimed=10.0), 6)
    5.0
    """

    def __init__(self) -> None:
        self._frames: list[tuple[float, float]] = []

    def add(self, moment_s: float, duration_s: float) -> None:
        """Take in a frame, in any order; a duration of 0 is not known."""
        self._frames.append((moment_s, duration_s))

    @property
    def longest_step_s(self) -> float:
        """The longest time between two frames."""
        return max(self._steps(), default=0.0)

    def fps(self, claimed: float | None) -> float | None:
        """Return the average number of frames a second.

        Args:
            claimed: what the file's header says. It is returned where the frames agree with it to one period, since
                time stamps are rounded, and where they do not tell.
        """
        steps = self._steps()
        if not steps or not 0 < min(steps) <= max(steps) <= LONGEST_STILL_S:
            return claimed
        _, last_duration_s = max(self._frames)
        lasts_s = sum(steps) + (last_duration_s or mean(steps))
        num = len(self._frames)
        if claimed and abs(num / claimed - lasts_s) <= 1 / claimed:
            return claimed
        return num / lasts_s

    def _steps(self) -> list[float]:
        moments = sorted(moment_s for moment_s, _ in self._frames)
        return [after - before for before, after in pairwise(moments)]


def rate(path: Path, *, num_packets: int) -> float | None:
    """Return the average frames per second by the time stamps of the first packets, without decoding them.

    Raises:
        DataError: as `opened` and `Decoder`.
    """
    times = Times()
    with opened(path) as container:
        stream = _video_stream(container, path)
        with suppress(av.FFmpegError):  # where the container breaks off, what came before counts
            for packet in islice(container.demux(stream), num_packets):
                if packet.size and packet.pts is not None and not packet.is_discard:
                    times.add(float(packet.pts * packet.time_base), float((packet.duration or 0) * packet.time_base))
        return times.fps(claimed_fps(stream))


def claimed_fps(stream: VideoStream) -> float | None:
    """Return the rate that the file's header claims."""
    return float(stream.average_rate) if stream.average_rate else None


def _video_stream(container: InputContainer, path: Path) -> VideoStream:
    streams = [s for s in container.streams.video if not _is_cover(s)]
    if not streams:
        others = {_OTHER_KINDS.get(s.type, s.type) for s in container.streams if not _is_cover(s)}
        kinds = " and ".join(sorted(others)) or "nothing"
        raise DataError(f"{path} has no video stream, only {kinds}; give a file with pictures that move")
    chosen = next((s for s in streams if s.disposition & Disposition.default), streams[0])
    if chosen.codec_context is None:
        raise DataError(f"{path} is encoded in a way that this PyAV cannot decode; convert it, to H.264 for example")
    chosen.codec_context.thread_count = 1
    return chosen


def _is_cover(stream: object) -> bool:
    return isinstance(stream, VideoStream) and bool(stream.disposition & Disposition.attached_pic)


def _is_animated_webp(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(21)
    return head[8:16] == b"WEBPVP8X" and len(head) == 21 and bool(head[20] & _ANIMATION_FLAG)


def _lacks_its_end(path: Path) -> bool:
    """Tell a file whose kind marks its end, and which lacks that mark."""
    with path.open("rb") as file:
        match file.read(4):
            case b"GIF8":
                return not _has_trailer(file)
            case b"OggS":
                return not _has_last_page(file)
    return False


def _has_trailer(gif: BinaryIO) -> bool:
    """Follow the blocks of a GIF to its trailer; what lies behind that does not belong to it."""
    gif.seek(10)
    _skip_colours(gif, gif.read(3)[:1])
    while kind := gif.read(1):
        match kind:
            case b";":
                return True
            case b"!":  # an extension: a label, then blocks
                gif.seek(1, os.SEEK_CUR)
            case b",":  # a picture: its place, perhaps colours, the size of its codes, then blocks
                _skip_colours(gif, gif.read(9)[8:])
                gif.seek(1, os.SEEK_CUR)
            case _:
                return False
        while (size := gif.read(1)) and size != b"\0":
            gif.seek(size[0], os.SEEK_CUR)
    return False


def _skip_colours(gif: BinaryIO, flags: bytes) -> None:
    if flags and flags[0] & 0x80:
        gif.seek(3 << (flags[0] & 7) + 1, os.SEEK_CUR)


def _has_last_page(ogg: BinaryIO) -> bool:
    """Tell whether the last page of an Ogg file says that its stream ends with it."""
    size = ogg.seek(0, os.SEEK_END)
    ogg.seek(max(0, size - (1 << 17)))  # longer than the longest page
    tail = ogg.read()
    start = tail.rfind(b"OggS")
    return start >= 0 and start + 6 <= len(tail) and bool(tail[start + 5] & _LAST_PAGE_FLAG)
