"""Stage 1 of the published protocol: a CNN learns single digits."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from saccade import checkpoint, run_folder
from saccade.clips import ClipBatch
from saccade.data.digits import Digits
from saccade.errors import UsageError
from saccade.models.published import CNNS, Frames, PublishedCNN
from saccade.published.digit_batches import TEST, DigitBatches, augment, draw_generator, steps_per_epoch
from saccade.published.keras_optim import KerasAdadelta
from saccade.train import loop
from saccade.train.loop import Progress
from saccade.train.optimizer import Optimizers
from saccade.train.trainer import Objective, Trainer, restore, save

# The checkpoint of a CNN with 102 million parameters has 1.6 GB.
SAVE_EVERY_S = 600.0


@dataclass(frozen=True)
class Limits:
    """The limits of training: epochs, steps and minutes, whichever is reached first."""

    epochs: int = 5
    max_steps: int | None = None
    minutes: float | None = None

    def num_steps(self, digits: Digits) -> int:
        """Return the number of steps within the limits of epochs and steps."""
        num_steps = self.epochs * steps_per_epoch(digits)
        return num_steps if self.max_steps is None else min(num_steps, self.max_steps)


def start(
    model: str,
    digits: Digits,
    *,
    seed: int,
    device: torch.device | None = None,
    dtype: torch.dtype = torch.float32,
) -> Trainer:
    """Build the trainer of a CNN: batches of 32, Adadelta, categorical cross entropy.

    Args:
        model: the video model that the CNN becomes part of, a key of `CNNS`.
        digits: the training digits.
        seed: the seed of weights, batches and augmentation.
        device: the device of training.
        dtype: the dtype of matrix products, bfloat16 or float32.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        cnn = CNNS[model]()
    device = device or torch.device("cpu")
    cnn = cnn.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    name = model.replace("-lstm-", "-cnn-")
    settings = {"model": name, "digits": digits.source, "seed": seed}
    return Trainer(
        cnn,
        Optimizers([KerasAdadelta(cnn.parameters())]),
        DigitBatches(digits, seed, device),
        Objective(_loss, _accuracy),
        checkpoint.Header(name, data={"facts": {"digits": digits.source}}, training={"seed": seed}),
        settings,
        device=device,
        dtype=dtype,
    )


def train_cnn(
    trainer: Trainer, limits: Limits, test_digits: Digits, folder: Path, *, progress: Progress | None = None
) -> float:
    """Train a CNN to its limits, from the checkpoint if there is one; return its accuracy.

    Args:
        trainer: the trainer from `start`, which is advanced in place.
        limits: the limits of training.
        test_digits: the digits on which the accuracy is measured, once.
        folder: the folder of the checkpoint and the log.
        progress: a function that is called after every step.

    Raises:
        UsageError: if the checkpoint was trained on other digits, with another seed, or beyond the limits.
        DataError: if the checkpoint cannot be read.
        NonFiniteError: if a loss, gradient or weight becomes NaN or infinite; the last good checkpoint is kept.
        Interrupted: if Ctrl-C or SIGTERM stops training; the state is saved.
    """
    digits = cast(DigitBatches, trainer.batches).digits
    asked, accuracy = asdict(limits), None
    if (folder / checkpoint.NAME).exists():
        before = checkpoint.read_header(folder)
        if before.format < checkpoint.FORMAT:
            return _finished_before(trainer, before, asked, folder)
        there = {"model": before.model, "digits": before.facts.get("digits"), "seed": before.training.get("seed")}
        training = {"limits": None, "accuracy": None} | restore(trainer, folder, there).training
        run_folder.rewind_log(folder / run_folder.LOG, trainer.step)
        if training["limits"] == asked:
            accuracy = training["accuracy"]
        else:
            trainer.num_steps = _num_steps(trainer, limits, digits)
            if trainer.step > trainer.num_steps:
                raise UsageError(
                    f"{folder} is at step {trainer.step}, but the limit is {trainer.num_steps}: choose another --out"
                )
    else:
        trainer.num_steps = _num_steps(trainer, limits, digits)
    if accuracy is not None:
        return float(accuracy)
    trainer.header = replace(trainer.header, training=trainer.header.training | {"limits": asked, "accuracy": None})
    folder.mkdir(parents=True, exist_ok=True)
    loop.run(trainer, folder, progress, save_every_s=SAVE_EVERY_S)
    accuracy = accuracy_on(trainer, test_digits)
    save(trainer, folder, accuracy=accuracy)
    return accuracy


def logits_of(trainer: Trainer, frames: Frames) -> Float[Tensor, "batch 10"]:
    """Return a float32 logit per digit."""
    return _through(trainer, trainer.model, frames)


def features_of(trainer: Trainer, frames: Frames) -> Float[Tensor, "batch 500"]:
    """Return the activations that the video model reads, in float32."""
    return _through(trainer, cast(PublishedCNN, trainer.model).features, frames)


@torch.no_grad()
def accuracy_on(trainer: Trainer, digits: Digits) -> float:
    """Return the accuracy on digits augmented like the training digits, with a fixed random draw."""
    generator = draw_generator(cast(DigitBatches, trainer.batches).seed, TEST)
    right = 0
    for images, labels in zip(torch.split(digits.images, 250), torch.split(digits.labels, 250), strict=True):
        guesses = logits_of(trainer, augment(images, generator)).argmax(1)
        right += int((guesses == labels.to(trainer.device)).sum())
    return right / len(digits.labels)


def _finished_before(trainer: Trainer, before: checkpoint.Header, asked: dict[str, object], folder: Path) -> float:
    """Load a CNN that an earlier version finished training; return its accuracy.

    Raises:
        UsageError: if its training is unfinished, or had other settings.
    """
    there = {"model": before.model, "digits": before.facts.get("digits"), "seed": before.training.get("seed")}
    run_folder.check_same(
        folder, there | {"limits": before.training.get("limits")}, {**trainer.settings, "limits": asked}
    )
    if before.training.get("accuracy") is None:
        raise UsageError(f"{folder} was started by an earlier version and cannot be continued; choose another --out")
    checkpoint.load_weights(trainer.model, folder)
    trainer.step = trainer.num_steps = before.training["step"]
    return float(before.training["accuracy"])


def _num_steps(trainer: Trainer, limits: Limits, digits: Digits) -> int:
    """Return the number of steps within the limits; minutes count at the training's own pace once it has begun."""
    num_steps = limits.num_steps(digits)
    if limits.minutes is None:
        return num_steps
    if trainer.step:
        fitting = max(1, int(60 * limits.minutes * trainer.step / trainer.elapsed_s))
    else:
        fitting = loop.steps_within(trainer, limits.minutes)
    return min(num_steps, fitting)


def _loss(logits: Tensor, batch: ClipBatch) -> Tensor:
    return F.cross_entropy(logits.float(), batch.targets)


def _accuracy(logits: Tensor, batch: ClipBatch) -> float:
    return (logits.argmax(-1) == batch.targets).float().mean().item()


def _through(trainer: Trainer, module: nn.Module, frames: Frames) -> Tensor:
    with torch.autocast(trainer.device.type, torch.bfloat16, enabled=trainer.dtype == torch.bfloat16):
        output: Tensor = module(frames.to(trainer.device))
    return output.float()
