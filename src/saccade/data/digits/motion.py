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
# What a setting draws for a digit: every kind has its own slot of the counter.
DIGIT_SLOTS, KIND_SLOTS = 8, 64
MAX_SETTINGS = (1 << DRAW_BITS) // (DIGIT_SLOTS * KIND_SLOTS)


@dataclass(frozen=True)
class Motion:
    """How digits move, rotate and change scale.

    *Conventions:* pixels, frames and degrees; angles count counter-clockwise as seen on the screen; scale 1 is a digit
    of `digit_px`. `condition` decides which ranges are used: without rotation every angle is 0, without scaling every
    scale is 1. Within a setting of `frames_per_setting` frames angle and scale stay and digits move straight and
    bounce; with `continuous` they glide from one setting's value to the next and a digit keeps its trajectory for the
    whole clip. Scale applies to the whole canvas: walls and speed shrink with it, and above 1 the walls lie outside the
    frame.

    `clutter` is the largest number of pieces of digits that move about beside the digits, and `noise` the largest
    standard deviation of each pixel's noise in grey levels; each clip draws its own, from nothing to this.

    Raises:
        UsageError: unknown condition; ranges that are empty or do not fit into the canvas.

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

    def __post_init__(self) -> None:
        if self.condition not in CONDITIONS:
            raise unknown_name("condition", self.condition, CONDITIONS)
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
        if self.num_settings >= MAX_SETTINGS:
            raise UsageError(
                f"a clip has fewer than {MAX_SETTINGS} settings; got {self.num_settings}: fewer num_frames"
            )
        if not 0 <= self.max_angle_deg <= 180:
            raise UsageError(f"max_angle_deg must lie in [0, 180]; got {self.max_angle_deg}")
        if self.digit_px < 4 or self.canvas_px > MAX_CANVAS_PX:
            raise UsageError(
                f"a digit has at least 4 px and a canvas at most {MAX_CANVAS_PX};"
                f" got {self.digit_px} and {self.canvas_px}"
            )
        if not 0 <= self.clutter <= MAX_CLUTTER:
            raise UsageError(f"clutter is a number of pieces from 0 to {MAX_CLUTTER}; got {self.clutter}")
        if not 0 <= self.noise <= MAX_NOISE:
            raise UsageError(f"noise lies in 0 to {MAX_NOISE:.0f} grey levels; got {self.noise}")
        if self.noise and self.num_frames * self.canvas_px**2 > 1 << DRAW_BITS:
            raise UsageError(
                f"noise is drawn for at most {1 << DRAW_BITS} pixels a clip; got {self.num_frames} frames of"
                f" {self.canvas_px}x{self.canvas_px}: fewer num_frames or a smaller canvas_px"
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
        """Count the settings of a clip; the last one may be cut short."""
        return -(-self.num_frames // self.frames_per_setting)

    @property
    def patch_px(self) -> int:
        """Side of the square that holds a digit at any angle and scale, of the parity of `digit_px`."""
        return patch_side(self.digit_px, self.scale_range[1] if self.scales else 1.0, turns=self.rotates)
