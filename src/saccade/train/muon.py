"""Muon, an optimiser for the weights between hidden layers, whose steps have the same size in every direction."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from saccade.train.per_parameter import PerParameter

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_NUM_ITERATIONS = 5
_MOMENTUM = 0.95


def orthogonalised(matrix: Float[Tensor, "rows columns"]) -> Float[Tensor, "rows columns"]:
    """Return approximately the nearest matrix with orthonormal rows (or columns, if there are fewer of them).

    Its singular values lie between 0.7 and 1.2, except where those of `matrix` are tiny: the coefficients of the
    Newton-Schulz iterations make them fast rather than exact. They run in float32, which every processor supports and
    whose cost is negligible in a training step; `torch.optim.Muon` uses bfloat16, and takes two dimensions only.

    >>> matrix = torch.tensor([[5.0, 0.0, 0.0], [3.0, 0.1, 0.0]])
    >>> orthogonalised(matrix).svd().S.sub(1).abs().max() < 0.35
    tensor(True)

    Source: Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks".
    """
    first, second, third = _COEFFICIENTS
    tall = matrix.shape[0] > matrix.shape[1]
    found = matrix.T if tall else matrix
    found = found / found.norm().clamp(min=1e-7)
    for _ in range(_NUM_ITERATIONS):
        gram = found @ found.T
        found = first * found + (second * gram + third * gram @ gram) @ found
    nearest: Tensor = found.T if tall else found
    return nearest


@final
class Muon(PerParameter):
    """Step along the orthogonalised momentum of the gradient.

    A step changes the weights by about the same amount in every direction of a layer's input, including directions that
    few clips use. A kernel of a convolution counts as one row.

    Args:
        params: the weights, or parameter groups; weights have two dimensions or more, the first that of the output.
        lr: the learning rate; the root mean square of a weight's step is about `lr / sqrt(columns)`.
        weight_decay: the weight decay, decoupled as in AdamW.
    """

    def __init__(
        self, params: Iterable[nn.Parameter] | Iterable[dict[str, Any]], *, lr: float, weight_decay: float = 0.0
    ) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})

    def update(self, parameter: Tensor, gradient: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        """Change a parameter and its momentum in place."""
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
        momentum: Tensor = state["momentum"].lerp_(gradient, 1 - _MOMENTUM)
        ahead = gradient.lerp(momentum, _MOMENTUM).flatten(1)
        rows, columns = ahead.shape
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        step = orthogonalised(ahead).view(parameter.shape)
        parameter.add_(step, alpha=-group["lr"] * max(1.0, rows / columns) ** 0.5)
