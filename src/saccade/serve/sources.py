"""Where the frames of a page come from: its camera, a video it gave, moving digits."""

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

# Frames that the generator makes up for at once, when the server fell behind: more would make it fall behind further.
_MOST_CAUGHT_UP = 30

# What a drawing costs grows with its points. The page sends 60 of a stroke; more than this adds nothing to 28 px.
_MOST_DRAWN_POINTS = 512


@dataclass(frozen=True)
class Picture:
    """A frame and what is known of it.

    Args:
        frame: as it came, in [0, 255]; grey or RGB.
        digits: what it shows, None for a digit that nobody named; empty where nothing is known.
        box_px: where (top, left, bottom, right), one for each digit.
        position: which frame of a video it is.
    """

    frame: UInt8[Tensor, "channels height width"]
    digits: tuple[int | None, ...] = ()
    box_px: tuple[tuple[int, int, int, int], ...] = ()
    position: int | None = None

    @property
    def things(self) -> tuple[str | None, ...]:
        """What it shows, by name."""
        return tuple(None if digit is None else str(digit) for digit in self.digits)


class Source(Protocol):
    """Frames, one after the other."""

    def next_picture(self, missed: int) -> Picture | None:
        """Return the next frame behind the missed ones; None where there is none, yet or any more."""
        ...


class DigitSource:
    """Moving digits of the generator, some of them perhaps chosen or drawn by the page.

    Args:
        digits: where digits come from.
        start: seed, settings and chosen digits.

    Raises:
        MessageError: settings that the generator does not take, a place beyond the number of digits.
    """

    def __init__(self, digits: Digits, start: Start) -> None:
        self._digits = digits
        self._stream = DigitStream(digits, stream_settings(start.settings), seed=start.seed)
        for digit in start.digits:
            self.replace(digit)

    def change(self, change: Change) -> bool:
        """Go on under other settings; return whether other digits show than before."""
        before = self._stream.digits_shown
        self._stream.settings = stream_settings(change.settings)
        return before != self._stream.digits_shown

    def replace(self, digit: Drawn | Picked) -> UInt8[Tensor, "28 28"]:
        """Put a digit in the place of another; return its image."""
        num = len(self._stream.digits_shown)
        if digit.slot >= num:
            raise MessageError(
                f"there is no place {digit.slot + 1} among {num} digits; raise the number of digits first"
            )
        if isinstance(digit, Drawn):
            image, label = drawn_image(digit), digit.label
        else:
            image, label = self._of_class(digit), digit.digit
        self._stream.replace_digit(digit.slot, image, label)
        return image

    def next_picture(self, missed: int) -> Picture:
        """Let the digits move on by the missed frames and one more."""
        for _ in range(min(missed, _MOST_CAUGHT_UP)):
            self._stream.skip_frame()
        frame, truth = self._stream.next_frame()
        boxes = tuple((top, left, bottom, right) for top, left, bottom, right in truth.box_px.tolist())
        return Picture(frame, self._stream.digits_shown, boxes)

    def _of_class(self, picked: Picked) -> UInt8[Tensor, "28 28"]:
        images = self._digits.images[self._digits.labels == picked.digit]
        return images[picked.instance % len(images)]


class CameraSource:
    """The newest frame of the page's camera; older ones that nobody took are dropped."""

    def __init__(self) -> None:
        self._newest: UInt8[Tensor, "channels height width"] | None = None

    @property
    def waiting(self) -> bool:
        """Whether a frame lies there that nobody took."""
        return self._newest is not None

    def put(self, frame: UInt8[Tensor, "channels height width"]) -> int:
        """Take a frame; return how many were dropped for it."""
        dropped = int(self.waiting)
        self._newest = frame
        return dropped

    def next_picture(self, missed: int) -> Picture | None:
        """Give the newest frame away."""
        newest, self._newest = self._newest, None
        return None if newest is None else Picture(newest)


class VideoSource:
    """A clip from its first frame to its last.

    Args:
        frames: all of it.
        fps: frames a second.
    """

    def __init__(self, frames: UInt8[Tensor, "time channels height width"], fps: float) -> None:
        self.frames, self.fps, self.position = frames, fps, 0

    @property
    def at_end(self) -> bool:
        """Whether no frame is left."""
        return self.position >= len(self.frames)

    def next_picture(self, missed: int) -> Picture | None:
        """Return the frame behind the missed ones; the last one is never missed."""
        if self.at_end:
            return None
        position = min(self.position + missed, len(self.frames) - 1)
        self.position = position + 1
        return Picture(self.frames[position], position=position)


def stream_settings(settings: Settings) -> StreamSettings:
    """Bring settings of a page to those of the generator.

    Raises:
        MessageError: outside the generator's bounds.
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
    """Draw the strokes of a page as a digit image; of long strokes in a drawing of many, every so many points count."""
    strokes = (np.array(stroke, dtype=np.float64) for stroke in drawn.strokes)
    most = _MOST_DRAWN_POINTS // len(drawn.strokes)
    return pen.draw([stroke[_spread(len(stroke), most)] for stroke in strokes])


def _spread(length: int, most: int) -> NDArray[np.int64]:
    """Return indices of at most so many of a list, evenly spread, its ends among them."""
    return np.linspace(0, length - 1, min(length, most)).round().astype(np.int64)
