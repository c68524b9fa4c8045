"""Trained weights by name: those that come with the package, for digits that rotate and change scale, or the hub's."""

from __future__ import annotations

from pathlib import Path

from saccade import hub
from saccade.errors import unknown_name
from saccade.models import MATCHED

__all__ = ["card", "find", "matched", "paths"]

_FOLDER = Path(__file__).parent


def paths() -> dict[str, Path]:
    """Return the checkpoints that come with the package, by name.

    Their models classify moving digits in grey 64x64 frames. `card` says what each learned, and how accurate it is.
    """
    others = {path.stem: path for path in sorted(_FOLDER.glob("*.safetensors")) if path.stem not in MATCHED}
    return matched() | others


def matched() -> dict[str, Path]:
    """Return those of the three models that differ in attention alone, by name.

    They name all digits in a clip (labels `digits`); `recipes/weights.sh` trains them.
    """
    return {name: _FOLDER / f"{name}.safetensors" for name in MATCHED}


def card(name: str) -> str:
    """Return the model card of a checkpoint of the package, in Markdown: data, recipe, figures, limits.

    Raises:
        UsageError: if no model of the package has this name.

    >>> card("dcn-lstm").splitlines()[0]
    '# dcn-lstm'
    """
    if name not in (known := paths()):
        raise unknown_name("model", name, known)
    return known[name].with_suffix(".md").read_text(encoding="utf-8")


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
