"""Clips through a model: every verdict, and what the attention layers said on the way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from saccade.attention.forward import evaluating
from saccade.data.labels import SCHEMES, LabelScheme
from saccade.data.moving_digits import ClipBatch, MovingDigits
from saccade.errors import NonFiniteError, UsageError
from saccade.evaluate import metrics
from saccade.models import verdict
from saccade.precision import choose_device, choose_precision

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Setup:
    """How clips go through a model: how many, how many at a time, where and in which number format."""

    num_clips: int
    batch_size: int
    device: torch.device
    dtype: torch.dtype

    @classmethod
    def choose(
        cls, clips: MovingDigits, num_clips: int | None, batch_size: int, device: torch.device | str, precision: str
    ) -> Setup:
        """Fill in what the caller left open.

        Raises:
            UsageError: no clips, an empty batch, an unknown device or precision.
        """
        num_clips = len(clips) if num_clips is None else num_clips
        for name, number in (("num_clips", num_clips), ("batch_size", batch_size)):
            if number < 1:
                raise UsageError(f"an evaluation needs {name} of at least 1; got {number}")
        chosen = choose_device(str(device))
        return cls(num_clips, batch_size, chosen, choose_precision(precision, chosen))


@dataclass(frozen=True)
class Verdicts:
    """The logits at each clip's last frame beside its label, and the accuracy at every frame of a causal model."""

    logits: Float[Tensor, "clips classes"]
    labels: metrics.Labels
    accuracy_by_frame: list[float] | None


@torch.no_grad()
def run_clips(
    model: nn.Module,
    clips: MovingDigits,
    setup: Setup,
    *,
    after_batch: Callable[[], None] | None = None,
    progress: Progress | None = None,
) -> Verdicts:
    """Give clips 0 to `num_clips - 1` to a model in evaluation mode; its mode is put back, the device it is on is not.

    Args:
        model: clips to logits (batch, time, classes).
        clips: the clips.
        setup: how.
        after_batch: called after every forward pass.
        progress: called after every batch with the number of clips done and of all.

    Raises:
        UsageError: the model has another number of classes than the labels.
        NonFiniteError: logits are NaN or infinite.
    """
    model.to(setup.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    clips = clips.to(setup.device)
    causal = bool(getattr(model, "causal", False))
    logits, labels, right = [], [], torch.zeros((), device=setup.device)
    with evaluating(model):
        for first in range(0, setup.num_clips, setup.batch_size):
            last = min(first + setup.batch_size, setup.num_clips)
            batch = clips.batch(torch.arange(first, last, device=setup.device))
            by_frame = _forward(model, batch, setup, clips.labels, first)
            if after_batch is not None:
                after_batch()
            logits.append(verdict(by_frame).cpu())
            labels.append(batch.labels.cpu())
            if causal:
                right = right + metrics.right(by_frame, batch.labels, clips.labels).sum(0)
            if progress is not None:
                progress(last, setup.num_clips)
    by_time = (right.double() / setup.num_clips).tolist() if causal else None
    return Verdicts(torch.cat(logits), torch.cat(labels), by_time)


def _forward(
    model: nn.Module, batch: ClipBatch, setup: Setup, scheme: LabelScheme, first: int
) -> Float[Tensor, "batch time classes"]:
    with torch.autocast(setup.device.type, dtype=torch.bfloat16, enabled=setup.dtype == torch.bfloat16):
        logits: Tensor = model(batch.frames).float()
    if logits.dim() != 3 or len(logits) != len(batch.frames):
        raise ValueError(f"logits have shape {tuple(logits.shape)}; ({len(batch.frames)}, time, classes) is needed")
    _check_classes(logits.shape[-1], scheme)
    bad = ~torch.isfinite(logits).flatten(1).all(1)
    if bool(bad.any()):
        clip = first + int(bad.nonzero()[0])
        raise NonFiniteError(
            f"the logits of clip {clip} are not finite; try --precision float32, or take an earlier checkpoint"
        )
    return logits


def _check_classes(num_classes: int, scheme: LabelScheme) -> None:
    if num_classes == scheme.num_classes:
        return
    fitting = [repr(name) for name, other in SCHEMES.items() if other.num_classes == num_classes]
    mend = f"take the labels {' or '.join(fitting)}, or another model" if fitting else "take another model"
    raise UsageError(
        f"the labels {scheme.name!r} have {scheme.num_classes} classes; the model has {num_classes}: {mend}"
    )
