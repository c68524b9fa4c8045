"""The base class of attention layers, and contexts that record or neutralise their sampling positions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn


class AttentionLayer(nn.Module, ABC):
    """A layer that chooses where to sample its input.

    A subclass keeps the network that predicts the sampling positions in `self.positions`, and calls it as a
    module, so that hooks can record and replace its output. The parameters of `positions` are the attention
    parameters; all others would exist without attention.
    """

    positions: nn.Module

    @abstractmethod
    def neutral(self, positions: Tensor) -> Tensor:
        """Return positions of the same shape at which the layer samples exactly as a plain layer would."""


def attention_layers(model: nn.Module) -> dict[str, AttentionLayer]:
    """Return the attention layers of a model by their module names, in order of the forward pass."""
    return {name: module for name, module in model.named_modules() if isinstance(module, AttentionLayer)}


def num_attention_parameters(model: nn.Module) -> int:
    """Count the parameters that exist only for attention."""
    return sum(p.numel() for layer in attention_layers(model).values() for p in layer.positions.parameters())


@contextmanager
def recorded(model: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Record the positions that attention layers predict; a forward pass fills the dict, detached, by layer name."""
    seen: dict[str, Tensor] = {}

    def keep(name: str) -> object:
        return lambda _module, _args, output: seen.__setitem__(name, output.detach())

    handles = [
        layer.positions.register_forward_hook(keep(name))  # type: ignore[arg-type]
        for name, layer in attention_layers(model).items()
    ]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def switched_off(model: nn.Module) -> Iterator[None]:
    """Make every attention layer sample where a plain layer would, without changing its weights."""

    def neutral(layer: AttentionLayer) -> object:
        return lambda _module, _args, output: layer.neutral(output)

    handles = [
        layer.positions.register_forward_hook(neutral(layer))  # type: ignore[arg-type]
        for layer in attention_layers(model).values()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
