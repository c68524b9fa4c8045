"""The weights that a training starts from: a checkpoint's, those that others learned, or random ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from saccade import checkpoint, weights
from saccade.errors import UsageError
from saccade.foreign import shown
from saccade.labels import Labels
from saccade.models import foreign_weights
from saccade.models.efficientnet import EfficientNetLite0
from saccade.models.picture_encoder import PictureEncoder
from saccade.models.pretrained import load_pretrained
from saccade.models.trunks import PICTURE_TRUNKS
from saccade.train.config import TrainConfig

LEARNED, NEW = "learned", "new"
"""What a trunk's weights are at the start of a training: learned before, or random."""

Say = Callable[[str], None]


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
    if config.start_from is not None:
        if checkpoint.of_others(config.start_from):
            say(f"{shown(config.start_from)}: {foreign_weights.load(trunk, config.start_from)}")
        else:
            header.training["before"] = _of_checkpoint(model, header, config.start_from)
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
        raise UsageError(
            f"--finetune is for a trunk that has learned on pictures; {config.trunk} learns from scratch: choose"
            f" --trunk {' or '.join(PICTURE_TRUNKS)}, with --start-from FILE, or leave out --finetune"
        )


def _of_checkpoint(model: nn.Module, header: checkpoint.Header, path: Path) -> dict[str, Any]:
    """Load the weights of a model of the same kind; return their earlier training, as columns of a result row."""
    path = weights.find(path)
    other = checkpoint.read_header(path)
    _check_same_test(header, other, path)
    wanted, came = (_kind(header), _kind(other))
    if wanted != came:
        raise UsageError(
            f"{path} holds {came}; {wanted} is wanted: change --model, or its parts, its input or the labels"
        )
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


def _kind(header: checkpoint.Header) -> str:
    labels = header.labels or Labels.numbered(1)
    named = ", ".join(labels.names[:3]) + (" ..." if len(labels.names) > 3 else "")
    parts = [f"{header.arguments.get('trunk')} trunk"]
    parts += [f"{part} {header.arguments[part]}" for part in ("attention", "temporal") if part in header.arguments]
    parts.append(f"input {header.arguments.get('input', 'frames')}")
    return f"a {header.model} ({', '.join(parts)}) for {len(labels.names)} classes ({named})"
