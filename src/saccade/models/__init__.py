"""Models, built by name or from parts."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from saccade.errors import unknown_name
from saccade.models.inputs import INPUTS
from saccade.models.matched import ATTENTIONS, COMBINATIONS, build, dcn_lstm, lenet_lstm, multi_stn_lstm, stn_lstm
from saccade.models.pretrained import lite0_memory
from saccade.models.published import dcn_lstm_published, lenet_lstm_published, stn_lstm_published
from saccade.models.trunks import TRUNKS
from saccade.models.video_classifier import VideoClassifier, verdict

__all__ = [
    "ATTENTIONS",
    "BUILT",
    "COMBINATIONS",
    "END_TO_END",
    "INPUTS",
    "MATCHED",
    "MODELS",
    "TRUNKS",
    "VideoClassifier",
    "arguments_of",
    "build",
    "create",
    "names",
    "verdict",
]

MATCHED = ("lenet-lstm", "stn-lstm", "dcn-lstm")
"""The matched models: one trunk, three kinds of attention, equal budgets."""

END_TO_END = (*MATCHED, "multi-stn-lstm")
"""The models by name that train by steps, end to end."""

BUILT = "classifier"
"""The name of models that `build` builds from parts."""

MODELS: dict[str, Callable[..., nn.Module]] = {
    "lenet-lstm": lenet_lstm,
    "stn-lstm": stn_lstm,
    "dcn-lstm": dcn_lstm,
    "multi-stn-lstm": multi_stn_lstm,
    BUILT: build,
    "lite0-memory": lite0_memory,
    "lenet-lstm-published": lenet_lstm_published,
    "stn-lstm-published": stn_lstm_published,
    "dcn-lstm-published": dcn_lstm_published,
}


def names() -> tuple[str, ...]:
    """Return the names that `create` accepts.

    >>> names()[:3]
    ('lenet-lstm', 'stn-lstm', 'dcn-lstm')
    """
    return tuple(MODELS)


def create(name: str, **arguments: Any) -> nn.Module:
    """Build a model with fresh weights.

    Args:
        name: one of `names()`.
        arguments: keyword arguments of the function that `MODELS` lists for the name, such as `labels`.

    Raises:
        UsageError: if the name or an argument is unknown.

    >>> sum(p.numel() for p in create("lenet-lstm").parameters()) < 750_000
    True
    """
    check(name, arguments)
    return MODELS[name](**arguments)


def arguments_of(name: str) -> tuple[str, ...]:
    """Return the names of the arguments that `create` accepts for a model.

    Raises:
        UsageError: if the name is unknown.
    """
    if name not in MODELS:
        raise unknown_name("model", str(name), names())
    return tuple(inspect.signature(MODELS[name]).parameters)


def check(name: str, arguments: Mapping[str, Any]) -> None:
    """Raise UsageError for a name or arguments that `create` does not accept."""
    known = arguments_of(name)
    for argument in dict(arguments):
        if argument not in known:
            raise unknown_name(f"argument of {name}", argument, known)
