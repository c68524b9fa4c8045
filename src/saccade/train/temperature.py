"""Temperature: one factor of all logits, with which probabilities are as high as verdicts are right."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from saccade.labels import Labels, Targets
from saccade.nn import PairHead

_MOST = 20.0


def fitted(logits: Float[Tensor, "clips classes"], targets: Targets, labels: Labels) -> float:
    """Return the temperature for which the cross entropy of some clips is least; logits are divided by it.

    The targets are smoothed as if one clip more were wrong. Otherwise the temperature would fall to 0 if all verdicts
    are right, as they may be on few clips.

    Args:
        logits: the logits of clips that the model did not learn from.
        targets: their targets.
        labels: the classes.

    Source: Guo et al. 2017, "On calibration of modern neural networks"; Platt 1999, "Probabilistic outputs for support
    vector machines", for the smoothing.

    >>> logits = torch.tensor([[8.0, 0.0]]).repeat(9, 1)
    >>> round(fitted(logits, torch.tensor([0] * 8 + [1]), Labels(("a", "b"))), 1)
    5.3
    """
    from scipy.optimize import minimize_scalar  # slow to import

    num, num_classes = logits.shape
    values, wrong = logits.double(), 1 / (num + 2)

    def loss(log_temperature: float) -> float:
        scaled = values / float(np.exp(log_temperature))
        if not labels.exclusive:
            smooth = targets.double() * (1 - 2 * wrong) + wrong
            return float(F.binary_cross_entropy_with_logits(scaled, smooth))
        return float(F.cross_entropy(scaled, targets, label_smoothing=wrong * num_classes / max(1, num_classes - 1)))

    bound = float(np.log(_MOST))
    return float(np.exp(minimize_scalar(loss, bounds=(-bound, bound), method="bounded").x))


@torch.no_grad()
def fold(head: nn.Module, temperature: float) -> None:
    """Divide the logits of a linear head by a temperature: its weights change, so that every user of the head has it.

    Raises:
        TypeError: if the head is not linear.
    """
    linear = head.evidence if isinstance(head, PairHead) else head
    if not isinstance(linear, nn.Linear):
        raise TypeError(f"a {type(head).__name__} is no linear head; a temperature cannot become part of its weights")
    for parameter in linear.parameters():
        parameter.div_(temperature)
