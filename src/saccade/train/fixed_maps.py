"""Training on maps that are computed once, where nothing before them learns."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from saccade import distributed
from saccade.clips import FrameFormat
from saccade.data.augment import Augmentation, view_generator
from saccade.data.lazy_frames import Frames, LazyFrames
from saccade.data.stored import StoredBatches
from saccade.models.folding import folded
from saccade.models.inputs import PlainFrames
from saccade.models.picture_encoder import PictureEncoder
from saccade.models.video_classifier import VideoClassifier
from saccade.nn import attention_layers
from saccade.train.initial_weights import Say
from saccade.train.loop import Progress
from saccade.train.trainer import Trainer
from saccade.train.validation import Validation

MAX_BYTES = 4_000_000_000
"""How much memory the maps of a training may take."""

MAX_VIEWS = 4
"""The maps of a clip and of changed views of it are computed: of as many views as this, the clip itself counted."""

VIEWS_SHARE = 0.25
"""The share of the training time that the maps of changed views may take."""

_FRAMES_AT_ONCE = 32

Counted = Callable[[int, int], None]


def use_maps(
    trainer: Trainer, progress: Progress | None, say: Say, *, num_views: int | None = None, minutes: float = math.inf
) -> float:
    """Let a training read maps in place of frames, if nothing before the maps learns and they fit into memory.

    Clips that are changed at random at every step would need new maps each time. Such a training gets those of the
    clips and of a few changed views of each; a view is a function of the seed, the clip and its number.

    Args:
        trainer: the training, before its first step or resumed; it is changed in place. `training` in its header says
            the number of views.
        progress: a function that is called with the number of clips that are done and the total.
        say: a function that is called with a line about the views.
        num_views: the number of views of each clip, the clip itself counted; None for as many as fit into memory and
            time, at most `MAX_VIEWS`, or 1 if the model attends to the maps.
        minutes: the time of the training.

    Returns:
        The minutes that the changed views took.
    """
    model, batches = trainer.model, trainer.batches
    if not (isinstance(model, VideoClassifier) and isinstance(batches, StoredBatches)):
        return 0.0
    if (reader := reader_of(model)) is None:
        return 0.0
    counted = None if progress is None else lambda done, total: progress({"clips": done, "num_clips": total})
    of_clip, started = MapsOf(model, trainer.device), time.monotonic()
    if (maps := _maps_that_fit(of_clip, batches.clips.frames, counted)) is None:
        return 0.0
    views, minutes_spent = list[list[Tensor]](), 0.0
    if batches.augmentation is not None:
        again = (time.monotonic() - started) / 60
        most = VIEWS_SHARE * minutes / again
        # A layer that resamples the maps learned less from views, in as many steps (docs/log.md).
        num_views = num_views or (1 if attention_layers(reader) else _num_views(maps, batches.augmentation, most))
        num_views = distributed.from_first(num_views)  # the time that is left differs between processes
        say(_line(num_views))
        trainer.header.training["num_views"] = num_views
        started = time.monotonic()
        views = _views(of_clip, batches, num_views - 1, counted)
        minutes_spent = (time.monotonic() - started) / 60
    clips = replace(batches.clips, frames=maps)
    trainer.batches, trainer.reader = replace(batches, clips=clips, augmentation=None, views=views), reader
    if trainer.validation is not None:
        _validate_on_maps(trainer.validation, of_clip, counted)
    return minutes_spent


def _validate_on_maps(validation: Validation, of_clip: MapsOf, counted: Counted | None) -> None:
    """Let a validation read maps, if they fit into memory."""
    held = _maps_that_fit(of_clip, validation.clips.frames, counted)
    if held is not None:
        validation.clips, validation.reader = replace(validation.clips, frames=held), _part_that_reads_maps


def _num_views(maps: Sequence[Tensor], changes: Augmentation, most_in_time: float) -> int:
    """Return how many views of each clip have maps, the clip itself counted.

    Args:
        maps: the maps of the clips.
        changes: the changes of the views.
        most_in_time: how many times the maps of all clips can be computed once more.
    """
    num_bytes = sum(each.nbytes for each in maps)
    most_in_memory = (MAX_BYTES - num_bytes) / (num_bytes / changes.rate[0])  # slowed down, clips are longer
    return 1 + int(min(MAX_VIEWS - 1, most_in_memory, most_in_time))


def _line(num_views: int) -> str:
    once = "the trunk does not learn: its maps are computed once"
    if num_views == 1:
        return f"{once}, and clips are not augmented"
    views = f"{num_views - 1} changed view{'s' if num_views > 2 else ''}"
    return f"{once}, for each clip and {views} of it; --no-augment leaves the views out"


def _views(of_clip: MapsOf, batches: StoredBatches, num: int, counted: Counted | None) -> list[list[Tensor]]:
    """Return the maps of some changed views of each clip: a list for each view."""
    frames, changes = batches.clips.frames, batches.augmentation
    assert changes is not None

    def changed(place: tuple[int, int]) -> Frames:
        return changes.augmented(frames[place[0]], view_generator(batches.seed, *place))

    # The views of a clip come one after the other, so that its frames are read once.
    places = [(clip, view) for clip in range(len(frames)) for view in range(1, num + 1)]
    maps = list(_maps_of_all(of_clip, LazyFrames(places, changed), counted))
    return [maps[first::num] for first in range(num)]


def _maps_that_fit(of_clip: MapsOf, frames: Sequence[Frames], counted: Counted | None) -> list[Tensor] | None:
    """Return the maps of clips; None as soon as it is clear that they take too much memory."""
    maps: list[Tensor] = []
    num_bytes = 0
    for each in _maps_of_all(of_clip, frames, counted):
        maps.append(each)
        num_bytes += each.nbytes
        if num_bytes * len(frames) / len(maps) > MAX_BYTES:
            return None
    return maps


def _maps_of_all(of_clip: MapsOf, frames: Sequence[Frames], counted: Counted | None) -> Iterator[Tensor]:
    for number, clip in enumerate(frames, 1):
        yield of_clip(clip)
        if counted is not None:
            counted(number, len(frames))


def reader_of(model: VideoClassifier) -> VideoClassifier | None:
    """Return the part of a model that reads maps in place of frames, with the model's own weights.

    None if something before the maps learns: they would not stay the same.
    """
    encoder = model.encoder
    if not isinstance(encoder, PictureEncoder) or not encoder.maps_are_fixed:
        return None
    channels = len(encoder.gains) * int(encoder.trunk.out_channels)  # type: ignore[arg-type]
    return VideoClassifier(
        input=PlainFrames(channels),
        encoder=encoder.end,
        temporal=model.temporal,
        head=model.head,
        labels=model.labels,
        frame_format=FrameFormat(channels),
    )


def _part_that_reads_maps(model: nn.Module) -> nn.Module:
    assert isinstance(model, VideoClassifier)
    part = reader_of(model)
    assert part is not None
    return part


class MapsOf:
    """Compute the maps of clips with a model whose batch normalisation is folded into its convolutions."""

    def __init__(self, model: VideoClassifier, device: torch.device) -> None:
        encoder = model.encoder
        assert isinstance(encoder, PictureEncoder)
        self.model, self.device = model, device
        trunk = folded(encoder.trunk)
        self.encoder = PictureEncoder(attention=None, trunk=trunk, end=encoder.end, gains=encoder.gains)
        self.encoder.to(device).eval()

    def __call__(self, clip: UInt8[Tensor, "time channels height width"]) -> Float[Tensor, "time maps y x"]:
        """Return the maps of a clip's frames, in half precision."""
        return torch.cat([maps.half().cpu() for maps in self.parts(clip)])

    @torch.no_grad()
    def parts(
        self, clip: UInt8[Tensor, "time channels height width"]
    ) -> Iterator[Float[Tensor, "part_of_time maps y x"]]:
        """Yield the maps of a few frames after the other."""
        state = None
        for part in clip.unsqueeze(0).split(_FRAMES_AT_ONCE, 1):
            inputs, state = self.model.encoder_input(part.to(self.device), state)
            yield self.encoder.maps(inputs[0])
