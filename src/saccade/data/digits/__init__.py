"""Moving digits: the sources of digit images, the generator of clips, the endless stream, and their options."""

from saccade.data.digits.config import TRAINING, DigitsConfig, DigitSourceConfig
from saccade.data.digits.mixture import Mixture
from saccade.data.digits.motion import CONDITIONS, Motion
from saccade.data.digits.moving_digits import DATA, MovingDigits
from saccade.data.digits.sources import SPLITS, Digits, load, resolve
from saccade.data.digits.stream import DigitStream, StreamSettings, StreamTruth

__all__ = [
    "CONDITIONS",
    "DATA",
    "SPLITS",
    "TRAINING",
    "DigitSourceConfig",
    "DigitStream",
    "Digits",
    "DigitsConfig",
    "Mixture",
    "Motion",
    "MovingDigits",
    "StreamSettings",
    "StreamTruth",
    "load",
    "resolve",
]
