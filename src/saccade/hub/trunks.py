"""Pretrained trunks on the hub: where they lie, which digest they have, which frames they expect."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from saccade import checkpoint, foreign
from saccade.errors import DataError
from saccade.hub.address import Address
from saccade.hub.download import find, find_text

# Under these names others keep the weights of a network, and the description of its input.
_WEIGHTS, _CONFIG = "model.safetensors", "config.json"


class _Input(TypedDict, total=False):
    mean: tuple[float, ...]
    std: tuple[float, ...]


class _Config(TypedDict, total=False):
    """The types of the fields that are read from timm's description of a network."""

    pretrained_cfg: _Input


@dataclass(frozen=True)
class Pretrained:
    """The weights of a trunk at a fixed commit.

    Args:
        trunk: the name of the trunk, as in `saccade.models.TRUNKS`.
        commit: the commit of the repository.
        sha256: the SHA-256 of the file `model.safetensors`.
    """

    trunk: str
    commit: str
    sha256: str


PRETRAINED: dict[str, Pretrained] = {
    # The digest stands on the page of the file at this commit:
    # huggingface.co/timm/resnet18.a1_in1k/blob/COMMIT/model.safetensors
    "timm/resnet18.a1_in1k": Pretrained(
        "resnet18",
        commit="ebd61f9c7420e5b5b53262b8ce6bbe311e1e872a",
        sha256="80c49dee3da4822c009c5a7fe591e9223c5a2cfcf95a4067ca4dfb5a7b89c612",
    ),
}
"""Weights whose commit and digest are known, by repository. timm names ResNet's layers as torchvision does."""


def find_weights(
    address: str | os.PathLike[str], mean: Sequence[float] | None = None, std: Sequence[float] | None = None
) -> Path:
    """Return the file of weights that a training starts from: a checkpoint of Saccade, or the weights of a network.

    A repository of `PRETRAINED` is taken at its commit, unless the address has a revision.

    Args:
        address: the repository, for example `hf://timm/resnet18.a1_in1k`.
        mean: the mean of pixels in [0, 1] by which frames will be scaled; None if that does not matter.
        std: their standard deviation.

    Raises:
        MissingExtraError: if `huggingface_hub` is not installed.
        UsageError: if the address is none.
        DataError: as for `find`; also if the weights expect frames of another mean or deviation.
    """
    place, sha256 = Address.parse(address), None
    if place.revision is None and place.repository in PRETRAINED:
        known = PRETRAINED[place.repository]
        place, sha256 = Address(place.repository, known.commit), known.sha256
    names = (_WEIGHTS,) if sha256 else (checkpoint.NAME, _WEIGHTS)
    path = find(place, names, sha256=sha256)
    if path.name == _WEIGHTS:
        _check_input(place, {"mean": mean, "std": std})
    return path


def _check_input(address: Address, given: dict[str, Sequence[float] | None]) -> None:
    """Raise DataError if the description of a network names another mean or deviation than frames will have."""
    if (text := find_text(address, _CONFIG)) is None:
        return
    try:
        described = json.loads(text)
        foreign.check_types(described, _Config)
        expected = described.get("pretrained_cfg", {})
    except foreign.UNREADABLE as error:
        raise DataError(f"{_CONFIG} of {address} is damaged ({error}); take another repository") from error
    for name, values in given.items():
        wanted = expected.get(name)
        if values is not None and wanted is not None and tuple(wanted) != tuple(values):
            raise DataError(
                f"the weights of {address} expect frames of {name} {tuple(wanted)}; this trunk gives them"
                f" {tuple(values)}: take other weights"
            )
