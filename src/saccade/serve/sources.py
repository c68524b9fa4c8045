"""The sources of frames that do not come by themselves: moving digits, and an uploaded video."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from jaxtyping import UInt8
from numpy.typing import NDArray
from torch import Tensor

from saccade.data.digits import Digits, DigitStream, StreamSettings
from saccade.data.digits import strokes as pen
from saccade.errors import UsageError
from saccade.serve.messages import Change, Drawn, MessageError, Picked, Settings, Start

# The most frames that the generator skips at once when the server is late: skipping more would delay it further.
_MOST_CAUGHT_UP = 30

# The cost of a drawing grows with its points. The page sends up to 60 per stroke; 28 px do not resolve more than this.
_MOST_DRAWN_POINTS = 512


@dataclass(frozen=True)
class Picture:
    """A frame, and its labels if they are known.

    Args:
        frame: the frame of the source, in [0, 255]; grey or RGB.
        digits: the digits in the frame; None for a digit without a label. Empty if nothing is known.
        box_px: the box (top, left, bottom, right) of each digit.
        position: the index of the frame in the video; None for other sources.
        time_s: the time of the frame, in seconds of the source; None for digits, whose motion has no time.
        begins: whether video begins with the frame: what was seen before is no matter of it.
    """

    frame: UInt8[Tensor, "channels height width"]
    digits: tuple[int | None, ...] = ()
    box_px: tuple[tuple[int, int, int, int], ...] = ()
    position: int | None = None
    time_s: float | None = None
    begins: bool = False

    @property
    def things(self) -> tuple[str | None, ...]:
        """The names of the digits; None for a digit without a label."""
        return tuple(None if digit is None else str(digit) for digit in self.digits)


class Source(Protocol):
    """A sequence of frames."""

    def next_picture(self, missed: int) -> Picture | None:
        """Skip the missed frames and return the next one; return None if there is none yet, or no more."""
        ...


class DigitSource:
    """Moving digits of the generator; the page may choose or draw some of them.

    Args:
        digits: the digit images.
        start: the seed, the settings and the chosen digits.

    Raises:
        MessageError: if the generator rejects the settings, or if a place is beyond the number of digits.
    """

    def __init__(self, digits: Digits, start: Start) -> None:
        self._digits = digits
        self._stream = DigitStream(digits, stream_settings(start.settings), seed=start.seed)
        for digit in start.digits:
            self.replace(digit)

    def change(self, change: Change) -> bool:
        """Change the settings; return whether the shown digits have changed."""
        before = self._stream.digits_shown
        self._stream.settings = stream_settings(change.settings)
        return before != self._stream.digits_shown

    def replace(self, digit: Drawn | Picked) -> UInt8[Tensor, "28 28"]:
        """Replace the digit in one place; return the image of the new digit."""
        num = len(self._stream.digits_shown)
        if digit.slot >= num:
            raise MessageError(
                f"there is no place {digit.slot + 1} for {num} digits; increase the number of digits first"
            )
        if isinstance(digit, Drawn):
            image, label = drawn_image(digit), digit.label
        else:
            image, label = self._of_class(digit), digit.digit
        self._stream.replace_digit(digit.slot, image, label)
        return image

    def next_picture(self, missed: int) -> Picture:
        """Advance the digits by the missed frames and one more; return the last of these frames."""
        for _ in range(min(missed, _MOST_CAUGHT_UP)):
            self._stream.skip_frame()
        frame, truth = self._stream.next_frame()
        boxes = tuple((top, left, bottom, right) for top, left, bottom, right in truth.box_px.tolist())
        return Picture(frame, self._stream.digits_shown, boxes)

    def _of_class(self, picked: Picked) -> UInt8[Tensor, "28 28"]:
        images = self._digits.images[self._digits.labels == picked.digit]
        return images[picked.instance % len(images)]


class VideoSource:
    """The frames of a video, from the first to the last.

    Args:
        frames: all frames.
        fps: the number of frames per second.
    """

    def __init__(self, frames: UInt8[Tensor, "time channels height width"], fps: float) -> None:
        self.frames, self.fps, self.position = frames, fps, 0

    @property
    def at_end(self) -> bool:
        """Whether no frame is left."""
        return self.position >= len(self.frames)

    def next_picture(self, missed: int) -> Picture | None:
        """Skip the missed frames and return the next one; the last frame is never skipped."""
        if self.at_end:
            return None
        position = min(self.position + missed, len(self.frames) - 1)
        self.position = position + 1
        return Picture(self.frames[position], position=position, time_s=position / self.fps)


def stream_settings(settings: Settings) -> StreamSettings:
    """Convert the settings of a page to those of the generator.

    Raises:
        MessageError: if a setting is outside the generator's bounds.
    """
    try:
        return StreamSettings(
            num_digits=settings.num_digits,
            max_angle_deg=settings.max_angle_deg,
            scale_range=(settings.scale_low, settings.scale_high),
            speed_px=settings.speed_px,
            tempo=settings.tempo,
            per_digit=settings.per_digit,
            clutter=settings.clutter,
            noise=settings.noise,
        )
    except UsageError as error:
        raise MessageError(str(error)) from error


def drawn_image(drawn: Drawn) -> UInt8[Tensor, "28 28"]:
    """Draw the strokes of a page as a digit image; strokes with too many points are subsampled."""
    strokes = (np.array(stroke, dtype=np.float64) for stroke in drawn.strokes)
    most = _MOST_DRAWN_POINTS // len(drawn.strokes)
    return pen.draw([stroke[_spread(len(stroke), most)] for stroke in strokes])


def _spread(length: int, most: int) -> NDArray[np.int64]:
    """Return the indices of at most `most` evenly spaced items of a list; both ends are included."""
    return np.linspace(0, length - 1, min(length, most)).round().astype(np.int64)
