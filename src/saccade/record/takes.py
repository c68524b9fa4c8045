"""Cut clips of one length out of the frames of a source, with a pause before each."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator

from saccade.record.clip_encoder import ClipEncoder
from saccade.record.config import RecordConfig
from saccade.stream.live_frame import LiveFrame

_COUNTED_S = 3
# Of a clip: containers round time stamps.
_TOLERANCE = 0.01
# Of a period: cameras are not punctual.
_JITTER = 0.25


class Takes:
    """Cut clips out of frames by their time stamps, and count down to each.

    A gap in the source discards the clip that it is in, which then begins again.

    Args:
        config: the number, the length and the rate of the clips, and the pause.
        say: called with each line for the user.
    """

    def __init__(self, config: RecordConfig, say: Callable[[str], None]) -> None:
        self._config, self._say = config, say
        self._number, self._counted = 1, 0
        self._clip: ClipEncoder | None = None
        self._begins_s = self._ends_s = 0.0
        self._due_s = 0.0  # of the next frame at the highest rate

    def clips(self, frames: Iterable[LiveFrame]) -> Iterator[ClipEncoder]:
        """Yield the clips as they end, until there are enough or the frames end."""
        for frame in frames:
            if frame.begins:
                if self._clip is not None:
                    self._say(f"the source was interrupted: clip {self._number} begins again")
                self._wait_from(frame.time_s)
            elif self._clip is not None and frame.time_s >= self._ends_s - _TOLERANCE * self._config.seconds:
                yield self._clip
                if self._number == self._config.num_clips:
                    return
                self._number += 1
                self._wait_from(frame.time_s)
            self._take(frame)
        if self._clip is not None and self._clip.duration_s >= (1 - _TOLERANCE) * self._config.seconds:
            yield self._clip

    def _wait_from(self, time_s: float) -> None:
        self._clip, self._begins_s, self._counted = None, time_s + self._config.pause_s, _COUNTED_S + 1

    def _take(self, frame: LiveFrame) -> None:
        if self._clip is None:
            if (left_s := self._begins_s - frame.time_s) > 0:
                self._count_down(left_s)
                return
            self._say(f"recording {self._number} of {self._config.num_clips} ...")
            self._clip, self._ends_s = ClipEncoder(), frame.time_s + self._config.seconds
            self._due_s = frame.time_s
        period_s = 1 / self._config.fps
        if frame.time_s >= self._due_s - _JITTER * period_s:
            self._clip.add(frame.pixels, frame.time_s)
            # A source that was late may not catch up all at once.
            self._due_s = max(self._due_s + period_s, frame.time_s + period_s / 2)

    def _count_down(self, left_s: float) -> None:
        seconds = math.ceil(left_s)
        if seconds < self._counted:
            self._counted = seconds
            self._say(f"{seconds} s until clip {self._number} of {self._config.num_clips}")
