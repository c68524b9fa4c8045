"""Convolutions whose weights are arranged for the processor once, for models that see one frame after the other.

Torch arranges the weights of a convolution anew at each call, and reads and writes the map once more for its ReLU. For
a single frame of 224x224 px in EfficientNet-lite0 these take a quarter of the time (docs/log.md).
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from saccade.models.efficientnet import EfficientNetLite0, InvertedResidual, SameConv2d

# What oneDNN computes along with a convolution, as the operator names it.
_ACTIVATIONS: dict[type[nn.Module], tuple[str, list[float], str]] = {
    nn.ReLU: ("relu", [], ""),
    nn.ReLU6: ("hardtanh", [0.0, 6.0], ""),
}
# Modules that call their children in order, each once.
_IN_ORDER = (nn.Sequential, EfficientNetLite0, InvertedResidual)
_NONE: tuple[str, list[float], str] = ("none", [], "")


def pack(model: nn.Module) -> None:
    """Let the plain convolutions of a model use arranged weights wherever that is possible, and compute their ReLU.

    The model computes the same up to rounding. Its modules keep their types, so that attention can be traced through
    them. Where gradients are recorded, and on anything but float32 on a CPU, the convolutions run as before. Where this
    build of torch lacks the operators, which `torch.compile` uses and nothing documents, nothing changes.

    Args:
        model: a model that no longer learns, such as that of `folding.folded`.
    """
    if not _works():
        return
    for module in model.modules():
        children = list(module.named_children())
        for place, (_, layer) in enumerate(children):
            # Not other subclasses, which compute something else.
            if (
                isinstance(layer, nn.Conv2d)
                and type(layer) in (nn.Conv2d, SameConv2d)
                and layer.padding_mode == "zeros"
            ):
                behind = [pair for pair in children[place + 1 :] if not isinstance(pair[1], nn.Identity)]
                activation = None
                if behind and isinstance(module, _IN_ORDER) and type(behind[0][1]) in _ACTIVATIONS:
                    name, activation = behind[0]
                    setattr(module, name, nn.Identity())
                layer.forward = _Packed(layer, activation)  # type: ignore[method-assign]


class _Packed:
    """The forward pass of a convolution and of the activation behind it."""

    def __init__(self, layer: nn.Conv2d, activation: nn.Module | None) -> None:
        self._layer, self._activation = layer, activation
        self._extra = _NONE if activation is None else _ACTIVATIONS[type(activation)]
        self._shape: torch.Size | None = None
        self._weight: Tensor | None = None
        self._rest: tuple[Any, ...] = ()

    def __call__(self, input: Float[Tensor, "batch in_channels height width"]) -> Tensor:
        if torch.is_grad_enabled() or input.dtype != torch.float32 or input.device.type != "cpu":
            return self._plain(input)
        if input.shape != self._shape and not self._arrange(input.shape):
            return self._plain(input)
        return _convolve(input, self._weight, self._layer.bias, *self._rest, *self._extra)

    def _plain(self, input: Tensor) -> Tensor:
        found = type(self._layer).forward(self._layer, input)
        return found if self._activation is None else self._activation(found)

    def _arrange(self, shape: torch.Size) -> bool:
        layer = self._layer
        weight, padding = layer.weight, layer.padding
        if isinstance(layer, SameConv2d):
            if shape[2] % 2 or shape[3] % 2:
                return False
            # Padding on one side only is a row and a column of zeros in the kernel.
            weight, padding = F.pad(weight, (1, 0, 1, 0)), (layer.kernel_size[0] // 2,) * 2
        if isinstance(padding, str):
            return False
        self._rest = list(padding), list(layer.stride), list(layer.dilation), layer.groups
        self._weight, self._shape = _arranged(weight.contiguous(), *self._rest, list(shape)), shape
        return True


def _convolve(*arguments: Any) -> Tensor:
    found: Tensor = torch.ops.mkldnn._convolution_pointwise(*arguments)
    return found


def _arranged(*arguments: Any) -> Tensor:
    found: Tensor = torch.ops.mkldnn._reorder_convolution_weight(*arguments)
    return found


def _works() -> bool:
    """Return whether the operators are there and compute a convolution."""
    if not torch.backends.mkldnn.is_available():
        return False
    layer = nn.Conv2d(2, 3, 3, padding=1).requires_grad_(False)
    frame = torch.ones(1, 2, 4, 4)
    try:
        with torch.no_grad():
            return torch.allclose(_Packed(layer, nn.ReLU())(frame), layer(frame).relu(), atol=1e-5)
    except (AttributeError, RuntimeError, TypeError):  # no such operators, or with other arguments
        return False
