"""The options of `saccade explain`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import Positional

from saccade import weights
from saccade.errors import UsageError, unknown_name

FORMATS = ("html", "gif", "mp4", "png")


@dataclass(frozen=True)
class ExplainConfig:
    """Show where models look in a clip, and what they predict.

    Args:
        clip: a video file, GIF or `.npz` file. For a clip of `saccade generate`, the report uses its labels and poses.
        model: checkpoints, run folders, or names of models whose weights come with the package. Several are shown side
            by side. The default is the three of the package that differ in attention alone.
        out: the file to write. The default is CLIP-explained.FORMAT in this folder, named after the clip; a file of
            this name that exists is an error.
        format: html (one page that needs no network), gif or mp4 (the clip with overlays), or png (a film strip with
            overlays). The default is the suffix of `out`.
        max_frames: the maximum number of frames to read.
        device: auto, cpu or cuda.
        min_confidence: the minimum probability of a verdict, as for `saccade predict`; below it, the verdict is called
            unsure. If several classes can be present at once, a verdict is unsure if any of them is close to 50 %: at
            0.5 between 25 and 75 %, at 0.8 between 10 and 90 %.

    Raises:
        UsageError: if the format is unknown, or a number is out of range.
    """

    clip: Positional[Path]
    model: tuple[Path, ...] = ()
    out: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None
    format: str | None = None
    max_frames: int = 300
    device: str = "auto"
    min_confidence: float | None = None

    def __post_init__(self) -> None:
        if self.max_frames < 1:
            raise UsageError(f"max_frames must be at least 1; got {self.max_frames}")
        if self.min_confidence is not None and not 0 <= self.min_confidence <= 1:
            raise UsageError(f"min_confidence must lie in 0 to 1; got {self.min_confidence}")
        if self.chosen_format not in FORMATS:
            raise unknown_name("format", self.chosen_format, FORMATS)

    @property
    def models(self) -> tuple[Path, ...]:
        """The checkpoints of `model`, or the matched three of the package if `model` is empty."""
        return self.model or tuple(weights.matched().values())

    @property
    def chosen_format(self) -> str:
        """The format of the file."""
        if self.format is not None:
            return self.format
        return self.out.suffix.lower().removeprefix(".") if self.out and self.out.suffix else FORMATS[0]

    @property
    def path(self) -> Path:
        """The path of the file."""
        return self.out or Path(f"{self.clip.stem}-explained.{self.chosen_format}")
