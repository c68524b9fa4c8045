"""The optimizers of Keras 2.0 (2017) with their defaults, which matter in a training of twenty steps.

Both formulas are those of torch's classes of the same name, including the place of epsilon; only the
defaults differ. Keras has an epsilon of 1e-8, and its RMSprop forgets ten times faster.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, final

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from saccade.train.per_parameter import PerParameter

# So many numbers of parameter, gradient and both averages fit into a core's cache.
_CHUNK = 1 << 15


@final
class KerasRMSprop(torch.optim.RMSprop):
    """Divide the gradient by a running root mean square: `a = rho a + (1 - rho) g²; p -= lr g / (√a + eps)`.

    Args:
        params: the parameters to train.
        lr: the learning rate.

    >>> weight = torch.nn.Parameter(torch.tensor(1.0))
    >>> optimizer = KerasRMSprop([weight])
    >>> weight.square().backward(); optimizer.step()
    >>> round(weight.item(), 6)  # the first step is lr / √0.1, whatever the gradient
    0.996838

    Source: Tieleman and Hinton 2012, as in Keras 2.0 `keras.optimizers.RMSprop`.
    """

    def __init__(self, params: ParamsT, lr: float = 1e-3) -> None:
        super().__init__(params, lr=lr, alpha=0.9, eps=1e-8)


@final
class KerasAdadelta(PerParameter):
    """Scale the gradient such that a step has the size of earlier steps.

    `a = rho a + (1 - rho) g²; u = g √(d + eps) / √(a + eps); p -= lr u; d = rho d + (1 - rho) u²`.

    A step goes through memory once, in pieces. torch's own goes through it for each operation, which took 40 % of the
    time of a step of `dcn-lstm-published`, whose dense layer has 102 million weights.

    Args:
        params: the parameters to train.
        lr: the learning rate.

    >>> weight = torch.nn.Parameter(torch.tensor(1.0))
    >>> optimizer = KerasAdadelta([weight])
    >>> weight.square().backward(); optimizer.step()
    >>> round(1 - weight.item(), 6)  # √eps / √0.05
    0.000447

    Source: Zeiler 2012, as in Keras 2.0 `keras.optimizers.Adadelta`.
    """

    def __init__(self, params: ParamsT, lr: float = 1.0) -> None:
        super().__init__(params, {"lr": lr, "rho": 0.95, "eps": 1e-8})

    def update(self, parameter: Tensor, gradient: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        """Change a parameter and both averages in place."""
        if not state:
            state["square_avg"], state["acc_delta"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        for pieces in _pieces(parameter, gradient, state["square_avg"], state["acc_delta"]):
            _update(*pieces, lr=group["lr"], rho=group["rho"], eps=group["eps"])


def _pieces(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Cut tensors of one shape into the same pieces; leave those whole that lie in memory in different orders."""
    if all(tensor.is_contiguous() for tensor in tensors):
        return zip(*(tensor.view(-1).split(_CHUNK) for tensor in tensors), strict=True)
    return iter([tensors])


def _update(
    parameter: Tensor, gradient: Tensor, square: Tensor, squared_step: Tensor, *, lr: float, rho: float, eps: float
) -> None:
    square.mul_(rho).addcmul_(gradient, gradient, value=1 - rho)
    step = squared_step.add(eps).sqrt_().div_(square.add(eps).sqrt_()).mul_(gradient)
    squared_step.mul_(rho).addcmul_(step, step, value=1 - rho)
    parameter.add_(step, alpha=-lr)
