"""Open and decode video containers; claims of a header are compared with the decoded frames."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import chain, islice
from pathlib import Path

import av
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition
from av.video.stream import VideoStream

from saccade.data import members
from saccade.data.ending import is_cut_off
from saccade.data.times import ROUNDING_S, Part, Times, duration_s
from saccade.errors import DataError

ADVICE = "give a video, GIF or .npz file"
# A square of 8192 px: more than any video has, and 200 MB in colour.
MAX_PIXELS = 1 << 26
_LIMITS = {"max_pixels": str(MAX_PIXELS)}
# Formats with an index of key frames, and codecs of which a key frame leaves nothing that came before.
_SEEKABLE = frozenset(("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"))
_CLEAN_KEY_FRAMES = frozenset(("h264", "hevc", "vp8", "vp9", "av1", "mjpeg", "prores"))
_SHORTEST_SEEK_S = 1.0
# Texts that name other files, whatever their suffix: FFmpeg would show what lies there.
_LISTS = frozenset(("concat", "dash", "hls", "imf", "sdp", "webm_dash_manifest"))
_OTHER_KINDS = {"audio": "sound"}
_ANIMATION_FLAG = 0x02


def opened(path: Path) -> InputContainer:
    """Open a video file.

    Raises:
        DataError: if the file is not a video.
    """
    try:
        # FFmpeg decodes a frame already here where a header does not tell the format.
        container = av.open(members.address(path), metadata_errors="replace", options=_LIMITS)
    except av.FFmpegError as error:
        raise DataError(f"{path} cannot be read as a video ({error.strerror}); {ADVICE}") from error
    if container.format.name == "tty":
        container.close()
        raise DataError(f"{path} is a text file; {ADVICE}")
    if container.format.name in _LISTS:
        container.close()
        raise DataError(f"{path} is a list of other files and no video; give these files")
    return container


@contextmanager
def decoding(path: Path, part: Part) -> Iterator[Decoder]:
    """Yield a decoder at the start of a part; the file is closed behind the block.

    Raises:
        DataError: as for `opened` and `Decoder`.
    """
    with ExitStack() as stack:
        decoder = Decoder(stack.enter_context(opened(path)), path, part)
        if not decoder.seek():
            decoder.close()
            decoder = Decoder(stack.enter_context(opened(path)), path, part)
        stack.callback(decoder.close)
        yield decoder


class Decoder:
    """Iterate over the frames of a file's video stream in display order, and record frame rate and damage.

    Packets that cannot be decoded are skipped and counted. The stream is the one that the file marks as its default, or
    else the first video stream. Cover pictures do not count as video streams.

    Args:
        container: an open container; the caller closes it.
        path: the file, for messages.
        part: the part of the file whose frames are wanted.

    Raises:
        DataError: if there is no video stream that this FFmpeg can decode.
    """

    def __init__(self, container: InputContainer, path: Path, part: Part) -> None:
        self._container, self._path, self._part = container, path, part
        self._stream = _video_stream(container, path)
        self._errors: list[str] = []
        self._times = Times()
        self.num_frames = self._num_incomplete = self._num_bytes = 0
        self._first_s: float | None = None  # time stamp of the file's first frame
        self._last_s = 0.0  # of the last frame that was read, after the first
        self._frames: Iterator[av.VideoFrame] = self._decoded(_packets(container, self._stream))
        self._sizes: dict[int | None, int] = {}  # of packets in bytes, by time stamp
        self._is_stopped = False

    def close(self) -> None:
        """End the iteration, so that the decoder and its frames are freed at once and not by the garbage collector."""
        self._frames = iter(())

    def seek(self) -> bool:
        """Go to the last key frame before the part, if that saves time.

        Returns:
            False if the frames from there might differ from those of a decoder that starts at the beginning. The
            container then has to be opened again.
        """
        is_exact = self._container.format.name in _SEEKABLE and self.codec in _CLEAN_KEY_FRAMES
        if self._part.start_s < _SHORTEST_SEEK_S or not is_exact:
            return True
        first = next((frame for frame in self._frames if frame.time is not None), None)
        time_base = self._stream.time_base
        if first is None or first.time is None or not time_base:
            return False
        self._first_s, wanted_s = first.time, first.time + self._part.start_s
        try:
            self._container.seek(int(wanted_s / time_base), stream=self._stream)
        except av.FFmpegError:
            return False
        self._frames = self._decoded(_packets(self._container, self._stream))
        self._sizes.clear()
        landed = next(self._frames, None)
        self._frames = chain([] if landed is None else [landed], self._frames)
        return landed is not None and landed.time is not None and landed.key_frame and landed.time <= wanted_s

    def __iter__(self) -> Iterator[av.VideoFrame]:
        for frame in self._frames if self._part.is_whole else self._within(self._frames):
            self.num_frames += 1
            self._num_bytes += self._sizes.pop(frame.pts, 0)
            self._num_incomplete += frame.is_corrupt
            if frame.time is not None:
                self._times.add(frame.time, duration_s(frame))
            yield frame

    def _within(self, frames: Iterator[av.VideoFrame]) -> Iterator[av.VideoFrame]:
        start_s, end_s = self._part.start_s + ROUNDING_S, self._part.end_s - ROUNDING_S
        shown: av.VideoFrame | None = None
        for frame in frames:
            if frame.time is None:
                continue
            self._first_s = frame.time if self._first_s is None else self._first_s
            self._last_s = frame.time - self._first_s
            self._is_stopped = self._last_s >= end_s
            if self._is_stopped and shown is not None and shown.time is not None and shown.time_base:
                shown.duration = round((frame.time - shown.time) / shown.time_base)  # it is shown until the end
            if shown is not None and self._last_s > start_s:
                yield shown
            else:
                # What lies before the part is not wanted.
                self._errors.clear()
                self._sizes.pop(shown.pts if shown else None, 0)
            if self._is_stopped:
                return
            shown = frame
        if shown is not None and self._last_s + max(duration_s(shown), 2 * ROUNDING_S) > start_s:
            yield shown

    def _decoded(self, packets: Iterator[Packet[VideoStream]]) -> Iterator[av.VideoFrame]:
        try:
            for packet in packets:
                if self._part.is_whole:
                    self._num_bytes += packet.size
                else:
                    self._sizes[packet.dts if packet.pts is None else packet.pts] = packet.size
                try:
                    yield from packet.decode()
                except av.FFmpegError as error:
                    if bytes(packet)[1:7] != b"theora":  # a header, which a chain of Ogg streams repeats
                        self._errors.append(str(error.strerror))
        except av.FFmpegError as error:  # the container itself is damaged
            self._errors.append(str(error.strerror))

    @property
    def start_s(self) -> float | None:
        """The time stamp at which the part starts; None if it is the whole file, or before its first frame is read."""
        return None if self._part.is_whole or self._first_s is None else self._first_s + self._part.start_s

    def num_periods(self, fps: float) -> float:
        """Return how many periods of a frame rate start within the part; infinity if it ends with the file."""
        lasts_s = self._part.end_s - self._part.start_s - ROUNDING_S
        return lasts_s if math.isinf(lasts_s) else max(1, math.ceil(lasts_s * fps))

    @property
    def fps(self) -> float | None:
        """Average frames per second of the decoded frames; None if it is unknown."""
        return self._times.fps(claimed_fps(self._stream))

    @property
    def duration_s(self) -> float | None:
        """Display time of the decoded frames; None if it is unknown."""
        return self.num_frames / self.fps if self.fps else None

    @property
    def codec(self) -> str:
        """FFmpeg's name of the codec."""
        return self._stream.codec_context.codec.canonical_name

    @property
    def bit_rate_bps(self) -> float | None:
        """Bits of the video's packets per second; None if the duration is unknown."""
        return 8 * self._num_bytes / self.duration_s if self.duration_s else None

    def nothing(self) -> DataError:
        """Return the error for a file without a decodable frame."""
        if _is_animated_webp(self._path):
            return DataError(
                f"{self._path} is an animated WebP, which this FFmpeg cannot read; convert it to a GIF or to MP4"
            )
        if self._first_s is not None:
            return DataError(
                f"{self._path} holds no frame {self._part}: its last one is at {self._last_s:g} s; give another part"
            )
        if not self._stream.codec_context.width:
            return DataError(
                f"{self._path} has frames of unknown size or of more than {MAX_PIXELS} pixels; take another copy of the"
                " file, or scale it down"
            )
        why = f" ({self._failed()})" if self._errors else ""
        return DataError(
            f"{self._path} holds {self._stream.name} video, but no frame of it can be decoded{why};"
            " take another copy of the file"
        )

    def damage(self) -> str | None:
        """Return one line about missing parts, or None if there are none; all frames must have been read."""
        found = [self._failed()] if self._errors else []
        if self._num_incomplete:
            found.append(f"incomplete frames: {self._num_incomplete}")
        if 2 * self._times.num_repeated >= max(2, self.num_frames):  # a few are harmless
            found.append(
                f"frames that have the time stamp of another, which resampling drops: {self._times.num_repeated}"
            )
        if not self._is_stopped and is_cut_off(self._path):
            found.append("its end is missing")
        if not found:
            return None
        is_less = self._part.is_whole and self._stream.frames > self.num_frames
        promised = f" of {self._stream.frames}" if is_less else ""
        return f"{self._path} is damaged: {self.num_frames}{promised} frames could be read; {'; '.join(found)}"

    def _failed(self) -> str:
        return f"packets that failed: {len(self._errors)}, {self._errors[0]}"


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
        raise DataError(
            f"{path} has frames of {width}x{height} px; at most {MAX_PIXELS} pixels can be read: scale it down"
        )
    chosen.codec_context.thread_count = 1
    # For frames that are larger than the header says.
    chosen.codec_context.options = _LIMITS
    return chosen


def _is_cover(stream: object) -> bool:
    return isinstance(stream, VideoStream) and bool(stream.disposition & Disposition.attached_pic)


def _is_animated_webp(path: Path) -> bool:
    with members.opened(path) as file:
        head = file.read(21)
    return head[8:16] == b"WEBPVP8X" and len(head) == 21 and bool(head[20] & _ANIMATION_FLAG)
