"""Digit sources, the generator of moving digits, video files."""

from saccade.data.digits import Digits
from saccade.data.moving_digits import CONDITIONS, ClipBatch, Motion, MovingDigits, Poses

__all__ = ["CONDITIONS", "ClipBatch", "Digits", "Motion", "MovingDigits", "Poses"]
