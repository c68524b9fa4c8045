"""Run clips through a model and collect its verdicts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from saccade.attention.forward import evaluating
from saccade.clips import ClipBatch, Clips
from saccade.device import choose_device, choose_precision
from saccade.errors import NonFiniteError, UsageError
from saccade.labels import Labels, Targets
from saccade.models import verdict

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Setup:
    """How clips are run through a model: the number of clips, the batch size, the device and the number format."""

    num_clips: int
    batch_size: int
    device: torch.device
    dtype: torch.dtype

    @classmethod
    def choose(
        cls, clips: Clips, num_clips: int | None, batch_size: int, device: torch.device | str, precision: str
    ) -> Setup:
        """Replace the defaults by values for these clips and this machine.

        Raises:
            UsageError: if `num_clips` or `batch_size` is below 1, or if the device or the precision is unknown.
        """
        num_clips = len(clips) if num_clips is None else num_clips
        for name, number in (("num_clips", num_clips), ("batch_size", batch_size)):
            if number < 1:
                raise UsageError(f"an evaluation needs {name} of at least 1; got {number}")
        chosen = choose_device(str(device))
        return cls(num_clips, batch_size, chosen, choose_precision(precision, chosen))


@dataclass(frozen=True)
class Verdicts:
    """The logits at each clip's last frame and the targets.

    For a causal model also the accuracy at every frame, and that of the mean of the logits over frames. If clips
    differ in length, the accuracy at a frame is over the clips that have this frame.
    """

    logits: Float[Tensor, "clips classes"]
    targets: Targets
    accuracy_by_frame: list[float] | None
    accuracy_of_mean_logits: float | None


@torch.no_grad()
def run_clips(
    model: nn.Module,
    clips: Clips,
    setup: Setup,
    *,
    after_batch: Callable[[], None] | None = None,
    progress: Progress | None = None,
) -> Verdicts:
    """Run the first clips through a model in evaluation mode; its mode is restored, but it stays on the device.

    Args:
        model: a model from clips to logits (batch, time, classes).
        clips: the clips.
        setup: the number of clips, the batch size, the device and the number format.
        after_batch: called after every forward pass.
        progress: called after every batch with the number of clips done and the total number.

    Raises:
        UsageError: if the model's classes are not those of the clips.
        NonFiniteError: if logits are NaN or infinite.
    """
    model.to(setup.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    clips = clips.to(setup.device)
    causal = bool(getattr(model, "causal", False))
    logits, targets, by_frame, right_in_mean = [], [], _ByFrame(), 0
    with evaluating(model):
        for first in range(0, setup.num_clips, setup.batch_size):
            last = min(first + setup.batch_size, setup.num_clips)
            batch = clips.batch(torch.arange(first, last, device=setup.device))
            said = _forward(model, batch, setup, clips.labels, first)
            if after_batch is not None:
                after_batch()
            logits.append(verdict(said, batch.lengths).cpu())
            targets.append(batch.targets.cpu())
            if causal:
                by_frame.add(clips.labels.right(said, batch.targets), batch)
                right_in_mean += int(clips.labels.right(_mean(said, batch), batch.targets).sum())
            if progress is not None:
                progress(last, setup.num_clips)
    of_mean = right_in_mean / setup.num_clips if causal else None
    return Verdicts(torch.cat(logits), torch.cat(targets), by_frame.accuracy() if causal else None, of_mean)


class _ByFrame:
    """Counts the clips that are right at each frame, and the clips that have this frame."""

    def __init__(self) -> None:
        self._right = self._num = torch.zeros(0)

    def add(self, right: Bool[Tensor, "batch time"], batch: ClipBatch) -> None:
        """Add a batch."""
        counts = torch.ones_like(right) if batch.valid is None else batch.valid
        longest = max(right.shape[1], len(self._right))
        self._right, self._num = (
            F.pad(total, (0, longest - len(total))) + F.pad(new.sum(0).cpu(), (0, longest - right.shape[1]))
            for total, new in ((self._right, right & counts), (self._num, counts))
        )

    def accuracy(self) -> list[float]:
        """Return the accuracy at each frame."""
        found: list[float] = (self._right.double() / self._num).tolist()
        return found


def _forward(
    model: nn.Module, batch: ClipBatch, setup: Setup, labels: Labels, first: int
) -> Float[Tensor, "batch time classes"]:
    with torch.autocast(setup.device.type, dtype=torch.bfloat16, enabled=setup.dtype == torch.bfloat16):
        try:
            logits: Tensor = model(batch.frames, *(() if batch.lengths is None else (batch.lengths,))).float()
        except ValueError as error:
            raise UsageError(f"the clips do not fit the model: {error}") from error
    if logits.dim() != 3 or len(logits) != len(batch.frames):
        raise ValueError(f"logits have shape {tuple(logits.shape)}; ({len(batch.frames)}, time, classes) is needed")
    _check_classes(model, logits.shape[-1], labels)
    bad = ~torch.isfinite(_valid(logits, batch)).flatten(1).all(1)
    if bool(bad.any()):
        clip = first + int(bad.nonzero()[0])
        raise NonFiniteError(
            f"the logits of clip {clip} are not finite; try --precision float32, or use an earlier checkpoint"
        )
    return logits


def _valid(logits: Float[Tensor, "batch time classes"], batch: ClipBatch) -> Float[Tensor, "batch time classes"]:
    """Return logits with zeros at padded frames."""
    return logits if batch.valid is None else torch.where(batch.valid.unsqueeze(-1), logits, 0)


def _mean(logits: Float[Tensor, "batch time classes"], batch: ClipBatch) -> Float[Tensor, "batch classes"]:
    """Return the mean of the logits over each clip's frames."""
    total = _valid(logits, batch).sum(1)
    return total / (logits.shape[1] if batch.lengths is None else batch.lengths.unsqueeze(-1))


def _check_classes(model: nn.Module, num_classes: int, labels: Labels) -> None:
    own = getattr(model, "labels", None)
    if num_classes == len(labels.names) and (own is None or own.names == labels.names):
        if own is not None and own.exclusive != labels.exclusive:
            ways = {True: "exclude each other", False: "do not exclude each other"}
            raise UsageError(
                f"the clips' classes {ways[labels.exclusive]}, the model's {ways[own.exclusive]}: use clips of the"
                " model's classes, or another model"
            )
        return
    named = ", ".join(labels.names[:3]) + (" ..." if len(labels.names) > 3 else "")
    theirs = "" if own is None else f" ({', '.join(own.names[:3])}{' ...' if len(own.names) > 3 else ''})"
    raise UsageError(
        f"the clips have {len(labels.names)} classes ({named}), the model {num_classes}{theirs}: use clips of the"
        " model's classes, or another model"
    )
