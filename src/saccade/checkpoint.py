"""Checkpoints: weights, the arguments that rebuild the model, versions, and the state for resuming training.

One safetensors file holds everything. Loading it runs no code, and it is written by one atomic rename. The `.json` file
of the same name is a copy of the header for people.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypedDict

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

import saccade
from saccade import data, files, foreign, models
from saccade.clips import DataConfig, FrameFormat
from saccade.errors import DataError, UsageError
from saccade.labels import Labels
from saccade.models.trunks import OLD_NAMES

FORMAT = 3
_READ = (1, 2, FORMAT)
NAME = "checkpoint.safetensors"
_WEIGHTS = "model."
# Errors that a damaged header, or one of another version, raises.
_DAMAGED: tuple[type[Exception], ...] = (*foreign.UNREADABLE, UsageError)


class _Config(TypedDict, total=False):
    """The types of the fields that are read from a training configuration; others are not checked."""

    seed: int


class _Before(TypedDict, total=False):
    before_condition: str
    before_steps: int


class _Training(TypedDict, total=False):
    """The types of the fields that are read from the state of a training."""

    config: _Config
    data: dict[str, Any]
    before: _Before
    step: int
    num_steps: int
    elapsed_s: float
    precision: str
    seed: int
    limits: dict[str, Any]
    accuracy: float | None


class _Learned(TypedDict, total=False):
    config: dict[str, Any]
    facts: dict[str, Any]


class _Described(TypedDict, total=False):
    """The types of a header's fields in JSON; the classes of labels and frame format check their own fields."""

    model: str
    arguments: dict[str, Any]
    data: _Learned
    training: _Training
    versions: dict[str, str]


@dataclass(frozen=True)
class Header:
    """The description of the model, its training and its data in a checkpoint.

    Args:
        model: a name in `models.names()`.
        arguments: keyword arguments of `models.create`, apart from labels and frame format.
        labels: the classes of the model.
        frame_format: the frames that the model expects.
        data: the training data: `config` is the input of `saccade.data.from_json`, `facts` are columns of a result row.
        training: the state of the training; empty for a model that cannot resume training.
        versions: the versions of the software that wrote the checkpoint.
        format: the version of the header format.
    """

    model: str
    arguments: dict[str, Any] = field(default_factory=dict)
    labels: Labels | None = None
    frame_format: FrameFormat | None = None
    data: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=lambda: versions())
    format: int = FORMAT

    @property
    def kind(self) -> str:
        """The name of the model in results; that of a model built from parts names the parts.

        >>> Header(models.BUILT, {"trunk": "resnet18", "attention": "none", "temporal": "gru"}).kind
        'resnet18-gru'
        """
        if self.model != models.BUILT:
            return self.model
        parts = [self.arguments.get(part) for part in ("trunk", "attention", "temporal")]
        return "-".join(str(part) for part in parts if part not in (None, "none")) or self.model

    @property
    def facts(self) -> dict[str, Any]:
        """A description of the training data, as columns of a result row."""
        found = self.data.get("facts", {})
        # A cell of a table holds one value.
        return {name: v if v is None or isinstance(v, str | int | float) else str(v) for name, v in found.items()}

    @property
    def seed(self) -> int:
        """The seed of the training."""
        return int(self.training.get("config", {}).get("seed", 0))

    def data_config(self) -> DataConfig:
        """Return the configuration of the training data.

        Raises:
            UsageError: if the header has no such configuration.
            DataError: if the configuration in the header is damaged.
        """
        if not self.data.get("config"):
            raise UsageError(f"this {self.model} does not name its training data; name the clips with --data")
        try:
            return data.from_json(self.data["config"])
        except foreign.UNREADABLE as error:
            raise DataError(
                f"this {self.model} has a damaged description of its data ({error}); take an earlier checkpoint"
            ) from error

    def create_model(self) -> nn.Module:
        """Build the model with newly initialised weights.

        Raises:
            UsageError: if this version does not know the model name or its arguments.
        """
        own = {"labels": self.labels, "frame_format": self.frame_format}
        takes = models.arguments_of(self.model)
        return models.create(
            self.model, **self.arguments, **{n: v for n, v in own.items() if v is not None and n in takes}
        )

    def as_json(self) -> dict[str, Any]:
        """Return the fields as JSON types."""
        described = {f.name: getattr(self, f.name) for f in fields(self)}
        for name in ("labels", "frame_format"):
            if described[name] is not None:
                described[name] = described[name].as_json()
        return described

    @classmethod
    def from_json(cls, described: Mapping[str, Any]) -> Header:
        """Create a header from the result of `as_json`.

        Raises:
            TypeError, ValueError, KeyError: if `described` does not describe a header.
        """
        foreign.check_types(described, _Described)
        read = dict(described)
        config = read.get("training", {}).get("config", {})
        for named in (read.get("arguments", {}), config):
            if "trunk" in named:
                named["trunk"] = OLD_NAMES.get(named["trunk"], named["trunk"])
        if read.get("labels") is not None:
            read["labels"] = Labels.from_json(read["labels"])
        if read.get("frame_format") is not None:
            read["frame_format"] = FrameFormat.from_json(read["frame_format"])
        return cls(**read)


def versions() -> dict[str, str]:
    """Return the versions of saccade, torch and Python, on which results depend."""
    return {
        "saccade": saccade.__version__,
        "torch": str(torch.__version__),
        "python": platform.python_version(),
    }


def save(path: Path, model: nn.Module, header: Header, state: Mapping[str, Tensor] | None = None) -> None:
    """Write a checkpoint atomically, replacing an older one.

    Args:
        path: the `.safetensors` file.
        model: the model, built by `header.create_model()`.
        header: the description of the checkpoint.
        state: further tensors, for example those of the optimiser; their names must not start with `model.`.
    """
    tensors = {_WEIGHTS + name: tensor for name, tensor in model.state_dict().items()} | dict(state or {})
    tensors = {name: tensor.detach().to("cpu").contiguous() for name, tensor in tensors.items()}
    described = header.as_json()
    write_tensors(path, tensors, {"saccade": json.dumps(described)})
    files.write_json(path.with_suffix(".json"), described)


def write_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Write a safetensors file atomically, replacing an older one.

    Raises:
        DataError: if the file cannot be written; an older file at `path` is kept.
    """
    try:
        with files.whole(path) as temporary:
            save_file(tensors, temporary, metadata=metadata)
    except SafetensorError as error:
        raise DataError(f"{path} cannot be written ({error}); free disk space, or choose another --out") from error


def locate(path: Path | str) -> Path:
    """Return the checkpoint file for a path: the file itself, or the file in a run folder.

    Raises:
        DataError: if there is no such file.
    """
    path = Path(path)
    found = path / NAME if path.is_dir() else path
    if not found.is_file():
        known = ", ".join(models.MATCHED)
        raise DataError(f"no checkpoint at {found}; give a .safetensors file, the folder of a run, or {known}")
    return found


def distinct_names(kinds: Sequence[str], paths: Sequence[Path]) -> list[str]:
    """Return a distinct name per model: its kind, then its file or folder if the kind is repeated, then a number.

    >>> distinct_names(["lenet-lstm", "dcn-lstm", "dcn-lstm"], [Path("a"), Path("runs/b"), Path("runs/c")])
    ['lenet-lstm', 'dcn-lstm (b)', 'dcn-lstm (c)']
    """
    names: list[str] = []
    for kind, path in zip(kinds, paths, strict=True):
        name = kind if kinds.count(kind) == 1 else f"{kind} ({_place(path)})"
        taken = sum(other == name or other.startswith(f"{name} #") for other in names)
        names.append(f"{name} #{taken + 1}" if taken else name)
    return names


def _place(path: Path) -> str:
    """Return the name of a checkpoint file without its suffix, or the name of its run folder."""
    folder = path.parent if path.name == NAME else path
    return foreign.shown(path.stem if path.is_file() and path.name != NAME else folder.resolve().name)


def read_header(path: Path | str) -> Header:
    """Read the header of a checkpoint, without its tensors.

    Raises:
        DataError: if the file is not a checkpoint of this project, is damaged, or has a newer format.
    """
    path = locate(path)
    try:
        path.open("rb").close()  # safetensors calls a file that must not be read missing
    except OSError as error:
        raise DataError(f"{path} cannot be opened: {error.strerror}") from error
    try:
        with safe_open(path, framework="pt") as opened:
            metadata = opened.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise DataError(
            f"{path} is not a complete safetensors file ({error}); take an earlier copy or train again"
        ) from error
    if "saccade" not in metadata:
        raise DataError(f"{path} was not written by saccade; a checkpoint made by `saccade train` is needed")
    try:
        described = dict(json.loads(metadata["saccade"]))
    except foreign.UNREADABLE as error:
        raise DataError(f"{path} has a damaged header ({error}); take an earlier copy or train again") from error
    if described.get("format") not in _READ:
        raise DataError(
            f"{path} has checkpoint format {described.get('format')}; this version reads formats up to {FORMAT}"
        )
    try:
        return Header.from_json(data.header_of_today(described))
    except _DAMAGED as error:
        raise DataError(f"{path} has a header that is damaged or of another version of saccade: {error}") from error


def of_others(path: Path) -> bool:
    """Return whether a file holds weights that others wrote: it does not end as a checkpoint, or has no header of one.

    A file that cannot be read counts as a checkpoint, so that reading it tells the reason.
    """
    if not path.is_file() or path.suffix != ".safetensors":
        return path.is_file()
    try:
        with safe_open(path, framework="pt") as opened:
            return "saccade" not in (opened.metadata() or {})
    except (SafetensorError, OSError):
        return False


def load(path: Path | str, device: torch.device | str = "cpu") -> tuple[nn.Module, Header]:
    """Return the model of a checkpoint, in evaluation mode, and the header.

    Raises:
        DataError: as for `read_header`; also if the weights do not fit the model, or are not finite.
    """
    header = read_header(path)
    try:
        with torch.device("meta"):
            planned = header.create_model()
        _check_fits(planned, path, header)  # before memory is allocated for sizes that the header claims
        model = header.create_model()
    except _DAMAGED as error:
        raise DataError(f"{path} has a header that is damaged or of another version of saccade: {error}") from error
    load_weights(model, path)
    return model.to(device).eval(), header


def load_weights(model: nn.Module, path: Path | str) -> dict[str, Tensor]:
    """Copy the weights of a checkpoint into a model; return the other tensors of the checkpoint.

    Raises:
        DataError: if the weights do not fit the model, or are not finite.
    """
    path = locate(path)
    _check_fits(model, path, read_header(path))
    with safe_open(path, framework="pt") as opened:
        names = list(opened.keys())
        tensors = {name: opened.get_tensor(name) for name in names}
    weights = {name.removeprefix(_WEIGHTS): tensors.pop(name) for name in list(tensors) if name.startswith(_WEIGHTS)}
    for name, tensor in weights.items():
        if not bool(torch.isfinite(tensor).all()):
            raise DataError(f"{path} has NaN or infinity in {name}; take an earlier checkpoint")
    model.load_state_dict(weights)
    return tensors


def _check_fits(model: nn.Module, path: Path | str, header: Header) -> None:
    """Raise DataError if the weights of a checkpoint do not fit a model."""
    with safe_open(locate(path), framework="pt") as opened:
        names = [name for name in opened.keys() if name.startswith(_WEIGHTS)]  # noqa: SIM118
        shapes = {name.removeprefix(_WEIGHTS): tuple(opened.get_slice(name).get_shape()) for name in names}
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    for name, shape in expected.items():
        if (came := shapes.get(name)) != shape:
            raise DataError(
                f"{path} holds a {header.kind}, which does not fit: {name} should be {shape}, is {came or 'nothing'}"
            )
    if unknown := shapes.keys() - expected.keys():
        raise DataError(f"{path} holds a {header.kind}, which does not fit: {sorted(unknown)[0]} is not in the model")
