"""Stage 3 of the published protocol: the recurrent part learns from frozen features, many times over."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.func import functional_call, stack_module_state
from torch.nn import functional as F

from saccade.models.published import RecurrentClassifier, recurrent_part
from saccade.train.digit_batches import RETRAINING, draw_generator
from saccade.train.keras_optim import KerasRMSprop

EPOCHS = 10
BATCH_SIZE = 50
# A retraining takes 5 MB of features a step; on a GPU it is the number of operations that costs.
_AT_ONCE_ON_CPU, _AT_ONCE_ELSEWHERE = 25, 300


@final
@dataclass(frozen=True)
class Retrainings:
    """What each retraining reached on the test clips."""

    accuracy: Float[Tensor, " retrainings"]
    cross_entropy: Float[Tensor, " retrainings"]


def retrain(
    features_train: Float[Tensor, "clips time features"],
    labels_train: Int64[Tensor, " clips"],
    features_test: Float[Tensor, "test_clips time features"],
    labels_test: Int64[Tensor, " test_clips"],
    *,
    num_retrainings: int = 300,
    num_classes: int = 100,
    seed: int = 0,
) -> Retrainings:
    """Train the recurrent part anew from `num_retrainings` seeds, and test each.

    Each takes 10 epochs in batches of 50 with RMSprop at 1e-3 and categorical cross entropy: 20 steps on 100
    clips. Retraining `r` is a function of (seed, r), whatever their number; those trained at the same time
    share nothing but the features.

    Args:
        features_train: frozen features of the training clips.
        labels_train: their classes.
        features_test: frozen features of the test clips.
        labels_test: their classes.
        num_retrainings: how many times.
        num_classes: number of classes.
        seed: what initial weights and batches are drawn from.

    >>> features, labels = torch.randn(10, 5, 500), torch.arange(10)
    >>> result = retrain(features, labels, features, labels, num_retrainings=3, num_classes=10)
    >>> result.accuracy.shape
    torch.Size([3])
    """
    outcomes = []
    at_once = _AT_ONCE_ON_CPU if features_train.device.type == "cpu" else _AT_ONCE_ELSEWHERE
    for first in range(0, num_retrainings, at_once):
        some = range(first, min(first + at_once, num_retrainings))
        generators = [draw_generator(seed, RETRAINING, retraining) for retraining in some]
        models = [_fresh(features_train.shape[1], num_classes, generator) for generator in generators]
        batch = _Batched([model.to(features_train.device) for model in models])
        batch.train(features_train, labels_train, generators)
        outcomes.append(batch.test(features_test, labels_test))
    accuracy, cross_entropy = (torch.cat(parts) for parts in zip(*outcomes, strict=True))
    return Retrainings(accuracy, cross_entropy)


def _fresh(num_frames: int, num_classes: int, generator: torch.Generator) -> RecurrentClassifier:
    model = recurrent_part(num_classes=num_classes, num_frames=num_frames)
    model.reset_parameters(generator)
    return model


@final
class _Batched:
    """Models of one kind, trained side by side: their parameters are stacked along a new first dimension."""

    def __init__(self, models: list[RecurrentClassifier]) -> None:
        self.template = models[0]
        self.parameters, _ = stack_module_state(models)

    def train(
        self,
        features: Float[Tensor, "clips time features"],
        labels: Int64[Tensor, " clips"],
        generators: list[torch.Generator],
    ) -> None:
        """Train every model on its own order of the clips."""
        # RMSprop looks at each number alone, so that one optimizer for the stack is one for each model.
        optimizer = KerasRMSprop(self.parameters.values())
        forward = torch.vmap(self._logits)
        for _ in range(EPOCHS):
            order = torch.stack([torch.randperm(len(labels), generator=g) for g in generators]).to(labels.device)
            for chosen in torch.split(order, BATCH_SIZE, dim=1):
                logits = forward(self.parameters, features[chosen])
                loss = F.cross_entropy(logits.flatten(0, 1), labels[chosen].flatten(), reduction="sum")
                optimizer.zero_grad()
                (loss / chosen.shape[1]).backward()
                optimizer.step()

    @torch.no_grad()
    def test(
        self, features: Float[Tensor, "clips time features"], labels: Int64[Tensor, " clips"]
    ) -> tuple[Float[Tensor, " models"], Float[Tensor, " models"]]:
        """Return accuracy and cross entropy of every model."""
        logits = torch.vmap(self._logits, in_dims=(0, None))(self.parameters, features)
        accuracy = (logits.argmax(-1) == labels).double().mean(1)
        expected = labels.expand(len(logits), -1)
        cross_entropy = F.cross_entropy(logits.transpose(1, 2), expected, reduction="none").mean(1)
        return accuracy, cross_entropy

    def _logits(self, parameters: dict[str, Tensor], features: Float[Tensor, "clips time features"]) -> Tensor:
        logits: Tensor = functional_call(self.template, parameters, (features,))
        return logits
