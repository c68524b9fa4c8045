"""Checkpoints: weights, the arguments that rebuild the model, versions, and what training needs to go on.

One safetensors file holds everything: no code runs when it is loaded, and it appears by one atomic rename. The `.json`
beside it is a copy of its header for people.
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

FORMAT = 3
_READ = (1, 2, FORMAT)
NAME = "checkpoint.safetensors"
_WEIGHTS = "model."
# What a header raises that is none, or one of another version.
_DAMAGED: tuple[type[Exception], ...] = (*foreign.UNREADABLE, UsageError)


class _Config(TypedDict, total=False):
    """What is read of the configuration of a training, whatever else it says."""

    seed: int


class _Before(TypedDict, total=False):
    before_condition: str
    before_steps: int


class _Training(TypedDict, total=False):
    """What is read of where a training stands."""

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
    """The types of a header's fields in JSON; labels and frame format have their own."""

    model: str
    arguments: dict[str, Any]
    data: _Learned
    training: _Training
    versions: dict[str, str]


@dataclass(frozen=True)
class Header:
    """What a checkpoint says of itself.

    Args:
        model: a name in `models.names()`.
        arguments: keyword arguments that `models.create` gets besides labels and frame format.
        labels: the model's classes.
        frame_format: what it wants of a frame.
        data: what it learned on: under `config` what `saccade.data.from_json` reads, under `facts` columns of a result
            row.
        training: where training stands; empty for a model that is only to be used.
        versions: of what it was made with.
        format: of the header.
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
    def facts(self) -> dict[str, Any]:
        """What it learned on, as columns of a result row."""
        return dict(self.data.get("facts", {}))

    @property
    def seed(self) -> int:
        """The seed of its training."""
        return int(self.training.get("config", {}).get("seed", 0))

    def data_config(self) -> DataConfig:
        """Return the configuration of what it learned on.

        Raises:
            UsageError: it is not known.
            DataError: what the checkpoint says of it cannot be understood.
        """
        if not self.data.get("config"):
            raise UsageError(f"this {self.model} does not say what it learned on; name the clips with --data")
        try:
            return data.from_json(self.data["config"])
        except foreign.UNREADABLE as error:
            raise DataError(
                f"this {self.model} does not say properly what it learned on ({error}); take an earlier checkpoint"
            ) from error

    def create_model(self) -> nn.Module:
        """Build the model with fresh weights.

        Raises:
            UsageError: a name or arguments of another version.
        """
        own = {"labels": self.labels, "frame_format": self.frame_format}
        takes = models.arguments_of(self.model)
        return models.create(
            self.model, **self.arguments, **{n: v for n, v in own.items() if v is not None and n in takes}
        )

    def as_json(self) -> dict[str, Any]:
        """Return the fields as JSON has them."""
        described = {f.name: getattr(self, f.name) for f in fields(self)}
        for name in ("labels", "frame_format"):
            if described[name] is not None:
                described[name] = described[name].as_json()
        return described

    @classmethod
    def from_json(cls, described: Mapping[str, Any]) -> Header:
        """Return what `as_json` described.

        Raises:
            TypeError, ValueError, KeyError: it describes no header.
        """
        foreign.check_types(described, _Described)
        read = dict(described)
        if read.get("labels") is not None:
            read["labels"] = Labels.from_json(read["labels"])
        if read.get("frame_format") is not None:
            read["frame_format"] = FrameFormat.from_json(read["frame_format"])
        return cls(**read)


def versions() -> dict[str, str]:
    """Return the versions that a result depends on."""
    return {
        "saccade": saccade.__version__,
        "torch": str(torch.__version__),
        "python": platform.python_version(),
    }


def save(path: Path, model: nn.Module, header: Header, state: Mapping[str, Tensor] | None = None) -> None:
    """Write a checkpoint whole, replacing an older one.

    Args:
        path: a `.safetensors` file.
        model: built by `header.create_model()`.
        header: what the checkpoint says of itself.
        state: further tensors, such as the optimiser's; their names must not start with `model.`.
    """
    tensors = {_WEIGHTS + name: tensor for name, tensor in model.state_dict().items()} | dict(state or {})
    tensors = {name: tensor.detach().to("cpu").contiguous() for name, tensor in tensors.items()}
    described = header.as_json()
    write_tensors(path, tensors, {"saccade": json.dumps(described)})
    files.write_json(path.with_suffix(".json"), described)


def write_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Write a safetensors file whole, replacing an older one.

    Raises:
        DataError: it cannot be written; what lies at `path` stays.
    """
    try:
        with files.whole(path) as temporary:
            save_file(tensors, temporary, metadata=metadata)
    except SafetensorError as error:
        raise DataError(f"{path} cannot be written ({error}); make room, or choose another --out") from error


def locate(path: Path | str) -> Path:
    """Return the checkpoint file meant by a path: the file itself, or the one in a run folder.

    Raises:
        DataError: there is none.
    """
    path = Path(path)
    found = path / NAME if path.is_dir() else path
    if not found.is_file():
        known = ", ".join(models.MATCHED)
        raise DataError(f"no checkpoint at {found}; give a .safetensors file, the folder of a run, or {known}")
    return found


def distinct_names(kinds: Sequence[str], paths: Sequence[Path]) -> list[str]:
    """Name models by their kind; of several of a kind, also by their files or folders, and by numbers where need be.

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
    """Return the name of a file, or of the run folder."""
    folder = path.parent if path.name == NAME else path
    return foreign.shown(path.stem if path.is_file() and path.name != NAME else folder.resolve().name)


def read_header(path: Path | str) -> Header:
    """Read what a checkpoint says of itself, without its tensors.

    Raises:
        DataError: not a checkpoint of this project, damaged, or of a newer format.
    """
    path = locate(path)
    try:
        with safe_open(path, framework="pt") as opened:
            metadata = opened.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise DataError(
            f"{path} is no whole safetensors file ({error}); take an earlier copy or train again"
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
        raise DataError(f"{path} has a header that is damaged, or of another version of saccade: {error}") from error


def load(path: Path | str, device: torch.device | str = "cpu") -> tuple[nn.Module, Header]:
    """Rebuild the model of a checkpoint, in evaluation mode.

    Raises:
        DataError: as `read_header`; weights that do not fit the model, or are not finite.
    """
    header = read_header(path)
    try:
        with torch.device("meta"):
            planned = header.create_model()
        _check_fits(planned, path, header)  # before memory is taken for what the header claims
        model = header.create_model()
    except _DAMAGED as error:
        raise DataError(f"{path} has a header that is damaged, or of another version of saccade: {error}") from error
    load_weights(model, path)
    return model.to(device).eval(), header


def load_weights(model: nn.Module, path: Path | str) -> dict[str, Tensor]:
    """Copy a checkpoint's weights into a model and return the other tensors it holds.

    Raises:
        DataError: weights that do not fit the model, or are not finite.
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
    """Raise DataError where a checkpoint's weights are not those of a model."""
    with safe_open(locate(path), framework="pt") as opened:
        names = [name for name in opened.keys() if name.startswith(_WEIGHTS)]  # noqa: SIM118
        shapes = {name.removeprefix(_WEIGHTS): tuple(opened.get_slice(name).get_shape()) for name in names}
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    for name, shape in expected.items():
        if (came := shapes.get(name)) != shape:
            raise DataError(
                f"{path} holds a {header.model}, which does not fit: {name} should be {shape}, is {came or 'nothing'}"
            )
    if unknown := shapes.keys() - expected.keys():
        raise DataError(f"{path} holds a {header.model}, which does not fit: {sorted(unknown)[0]} is not in the model")
