"""Pictures of where each model of a reproduction looks in one clip: the qualitative half of the experiment."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from saccade import checkpoint, predict
from saccade.attention import Look, look
from saccade.models.published import CNNS, FRAME_FORMAT, PublishedCNN
from saccade.reproduce.table import CONDITION_TITLES, TITLES
from saccade.visualize import COLOURS, LookStrip
from saccade.visualize.look_strip import NUM_SHOWN, evenly_spaced

Frames = UInt8[Tensor, "time channels height width"]


def end_to_end_strip(cell: Path, model: str, condition: str, frames: Frames, device: torch.device) -> LookStrip:
    """Return a strip of where the trained model of a cell looks in a clip.

    Raises:
        DataError: if the checkpoint of the cell cannot be read.
    """
    trained, header = checkpoint.load(cell, device)
    seen, _ = look(trained, frames.to(device), saliency=True)
    (verdict,) = predict.classes_of(header, cell).verdicts(seen.logits[-1:])
    told = f"says {verdict.name}, {100 * verdict.probability:.1f} %"
    title = f"{TITLES[model]}, {CONDITION_TITLES[condition]}: {told}"
    return LookStrip(title, frames, seen, COLOURS[model])


def published_strip(stage1: Path, model: str, condition: str, frames: Frames, device: torch.device) -> LookStrip:
    """Return a strip of where the CNN of the published protocol looks in a clip, frame by frame.

    The protocol trains many LSTMs and stores none; they do not affect where the CNN looks.

    Raises:
        DataError: if the checkpoint of the first stage cannot be read.
    """
    cnn = CNNS[f"{model}-published"]()
    checkpoint.load_weights(cnn, stage1)
    alone = _FrameByFrame(cnn).to(device).eval()
    title = f"{TITLES[model]} as published, {CONDITION_TITLES[condition]}: its CNN alone"
    shown = frames[evenly_spaced(len(frames), NUM_SHOWN)]
    # One frame at a time, since the saliency of a clip is that of the verdict at its last frame.
    seen = _joined([look(alone, frame.unsqueeze(0).to(device), saliency=True)[0] for frame in shown])
    return LookStrip(title, shown, seen, COLOURS[model])


class _FrameByFrame(nn.Module):
    """A CNN for frames with the interface of a model for clips."""

    def __init__(self, cnn: PublishedCNN) -> None:
        super().__init__()
        self.encoder, self.logits = cnn.features, cnn.logits
        self.frame_format = FRAME_FORMAT

    def picture(self, inputs: Float[Tensor, "frames 1 height width"]) -> Float[Tensor, "frames 1 height width"]:
        """Return the input of the encoder as a picture in [0, 1]."""
        return self.frame_format.restore(inputs).clamp(0, 1)

    def forward(self, clips: Float[Tensor, "batch time channels height width"]) -> Float[Tensor, "batch time classes"]:
        found: Tensor = self.logits(self.encoder(clips.flatten(0, 1))).unflatten(0, clips.shape[:2])
        return found


def _joined(looks: list[Look]) -> Look:
    """Concatenate the looks of single frames to one look."""
    parts: dict[str, Tensor] = {}
    for name in (field.name for field in fields(Look) if field.name not in ("logits", "frame_size")):
        found = [getattr(one, name) for one in looks]
        if found[0] is not None:
            parts[name] = torch.cat(found)
    return Look(torch.cat([one.logits for one in looks]), looks[0].frame_size, **parts)
