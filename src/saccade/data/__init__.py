"""Labelled clips: folders of them, moving digits, video files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from saccade.clips import DataConfig
from saccade.data.digits.config import DigitsConfig
from saccade.data.digits.formats import of_this_version as header_of_today
from saccade.data.folder import Folder
from saccade.data.stored import StoredClips, StoredData
from saccade.errors import UsageError, unknown_name

__all__ = ["KINDS", "Folder", "StoredClips", "StoredData", "from_json", "header_of_today"]

KINDS: dict[str, Callable[[Mapping[str, Any]], DataConfig]] = {
    DigitsConfig.KIND: DigitsConfig.from_json,
    Folder.KIND: Folder.from_json,
}
"""Where labelled clips can come from, by the `kind` in a checkpoint."""


def from_json(described: Mapping[str, Any]) -> DataConfig:
    """Return the configuration that a checkpoint remembers.

    Raises:
        UsageError: clips that were in memory, or of a kind that this version does not know.
    """
    if described.get("kind") == StoredData.KIND:
        raise UsageError("this model learned from clips in memory, which only the script that made them has")
    if described.get("kind") not in KINDS:
        raise unknown_name("kind of data", str(described.get("kind")), KINDS)
    return KINDS[described["kind"]](described)
