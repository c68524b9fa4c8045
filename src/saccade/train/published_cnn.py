"""Stage 1 of the published protocol: a CNN learns single digits."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from saccade import checkpoint, run_folder
from saccade.checkpoint import Header
from saccade.data.digits import Digits
from saccade.errors import Interrupted, NonFiniteError, UsageError
from saccade.models.published import Frames, PublishedCNN
from saccade.run_folder import LOG
from saccade.train import interrupts
from saccade.train.digit_batches import (
    BATCH_SIZE,
    TEST,
    augment,
    digit_batch,
    draw_generator,
    steps_per_epoch,
)
from saccade.train.keras_optim import KerasAdadelta
from saccade.train.loop import LOG_EVERY_S, Progress

_OPTIMIZER = "optimizer."
_TIMED_STEPS = range(3, 13)  # the first steps are slower than the rest


@dataclass(frozen=True)
class Limits:
    """How long to train: whichever comes first of the epochs, the steps and the minutes."""

    epochs: int = 5
    max_steps: int | None = None
    minutes: float | None = None

    def num_steps(self, digits: Digits, step_s: float = 0.0) -> int:
        """Turn the limits into a number of steps, given what one step takes."""
        num_steps = self.epochs * steps_per_epoch(digits)
        if self.max_steps is not None:
            num_steps = min(num_steps, self.max_steps)
        if self.minutes is not None and step_s > 0:
            num_steps = min(num_steps, max(1, int(60 * self.minutes / step_s)))
        return num_steps


@dataclass
class Standing:
    """Where stage 1 stands; saved with the weights.

    `num_steps` is fixed once, after a short timing where minutes limit it. `accuracy` is that on the test
    digits, known once all steps are done.
    """

    seed: int
    limits: Limits
    step: int = 0
    num_steps: int | None = None
    accuracy: float | None = None


@final
class DigitTraining:
    """A CNN on its way through stage 1: batches of 32, Adadelta, categorical cross entropy.

    Args:
        cnn: the model, changed in place.
        name: what the model is called in its checkpoint.
        digits: the training digits.
        limits: how long to train.
        seed: what batches and augmentation are drawn from.
        device: where to train.
        dtype: number format of matrix products, bfloat16 or float32.
    """

    def __init__(
        self,
        cnn: PublishedCNN,
        name: str,
        digits: Digits,
        limits: Limits,
        *,
        seed: int,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.cnn: PublishedCNN = cnn.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.name, self.digits, self.dtype = name, digits, dtype
        self.device = torch.device(device)
        self.optimizer = KerasAdadelta(cnn.parameters())
        self.standing = Standing(seed, limits)

    def advance(self) -> float:
        """Take one step and return its loss.

        Raises:
            NonFiniteError: the loss is NaN or infinite; the step is not taken.
        """
        frames, labels = digit_batch(self.digits, self.standing.seed, self.standing.step)
        loss = F.cross_entropy(self.logits(frames), labels.to(self.device))
        value = loss.item()
        if not math.isfinite(value):
            step = self.standing.step
            raise NonFiniteError(f"the loss of stage 1 is {value} at step {step}; the last good checkpoint stays")
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.standing.step += 1
        return value

    def logits(self, frames: Frames) -> Float[Tensor, "batch 10"]:
        """Return a float32 logit per class."""
        return self._through(self.cnn, frames)

    def features(self, frames: Frames) -> Float[Tensor, "batch 500"]:
        """Return the activations that the video model reads, in float32."""
        return self._through(self.cnn.features, frames)

    def _through(self, module: nn.Module, frames: Frames) -> Tensor:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.dtype == torch.bfloat16):
            output: Tensor = module(frames.to(self.device))
        return output.float()

    @torch.no_grad()
    def accuracy_on(self, digits: Digits) -> float:
        """Return the accuracy on digits augmented like the training digits, by a draw that is fixed."""
        generator = draw_generator(self.standing.seed, TEST)
        right = 0
        for images, labels in zip(torch.split(digits.images, 250), torch.split(digits.labels, 250), strict=True):
            guesses = self.logits(augment(images, generator)).argmax(1)
            right += int((guesses == labels.to(self.device)).sum())
        return right / len(digits.labels)

    def save(self, path: Path) -> None:
        """Write weights, optimizer and standing whole.

        Raises:
            NonFiniteError: a parameter is NaN or infinite; what lies at `path` stays.
        """
        for name, parameter in self.cnn.named_parameters():
            if not bool(parameter.isfinite().all()):
                step = self.standing.step
                raise NonFiniteError(
                    f"{name} is not finite after step {step} of stage 1; the last good checkpoint stays"
                )
        state = {
            f"{_OPTIMIZER}{index}.{name}": tensor
            for index, tensors in self.optimizer.state_dict()["state"].items()
            for name, tensor in tensors.items()
        }
        header = Header(self.name, {}, {"digits": self.digits.source}, asdict(self.standing))
        checkpoint.save(path, self.cnn, header, state)

    def resume(self, path: Path) -> None:
        """Continue from what `save` wrote; the next steps give the same bits as without the break.

        Raises:
            UsageError: it was trained on other digits, with another seed, or for longer than is wanted.
            DataError: as `saccade.checkpoint.load_weights`.
        """
        header = checkpoint.read_header(path)
        came = Standing(**header.training | {"limits": Limits(**header.training["limits"])})
        wanted = self.standing
        if (header.model, header.data["digits"], came.seed) != (self.name, self.digits.source, wanted.seed):
            raise UsageError(
                f"{path} is {header.model} on {header.data['digits']} with seed {came.seed}; {self.name} on "
                f"{self.digits.source} with seed {wanted.seed} is wanted: choose another --out"
            )
        if came.limits != wanted.limits:
            longest = wanted.limits.num_steps(self.digits)
            if came.step > longest:
                raise UsageError(f"{path} is at step {came.step}, at most {longest} are wanted: choose another --out")
            came = Standing(came.seed, wanted.limits, came.step)
        self._load_optimizer(checkpoint.load_weights(self.cnn, path))
        self.standing = came

    def _load_optimizer(self, tensors: dict[str, Tensor]) -> None:
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            index, key = name.removeprefix(_OPTIMIZER).split(".")
            state.setdefault(int(index), {})[key] = tensor
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state, "param_groups": groups})


def train_cnn(
    training: DigitTraining,
    test_digits: Digits,
    path: Path,
    *,
    save_every_s: float = 600.0,
    progress: Progress | None = None,
) -> None:
    """Train to the end of the limits, from the checkpoint where there is one, and test.

    Args:
        training: what to train.
        test_digits: what the accuracy is measured on, once.
        path: the checkpoint, read at the start, written every so often and at the end; a log lies
            beside it.
        save_every_s: seconds between checkpoints.
        progress: called after every step with step, number of steps, loss and digits per second.

    Raises:
        Interrupted: Ctrl-C; the state was saved.
    """
    if path.exists():
        training.resume(path)
        run_folder.rewind_log(path.parent / LOG, training.standing.step)
    standing = training.standing
    if standing.accuracy is not None:
        return
    if standing.limits.minutes is None:
        standing.num_steps = standing.limits.num_steps(training.digits)
    path.parent.mkdir(parents=True, exist_ok=True)
    with interrupts.held_back() as interrupted, (path.parent / LOG).open("a", encoding="utf-8") as log:
        saved = logged = time.monotonic()
        for row in _steps(training):
            if progress:
                progress(row)
            now = time.monotonic()
            if now - logged > LOG_EVERY_S or row["step"] == row["num_steps"]:
                log.write(json.dumps(row) + "\n")
                log.flush()
                logged = now
            if interrupted() or now - saved > save_every_s:
                training.save(path)
                saved = now
            if interrupted():
                raise Interrupted(f"saved at step {standing.step} of stage 1")
    training.save(path)
    standing.accuracy = training.accuracy_on(test_digits)
    training.save(path)


def _steps(training: DigitTraining) -> Iterator[dict[str, float]]:
    """Take steps to the end of the limits, and tell about each."""
    standing = training.standing
    durations: list[float] = []
    while standing.num_steps is None or standing.step < standing.num_steps:
        started = time.perf_counter()
        loss = training.advance()
        durations.append(time.perf_counter() - started)
        if standing.num_steps is None and len(durations) == _TIMED_STEPS.stop:
            typical = sorted(durations[_TIMED_STEPS.start :])[len(_TIMED_STEPS) // 2]
            standing.num_steps = max(standing.step, standing.limits.num_steps(training.digits, typical))
        yield {
            "step": standing.step,
            "num_steps": standing.num_steps or standing.limits.num_steps(training.digits),
            "loss": loss,
            "digits_per_s": BATCH_SIZE / durations[-1],
        }
