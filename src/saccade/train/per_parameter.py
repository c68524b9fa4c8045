"""The frame of an optimiser that updates each parameter by itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor


class PerParameter(torch.optim.Optimizer, ABC):
    """An optimiser whose step updates one parameter after the other; `update` says how."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Take a step; if `closure` is given, it first recomputes loss and gradients, and its loss is returned."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self.update(parameter, parameter.grad, self.state[parameter], group)
        return loss

    @abstractmethod
    def update(self, parameter: Tensor, gradient: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        """Change a parameter and its state in place; the state is empty at the first step.

        Args:
            parameter: the parameter.
            gradient: its gradient.
            state: what the optimiser keeps about this parameter.
            group: the options of the parameter's group, such as `lr`.
        """
