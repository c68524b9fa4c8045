"""The optimizers of Keras 2.0 (2017) with their defaults, which matter in a training of twenty steps.

Both formulas are those of torch's classes of the same name, including the place of epsilon; only the
defaults differ. Keras has an epsilon of 1e-8, and its RMSprop forgets ten times faster.
"""

from __future__ import annotations

from typing import final

import torch
from torch.optim.optimizer import ParamsT


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
class KerasAdadelta(torch.optim.Adadelta):
    """Scale the gradient such that a step has the size of earlier steps.

    `a = rho a + (1 - rho) g²; u = g √(d + eps) / √(a + eps); p -= lr u; d = rho d + (1 - rho) u²`.

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
        super().__init__(params, lr=lr, rho=0.95, eps=1e-8)
