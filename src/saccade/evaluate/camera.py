"""The accuracy of a model when a camera delivers fewer frames than the model expects."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor, nn

from saccade.clips import ClipBatch, Clips
from saccade.evaluate.breakdown import groups_of
from saccade.evaluate.clip_verdicts import ClipVerdict, NamedClips, clip_verdicts
from saccade.evaluate.forward import Progress, Setup, run_clips
from saccade.intervals import Difference, accuracy_interval, paired_difference
from saccade.labels import Labels
from saccade.stream import measured

EVERY = (2, 3, 4)
"""A slower camera delivers every 2nd, 3rd or 4th frame."""

DROPPED = (0.1, 0.25, 0.5)
"""The shares of frames that get lost at random."""

_SEED = 0
_ORDINALS = {2: "2nd", 3: "3rd"}

Arrived = Callable[[int, int], Int64[Tensor, "time"]]
"""A function from a clip's index and number of frames to the frame that is shown at each time."""


def rate_text(fps: float) -> str:
    """Format a frame rate with at most one decimal.

    >>> rate_text(14.98), rate_text(7.49)
    ('15', '7.5')
    """
    return f"{round(fps, 1):g}"


@dataclass(frozen=True)
class CameraFigures:
    """The accuracy on the same clips through a camera that delivers fewer frames.

    Args:
        every: the camera delivers every `every`-th frame; 1 is all frames.
        dropped: the share of frames that get lost at random.
        accuracy: the accuracy, as a fraction.
        low: the lower end of its 95 % interval.
        high: the upper end.
        difference: the accuracy minus that with all frames, with a paired interval; None for all frames.
        num_changed: the number of clips whose verdict is another than with all frames.
    """

    every: int
    dropped: float
    accuracy: float
    low: float
    high: float
    difference: Difference | None
    num_changed: int

    def told(self, fps: float | None = None) -> str:
        """Describe the camera.

        Args:
            fps: the frame rate that the model expects; None if it is unknown.
        """
        if self.dropped:
            return f"{100 * self.dropped:.0f} % of the frames lost"
        rate = f" ({rate_text(fps / self.every)} frames/s)" if fps else ""
        return (
            "all frames" if self.every == 1 else f"every {_ORDINALS.get(self.every, f'{self.every}th')} frame"
        ) + rate

    @property
    def difference_text(self) -> str:
        """The difference and its interval in points; nothing for all frames."""
        if self.difference is None:
            return ""
        if not self.num_changed:
            return "no verdict changed"
        mean, low, high = (f"{100 * value:+.1f}" for value in self.difference)
        return f"{mean} ({low} to {high})"

    def as_json(self) -> dict[str, Any]:
        """Return all values as JSON values."""
        return asdict(self) | {"difference": self.difference and self.difference._asdict()}


@dataclass(frozen=True)
class ThroughCamera:
    """Clips in which the last frame that arrived is repeated until the next one arrives.

    The number of frames stays the same, as in a file of a slower camera that is resampled to the model's frame rate.

    Args:
        clips: the clips.
        arrived: a function from a clip's index and number of frames to the frame that is shown at each time.
    """

    clips: Clips
    arrived: Arrived

    @property
    def labels(self) -> Labels:
        """The classes."""
        return self.clips.labels

    @property
    def facts(self) -> Mapping[str, Any]:
        """A description of the clips."""
        return self.clips.facts

    @property
    def names(self) -> Sequence[str] | None:
        """The name of each clip."""
        return self.clips.names if isinstance(self.clips, NamedClips) else None

    @property
    def groups(self) -> Sequence[str] | None:
        """The group of each clip."""
        return self.clips.groups if isinstance(self.clips, NamedClips) else None

    def __len__(self) -> int:
        return len(self.clips)

    def batch(self, indices: Int64[Tensor, "batch"]) -> ClipBatch:
        """Return the clips at `indices`."""
        batch = self.clips.batch(indices)
        num_frames = batch.frames.shape[1]
        shown = torch.stack([self.arrived(index, num_frames) for index in indices.tolist()]).to(batch.frames.device)
        rows = torch.arange(len(shown), device=shown.device).unsqueeze(1)
        return replace(batch, frames=batch.frames[rows, shown])

    def to(self, device: torch.device | str) -> ThroughCamera:
        """Return the same clips, with batches on `device`."""
        return replace(self, clips=self.clips.to(device))


def slower(every: int) -> Arrived:
    """Return the frames of a camera that delivers the first and then every `every`-th frame.

    >>> slower(3)(0, 8).tolist()
    [0, 0, 0, 3, 3, 3, 6, 6]
    """
    return lambda _clip, num_frames: torch.arange(num_frames) // every * every


def losing(share: float, seed: int = _SEED) -> Arrived:
    """Return the frames of a camera that loses each frame but the first with the probability `share`.

    The frames that are lost with a smaller share are also lost with a larger one.

    >>> losing(0.5)(0, 8).tolist()
    [0, 0, 0, 0, 4, 5, 6, 7]
    """

    def arrived(clip: int, num_frames: int) -> Int64[Tensor, "time"]:
        drawn = np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, clip)))).random(num_frames)
        return torch.where(torch.from_numpy(drawn >= share), torch.arange(num_frames), 0).cummax(0).values

    return arrived


def through_cameras(
    model: nn.Module,
    clips: Clips,
    setup: Setup,
    with_all_frames: list[ClipVerdict],
    *,
    progress: Progress | None = None,
) -> list[CameraFigures]:
    """Return the accuracy with all frames, with slower cameras (`EVERY`) and with lost frames (`DROPPED`).

    Args:
        model: a model, as for `evaluate`.
        clips: the clips.
        setup: how they are run through the model.
        with_all_frames: the verdicts with all frames.
        progress: called after every batch with the number of clips done and the total number, in each pass.

    Raises:
        NonFiniteError: if logits are NaN or infinite.
    """

    def verdicts(arrived: Arrived) -> list[ClipVerdict]:
        seen = ThroughCamera(clips, arrived)
        return clip_verdicts(seen, run_clips(model, seen, setup, progress=progress))

    found = [_figures(1, 0.0, with_all_frames, None)]
    found += [_figures(every, 0.0, verdicts(slower(every)), with_all_frames) for every in EVERY]
    return found + [_figures(1, share, verdicts(losing(share)), with_all_frames) for share in DROPPED]


def keep_figures(model: Path, figures: Sequence[CameraFigures], fps: float, *, split: str, num_clips: int) -> None:
    """Keep the accuracy at each frame rate in the run folder of a model, where `saccade stream` finds it.

    Args:
        model: the checkpoint or its run folder.
        figures: the accuracies; those with lost frames are not kept.
        fps: the frame rate that the model expects.
        split: the split of the clips.
        num_clips: their number.

    Raises:
        OSError: if the file cannot be written.
    """
    rates = tuple(measured.AtRate(fps / one.every, one.accuracy) for one in figures if not one.dropped)
    measured.keep(model, split, num_clips, rates)


def _figures(every: int, dropped: float, now: list[ClipVerdict], before: list[ClipVerdict] | None) -> CameraFigures:
    right, groups = [clip.right for clip in now], groups_of(now)
    several = groups if groups and len(set(groups)) > 1 else None
    low, high, _ = accuracy_interval(right, groups)
    return CameraFigures(
        every=every,
        dropped=dropped,
        accuracy=sum(right) / len(right),
        low=low,
        high=high,
        difference=None if before is None else paired_difference(right, [clip.right for clip in before], several),
        num_changed=sum(one.verdict != other.verdict for one, other in zip(now, before or now, strict=True)),
    )
