"""The process that decodes an untrusted video: `python -m saccade.serve.decode FILE SECONDS FRAME_FORMAT`.

FRAME_FORMAT is the JSON of `FrameFormat.as_json`. The process has limits on memory and time and opens no other file.
It writes a line when it is ready, then a line of JSON, then the pixels. If the file has an error, the JSON line holds
it as `error`. If the process exceeds a limit and is killed, the JSON line is missing.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from pathlib import Path
from typing import Any

import av

from saccade.clips import FrameFormat
from saccade.data import video
from saccade.errors import DataError
from saccade.serve.upload import MAX_EXTRA_MEMORY_BYTES, READY, most_frames

# The accepted containers. Playlists are excluded, since FFmpeg would read the files and addresses that they name.
_CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,gif,mpeg,mpegts,mpegvideo,ogg,asf,flv,h264,hevc,ivf,apng"
_ALLOWED = {"format_whitelist": _CONTAINERS, "protocol_whitelist": "file"}
_ZIP = b"PK\x03\x04"


def decode(path: Path, wanted: FrameFormat) -> tuple[dict[str, Any], bytes]:
    """Decode a file into frames of a format; return the header and the pixels.

    Raises:
        DataError: if the file is not a video, or is damaged and has no decodable frame.
    """
    with path.open("rb") as file:
        is_npz = file.read(4) == _ZIP
    if is_npz:
        path = path.rename(path.with_suffix(".npz"))
    else:
        _check_container(path)
    size = wanted.fit(video.describe(path).size)
    most = most_frames(wanted.channels, *size)
    clip = video.read_clip(path, size=size, num_channels=wanted.channels, max_frames=most + 1, fps=wanted.fps)
    frames, warning = clip.frames[:most], clip.warning
    if len(clip.frames) > most:
        warning = f"only the first {most} frames are shown"
    num, _, height, width = frames.shape
    header = {"time": num, "height": height, "width": width, "fps": clip.fps, "warning": warning}
    return header, frames.contiguous().numpy().tobytes()


def _check_container(path: Path) -> None:
    try:
        av.open(f"file:{path}", options=_ALLOWED, metadata_errors="replace").close()
    except av.FFmpegError as error:
        raise DataError(f"{path} cannot be read as a video ({error.strerror}); give a video or GIF file") from error


def limit_resources(seconds: int) -> None:
    """Limit the processor time and memory of this process; on Windows only the parent's time limit applies."""
    try:
        import resource
    except ImportError:  # not on Windows
        return
    end = math.ceil(time.process_time()) + seconds
    resource.setrlimit(resource.RLIMIT_CPU, (end, end + 1))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    statm = Path("/proc/self/statm")
    if statm.exists():
        taken = int(statm.read_text(encoding="ascii").split()[0]) * os.sysconf("SC_PAGE_SIZE")
        most = taken + MAX_EXTRA_MEMORY_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


def answer(path: Path, wanted: FrameFormat) -> tuple[dict[str, Any], bytes]:
    """Decode a file, or return a header with an `error`; messages do not reveal the path of the file."""
    try:
        header, pixels = decode(path, wanted)
    except DataError as error:
        header, pixels = {"error": str(error)}, b""
    except MemoryError:
        header, pixels = {"error": "the video needs more memory than an upload may take; give a smaller one"}, b""
    for key in header.keys() & {"error", "warning"}:
        if header[key] is not None:
            header[key] = header[key].replace(str(path.with_suffix(".npz")), "the file").replace(str(path), "the file")
    return header, pixels


def main(arguments: list[str]) -> int:
    """Decode the file, and write the header and the pixels to standard output."""
    path, seconds = Path(arguments[0]), int(arguments[1])
    wanted = FrameFormat.from_json(json.loads(arguments[2]))
    limit_resources(seconds)
    _write(READY)
    header, pixels = answer(path, wanted)
    _write(json.dumps(header).encode() + b"\n" + pixels)
    return 0


def _write(content: bytes) -> None:
    sys.stdout.buffer.write(content)
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
