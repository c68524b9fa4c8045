"""The options of `saccade generate`, and its file formats."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from saccade import files
from saccade.data.digits import SPLITS
from saccade.data.video_writing import MAX_GIF_FPS, write_gif, write_mp4
from saccade.errors import UsageError, unknown_name


def _write_npz(path: Path, frames: Tensor, fps: float) -> None:
    with files.whole(path) as temporary:
        np.savez_compressed(temporary, frames=frames.numpy())


FORMATS: dict[str, Callable[[Path, Tensor, float], None]] = {"mp4": write_mp4, "npz": _write_npz, "gif": write_gif}


@dataclass(frozen=True)
class GenerateConfig:
    """A folder of clips of moving digits: one folder per class, labels, poses and a contact sheet.

    Args:
        out: the folder; a repeated call writes only the missing clips.
        format: mp4 (measured error at most 2 of 255 grey levels), gif (exact) or npz (exact; array `frames`).
        split: train, validation or test; different splits have no clip in common.
        fps: frames per second of the files in a player.

    Raises:
        UsageError: if a name is unknown, or the format does not allow the frame rate.
    """

    out: Path
    format: str = "mp4"
    split: str = "train"
    fps: float = 10.0

    def __post_init__(self) -> None:
        for kind, known in (("format", tuple(FORMATS)), ("split", SPLITS)):
            if getattr(self, kind) not in known:
                raise unknown_name(kind, getattr(self, kind), known)
        fastest = MAX_GIF_FPS if self.format == "gif" else 1000
        if not 0.1 <= self.fps <= fastest:
            raise UsageError(f"fps must lie in 0.1 to {fastest} for {self.format}; got {self.fps}")
