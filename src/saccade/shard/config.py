"""The options of `saccade shard`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from saccade.errors import UsageError


@dataclass(frozen=True)
class ShardConfig:
    """Write a collection of clips into tar archives, in the layout of webdataset; training reads them in place.

    Files of clips are copied as they are. Clips that cannot be decoded, and exact copies, are left out. An archive has
    clips of one split, in random order. After an interruption, the same command writes what is missing.

    Args:
        data: a folder with one folder per class, or a CSV file with the columns path and class, and any of split,
            group, start_s and end_s.
        out: the folder of the archives.
        group: a regular expression whose first group captures a part of the file name, for example the person shown:
            `_(\\d+)_`. Clips with the same part belong to one group, which is never split.
        split_seed: the seed of the split and of the order.
        shard_mb: about the size of an archive in megabytes; a larger clip has one of its own.

    Raises:
        UsageError: if a number is out of range.
    """

    data: Path
    out: Path = Path("shards")
    group: str | None = None
    split_seed: int = 0
    shard_mb: float = 256.0

    def __post_init__(self) -> None:
        if not 0 < self.shard_mb < math.inf:
            raise UsageError(f"shard_mb must be above 0; got {self.shard_mb}")
        if self.split_seed < 0:
            raise UsageError(f"split_seed must be at least 0; got {self.split_seed}")
