"""The thread that keeps a source open: it fills the queue of frames and connects again after a loss."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

import torch

from saccade.data.pixels import Size
from saccade.errors import DataError
from saccade.stream import wire
from saccade.stream.address import Address, SourceKind
from saccade.stream.decoding import Task
from saccade.stream.limits import USUAL_FPS, Limits
from saccade.stream.live_frame import LiveFrame
from saccade.stream.measured import Cost, not_measured
from saccade.stream.process import ReadingProcess
from saccade.stream.waiting import Waiting

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0
"""The pauses between attempts to connect again: each is twice the one before."""

# Over which the rate of the source is measured, and after which one is told that is slow from its start.
_WINDOW_S, _ENOUGH_S = 5.0, 3.0
# For which a source has to be slow to count as one that got slow, as in the dark; a pause leaves the window before.
_LASTING_S = 2 * _WINDOW_S
_SLOW = 0.9


class Feed:
    """Reads a source in a thread until it ends.

    Args:
        task: what is read.
        address: the source of the task.
        fit: the function from the size of the first frame to that of `LiveFrame.pixels`.
        limits: the time limits of the source.
        cost: what is told of a source that is slower than the model's rate.

    Attributes:
        waiting: the frames, and lines for the user.
        fps: the rate of the source over the last seconds; None before two frames.
    """

    def __init__(
        self,
        task: Task,
        address: Address,
        fit: Callable[[Size], Size],
        limits: Limits,
        cost: Cost = not_measured,
    ) -> None:
        self.waiting = Waiting.at_rate(task.fps)
        self.fps: float | None = None
        self._task, self._address, self._fit, self._limits = task, address, fit, limits
        self._cost = cost
        self._process: ReadingProcess | None = None
        self._lock, self._is_stopped = threading.Lock(), threading.Event()
        self._last: LiveFrame | None = None
        self._is_finite = address.kind is SourceKind.PIPE
        self._start_s = 0.0  # of the piece of video, in the time of the whole source
        self._moments, self._has_told_rate, self._said = deque[float](), False, set[str]()
        self._fast_s: float | None = None  # when the source was last as fast as the model, in the time of the piece
        self._thread = threading.Thread(target=self._run, name="saccade-source", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread and the process."""
        with self._lock:
            self._is_stopped.set()
            if self._process is not None:
                self._process.kill()
        self.waiting.close()
        self._thread.join()

    def _run(self) -> None:
        try:
            self._follow()
        except BaseException as error:  # also an error in this program is raised where the frames are wanted
            self.waiting.end(error)
        else:
            self.waiting.end()

    def _follow(self) -> None:
        pause_s, is_lost = FIRST_PAUSE_S, False
        while not self._is_stopped.is_set():
            before, opened_s = self._last, time.monotonic()
            try:
                self._read_once(is_lost)
                if self._is_finite:
                    return
                problem = f"{self._address.shown} has ended"
            except DataError as error:
                problem = str(error)
            if self._is_stopped.is_set():
                return
            if self._last is None or self._is_finite:
                raise DataError(problem)
            if self._last is not before:
                is_lost = False
                if time.monotonic() - opened_s > LONGEST_PAUSE_S:  # or else the source comes and goes
                    pause_s = FIRST_PAUSE_S
            left_s = self._last.arrived_s + self._limits.reconnect_s - time.monotonic()
            if left_s <= 0:
                raise DataError(problem)
            if not is_lost:
                self.waiting.say(f"{problem}; trying again for {self._limits.reconnect_s:g} s")
            is_lost = True
            self._is_stopped.wait(min(pause_s, left_s))
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    def _read_once(self, is_lost: bool) -> None:
        """Read the source until it ends; raise DataError if it fails."""
        with self._lock:
            if self._is_stopped.is_set():
                return
            self._process = process = ReadingProcess(self._task, self._address, self._limits)
        try:
            for message in process.messages():
                self._take(message, process)
                if is_lost and process.is_open:
                    self.waiting.say(f"{self._address.shown} sends frames again")
                    is_lost = False
        finally:
            with self._lock:
                self._process = None
                process.close()

    def _take(self, message: bytes, process: ReadingProcess) -> None:
        match message[0]:
            case wire.Kind.OPEN:
                is_recording = wire.content_of(message)
                # What has an end does not begin again behind it.
                self._is_finite |= is_recording
                self.waiting.is_live = self._task.realtime or not is_recording
            case wire.Kind.SIZE:
                process.answer(self._fit(tuple(wire.content_of(message))))
            case wire.Kind.SEEN:
                self._measure(wire.moment_of(message))
            case wire.Kind.NOTE:
                self._say_once(f"{self._address.shown}: {wire.content_of(message)}")
            case wire.Kind.FRAME | wire.Kind.AGAIN:
                self._last = self._live_frame(wire.Shown.unpacked(message))
                self.waiting.put(self._last)

    def _say_once(self, line: str) -> None:
        """Say a line about the source, which it may have earned at each connection."""
        if line not in self._said:
            self._said.add(line)
            self.waiting.say(line)

    def _live_frame(self, shown: wire.Shown) -> LiveFrame:
        last = self._last
        if shown.begins:
            period_s = 1 / (self._task.fps or USUAL_FPS)
            # Time goes on over a gap, as long as it took.
            gap_s = 0.0 if last is None else max(period_s, shown.arrived_s - last.arrived_s)
            self._start_s = 0.0 if last is None else last.time_s + gap_s
        time_s = self._start_s + shown.time_s
        if shown.pixels is None:
            assert last is not None
            return LiveFrame(last.pixels, time_s, shown.arrived_s, False, last.picture)
        picture = None if shown.picture is None else torch.from_numpy(shown.picture).permute(1, 2, 0)
        return LiveFrame(torch.from_numpy(shown.pixels), time_s, shown.arrived_s, shown.begins, picture)

    def _measure(self, moment_s: float) -> None:
        moments, wanted_fps = self._moments, self._task.fps
        if moments and moment_s < moments[-1]:  # time has begun anew
            moments.clear()
            self._fast_s = None
        moments.append(moment_s)
        while moments[-1] - moments[0] > _WINDOW_S and len(moments) > 2:
            moments.popleft()
        lasts_s = moments[-1] - moments[0]
        self.fps = (len(moments) - 1) / lasts_s if lasts_s > 0 else self.fps
        if wanted_fps and self.fps and lasts_s >= _ENOUGH_S and not self._has_told_rate:
            if not is_slow(self.fps, wanted_fps):
                self._fast_s = moment_s
            elif self._fast_s is None or moment_s - self._fast_s > _LASTING_S:
                self._has_told_rate = True
                self.waiting.say(slow_line(self._address.shown, self.fps, wanted_fps, self._cost))


def is_slow(fps: float, wanted_fps: float) -> bool:
    """Return whether a source gives so few frames that a model sees many of them again."""
    return fps < _SLOW * wanted_fps


def slow_line(name: str, fps: float, wanted_fps: float, cost: Cost) -> str:
    """Return the line about a source that is slower than the clips that the model learned from."""
    return f"{name} gives {fps:.3g} frames/s; the model learned at {wanted_fps:.3g}: frames are repeated; {cost(fps)}"
