"""What `saccade explain` is asked."""

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
    """Show where models look in a clip, and what they say of it.

    Args:
        clip: a video file, GIF or `.npz` file; beside clips of `saccade generate`, their labels and poses are used.
        model: checkpoints, folders of runs, or names of models whose weights come with the package; several stand side
            by side. By default all of the package.
        out: the file to write; by default report.FORMAT.
        format: html (one page that needs no network), gif, mp4 (the clip with overlays) or png (a film strip with
            overlays); by default what `out` ends in.
        max_frames: read only so many frames of the clip.
        device: auto, cpu or cuda.

    Raises:
        UsageError: an unknown format, or a number of frames below 1.
    """

    clip: Positional[Path]
    model: tuple[Path, ...] = ()
    out: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None
    format: str | None = None
    max_frames: int = 300
    device: str = "auto"

    def __post_init__(self) -> None:
        if self.max_frames < 1:
            raise UsageError(f"max_frames must be at least 1; got {self.max_frames}")
        if self.chosen_format not in FORMATS:
            raise unknown_name("format", self.chosen_format, FORMATS)

    @property
    def models(self) -> tuple[Path, ...]:
        """The checkpoints: those that were named, or those of the package."""
        return self.model or tuple(weights.paths().values())

    @property
    def chosen_format(self) -> str:
        """What is to be written."""
        if self.format is not None:
            return self.format
        return self.out.suffix.lower().removeprefix(".") if self.out and self.out.suffix else FORMATS[0]

    @property
    def path(self) -> Path:
        """Where it is written."""
        return self.out or Path(f"report.{self.chosen_format}")
