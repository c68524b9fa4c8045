"""The options of `saccade check`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from saccade.data.scan import TIME_LIMIT_S
from saccade.errors import UsageError


@dataclass(frozen=True)
class CheckConfig:
    """Check a collection of clips before training on it.

    Args:
        data: a folder with one folder per class, or a CSV file with the columns path and class, and any of split,
            group, start_s and end_s.
        group: a regular expression whose first group captures a part of the file name, for example the person shown:
            `_(\\d+)_`. Clips with the same part belong to one group, which is never split.
        csv: a file to write, with one row per clip.
        workers: the number of clips that are read at a time. The default is the number of processors.
        time_limit_s: the longest time in seconds that one clip may take to read.
        seed: the seed of the leak check.

    Raises:
        UsageError: if a number is too small, or `csv` is `data`.
    """

    data: Positional[Path]
    group: str | None = None
    csv: Path | None = None
    workers: int | None = None
    time_limit_s: float = TIME_LIMIT_S
    seed: int = 0

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 1:
            raise UsageError(f"workers must be at least 1; got {self.workers}")
        if not self.time_limit_s > 0:
            raise UsageError(f"time_limit_s must be above 0; got {self.time_limit_s}")
        if self.seed < 0:
            raise UsageError(f"seed must be at least 0; got {self.seed}")
        if self.csv is not None and self.csv.resolve() == self.data.resolve():
            raise UsageError(f"{self.csv} names the clips; name another file to write with --csv")
