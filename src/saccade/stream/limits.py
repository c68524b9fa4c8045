"""How long a live source may stay silent, and how long a lost one is tried again."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

USUAL_FPS = 30.0
"""The frames per second of a usual camera, where the rate is unknown."""


@dataclass(frozen=True)
class Limits:
    """The time limits of a live source, in seconds; standard input may take any time.

    Args:
        connect_s: the longest time from the attempt to open the source to its first frame.
        silence_s: the longest time between two frames.
        reconnect_s: how long a source that was lost is tried again, counted from its last frame; 0: not at all.

    Raises:
        ValueError: if a limit is negative or no number, or one of the first two is 0.
    """

    connect_s: float = 30.0
    silence_s: float = 10.0
    reconnect_s: float = 600.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not 0 <= value < math.inf or (not value and field.name != "reconnect_s"):
                raise ValueError(f"{field.name} is {value}; a positive number of seconds is needed")
