"""The options of `saccade preview`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from saccade.errors import UsageError

_MAX_CLIPS, _MAX_VIEWS = 100, 10


@dataclass(frozen=True)
class PreviewConfig:
    """Draw labelled clips as a model sees them, and after random changes.

    Args:
        data: a folder of clips, with one folder per class.
        out: the PNG file to write.
        num_clips: the number of clips to draw; the classes take turns.
        num_views: the number of augmented views of each clip.
        group: as for training: a regular expression whose first group captures a part of the file name.
        seed: the seed of the choice of clips, and of the views.

    Raises:
        UsageError: if a number is out of range, or `out` is not named as a PNG file.
    """

    data: Path
    out: Path = Path("preview.png")
    num_clips: int = 12
    num_views: int = 2
    group: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name, low, high in (("num_clips", 1, _MAX_CLIPS), ("num_views", 0, _MAX_VIEWS), ("seed", 0, (1 << 63) - 1)):
            if not low <= getattr(self, name) <= high:
                raise UsageError(f"{name} must lie in {low} to {high}; got {getattr(self, name)}")
        if self.out.suffix.lower() != ".png":
            raise UsageError(f"{self.out} is to be a PNG file; give it a name that ends in .png")
