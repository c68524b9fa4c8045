"""Trained weights by name: those that come with the package, for digits that rotate and change scale, or the hub's."""

from __future__ import annotations

from pathlib import Path

from saccade import hub
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

    A model on the hub, `hf://USER/NAME` or `hf://USER/NAME@REVISION`, is downloaded unless it is in the cache.

    Raises:
        MissingExtraError: if a model on the hub is named and `huggingface_hub` is not installed.
        DataError: if the hub does not give it.

    >>> find("dcn-lstm").name
    'dcn-lstm.safetensors'
    """
    if hub.is_address(model):
        return hub.find(model)
    return Path(model) if Path(model).exists() else paths().get(str(model), Path(model))
