"""How digits move, rotate and change scale in a clip."""

from __future__ import annotations

import math
from dataclasses import dataclass

from saccade.data.digits.counter_random import DRAW_BITS
from saccade.data.digits.drawing import patch_side
from saccade.errors import UsageError, unknown_name

CONDITIONS = ("normal", "rotation", "scaling", "rotation_scaling", "elastic")
_ROTATING = ("rotation", "rotation_scaling", "elastic")
_SCALING = ("scaling", "rotation_scaling", "elastic")
MAX_CANVAS_PX = 2048
MAX_CLUTTER = 8
MAX_NOISE = 64.0
MAX_JITTER = 2.0
# Slots of the random counter: digits per setting, and kinds of draws per digit.
DIGIT_SLOTS, KIND_SLOTS = 8, 64
MAX_SETTINGS = (1 << DRAW_BITS) // (DIGIT_SLOTS * KIND_SLOTS)


@dataclass(frozen=True)
class Motion:
    """How digits move, rotate and change scale.

    *Conventions:* units are pixels, frames and degrees. Angles are counter-clockwise as seen on the screen. A digit of
    scale 1 has the size `digit_px`. `condition` decides which ranges are used: without rotation every angle is 0,
    without scaling every scale is 1. Within a setting of `frames_per_setting` frames, angle and scale are constant, and
    digits move straight and bounce off the walls. With `continuous`, angle and scale change linearly from the values of
    one setting to those of the next, and a digit keeps its trajectory for the whole clip. Scale applies to the whole
    canvas: walls and speed scale with it. Above scale 1 the walls lie outside the frame.

    `clutter` is the largest number of moving pieces of digits in addition to the digits. `noise` is the largest
    standard deviation of the pixel noise, in grey levels. Each clip draws its own values from 0 to these limits.
    `angle_deg` is the angle of every digit in every frame; None draws angles. `jitter` is how strongly half of the
    digit images are changed, once for each clip; see `drawing.jittered`.

    Raises:
        UsageError: if the condition is unknown, or a range is empty or does not fit into the canvas.

    >>> Motion(condition="rotation").num_settings
    10
    """

    condition: str = "rotation_scaling"
    num_frames: int = 50
    frames_per_setting: int = 5
    continuous: bool = False
    canvas_px: int = 64
    digit_px: int = 28
    max_angle_deg: float = 90.0
    angle_per_digit: bool = False
    scale_range: tuple[float, float] = (0.5, 1.0)
    speed_range_px: tuple[float, float] = (3.0, 6.5)
    elastic_px: float = 2.5
    clutter: int = 0
    noise: float = 0.0
    angle_deg: float | None = None
    jitter: float = 0.0

    def __post_init__(self) -> None:
        if self.condition not in CONDITIONS:
            raise unknown_name("condition", self.condition, CONDITIONS)
        if self.angle_deg is not None and not (self.rotates and math.isfinite(self.angle_deg)):
            raise UsageError(
                f"angle_deg needs a condition that rotates and a finite number; got {self.condition} and"
                f" {self.angle_deg}"
            )
        if self.num_frames < 1 or self.frames_per_setting < 1:
            raise UsageError(
                "a clip needs at least 1 frame and 1 frame per setting;"
                f" got {self.num_frames} and {self.frames_per_setting}"
            )
        (low, high), (slow, fast) = self.scale_range, self.speed_range_px
        if not 0 < low <= high <= 4:
            raise UsageError(f"scale_range must rise within (0, 4]; got {low} to {high}")
        if not 0 <= slow <= fast <= 1024:
            raise UsageError(f"speed_range_px must rise within [0, 1024]; got {slow} to {fast}")
        if not 0 <= self.elastic_px < math.inf:
            raise UsageError(f"elastic_px must be 0 or above; got {self.elastic_px}")
        if not 0 <= self.jitter <= MAX_JITTER:
            raise UsageError(f"jitter must lie in 0 to {MAX_JITTER:g}; got {self.jitter}")
        if self.num_settings >= MAX_SETTINGS:
            raise UsageError(
                f"a clip must have fewer than {MAX_SETTINGS} settings; got {self.num_settings}; reduce num_frames"
            )
        if not 0 <= self.max_angle_deg <= 180:
            raise UsageError(f"max_angle_deg must lie in [0, 180]; got {self.max_angle_deg}")
        if self.digit_px < 4 or self.canvas_px > MAX_CANVAS_PX:
            raise UsageError(
                f"a digit must have at least 4 px and a canvas at most {MAX_CANVAS_PX};"
                f" got {self.digit_px} and {self.canvas_px}"
            )
        if not 0 <= self.clutter <= MAX_CLUTTER:
            raise UsageError(f"clutter must be a number of pieces from 0 to {MAX_CLUTTER}; got {self.clutter}")
        if not 0 <= self.noise <= MAX_NOISE:
            raise UsageError(f"noise must lie in 0 to {MAX_NOISE:.0f} grey levels; got {self.noise}")
        if self.noise and self.num_frames * self.canvas_px**2 > 1 << DRAW_BITS:
            raise UsageError(
                f"noise is drawn for at most {1 << DRAW_BITS} pixels a clip; got {self.num_frames} frames of"
                f" {self.canvas_px}x{self.canvas_px}; reduce num_frames or canvas_px"
            )
        if math.ceil(self.digit_px * max(high, 1.0)) > self.canvas_px:
            raise UsageError(
                f"a canvas of {self.canvas_px} px does not hold a digit of {self.digit_px} px"
                f" at scale {max(high, 1.0)};"
                " take a larger canvas_px or a smaller digit_px"
            )

    @property
    def rotates(self) -> bool:
        """Whether angles are drawn."""
        return self.condition in _ROTATING

    @property
    def scales(self) -> bool:
        """Whether scales are drawn."""
        return self.condition in _SCALING

    @property
    def num_settings(self) -> int:
        """The number of settings in a clip; the last one may be shorter."""
        return -(-self.num_frames // self.frames_per_setting)

    @property
    def patch_px(self) -> int:
        """Side of a square that holds a digit at any angle and scale; it is odd if `digit_px` is odd."""
        return patch_side(self.digit_px, self.scale_range[1] if self.scales else 1.0, turns=self.rotates)
