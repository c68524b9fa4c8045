"""What a checkpoint remembers of the clips that its model learned from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict

from saccade.clips import FrameFormat
from saccade.data.frame_choice import FrameChoice
from saccade.foreign import check_types


class _Described(TypedDict, total=False):
    """The types of the fields that `Folder.as_json` writes."""

    root: str
    group: str | None
    seed: int
    short_side: int
    num_frames: int
    hold_out: bool
    frame_format: FrameFormat
    classes: tuple[str, ...]
    exclusive: bool
    none: str
    held_out: dict[str, tuple[str, ...]]
    clips: dict[str, tuple[str, ...]]
    left_out: tuple[str, ...]


def arguments_of(described: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of the folder that `Folder.as_json` has described, but for its place.

    Raises:
        TypeError, ValueError: if `described` does not describe a folder.
    """
    check_types(described, _Described)
    if "frame_format" in described:  # used later, checked now
        channels = FrameFormat.from_json(described["frame_format"]).channels
        if channels not in (1, 3):
            raise ValueError(f"frame_format.channels is {channels}; 1 (grey) or 3 (RGB) is needed")
    given = {name: described[name] for name in ("group", "seed", "num_frames", "hold_out") if name in described}
    if "short_side" in described:
        given["frame_choice"] = FrameChoice(described["short_side"])
    return {**given, "remembered": described}
