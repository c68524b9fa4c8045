"""Convolutions whose weights are arranged for the processor once, for models that see one frame after the other.

Torch arranges the weights of a convolution anew at each call, and reads and writes the map once more for its ReLU. For
a single frame of 224x224 px in EfficientNet-lite0 these take a quarter of the time (docs/log.md).
"""

from __future__ import annotations

from itertools import chain
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
    build of torch lacks the operators, which `torch.compile` uses and nothing documents, nothing changes. Nor does it
    where a weight is NaN or infinite: the operators make 0 of a NaN, and a broken model would seem to work.

    A packed model can be copied, pickled, called in several threads, and given other weights.

    Args:
        model: a model that no longer learns, such as that of `folding.folded`.
    """
    if not _works() or not all(bool(one.isfinite().all()) for one in chain(model.parameters(), model.buffers())):
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
        # In one attribute, since another thread may arrange for frames of another size meanwhile.
        self._arranged: tuple[tuple[Any, ...], tuple[Any, ...]] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_arranged": None}  # it cannot be copied

    def __call__(self, input: Float[Tensor, "batch in_channels height width"]) -> Tensor:
        if torch.is_grad_enabled() or input.dtype != torch.float32 or input.device.type != "cpu":
            return self._plain(input)
        weight = self._layer.weight
        # Weights that have changed are arranged anew. Those made in inference mode count no changes.
        what = input.shape, weight.data_ptr(), None if weight.is_inference() else weight._version
        arranged = self._arranged
        if arranged is None or arranged[0] != what:
            if (found := self._arrange(input.shape)) is None:
                return self._plain(input)
            arranged = self._arranged = what, found
        return _convolve(input, arranged[1][0], self._layer.bias, *arranged[1][1:], *self._extra)

    def _plain(self, input: Tensor) -> Tensor:
        found = type(self._layer).forward(self._layer, input)
        return found if self._activation is None else self._activation(found)

    def _arrange(self, shape: torch.Size) -> tuple[Any, ...] | None:
        """Return the weight for frames of a shape, and the numbers that the operator takes behind it."""
        layer = self._layer
        weight, padding = layer.weight, layer.padding
        if isinstance(layer, SameConv2d):
            if shape[2] % 2 or shape[3] % 2:
                return None
            # Padding on one side only is a row and a column of zeros in the kernel.
            weight, padding = F.pad(weight, (1, 0, 1, 0)), (layer.kernel_size[0] // 2,) * 2
        if isinstance(padding, str):
            return None
        rest = list(padding), list(layer.stride), list(layer.dilation), layer.groups
        return _arranged(weight.contiguous(), *rest, list(shape)), *rest


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
