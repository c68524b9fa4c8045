"""The published protocol: a CNN learns single digits, then a small LSTM learns clips from frozen features.

Sizes and defaults are those of 2017 (Shan and Atanasov, arXiv 1707.02069, with Keras 2.0). Training uses the `train`
split of the digits. Results are on the `test` split, unless `instances` says otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

import torch
from jaxtyping import Float, Int64
from safetensors import SafetensorError, safe_open
from torch import Tensor

from saccade import checkpoint, run_folder
from saccade.data.digits import CONDITIONS, DATA, DigitSourceConfig, Motion, MovingDigits
from saccade.device import choose_device, choose_precision
from saccade.errors import UsageError, unknown_name
from saccade.models.published import CNNS
from saccade.published.retraining import retrain
from saccade.published.stage1 import Limits, features_of, start, train_cnn
from saccade.train.loop import Progress
from saccade.train.trainer import Trainer

NUM_CLIPS = 100
"""Clips in a split: one for each ordered pair of digits."""

INSTANCES = ("disjoint", "shared", "training_clips")
"""What test clips may share with the training clips, from nothing to everything."""


@final
@dataclass(frozen=True)
class PublishedConfig:
    """One cell of the published experiment: a model under a condition, in one reading of what was published.

    Args:
        model: `lenet-lstm-published`, `stn-lstm-published` or `dcn-lstm-published`.
        condition: the motion of the digits, the same in training and test.
        source: the source of the digits.
        instances: `disjoint`: test clips show unseen digit images. `shared`: test clips show the digit images of
            the training clips on other trajectories. `training_clips`: test clips are the training clips, which
            measures memorisation.
        order: whether the first digit starts each setting to the left of the second (`visible`) or anywhere
            (`hidden`).
        epochs: the number of passes of stage 1 over the digits.
        max_steps: the maximum number of steps of stage 1.
        minutes: the time limit of stage 1: a short timing sets the number of steps that fit.
        retrainings: the number of retrainings of the recurrent part in stage 3.
        seed: the seed of weights, batches and clips.
        device: auto, cpu or cuda.
        precision: the precision of stages 1 and 2: auto (bfloat16 where the processor gains from it),
            float32 or bfloat16.

    Raises:
        UsageError: if a name is unknown, or a number is out of range.
    """

    model: str = "lenet-lstm-published"
    condition: str = "normal"
    source: DigitSourceConfig = field(default_factory=DigitSourceConfig)
    instances: str = "disjoint"
    order: str = "visible"
    epochs: int = 5
    max_steps: int | None = None
    minutes: float | None = None
    retrainings: int = 300
    seed: int = 0
    device: str = "auto"
    precision: str = "auto"

    def __post_init__(self) -> None:
        known = {
            "model": tuple(CNNS),
            "condition": CONDITIONS,
            "instances": INSTANCES,
            "order": ("visible", "hidden"),
        }
        for kind, names in known.items():
            if getattr(self, kind) not in names:
                raise unknown_name(kind, getattr(self, kind), names)
        for name in ("epochs", "max_steps", "minutes", "retrainings"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise UsageError(f"{name} must be above 0; got {value}")
        if self.seed < 0:
            raise UsageError(f"seed must be 0 or above; got {self.seed}")

    @property
    def limits(self) -> Limits:
        """The limits of stage 1."""
        return Limits(self.epochs, self.max_steps, self.minutes)


def run(config: PublishedConfig, out: Path, *, progress: Progress | None = None) -> dict[str, Any]:
    """Run the three stages for one cell; return its row of results.

    Stage 1 depends neither on condition nor on instances nor on order. It is trained once, in
    `out/stage1-<model>-seed<seed>`, and shared by all cells with the same `out`. An unfinished stage 1 is
    continued. Features are stored in the same folder.

    Args:
        config: the cell.
        out: the run folder.
        progress: a function that is called after every step of stage 1.

    Returns:
        The row: the cell, `accuracy` (a fraction) and `cross_entropy` as means over the retrainings, their
        standard deviations, and the steps and single-digit accuracy of stage 1.

    Raises:
        UsageError: if stage 1 in `out` was trained on other digits or for longer.
        NonFiniteError: if the loss or a weight becomes NaN or infinite.
        Interrupted: if Ctrl-C or SIGTERM stops training; the state of stage 1 is saved.
    """
    folder = out / f"stage1-{config.model}-seed{config.seed}"
    device = choose_device(config.device)
    digits, dtype = config.source.load("train"), choose_precision(config.precision, device)
    training = start(config.model, digits, seed=config.seed, device=device, dtype=dtype)
    digits_split = "test" if config.instances == "disjoint" else "train"
    split = "train" if config.instances == "training_clips" else "test"
    with run_folder.held(folder, wait=True):  # another cell that runs now may need the same stage
        reached = train_cnn(training, config.limits, config.source.load("test"), folder, progress=progress)
        features_train, labels_train = _features(config, training, folder, digits_split="train", split="train")
        features_test, labels_test = _features(config, training, folder, digits_split=digits_split, split=split)
    found = retrain(
        features_train,
        labels_train,
        features_test,
        labels_test,
        num_retrainings=config.retrainings,
        seed=config.seed,
    )
    return {
        "model": config.model,
        "protocol": "published",
        "condition": config.condition,
        "data": DATA,
        "digits": digits.source,
        "instances": config.instances,
        "labels": "ordered",
        "order": config.order,
        "seed": config.seed,
        "accuracy": found.accuracy.mean().item(),
        "cross_entropy": found.cross_entropy.mean().item(),
        "num_clips": NUM_CLIPS,
        "retrainings": config.retrainings,
        "accuracy_std": found.accuracy.std(correction=0).item(),
        "cross_entropy_std": found.cross_entropy.std(correction=0).item(),
        "stage1_steps": training.step,
        "stage1_accuracy": reached,
    }


def _features(
    config: PublishedConfig, training: Trainer, folder: Path, *, digits_split: str, split: str
) -> tuple[Float[Tensor, "clips time 500"], Int64[Tensor, " clips"]]:
    """Return features and labels of the clips of a split, from disk if they are stored."""
    path = folder / f"features-{config.condition}-{config.order}-{digits_split}-{split}.safetensors"
    made_by = checkpoint.versions() | {"step": str(training.step), "dtype": str(training.dtype)}
    kept = _read_features(path, made_by)
    if kept is None:
        digits = config.source.load(digits_split)
        motion = Motion(config.condition)
        clips = MovingDigits(
            digits,
            motion,
            split=split,
            labels="ordered",
            order=config.order,
            num_clips=NUM_CLIPS,
            seed=config.seed,
        )
        kept = extract(training, clips)
        checkpoint.write_tensors(path, kept, made_by)
    return kept["features"].to(training.device), kept["labels"].to(training.device)


@torch.no_grad()
def extract(training: Trainer, clips: MovingDigits) -> dict[str, Tensor]:
    """Return the CNN's 500 activations on every frame of the clips, as `features`, and the `labels`."""
    features, labels = [], []
    for index in range(len(clips)):
        batch = clips.batch(torch.tensor([index]))
        features.append(features_of(training, batch.frames.flatten(0, 1)).cpu())
        labels.append(batch.targets)
    return {"features": torch.stack(features), "labels": torch.cat(labels)}


def _read_features(path: Path, made_by: dict[str, str]) -> dict[str, Tensor] | None:
    """Return the tensors of a file, or None if they have to be computed."""
    try:
        with safe_open(path, framework="pt") as opened:
            if opened.metadata() == made_by:
                return {name: opened.get_tensor(name) for name in ("features", "labels")}
    except (SafetensorError, OSError):
        pass
    return None
