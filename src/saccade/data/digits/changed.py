"""Moving digits that the generator draws with one change, such as an angle, in place of changed pixels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from saccade.clips import Clips
from saccade.data.digits.motion import Motion
from saccade.data.digits.moving_digits import MovingDigits

_MOTIONS: Mapping[str, Callable[[Motion, float], dict[str, Any]]] = {
    "turn": lambda _motion, angle_deg: {"condition": "rotation", "angle_deg": angle_deg},
    "scale": lambda _motion, factor: {"condition": "scaling", "scale_range": (factor, factor)},
    "speed": lambda motion, factor: {"speed_range_px": tuple(factor * speed for speed in motion.speed_range_px)},
}
"""What a change with a strength means for a motion without rotation and scaling."""


def drawn_changed(clips: Clips, change: str, strength: float) -> MovingDigits | None:
    """Return upright moving digits with a change that the generator can draw; None for other clips or changes.

    Digits, instances and trajectories stay those of the clips.

    *Conventions:* `turn` is the angle of all digits in degrees, counter-clockwise as seen on the screen. `scale` is the
    scale of the whole canvas. `speed` is the factor of the speeds.

    Args:
        clips: the clips; their condition is `normal`.
        change: the name of the change.
        strength: its strength.

    Raises:
        UsageError: if the digits do not fit into the canvas.

    >>> from saccade.data.digits import DigitsConfig
    >>> clips = DigitsConfig("uci", condition=("normal",), num_clips=4).clips("test")
    >>> turned = drawn_changed(clips, "turn", 90.0)
    >>> turned.motion.angle_deg, drawn_changed(clips, "noise", 8.0)
    (90.0, None)
    """
    if not isinstance(clips, MovingDigits) or clips.motion.condition != "normal" or change not in _MOTIONS:
        return None
    return clips.with_motion(**_MOTIONS[change](clips.motion, strength))
