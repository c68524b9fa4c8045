"""Training on maps that are computed once, where nothing before them learns."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from saccade.clips import FrameFormat
from saccade.data.stored import StoredBatches
from saccade.models.folding import folded
from saccade.models.inputs import PlainFrames
from saccade.models.picture_encoder import PictureEncoder
from saccade.models.video_classifier import VideoClassifier

MAX_BYTES = 4_000_000_000
"""How much memory the maps of a training may take."""

_FRAMES_AT_ONCE = 32

Counted = Callable[[int, int], None]


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


def batches_of_maps(
    model: VideoClassifier, batches: StoredBatches, device: torch.device, counted: Counted | None = None
) -> StoredBatches | None:
    """Return the same batches with the maps of frames in place of frames; None if those take too much memory.

    The change at the first frame of a cut clip is that from the frame before the cut.

    Args:
        model: a model for which `reader_of` gives a reader.
        batches: the batches of frames.
        device: the device that computes the maps.
        counted: a function that is called with the number of clips that are done and the total.
    """
    of_frame = MapsOf(model, device)
    frames = batches.clips.frames
    maps: list[Tensor] = []
    num_bytes = 0
    for number, clip in enumerate(frames, 1):
        maps.append(of_frame(clip))
        num_bytes += maps[-1].nbytes
        if num_bytes * len(frames) / number > MAX_BYTES:
            return None
        if counted is not None:
            counted(number, len(frames))
    return replace(batches, clips=replace(batches.clips, frames=maps))


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
