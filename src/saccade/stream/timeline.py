"""The time of a live source's frames: by its stamps as long as they can be true, else by their arrival."""

from __future__ import annotations

from dataclasses import dataclass

# In seconds. A stamp may go back as far as rounding and reordering explain.
_BACK_S = 0.1
_STILL_S = 1.0
_JUMPS, _WITHIN_S = 3, 10.0
_SLOWER = 3  # times the step before: the source's own rhythm
# The first frame of RTSP has no stamp; more in a row mean that there are none.
_UNSTAMPED = 5


@dataclass(frozen=True)
class Moment:
    """The time of a frame.

    Args:
        at_s: in seconds, from any origin; comparable with the frames before, back to the last beginning.
        begins: whether the frame begins a new piece of video.
        note: one line about stamps that cannot be true; None if there is nothing to tell.
    """

    at_s: float
    begins: bool = False
    note: str | None = None


class Timeline:
    """Give each frame its time.

    Stamps that jump begin a new piece of video. Stamps that are missing, stand still or jump all the time are given up,
    and frames get the time at which they arrived.

    Args:
        leap_s: the longest step between two stamps that is not a jump; a source whose own steps are about as long may
            take longer ones.
        by_arrival: whether stamps are not looked at.

    >>> timeline = Timeline(leap_s=2.0)
    >>> [moment.begins for moment in (timeline.add(stamp_s, 0.0) for stamp_s in (7.0, 7.1, 7.2, 3.0, 3.1)) if moment]
    [True, False, False, True, False]
    """

    def __init__(self, leap_s: float, by_arrival: bool = False) -> None:
        self._leap_s, self._by_arrival = leap_s, by_arrival
        self._last_s: float | None = None
        self._step_s = self._moved_s = 0.0
        self._jumps: list[float] = []
        self._told, self._num_unstamped = False, 0

    def add(self, stamp_s: float | None, arrived_s: float) -> Moment | None:
        """Return the time of the next frame; None if it is unknown, and the frame is to be left out.

        Args:
            stamp_s: its time stamp; None if it has none.
            arrived_s: when it arrived, in seconds from any origin.
        """
        self._num_unstamped = self._num_unstamped + 1 if stamp_s is None else 0
        if stamp_s is None and not self._by_arrival:
            is_over = self._num_unstamped >= _UNSTAMPED
            return self._given_up("frames come without time stamps", arrived_s) if is_over else None
        at_s = arrived_s if self._by_arrival or stamp_s is None else stamp_s
        if self._last_s is None:
            self._moved(at_s, 0.0, arrived_s)
            return Moment(at_s, begins=True)
        step_s = at_s - self._last_s
        if step_s < -_BACK_S or step_s > max(self._leap_s, _SLOWER * self._step_s):
            return self._jumped(at_s, step_s, arrived_s)
        if step_s > 0:
            self._moved(at_s, step_s, arrived_s)
        elif not self._by_arrival and arrived_s - self._moved_s > _STILL_S:
            return self._given_up("time stamps stand still", arrived_s)
        return Moment(at_s)

    def _moved(self, at_s: float, step_s: float, arrived_s: float) -> None:
        self._last_s, self._step_s, self._moved_s = at_s, step_s, arrived_s

    def _jumped(self, at_s: float, step_s: float, arrived_s: float) -> Moment:
        self._jumps = [*(then for then in self._jumps if arrived_s - then < _WITHIN_S), arrived_s]
        if len(self._jumps) >= _JUMPS and not self._by_arrival:
            return self._given_up("time stamps jump again and again", arrived_s)
        # The rhythm of a slow source is one that its arrival confirms.
        self._moved(at_s, min(max(0.0, step_s), arrived_s - self._moved_s), arrived_s)
        return Moment(at_s, True, self._once(f"its time jumped by {step_s:+.1f} s; the model starts anew"))

    def _given_up(self, why: str, arrived_s: float) -> Moment:
        self._by_arrival = True
        self._moved(arrived_s, 0.0, arrived_s)
        return Moment(arrived_s, True, f"its {why}; frames count from when they arrive")

    def _once(self, line: str) -> str | None:
        if self._told:
            return None
        self._told = True
        return line
