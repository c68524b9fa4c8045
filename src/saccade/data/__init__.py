"""Digit sources, the generator of moving digits, the endless stream of them, video files."""

from saccade.data.digit_stream import DigitStream, StreamSettings, StreamTruth
from saccade.data.digits import Digits
from saccade.data.mixture import Mixture
from saccade.data.motion import CONDITIONS, Motion
from saccade.data.moving_digits import ClipBatch, MovingDigits, Poses

__all__ = [
    "CONDITIONS",
    "ClipBatch",
    "DigitStream",
    "Digits",
    "Mixture",
    "Motion",
    "MovingDigits",
    "Poses",
    "StreamSettings",
    "StreamTruth",
]
