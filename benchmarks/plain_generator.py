"""A plain generator of moving digits, one frame after the other, to compare `MovingDigits` with.

It is written like published generators: a loop over frames, in it a loop over digits, NumPy for pasting, SciPy for
rotating and resizing, all of it bilinear. The motion is that of the experiment: 10 settings of 5 frames, straight lines
between walls. Walls and speed shrink with the scale, and the brighter pixel wins.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

NUM_FRAMES, FRAMES_PER_SETTING, CANVAS_PX = 50, 5, 64

Image = NDArray[np.uint8]
Vector = NDArray[np.float64]
Draw = Callable[[Image, Image, Vector, float, float], None]


def paste(frame: Image, digit: Image, centre: Vector, angle_deg: float, scale: float) -> None:
    """Paste the digit unchanged, at whole pixels; angle and scale are ignored."""
    height, width = digit.shape
    top, left = int(centre[0] - height / 2), int(centre[1] - width / 2)
    part = frame[top : top + height, left : left + width]
    np.maximum(part, digit, out=part)


def affine(frame: Image, digit: Image, centre: Vector, angle_deg: float, scale: float) -> None:
    """Map the rotated and resized digit onto the frame; one call is faster than `ndimage.rotate` and `ndimage.zoom`."""
    sin, cos = np.sin(np.deg2rad(angle_deg)), np.cos(np.deg2rad(angle_deg))
    inverse = np.array([[cos, sin], [-sin, cos]]) / scale
    offset = (np.array(digit.shape) - 1) / 2 - inverse @ (centre - 0.5)
    drawn = ndimage.affine_transform(digit, inverse, offset, output_shape=frame.shape, order=1)
    np.maximum(frame, drawn, out=frame)


def clip(digits: list[Image], rng: np.random.Generator, draw: Draw, min_scale: float = 0.5) -> Image:
    """Make one clip, (time, height, width); `draw` puts one digit into one frame."""
    frames = np.zeros((NUM_FRAMES, CANVAS_PX, CANVAS_PX), dtype=np.uint8)
    room = np.array([CANVAS_PX - size for size in digits[0].shape], dtype=float)
    for number, frame in enumerate(frames):
        if number % FRAMES_PER_SETTING == 0:
            angle_deg, scale = rng.uniform(-90, 90), rng.uniform(min_scale, 1.0)
            positions = [rng.uniform(0, room) for _ in digits]
            velocities = [_velocity(rng) for _ in digits]
        for digit, position, velocity in zip(digits, positions, velocities, strict=True):
            draw(frame, digit, CANVAS_PX / 2 + (position - room / 2) * scale, angle_deg, scale)
            _move(position, velocity, room)
    return frames


def _velocity(rng: np.random.Generator) -> Vector:
    heading = rng.uniform(0, 2 * np.pi)
    return rng.uniform(3.0, 6.5) * np.array([np.sin(heading), np.cos(heading)])


def _move(position: Vector, velocity: Vector, room: Vector) -> None:
    """Move by one frame, in place; a wall turns the velocity around."""
    position += velocity
    for axis in range(2):
        if not 0 <= position[axis] <= room[axis]:
            velocity[axis] = -velocity[axis]
            position[axis] = min(max(position[axis], 0.0), room[axis])
