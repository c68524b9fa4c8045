"""Weights that others have learned, from a file of PyTorch's or safetensors', for a trunk with the same layers."""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from saccade.errors import DataError
from saccade.foreign import UNREADABLE, shown
from saccade.nn.attention import attention_layers

# Under these names others keep the weights beside the state of their training.
_NESTED = ("state_dict", "model")
_PARALLEL = "module."
# Batch normalisation counts its batches, which older files do not say and which changes no result.
_COUNTER = "num_batches_tracked"
_NUM_NAMED = 3


@dataclass(frozen=True)
class Loaded:
    """What of a file came into a trunk; its text is one line.

    Args:
        num: the number of tensors that were loaded.
        missing: names of the trunk that the file lacks, whose tensors are as they were. Predictors of positions and
            counters of batches are not among them: a file of a plain network need not have them.
        unexpected: names of the file that the trunk lacks.
        wrong_shape: names of both whose tensors have different shapes, or are of whole numbers in one of them.

    >>> str(Loaded(120, missing=(), unexpected=("fc.bias",), wrong_shape=()))
    '120 tensors loaded; 1 unexpected: fc.bias'
    """

    num: int
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    wrong_shape: tuple[str, ...]

    def __str__(self) -> str:
        parts = {"missing": self.missing, "unexpected": self.unexpected, "of another shape": self.wrong_shape}
        listed = [f"{len(names)} {kind}: {_some(names)}" for kind, names in parts.items() if names]
        return "; ".join([f"{self.num} tensors loaded", *listed])


def load(trunk: nn.Module, path: Path | str) -> Loaded:
    """Copy the weights of a file into a trunk, by name, and return what was copied and what was not.

    No code of the file runs. Its tensors are mapped, not read, so that memory holds the weights once; only the format
    that PyTorch had before 1.6 is read as a whole. The weights may lie under `state_dict` or `model`, and begin with
    `module.`. A trunk may have a method `fitted`, from the weights of a whole network to its own.

    Args:
        trunk: the trunk; unchanged if an error is raised.
        path: a `.safetensors` file, or one that `torch.save` wrote, of any name.

    Raises:
        DataError: if the file cannot be read, holds more than weights, or holds none that fit; if a weight is NaN or
            infinite.
    """
    path = Path(path)
    try:
        weights = _weights(_read(path), path)
        fitted = getattr(trunk, "fitted", dict)(weights)
        own = trunk.state_dict()
        fitting = {name: weight for name, weight in fitted.items() if name in own and _fits(weight, own[name])}
        if not any(weight.dim() for weight in fitting.values()):
            wanted = next(name for name, weight in own.items() if weight.dim())
            raise DataError(
                f"{shown(path)} holds no weights of {type(trunk).__name__}: it has {_some(weights)};"
                f" {wanted} of shape {tuple(own[wanted].shape)}, and others, are needed"
            )
        for name, weight in fitting.items():
            if not bool(torch.isfinite(weight).all()):
                raise DataError(f"{shown(path)} has NaN or infinity in {name}; take another file")
        with torch.no_grad():
            for name, weight in fitting.items():
                own[name].copy_(weight)
    except UNREADABLE as error:
        raise _damaged(path, error) from error
    optional = _optional(trunk)
    return Loaded(
        len(fitting),
        missing=tuple(name for name in own if name not in fitted and name not in optional),
        unexpected=tuple(name for name in fitted if name not in own),
        wrong_shape=tuple(name for name in fitted if name in own and name not in fitting),
    )


def colours_fitted(weights: Mapping[str, Tensor], name: str, channels: int) -> dict[str, Tensor]:
    """Return weights in which those of a convolution of colours are summed over them, if frames have one channel.

    A grey frame then gives what it gives as a frame of three equal colours.

    >>> colours_fitted({"conv.weight": torch.ones(8, 3, 5, 5)}, "conv.weight", 1)["conv.weight"].shape
    torch.Size([8, 1, 5, 5])
    """
    weight = weights.get(name)
    if channels != 1 or weight is None or weight.dim() != 4 or weight.shape[1] != 3:
        return dict(weights)
    return {**weights, name: weight.sum(1, keepdim=True)}


def _read(path: Path) -> object:
    """Return what a file holds, running nothing of it and mapping its tensors where its format allows that."""
    try:
        path.open("rb").close()  # safetensors calls a file that must not be read missing
    except OSError as error:
        raise DataError(f"{shown(path)} cannot be opened: {error.strerror}") from error
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        is_zip = zipfile.is_zipfile(path)
        if is_zip and _is_compressed(path):  # it may unpack to any size
            raise DataError(f"{shown(path)} is compressed, as torch.save never does; save it again with torch.save")
        with warnings.catch_warnings(action="ignore"):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except pickle.UnpicklingError as error:
        if code := re.search(r"GLOBAL (\S+)", str(error)):
            raise DataError(
                f"{shown(path)} is refused: loading it would run {shown(code[1])}; save its weights alone, with"
                " torch.save(model.state_dict(), FILE)"
            ) from error
        raise _damaged(path, error) from error
    except SafetensorError as error:
        raise _damaged(path, error) from error


def _is_compressed(path: Path) -> bool:
    with zipfile.ZipFile(path) as file:
        return any(part.compress_type != zipfile.ZIP_STORED for part in file.infolist())


def _weights(held: object, path: Path) -> dict[str, Tensor]:
    """Return the weights by name, from wherever a file keeps them."""
    if isinstance(held, Mapping):
        held = next((held[key] for key in _NESTED if isinstance(held.get(key), Mapping)), held)
    entries = held.items() if isinstance(held, Mapping) else ()
    weights = {name: weight for name, weight in entries if isinstance(name, str) and _is_plain(weight)}
    if not weights:
        raise DataError(f"{shown(path)} holds a {type(held).__name__} without weights; a state_dict is needed")
    if all(name.startswith(_PARALLEL) for name in weights):
        return {name.removeprefix(_PARALLEL): weight for name, weight in weights.items()}
    return weights


def _is_plain(weight: object) -> bool:
    """Tell whether something is a tensor whose values lie in the file, one by one."""
    return (
        isinstance(weight, Tensor)
        and weight.layout == torch.strided
        and weight.device.type == "cpu"
        and not weight.is_quantized
        and not weight.is_complex()
        and weight.nbytes <= weight.untyped_storage().nbytes()
    )


def _fits(weight: Tensor, own: Tensor) -> bool:
    return weight.shape == own.shape and weight.is_floating_point() == own.is_floating_point()


def _optional(trunk: nn.Module) -> set[str]:
    """Return the names of counters, and of predictors of positions, which start where a plain layer samples."""
    predictors = tuple(f"{layer}.positions." for layer in attention_layers(trunk))
    return {name for name in trunk.state_dict() if name.startswith(predictors) or name.endswith(_COUNTER)}


def _damaged(path: Path, error: Exception) -> DataError:
    # What readers say of bytes that are no weights speaks of their insides; of a disk's error, the system tells.
    reason = f" ({error.strerror})" if isinstance(error, OSError) and error.strerror else ""
    return DataError(
        f"{shown(path)} is not a file of weights, or is damaged{reason}; give one that torch.save or safetensors wrote"
    )


def _some(names: Iterable[str]) -> str:
    """Name the first few."""
    names = list(names)
    rest = f" and {len(names) - _NUM_NAMED} more" if len(names) > _NUM_NAMED else ""
    return ", ".join(map(shown, names[:_NUM_NAMED])) + rest
