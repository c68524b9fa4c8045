"""An endless stream of moving digits with settings that can change, for the live page.

A clip of the experiment is planned as a whole before its first frame is drawn. Here each frame follows from the
previous one, so that a slider takes effect at once and without a jump. Pixels are drawn as for clips.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from saccade.data.digits import drawing
from saccade.data.digits.counter_random import draw_u32
from saccade.data.digits.motion import MAX_CLUTTER, MAX_NOISE
from saccade.data.digits.sources import Digits
from saccade.errors import UsageError

MAX_DIGITS = 5
DIGIT_PX = 28
LARGEST_SCALE = 1.2
# Angle and scale oscillate; at tempo 1 an oscillation takes about this number of frames.
_SWING_FRAMES = 100
_DIGITS, _PIECES, _NOISE = range(3)  # the uses of random numbers in a stream
_CLASS, _INSTANCE, _Y, _X, _HEADING, _TURN_PHASE, _TURN_TEMPO, _SCALE_PHASE, _SCALE_TEMPO, _CORNER_Y, _CORNER_X = range(
    11
)


@dataclass(frozen=True)
class StreamSettings:
    """The settings that can change while digits move.

    *Conventions:* as for `Motion`: units are pixels, frames and degrees; a digit of scale 1 has 28 px.

    Args:
        num_digits: the number of digits, 1 to 5.
        max_angle_deg: the largest rotation in either direction, 0 to 180.
        scale_range: the smallest and largest scale, within 0.3 to 1.2.
        speed_px: the distance that a digit moves per frame, 0 to 8.
        tempo: the speed of rotation and scaling, 0 to 5; at 1 an oscillation takes about 100 frames.
        per_digit: whether each digit rotates and changes scale independently, or all together.
        clutter: the number of moving pieces of digits, 0 to 8.
        noise: the standard deviation of the pixel noise in grey levels, 0 to 64.

    Raises:
        UsageError: if a value is outside its range.
    """

    num_digits: int = 2
    max_angle_deg: float = 60.0
    scale_range: tuple[float, float] = (0.6, 1.0)
    speed_px: float = 1.5
    tempo: float = 1.0
    per_digit: bool = True
    clutter: int = 0
    noise: float = 0.0

    def __post_init__(self) -> None:
        low, high = self.scale_range
        ranges: dict[str, tuple[float, float, float]] = {
            "num_digits": (self.num_digits, 1, MAX_DIGITS),
            "max_angle_deg": (self.max_angle_deg, 0, 180),
            "speed_px": (self.speed_px, 0, 8),
            "tempo": (self.tempo, 0, 5),
            "clutter": (self.clutter, 0, MAX_CLUTTER),
            "noise": (self.noise, 0, MAX_NOISE),
        }
        for name, (value, least, most) in ranges.items():
            if not least <= value <= most:
                raise UsageError(f"{name} must lie in {least} to {most:g}; got {value}")
        for name in ("num_digits", "clutter"):
            if not isinstance(getattr(self, name), int):
                raise UsageError(f"{name} must be a whole number; got {getattr(self, name)}")
        if not 0.3 <= low <= high <= LARGEST_SCALE:
            raise UsageError(f"scale_range must rise within 0.3 to {LARGEST_SCALE}; got {low} to {high}")


@dataclass(frozen=True)
class StreamTruth:
    """The position, angle and scale of every digit in a frame.

    *Conventions:* as for `Poses`: positions are (y, x) in pixels; the centre of the upper left pixel is (0, 0). Angles
    are counter-clockwise. Boxes are (top, left, bottom, right), bottom and right exclusive, all zero if no part is
    visible. A drawing without a label has digit -1.
    """

    digit: Int64[Tensor, "digits"]
    centre_px: Float[Tensor, "digits 2"]
    angle_deg: Float[Tensor, "digits"]
    scale: Float[Tensor, "digits"]
    box_px: Int64[Tensor, "digits 4"]


@dataclass
class _Mover:
    """A digit or a piece of one, and its position: `place` is (y, x), each from 0 to 1 between the walls."""

    image: UInt8[Tensor, "28 28"]
    digit: int
    place: list[float]
    heading: list[float]
    chance: list[float]

    def swing(self, phase: int, tempo: int, cycles: float) -> float:
        """Return an oscillating value in [-1, 1], after a number of cycles of average tempo."""
        return math.sin(math.tau * (self.chance[phase] + cycles * (0.7 + 0.6 * self.chance[tempo])))

    def go(self, speed_px: float, room_px: float) -> None:
        """Advance by one frame, and bounce off the walls."""
        for axis in (0, 1):
            along = self.place[axis] + self.heading[axis] * speed_px / max(room_px, 1.0)
            if not 0 <= along <= 1:
                self.heading[axis] = -self.heading[axis]
                along = min(max(-along if along < 0 else 2 - along, 0.0), 1.0)
            self.place[axis] = along


class DigitStream:
    """An endless sequence of frames of moving digits.

    The frames are a function of the digit images, the seed, and the settings at each frame. `settings` may be replaced
    at any time; the digits then continue from their current positions.

    Args:
        digits: the digit images to draw from.
        settings: the initial settings.
        seed: any integer; it determines the digits and their starting positions.
        canvas_px: the height and width of a frame in pixels.

    >>> from saccade.data import digits
    >>> stream = DigitStream(digits.load("uci", "test"), seed=1)
    >>> frame, truth = stream.next_frame()
    >>> frame.shape, truth.digit.shape
    (torch.Size([1, 64, 64]), torch.Size([2]))
    """

    def __init__(
        self, digits: Digits, settings: StreamSettings | None = None, *, seed: int = 0, canvas_px: int = 64
    ) -> None:
        self.settings = settings or StreamSettings()
        self._canvas, self._seed, self._frame, self._cycles = canvas_px, seed, 0, 0.0
        self._patch = drawing.patch_side(DIGIT_PX, LARGEST_SCALE, turns=True)
        self._digits = [self._digit(digits, slot) for slot in range(MAX_DIGITS)]
        self._pieces = [self._piece(digits, slot) for slot in range(MAX_CLUTTER)]

    @property
    def digits_shown(self) -> tuple[int | None, ...]:
        """The digits on the screen; None for a drawing without a label."""
        shown = self._digits[: self.settings.num_digits]
        return tuple(mover.digit if mover.digit >= 0 else None for mover in shown)

    def replace_digit(self, slot: int, image: UInt8[Tensor, "28 28"], label: int | None = None) -> None:
        """Replace the image of a digit by a drawing, which continues the motion of the digit.

        Args:
            slot: the index of the digit, from 0.
            image: the drawing, light on dark.
            label: the digit that the drawing shows, if known.

        Raises:
            UsageError: if `slot` or `label` does not exist, or the image has another size or type.
        """
        if not 0 <= slot < MAX_DIGITS:
            raise UsageError(f"a stream has digits 0 to {MAX_DIGITS - 1}; got {slot}")
        if image.shape != (28, 28) or image.dtype != torch.uint8:
            raise UsageError(f"a digit is uint8 of 28x28; got {image.dtype} of {tuple(image.shape)}")
        if label is not None and not 0 <= label <= 9:
            raise UsageError(f"a label is a digit from 0 to 9 or None; got {label}")
        self._digits[slot].image, self._digits[slot].digit = image.clone(), -1 if label is None else label

    def next_frame(self) -> tuple[UInt8[Tensor, "1 height width"], StreamTruth]:
        """Return the next frame and the ground truth of its digits."""
        settings = self.settings
        movers, poses, rooms = self._placed()
        angle, scale = (torch.tensor(values, dtype=torch.float64) for values in zip(*poses, strict=True))
        patches = drawing.draw_patches(
            torch.stack([mover.image for mover in movers]), angle, scale, digit_px=DIGIT_PX, patch_px=self._patch
        )
        centre = [
            [(self._canvas - 1) / 2 + (at - 0.5) * room for at in mover.place]
            for mover, room in zip(movers, rooms, strict=True)
        ]
        corner = (torch.tensor(centre) - (self._patch - 1) / 2).round().long()
        frame = torch.empty(1, self._canvas, self._canvas, dtype=torch.uint8)
        drawing.paste(patches, torch.arange(len(movers)).view(1, -1), corner.unsqueeze(0), frame)
        if settings.noise:
            self._add_noise(frame)
        truth = self._truth(patches[: settings.num_digits], corner[: settings.num_digits], angle, scale)
        self._go(movers, rooms)
        return frame, truth

    def skip_frame(self) -> None:
        """Advance by one frame without drawing it."""
        movers, _, rooms = self._placed()
        self._go(movers, rooms)

    def _placed(self) -> tuple[list[_Mover], list[tuple[float, float]], list[float]]:
        """Return the movers of the next frame, their angles and scales, and their free pixels from wall to wall."""
        movers = self._digits[: self.settings.num_digits] + self._pieces[: self.settings.clutter]
        poses = [self._pose(mover, movers[0]) for mover in movers]
        return movers, poses, [max(self._canvas - DIGIT_PX * scale, 0.0) for _, scale in poses]

    def _go(self, movers: list[_Mover], rooms: list[float]) -> None:
        for mover, room in zip(movers, rooms, strict=True):
            mover.go(self.settings.speed_px, room)
        self._frame += 1
        self._cycles += self.settings.tempo / _SWING_FRAMES

    def _pose(self, mover: _Mover, first: _Mover) -> tuple[float, float]:
        """Return angle and scale; without `per_digit`, they are those of the first digit."""
        leader = mover if self.settings.per_digit else first
        low, high = self.settings.scale_range
        angle = self.settings.max_angle_deg * leader.swing(_TURN_PHASE, _TURN_TEMPO, self._cycles)
        return angle, low + (high - low) * (leader.swing(_SCALE_PHASE, _SCALE_TEMPO, self._cycles) + 1) / 2

    def _truth(
        self, patches: UInt8[Tensor, "d p p"], corner: Int64[Tensor, "d 2"], angle: Tensor, scale: Tensor
    ) -> StreamTruth:
        num = len(patches)
        return StreamTruth(
            digit=torch.tensor([mover.digit for mover in self._digits[:num]]),
            centre_px=corner.float() + (self._patch - 1) / 2,
            angle_deg=angle[:num].float(),
            scale=scale[:num].float(),
            box_px=drawing.box_in_frame(drawing.ink_box(patches), corner, self._canvas),
        )

    def _add_noise(self, frame: UInt8[Tensor, "1 height width"]) -> None:
        pixel = torch.arange(frame.numel())
        words = draw_u32(self._seed, _NOISE, torch.tensor(self._frame), pixel).view(frame.shape)
        drawing.add_noise(frame, words, torch.tensor([self.settings.noise], dtype=torch.float64))

    def _digit(self, digits: Digits, slot: int) -> _Mover:
        chance = self._chance(_DIGITS, slot)
        digit = int(chance[_CLASS] * 10)
        images = digits.images[digits.labels == digit]
        if not len(images):
            raise UsageError(f"the digit images hold no {digit}; all ten digits are needed")
        return self._mover(images[int(chance[_INSTANCE] * len(images))], digit, chance)

    def _piece(self, digits: Digits, slot: int) -> _Mover:
        chance = self._chance(_PIECES, slot)
        image = digits.images[int(chance[_INSTANCE] * len(digits.images))]
        reach = image.shape[-1] - drawing.PIECE_PX + 1
        corner = torch.tensor([[int(chance[_CORNER_Y] * reach), int(chance[_CORNER_X] * reach)]])
        return self._mover(drawing.cut_pieces(image.unsqueeze(0), corner)[0], -1, chance)

    @staticmethod
    def _mover(image: UInt8[Tensor, "28 28"], digit: int, chance: list[float]) -> _Mover:
        heading = math.tau * chance[_HEADING]
        return _Mover(image, digit, [chance[_Y], chance[_X]], [math.sin(heading), math.cos(heading)], chance)

    def _chance(self, purpose: int, slot: int) -> list[float]:
        """Return the random numbers of a mover, in [0, 1)."""
        drawn: list[float] = (
            draw_u32(self._seed, purpose, torch.tensor(slot), torch.arange(_CORNER_X + 1)).double() / 2**32
        ).tolist()
        return drawn
