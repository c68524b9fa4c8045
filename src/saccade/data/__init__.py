"""Labelled clips: folders of clips, moving digits, video files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from saccade.clips import DataConfig
from saccade.data.digits.config import DigitsConfig
from saccade.data.digits.formats import of_this_version as header_of_today
from saccade.data.folder import Folder
from saccade.data.frame_choice import FrameChoice
from saccade.data.lazy_frames import LazyFrames
from saccade.data.stored import StoredClips, StoredData
from saccade.errors import UsageError, unknown_name

__all__ = ["KINDS", "Folder", "FrameChoice", "LazyFrames", "StoredClips", "StoredData", "from_json", "header_of_today"]

KINDS: dict[str, Callable[[Mapping[str, Any]], DataConfig]] = {
    DigitsConfig.KIND: DigitsConfig.from_json,
    Folder.KIND: Folder.from_json,
}
"""The readers of data configurations, by the `kind` that a checkpoint stores."""


def from_json(described: Mapping[str, Any]) -> DataConfig:
    """Return the data configuration that a checkpoint stores.

    Raises:
        UsageError: if the clips were in memory, or this version does not know their kind.
    """
    if described.get("kind") == StoredData.KIND:
        raise UsageError("this model learned from clips in memory; use the script that made them")
    if described.get("kind") not in KINDS:
        raise unknown_name("kind of data", str(described.get("kind")), KINDS)
    return KINDS[described["kind"]](described)
