"""The input of an encoder: the frames of a clip, the differences between consecutive frames, or both."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor, nn

from saccade.clips import Size
from saccade.nn.shapes import check_shape
from saccade.nn.temporal import State


class FrameInput(Protocol):
    """A module that turns clips into the input of an encoder, frame by frame."""

    out_channels: int

    def initial_state(self, batch: int, frame_size: Size) -> State:
        """Return the state before the first frame."""
        ...

    def __call__(
        self, clips: Float[Tensor, "batch time channels height width"], state: State
    ) -> tuple[Float[Tensor, "batch time out_channels height width"], State]:
        """Return the input of the encoder, and the state to pass in with the next frames."""
        ...

    def picture(
        self, inputs: Float[Tensor, "frames out_channels height width"]
    ) -> tuple[Float[Tensor, "frames channels height width"], bool]:
        """Return the channels to display, and True if they are frames, False if they are differences."""
        ...


class PlainFrames(nn.Module):
    """Pass on the frames unchanged."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.out_channels = channels

    def initial_state(self, batch: int, frame_size: Size) -> State:
        """Return an empty state: no earlier frame is needed."""
        return ()

    def forward(self, clips: Tensor, state: State) -> tuple[Tensor, State]:
        """Return the clips and the empty state."""
        return clips, ()

    def picture(self, inputs: Tensor) -> tuple[Tensor, bool]:
        """Return the frames, and True."""
        return inputs, True


class Differences(nn.Module):
    """Subtract from each frame the one before it, and prepend the frame itself if asked; the first difference is 0.

    An encoder that pools its map over the whole frame loses the positions of objects, and so their motion. In a
    difference, a moving object has a bright and a dark edge, which show the direction of its motion.

    Args:
        channels: the number of channels of a frame.
        frames: whether the channels of the frame come before those of the difference.

    Raises:
        ValueError: in `forward`, if the clips or the state have another shape.
    """

    def __init__(self, channels: int, *, frames: bool) -> None:
        super().__init__()
        self.channels, self.frames = channels, frames
        self.out_channels = 2 * channels if frames else channels

    def initial_state(self, batch: int, frame_size: Size) -> State:
        """Return a black previous frame for each clip, and 0 for "no frame seen yet"."""
        return torch.zeros(batch, self.channels, *frame_size), torch.zeros(batch)

    def forward(
        self, clips: Float[Tensor, "batch time channels height width"], state: State
    ) -> tuple[Float[Tensor, "batch time out_channels height width"], State]:
        """Return the differences, after the frames if they are included, and the new state."""
        check_shape("clips", clips, "batch", "time", self.channels, "height", "width")
        check_shape("states", state[0], len(clips), *clips.shape[2:])
        previous, seen = (part.to(clips) for part in state)
        first = (clips[:, :1] - previous.unsqueeze(1)) * seen.view(-1, 1, 1, 1, 1)
        changes = torch.cat((first, clips[:, 1:] - clips[:, :-1]), 1)
        inputs = torch.cat((clips, changes), 2) if self.frames else changes
        return inputs, (clips[:, -1], torch.ones_like(seen))

    def picture(self, inputs: Tensor) -> tuple[Tensor, bool]:
        """Return the frames and True, or if frames are not included, the differences and False."""
        return inputs[:, : self.channels], self.frames


INPUTS: dict[str, Callable[[int], nn.Module]] = {
    "frames": PlainFrames,
    "differences": lambda channels: Differences(channels, frames=False),
    "both": lambda channels: Differences(channels, frames=True),
}
"""Constructors of encoder inputs by name; each takes the number of channels of a frame."""
