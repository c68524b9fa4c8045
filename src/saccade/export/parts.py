"""Parts of models that compute the same without control flow that depends on the number of clips or frames."""

from __future__ import annotations

import copy

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch._higher_order_ops.scan import scan

from saccade.models import VideoClassifier
from saccade.models.folding import folded
from saccade.models.picture_encoder import PictureEncoder
from saccade.nn import DeformConv2d
from saccade.nn.temporal import State


def prepared(model: VideoClassifier, *, reference: bool, by_frame: bool) -> VideoClassifier:
    """Return a copy of a model that can be traced with any number of clips and frames.

    Args:
        model: the model, in evaluation mode.
        reference: whether deformable convolutions become standard operators of torch.
        by_frame: whether the parts with a state read one frame after the other, in a loop of the graph.
    """
    found = copy.deepcopy(model).eval().requires_grad_(False)
    if isinstance(found.encoder.trunk, nn.Module):
        found.encoder.trunk = folded(found.encoder.trunk)
    if isinstance(found.encoder, PictureEncoder):
        found.encoder = Pictures(found.encoder)
    if by_frame:
        # Torch unrolls an LSTM over the frames of the example, and other parts read a window of frames at a time.
        found.temporal = FrameByFrame(found.temporal)
        if found.input.initial_state(1, (1, 1)):  # type: ignore[operator]
            found.input = FrameByFrame(found.input)
    for layer in found.modules():
        if reference and isinstance(layer, DeformConv2d):
            layer.backend = "reference"
        if isinstance(layer, nn.Hardtanh):
            # The exporter of ONNX takes one in place apart into many operations, and is slow at that.
            layer.inplace = False
    # Torch takes weights in another order of memory for parts of larger ones when it saves them.
    contiguous: VideoClassifier = found.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    return contiguous


class FrameByFrame(nn.Module):
    """A part of a model with a state that reads one frame after the other, as on a stream.

    Args:
        part: the input of an encoder or a temporal part: from (batch, time, ...) and a state to the same.
    """

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part = part

    def initial_state(self, *sizes: object) -> State:
        """Return the state before the first frame."""
        state: State = self.part.initial_state(*sizes)  # type: ignore[operator]
        return state

    def forward(self, values: Tensor, state: State) -> tuple[Tensor, State]:
        """Return the part's output for every frame, and the state after the last."""

        def step(before: list[Tensor], frame: Tensor) -> tuple[list[Tensor], Tensor]:
            found, after = self.part(frame.unsqueeze(1), tuple(before))
            # What a loop returns must not share memory with what it was given.
            return [one.clone() for one in after], found.squeeze(1).clone()

        last, found = scan(step, [one.clone() for one in state], values.transpose(0, 1).contiguous())
        return found.transpose(0, 1), tuple(last)


class Pictures(nn.Module):
    """A `PictureEncoder` that separates the pictures of a frame by reshapes; `chunk` would fix the number of frames.

    Args:
        encoder: the encoder whose parts it uses.
    """

    gains: Tensor

    def __init__(self, encoder: PictureEncoder) -> None:
        super().__init__()
        self.attention, self.trunk, self.end = encoder.attention, encoder.trunk, encoder.end
        self.register_buffer("gains", torch.tensor(encoder.gains).view(-1, 1, 1, 1))

    def forward(self, frames: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch features"]:
        """Return one feature per frame."""
        if self.attention is not None:
            frames = self.attention(frames)
        num = len(self.gains)
        pictures = frames.unflatten(1, (num, -1)) * self.gains
        maps = self.trunk(pictures.flatten(0, 1).contiguous(memory_format=torch.channels_last))
        found: Tensor = self.end(maps.unflatten(0, (-1, num)).flatten(1, 2))
        return found
