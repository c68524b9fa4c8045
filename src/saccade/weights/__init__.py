"""Trained weights that come with the package, for digits that rotate and change scale."""

from __future__ import annotations

from pathlib import Path

from saccade.models import MATCHED

__all__ = ["find", "paths"]


def paths() -> dict[str, Path]:
    """Return the checkpoints that come with the package, by the names of their models.

    They name the digits in a clip (labels `digits`) from grey frames of 64x64; `recipes/weights.sh` trains them.
    """
    folder = Path(__file__).parent
    return {name: folder / f"{name}.safetensors" for name in MATCHED}


def find(model: Path | str) -> Path:
    """Return the checkpoint that is meant: a file, the folder of a run, or the name of a model of the package.

    >>> find("dcn-lstm").name
    'dcn-lstm.safetensors'
    """
    return Path(model) if Path(model).exists() else paths().get(str(model), Path(model))
