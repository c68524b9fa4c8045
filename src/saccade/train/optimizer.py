"""The optimisers of end-to-end training, and the weights and learning rates of each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from saccade.models.picture_encoder import PictureEncoder
from saccade.nn import attention
from saccade.train.config import TrainConfig
from saccade.train.muon import Muon

# The share of the learning rate of the last block of a trunk that has learned, and of a block in that of the next.
_LAST_BLOCK, _EARLIER_BLOCK = 0.1, 0.8
# The share of the learning rate of what comes behind such a trunk.
_BEHIND = 1 / 3


class Optimizers:
    """Several optimisers with separate weights that act as one.

    Args:
        parts: the optimisers; their present learning rates are their highest.
    """

    def __init__(self, parts: Sequence[torch.optim.Optimizer]) -> None:
        self._parts = list(parts)
        for group in self.param_groups:
            group["base_lr"] = group["lr"]

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The parameter groups of all optimisers."""
        return [group for part in self._parts for group in part.param_groups]

    def set_rate(self, factor: float) -> None:
        """Set every learning rate to a fraction of its highest."""
        for group in self.param_groups:
            group["lr"] = group["base_lr"] * factor

    def zero_grad(self) -> None:
        """Set all gradients to None."""
        for part in self._parts:
            part.zero_grad(set_to_none=True)

    def step(self) -> None:
        """Take a step with every optimiser."""
        for part in self._parts:
            part.step()

    def forget(self) -> None:
        """Clear the state of every optimiser, but keep the learning rates."""
        for part in self._parts:
            part.state.clear()

    def tensors(self) -> dict[str, Tensor]:
        """Return the state as tensors by name."""
        return {
            f"{place}.{index}.{name}": value
            for place, part in enumerate(self._parts)
            for index, entry in part.state_dict()["state"].items()
            for name, value in entry.items()
        }

    def load_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Load the state that `tensors` returned; that of version 0.1 has a single optimiser without a number."""
        entries: list[dict[int, dict[str, Tensor]]] = [{} for _ in self._parts]
        for key, value in tensors.items():
            *place, index, name = key.split(".")
            entries[int(place[0]) if place else 0].setdefault(int(index), {})[name] = value
        for part, state in zip(self._parts, entries, strict=True):
            part.load_state_dict({"state": state, "param_groups": part.state_dict()["param_groups"]})
            for parameter, entry in part.state.items():
                for name, value in entry.items():
                    if value.shape == parameter.shape:
                        # Fused optimisers traverse memory: their state must have the layout of the parameter.
                        entry[name] = torch.empty_like(parameter).copy_(value)


def end_to_end(model: nn.Module, config: TrainConfig) -> Optimizers:
    """Return Muon for the encoder's weights and AdamW for everything else.

    The attention parameters have their own learning rate. Parameters of one dimension (biases, normalisation) have no
    weight decay. Parameters without gradients are left out.

    Muon's steps have one size in every direction, which suits weights that begin at random. A trunk that has learned
    takes small steps with AdamW. Its last block has a tenth of the learning rate, and each block before it 0.8 times
    the rate of the next, since the layers near the pixels fit most pictures as they are. What comes behind such a trunk
    has a third of the learning rate.

    Args:
        model: the model that they update.
        config: the configuration with the learning rates.
    """
    attending = {id(p) for layer in attention.attention_layers(model).values() for p in layer.positions.parameters()}
    fine = _fine_rates(model)
    groups: dict[tuple[bool, bool, bool, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        attends, decays = id(parameter) in attending, parameter.dim() > 1
        by_muon = config.muon_rate > 0 and name.startswith("encoder.") and decays and not attends and fine is None
        share = config.attention_rate if attends else 1.0 if fine is None else fine.get(id(parameter), _BEHIND)
        groups.setdefault((by_muon, attends, decays, share), []).append(parameter)
    described: dict[bool, list[dict[str, Any]]] = {False: [], True: []}
    for (by_muon, _, decays, share), parameters in groups.items():
        rate = config.muon_rate if by_muon else config.learning_rate * share
        decay = config.weight_decay if decays else 0.0
        described[by_muon].append({"params": parameters, "lr": rate, "weight_decay": decay})
    parts: list[torch.optim.Optimizer] = [torch.optim.AdamW(described[False], fused=True)]
    if described[True]:
        parts.append(Muon(described[True], lr=config.muon_rate))
    return Optimizers(parts)


def _fine_rates(model: nn.Module) -> dict[int, float] | None:
    """Return the share of the learning rate of each weight of a trunk that has learned; None without such a trunk."""
    encoder = getattr(model, "encoder", None)
    if not isinstance(encoder, PictureEncoder) or not encoder.keeps_statistics:
        return None
    blocks: list[list[nn.Module]] = encoder.trunk.blocks()  # type: ignore[operator]
    return {
        id(parameter): _LAST_BLOCK * _EARLIER_BLOCK**behind
        for behind, block in enumerate(reversed(blocks))
        for layer in block
        for parameter in layer.parameters()
    }
