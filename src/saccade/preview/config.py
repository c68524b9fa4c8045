"""The options of `saccade preview`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from saccade.errors import UsageError, unknown_name
from saccade.models.trunks import TRUNKS

_MAX_CLIPS, _MAX_VIEWS = 100, 10


@dataclass(frozen=True)
class PreviewConfig:
    """Draw labelled clips as a model sees them, and after random changes.

    Args:
        data: the clips: a folder with one folder per class, or with the folders train, validation and test above those;
            or a CSV file.
        out: the PNG file to write.
        num_clips: the number of clips to draw; the classes take turns.
        num_views: the number of augmented views of each clip.
        group: as for training: a regular expression whose first group captures a part of the file name.
        seed: the seed of the choice of clips, and of the views.
        trunk: the trunk whose frames are drawn: small, wide, resnet18 or efficientnet-lite0. By default that of
            `saccade train --data` without options: efficientnet-lite0 if saccade[pretrained] is installed, else small.

    Raises:
        UsageError: if the trunk is unknown, a number is out of range, or `out` is not named as a PNG file.
    """

    data: Path
    out: Path = Path("preview.png")
    num_clips: int = 12
    num_views: int = 2
    group: str | None = None
    seed: int = 0
    trunk: str | None = None

    def __post_init__(self) -> None:
        if self.trunk is not None and self.trunk not in TRUNKS:
            raise unknown_name("trunk", self.trunk, TRUNKS)
        for name, low, high in (("num_clips", 1, _MAX_CLIPS), ("num_views", 0, _MAX_VIEWS), ("seed", 0, (1 << 63) - 1)):
            if not low <= getattr(self, name) <= high:
                raise UsageError(f"{name} must lie in {low} to {high}; got {getattr(self, name)}")
        if self.out.suffix.lower() != ".png":
            raise UsageError(f"{self.out} is to be a PNG file; give it a name that ends in .png")
