"""The options of `saccade export`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from saccade.clips import MAX_FRAME_PX, MIN_PX
from saccade.errors import UsageError, unknown_name

FORMATS = ("onnx", "torch")
DEFORMS = ("native", "gridsample")


@dataclass(frozen=True)
class ExportConfig:
    """Write a model as files that run without saccade: one for whole clips, one for a frame at a time.

    The results are compared with those of the model before anything is written.

    Args:
        model: a checkpoint, a run folder, or the name of a model whose weights come with the package.
        out: the folder to write; new or empty.
        format: onnx, for onnxruntime and other runtimes, or torch, for `torch.export.load`.
        size: height and width in pixels of the frames, for a model that takes frames of any size. The default is 64 64.
            For other models it is that of training.
        deform: how deformable convolutions are written. native: one operator, DeformConv of ONNX or that of saccade.
            gridsample: standard operators that more runtimes have, slower. Other models are the same in both.

    Raises:
        UsageError: if a name is unknown, or a frame cannot have the size.
    """

    model: Path
    out: Path
    format: str = "onnx"
    size: tuple[int, int] | None = None
    deform: str = "native"

    def __post_init__(self) -> None:
        for kind, name, known in (("format", self.format, FORMATS), ("way to deform", self.deform, DEFORMS)):
            if name not in known:
                raise unknown_name(kind, name, known)
        if self.size is not None and not all(MIN_PX <= edge <= MAX_FRAME_PX for edge in self.size):
            height, width = self.size
            raise UsageError(f"size is {height}x{width} px; each side must lie in {MIN_PX} to {MAX_FRAME_PX}")
