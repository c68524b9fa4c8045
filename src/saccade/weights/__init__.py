"""Trained weights that come with the package, for digits that rotate and change scale."""

from __future__ import annotations

from pathlib import Path

from saccade.models import MATCHED

__all__ = ["find", "paths"]


def paths() -> dict[str, Path]:
    """Return the checkpoints that come with the package, by model name.

    Their models name the digits in a clip (labels `digits`) of grey 64x64 frames; `recipes/weights.sh` trains them.
    """
    folder = Path(__file__).parent
    return {name: folder / f"{name}.safetensors" for name in MATCHED}


def find(model: Path | str) -> Path:
    """Return the path for `model`: a checkpoint file, a run folder, or the name of a model of the package.

    >>> find("dcn-lstm").name
    'dcn-lstm.safetensors'
    """
    return Path(model) if Path(model).exists() else paths().get(str(model), Path(model))
