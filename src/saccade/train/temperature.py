"""Temperature: a factor of all logits, with which probabilities are as high as verdicts are right."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from saccade.evaluate import metrics
from saccade.labels import Labels, Targets
from saccade.nn import PairHead
from saccade.nn.memory import temperature_after

_MOST = 20.0
_MOST_EARLY = 100.0
_DECAYS = 0.3, 300.0  # frames


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
def fitted_early(
    logits: Float[Tensor, "clips moments classes"],
    num_frames: Float[Tensor, "clips moments"],
    targets: Targets,
    labels: Labels,
) -> tuple[float, float]:
    """Return `early` and `decay` of a `MemoryHead` for which the cross entropy is least, over moments of some clips.

    Args:
        logits: the logits of clips that the head did not learn from, without that temperature.
        num_frames: the number of frames that the memory has seen at each moment.
        targets: the targets of the clips.
        labels: the classes.
    """
    from scipy.optimize import minimize  # slow to import

    rows, repeated = logits.double().flatten(0, 1), targets.repeat_interleave(logits.shape[1], 0)
    seen = num_frames.double().reshape(-1, 1)

    def loss(at: NDArray[np.float64]) -> float:
        return metrics.cross_entropy(rows / temperature_after(seen, *np.exp(at)), repeated, labels)

    bounds = np.log([(1.0, _MOST_EARLY), _DECAYS])
    early, decay = np.exp(minimize(loss, bounds.mean(1), method="Nelder-Mead", bounds=bounds).x).tolist()
    return early, decay


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
