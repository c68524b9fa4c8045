"""Stage 3 of the published protocol: the recurrent part is trained on frozen features, many times."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state
from torch.nn import functional as F

from saccade.checkpoint import Header
from saccade.clips import ClipBatch
from saccade.models.published import RecurrentClassifier, recurrent_part
from saccade.published.digit_batches import RETRAINING, draw_generator
from saccade.published.keras_optim import KerasRMSprop
from saccade.train.loop import advance
from saccade.train.optimizer import Optimizers
from saccade.train.trainer import Objective, Trainer

EPOCHS = 10
BATCH_SIZE = 50
# Each retraining reads 5 MB of features per step; on a GPU the number of operations determines the time.
_AT_ONCE_ON_CPU, _AT_ONCE_ELSEWHERE = 25, 300


@final
@dataclass(frozen=True)
class Retrainings:
    """The results of each retraining on the test clips."""

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
    """Train the recurrent part from scratch `num_retrainings` times, and test each result.

    A retraining takes 10 epochs in batches of 50 with RMSprop at 1e-3 and categorical cross entropy: 20 steps on
    100 clips. Retraining `r` is a function of (seed, r), whatever the number of retrainings; those that run at the
    same time share only the features.

    Args:
        features_train: the frozen features of the training clips.
        labels_train: the classes of the training clips.
        features_test: the frozen features of the test clips.
        labels_test: the classes of the test clips.
        num_retrainings: the number of retrainings.
        num_classes: the number of classes.
        seed: the seed of initial weights and batches.

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
        ensemble = _Ensemble([model.to(features_train.device) for model in models])
        _train(ensemble, _Batches(features_train, labels_train, generators), features_train.device)
        outcomes.append(_test(ensemble, features_test, labels_test))
    accuracy, cross_entropy = (torch.cat(parts) for parts in zip(*outcomes, strict=True))
    return Retrainings(accuracy, cross_entropy)


def _fresh(num_frames: int, num_classes: int, generator: torch.Generator) -> RecurrentClassifier:
    model = recurrent_part(num_classes=num_classes, num_frames=num_frames)
    model.reset_parameters(generator)
    return model


class _Ensemble(nn.Module):
    """Models of one kind that run in parallel: their parameters are stacked along a new first dimension."""

    def __init__(self, models: list[RecurrentClassifier]) -> None:
        super().__init__()
        stacked, _ = stack_module_state(models)
        # Names of parameters have dots, which ParameterDict does not allow.
        self.stacked = nn.ParameterDict({name.replace(".", "|"): nn.Parameter(p) for name, p in stacked.items()})
        object.__setattr__(self, "template", models[0])  # not a submodule: its own parameters are not trained

    def forward(self, features: Float[Tensor, "models batch time features"]) -> Float[Tensor, "models batch classes"]:
        """Return the logits of each model on its own batch."""
        return torch.vmap(self._one)(self._parameters_by_name(), features)

    def everywhere(self, features: Float[Tensor, "clips time features"]) -> Float[Tensor, "models clips classes"]:
        """Return the logits of each model on the same clips."""
        return torch.vmap(self._one, in_dims=(0, None))(self._parameters_by_name(), features)

    def _parameters_by_name(self) -> dict[str, Tensor]:
        return {name.replace("|", "."): parameter for name, parameter in self.stacked.items()}

    def _one(self, parameters: dict[str, Tensor], features: Float[Tensor, "clips time features"]) -> Tensor:
        logits: Tensor = functional_call(self.template, parameters, (features,))  # type: ignore[arg-type]
        return logits


class _Batches:
    """Batches for models that run in parallel, each with its own order of the clips."""

    def __init__(
        self,
        features: Float[Tensor, "clips time features"],
        labels: Int64[Tensor, " clips"],
        generators: list[torch.Generator],
    ) -> None:
        self._features, self._labels = features, labels
        self._batches: list[Tensor] = []
        for _ in range(EPOCHS):
            order = torch.stack([torch.randperm(len(labels), generator=g) for g in generators]).to(labels.device)
            self._batches += torch.split(order, BATCH_SIZE, dim=1)

    def __len__(self) -> int:
        return len(self._batches)

    def __call__(self, step: int, num_steps: int) -> ClipBatch:
        """Return the batch of a step, with features (models, batch, ...) instead of frames."""
        chosen = self._batches[step]
        return ClipBatch(self._features[chosen], self._labels[chosen])

    def to(self, device: torch.device | str) -> _Batches:
        """Return the same batches: they stay on the device of the features."""
        return self


def _train(ensemble: _Ensemble, batches: _Batches, device: torch.device) -> None:
    # RMSprop updates each number separately, so one optimizer for the stack equals one for each model.
    trainer = Trainer(
        ensemble,
        Optimizers([KerasRMSprop(ensemble.parameters())]),
        batches,
        Objective(_loss),
        Header("recurrent-published"),
        device=device,
        num_steps=len(batches),
    )
    while trainer.step < trainer.num_steps:
        advance(trainer)


def _loss(logits: Float[Tensor, "models batch classes"], batch: ClipBatch) -> Tensor:
    # A sum over models, so that the gradient of each does not depend on their number.
    loss = F.cross_entropy(logits.flatten(0, 1), batch.targets.flatten(), reduction="sum")
    return loss / batch.targets.shape[1]


@torch.no_grad()
def _test(
    ensemble: _Ensemble, features: Float[Tensor, "clips time features"], labels: Int64[Tensor, " clips"]
) -> tuple[Float[Tensor, " models"], Float[Tensor, " models"]]:
    """Return accuracy and cross entropy of every model."""
    logits = ensemble.everywhere(features)
    accuracy = (logits.argmax(-1) == labels).double().mean(1)
    expected = labels.expand(len(logits), -1)
    cross_entropy = F.cross_entropy(logits.transpose(1, 2), expected, reduction="none").mean(1)
    return accuracy, cross_entropy
