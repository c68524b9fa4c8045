"""Open and decode video containers; claims of a header are compared with the decoded frames."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from itertools import islice, pairwise
from pathlib import Path
from statistics import mean

import av
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition
from av.video.stream import VideoStream

from saccade.data.ending import is_cut_off
from saccade.errors import DataError

ADVICE = "give a video, GIF or .npz file"
# A square of 8192 px: more than any video has, and 200 MB in colour.
MAX_PIXELS = 1 << 26
# Longest plausible time between two frames of a file of variable rate.
LONGEST_STILL_S = 60.0
_OTHER_KINDS = {"audio": "sound"}
_ANIMATION_FLAG = 0x02


def opened(path: Path) -> InputContainer:
    """Open a video file.

    Raises:
        DataError: if the file is not a video.
    """
    try:
        # Without "file:", FFmpeg takes the part of the file name before a colon for a protocol.
        container = av.open(f"file:{path}", metadata_errors="replace")
    except av.FFmpegError as error:
        raise DataError(f"{path} cannot be read as a video ({error.strerror}); {ADVICE}") from error
    if container.format.name == "tty":
        container.close()
        raise DataError(f"{path} is a text file; {ADVICE}")
    return container


class Decoder:
    """Iterate over the frames of a file's video stream in display order, and record frame rate and damage.

    Packets that cannot be decoded are skipped and counted. The stream is the one that the file marks as its default, or
    else the first video stream. Cover pictures do not count as video streams.

    Args:
        container: an open container; the caller closes it.
        path: the file, for messages.

    Raises:
        DataError: if there is no video stream that this FFmpeg can decode.
    """

    def __init__(self, container: InputContainer, path: Path) -> None:
        self._container, self._path = container, path
        self._stream = _video_stream(container, path)
        self._errors: list[str] = []
        self._times = Times()
        self._num_frames = self._num_incomplete = 0

    def __iter__(self) -> Iterator[av.VideoFrame]:
        try:
            for packet in _packets(self._container, self._stream):
                yield from self._decode(packet)
        except av.FFmpegError as error:  # the container itself is damaged
            self._errors.append(str(error.strerror))

    def _decode(self, packet: Packet[VideoStream]) -> Iterator[av.VideoFrame]:
        try:
            frames = packet.decode()
        except av.FFmpegError as error:
            self._errors.append(str(error.strerror))
            return
        for frame in frames:
            self._num_frames += 1
            self._num_incomplete += frame.is_corrupt
            if frame.time is not None and frame.time_base is not None:
                self._times.add(frame.time, float((frame.duration or 0) * frame.time_base))
            yield frame

    @property
    def seconds(self) -> tuple[float, ...] | None:
        """The time of each frame after the first one; None if it is unknown or the order is not that of time."""
        found = self._times.seconds
        return found if len(found) == self._num_frames and list(found) == sorted(found) else None

    @property
    def fps(self) -> float | None:
        """Average frames per second of the decoded frames; None if it is unknown."""
        return self._times.fps(claimed_fps(self._stream))

    def nothing(self) -> DataError:
        """Return the error for a file without a decodable frame."""
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
        """Return one line about missing parts, or None for an intact file; all frames must have been read."""
        found = [self._failed()] if self._errors else []
        if self._num_incomplete:
            found.append(f"incomplete frames: {self._num_incomplete}")
        if is_cut_off(self._path):
            found.append("its end is missing")
        if not found:
            return None
        promised = f" of {self._stream.frames}" if self._stream.frames > self._num_frames else ""
        return f"{self._path} is damaged: {self._num_frames}{promised} frames could be read; {'; '.join(found)}"

    def _failed(self) -> str:
        return f"packets that failed: {len(self._errors)}, {self._errors[0]}"


class Times:
    """The display times of frames, and the frame rate that follows from them.

    *Conventions:* times and durations are in seconds.

    >>> times = Times()
    >>> for moment in (0.0, 0.1, 0.5):
    ...     times.add(moment, 0.1)
    >>> round(times.fps(claimed=10.0), 6)
    5.0
    """

    def __init__(self) -> None:
        self._frames: list[tuple[float, float]] = []

    def add(self, moment_s: float, duration_s: float) -> None:
        """Add a frame, in any order; a duration of 0 means that it is unknown."""
        self._frames.append((moment_s, duration_s))

    @property
    def seconds(self) -> tuple[float, ...]:
        """The time of each frame after the first one, in the order of `add`."""
        return tuple(moment_s - self._frames[0][0] for moment_s, _ in self._frames)

    def fps(self, claimed: float | None) -> float | None:
        """Return the average number of frames per second.

        Args:
            claimed: the rate in the file's header. It is returned if the frames agree with it to one period, since time
                stamps are rounded, or if the frames give no plausible rate.
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
    """Return the average frames per second from the time stamps of the first packets, without decoding them.

    Raises:
        DataError: as for `opened` and `Decoder`.
    """
    times = Times()
    with opened(path) as container:
        stream = _video_stream(container, path)
        with suppress(av.FFmpegError):  # in a damaged container, the packets before the damage count
            for packet in islice(_packets(container, stream), num_packets):
                if packet.size and packet.pts is not None and not packet.is_discard:
                    times.add(float(packet.pts * packet.time_base), float((packet.duration or 0) * packet.time_base))
        return times.fps(claimed_fps(stream))


def _packets(container: InputContainer, stream: VideoStream) -> Iterator[Packet[VideoStream]]:
    with suppress(IndexError):  # PyAV ends so where a stream begins that was not there when the file was opened
        yield from container.demux(stream)


def claimed_fps(stream: VideoStream) -> float | None:
    """Return the frame rate in the file's header."""
    return float(stream.average_rate) if stream.average_rate else None


def _video_stream(container: InputContainer, path: Path) -> VideoStream:
    streams = [s for s in container.streams.video if not _is_cover(s)]
    if not streams:
        others = {_OTHER_KINDS.get(s.type, s.type) for s in container.streams if not _is_cover(s)}
        kinds = " and ".join(sorted(others)) or "nothing"
        raise DataError(f"{path} has no video stream, only {kinds}; give a video file")
    chosen = next((s for s in streams if s.disposition & Disposition.default), streams[0])
    if chosen.codec_context is None:
        raise DataError(f"{path} is encoded in a way that this PyAV cannot decode; convert it, to H.264 for example")
    width, height = chosen.codec_context.width, chosen.codec_context.height
    if width * height > MAX_PIXELS:
        raise DataError(f"{path} has frames of {width}x{height} px; at most {MAX_PIXELS} pixels can be read")
    chosen.codec_context.thread_count = 1
    # For frames that are larger than the header says.
    chosen.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
    return chosen


def _is_cover(stream: object) -> bool:
    return isinstance(stream, VideoStream) and bool(stream.disposition & Disposition.attached_pic)


def _is_animated_webp(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(21)
    return head[8:16] == b"WEBPVP8X" and len(head) == 21 and bool(head[20] & _ANIMATION_FLAG)
