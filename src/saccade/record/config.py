"""The options of `saccade record`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from saccade.clips import MAX_FPS, MAX_FRAME_PX, MIN_FPS, MIN_PX
from saccade.errors import UsageError

_MOST_CLIPS = 9999


@dataclass(frozen=True)
class RecordConfig:
    """Record clips of a class from a camera, a network stream, a file or standard input.

    Args:
        class_name: the class. Its clips are written to the folder of that name in the folder `out`.
        source: a camera (its number, or a device such as /dev/video0), an address (rtsp, http, https, udp, tcp), a
            file, or - for standard input.
        out: the folder of the collection, with one folder per class; `saccade train --data` reads it.
        num_clips: the number of clips.
        seconds: the length of a clip.
        pause_s: the time before each clip, in seconds.
        short_side: the shorter side of the recorded frames, in pixels. Smaller frames are not enlarged.
        fps: the highest frame rate. Frames of a faster source are left out.
        realtime: play a file at its own rate, as if it came from a camera.

    Raises:
        UsageError: if a number is out of range.
    """

    class_name: Positional[str]
    source: str
    out: Path
    num_clips: int = 8
    seconds: float = 2.0
    pause_s: float = 1.0
    short_side: int = 240
    fps: float = 30.0
    realtime: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.num_clips <= _MOST_CLIPS:
            raise UsageError(f"num_clips must lie in 1 to {_MOST_CLIPS}; got {self.num_clips}")
        if not 0 < self.seconds < math.inf:
            raise UsageError(f"seconds must be above 0 and finite; got {self.seconds}")
        if not 0 <= self.pause_s < math.inf:
            raise UsageError(f"pause_s must be at least 0 and finite; got {self.pause_s}")
        if not MIN_PX <= self.short_side <= MAX_FRAME_PX:
            raise UsageError(f"short_side must lie in {MIN_PX} to {MAX_FRAME_PX} px; got {self.short_side}")
        if not MIN_FPS <= self.fps <= MAX_FPS:
            raise UsageError(f"fps must lie in {MIN_FPS} to {MAX_FPS}; got {self.fps}")
