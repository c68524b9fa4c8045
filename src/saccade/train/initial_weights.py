"""The weights that a training starts from: a checkpoint's, those that others learned, or random ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from saccade import checkpoint, hub, models, weights
from saccade.errors import UsageError
from saccade.foreign import shown
from saccade.labels import Labels
from saccade.models import foreign_weights
from saccade.models.efficientnet import EfficientNetLite0
from saccade.models.picture_encoder import PictureEncoder
from saccade.models.pretrained import load_pretrained
from saccade.models.trunks import PICTURE_TRUNKS, SMALL_TRUNKS
from saccade.train.config import TrainConfig

LEARNED, NEW = "learned", "new"
"""What a trunk's weights are at the start of a training: learned before, or random."""

Say = Callable[[str], None]


def check(config: TrainConfig) -> None:
    """Find out whether a training can begin from its weights, before any clip is read.

    Args:
        config: the configuration, with the names of model and parts, as `end_to_end.named` returns it.

    Raises:
        UsageError: as for `take` and `keep`.
        DataError: as for `take`.
    """
    path, trunk = file_of(config), _of_name(config.trunk)
    if path is None and isinstance(trunk, EfficientNetLite0):
        load_pretrained(trunk)
    elif path is not None and checkpoint.of_others(path):
        foreign_weights.load(trunk, path)
    elif path is not None:
        header, wanted = checkpoint.read_header(path), arguments_of(config)
        # The clips may still decide on the input.
        came = header.arguments if config.input else {**header.arguments, "input": None}
        _check_kinds(path, _parts(header.model, came), _parts(config.model, wanted))
    elif config.finetune:
        raise _nothing_learned(config)
    if config.finetune and config.trunk not in PICTURE_TRUNKS:
        raise _nothing_learned(config)


def file_of(config: TrainConfig) -> Path | None:
    """Return the file that a training starts from; None if it starts from no file.

    Raises:
        MissingExtraError: if it lies on the hub, and `huggingface_hub` is not installed.
        DataError: if the hub does not give it, or its weights expect frames of another mean or deviation.
    """
    if config.start_from is None or not hub.is_address(config.start_from):
        return None if config.start_from is None else weights.find(config.start_from)
    known = PICTURE_TRUNKS.get(config.trunk)
    return hub.find_weights(config.start_from, *((known.mean, known.std) if known else ()))


def arguments_of(config: TrainConfig) -> dict[str, Any]:
    """Return the arguments of the model, without those that depend on the clips."""
    parts = ("trunk", "attention", "temporal") if config.model == models.BUILT else ("trunk",)
    counts = {} if config.num_glimpses is None else {"num_glimpses": config.num_glimpses}
    return {name: getattr(config, name) for name in (*parts, "input")} | counts


def take(model: nn.Module, config: TrainConfig, header: checkpoint.Header, say: Say) -> str:
    """Give a model its initial weights; return `LEARNED` if its trunk has learned, else `NEW`.

    Args:
        model: a model with random weights.
        config: the configuration, with `start_from`.
        header: the header of the model; its training gets columns of a result row about the earlier training.
        say: a function that is called with a line about weights that others wrote.

    Raises:
        UsageError: if the weights are those of another kind of model, or may have learned from test clips.
        DataError: if the file cannot be read, or its weights do not fit.
    """
    trunk: nn.Module = model.encoder.trunk  # type: ignore[assignment,union-attr]
    if (path := file_of(config)) is not None:
        if checkpoint.of_others(path):
            say(f"{shown(str(config.start_from))}: {foreign_weights.load(trunk, path)}")
        else:
            header.training["before"] = _of_checkpoint(model, header, path)
        return LEARNED
    if isinstance(trunk, EfficientNetLite0):
        load_pretrained(trunk)
        return LEARNED
    return NEW


def keep(model: nn.Module, config: TrainConfig, trunk: str) -> None:
    """Let a trunk for pictures keep what it has learned: its statistics, and without `finetune` its weights too.

    Args:
        model: the model.
        config: the configuration.
        trunk: `LEARNED` or `NEW`.

    Raises:
        UsageError: if `finetune` is set and the trunk has learned nothing.
    """
    encoder = model.encoder
    if isinstance(encoder, PictureEncoder) and trunk == LEARNED:
        encoder.keep_trunk(weights=not config.finetune)
    elif config.finetune:
        raise _nothing_learned(config)


def _of_name(name: str) -> nn.Module:
    """Return a trunk as it is without attention, for frames in colour."""
    return SMALL_TRUNKS[name](3, deformable=False) if name in SMALL_TRUNKS else PICTURE_TRUNKS[name].make(3)


def _nothing_learned(config: TrainConfig) -> UsageError:
    return UsageError(
        f"--finetune is for a trunk that has learned on pictures; {config.trunk} learns from scratch: choose"
        f" --trunk {' or '.join(PICTURE_TRUNKS)}, with --start-from FILE, or leave out --finetune"
    )


def _of_checkpoint(model: nn.Module, header: checkpoint.Header, path: Path) -> dict[str, Any]:
    """Load the weights of a model of the same kind; return their earlier training, as columns of a result row."""
    other = checkpoint.read_header(path)
    _check_same_test(header, other, path)
    _check_kinds(path, _kind(other), _kind(header))
    checkpoint.load_weights(model, path)
    earlier = other.training.get("before", {})
    conditions = [earlier.get("before_condition"), other.facts.get("condition", other.facts.get("data"))]
    return {
        "before_condition": ", ".join(dict.fromkeys(name for name in conditions if name)),
        "before_steps": other.training.get("step", 0) + earlier.get("before_steps", 0),
    }


def _check_same_test(header: checkpoint.Header, other: checkpoint.Header, path: Path) -> None:
    """Raise UsageError if weights may have learned from clips that are now held out for tests."""
    now, before = header.data["config"], other.data.get("config", {})
    same_place = now.get("root") is not None and now.get("root") == before.get("root")
    if same_place and now.get("held_out") != before.get("held_out"):
        raise UsageError(
            f"{path} was trained with another split of {now['root']} and may have learned from clips held out now; use"
            " the earlier split, as `saccade train --start-from` does, or train from scratch"
        )


def _check_kinds(path: Path, came: str, wanted: str) -> None:
    if wanted != came:
        raise UsageError(
            f"{path} holds {came}; {wanted} is wanted: change --model, or its parts, its input or the labels"
        )


def _kind(header: checkpoint.Header) -> str:
    labels = header.labels or Labels.numbered(1)
    named = ", ".join(labels.names[:3]) + (" ..." if len(labels.names) > 3 else "")
    return f"{_parts(header.model, header.arguments)} for {len(labels.names)} classes ({named})"


def _parts(model: str, arguments: Mapping[str, Any]) -> str:
    """Return the name of a model with those of its parts; a whole model has none."""
    if "trunk" not in arguments:
        return f"a {model}"
    parts = [f"{arguments['trunk']} trunk"]
    parts += [f"{part} {arguments[part]}" for part in ("attention", "temporal") if part in arguments]
    if (seen := arguments.get("input", "frames")) is not None:
        parts.append(f"input {seen}")
    return f"a {model} ({', '.join(parts)})"
