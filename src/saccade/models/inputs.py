"""What an encoder sees of a clip: its frames, what changed since the frame before, or both."""

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
    """A module that turns clips into what an encoder sees, frame by frame."""

    out_channels: int

    def initial_state(self, batch: int, frame_size: Size) -> State:
        """Return the state before the first frame."""
        ...

    def __call__(
        self, clips: Float[Tensor, "batch time channels height width"], state: State
    ) -> tuple[Float[Tensor, "batch time out_channels height width"], State]:
        """Return what the encoder sees, and what to pass in with the next frames."""
        ...

    def picture(
        self, inputs: Float[Tensor, "frames out_channels height width"]
    ) -> tuple[Float[Tensor, "frames channels height width"], bool]:
        """Return of what the encoder sees a part to look at, and whether it is of frames, or of changes."""
        ...


class PlainFrames(nn.Module):
    """The frames as they are."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.out_channels = channels

    def initial_state(self, batch: int, frame_size: Size) -> State:
        """Return nothing: a frame is enough."""
        return ()

    def forward(self, clips: Tensor, state: State) -> tuple[Tensor, State]:
        """Return the clips."""
        return clips, ()

    def picture(self, inputs: Tensor) -> tuple[Tensor, bool]:
        """Return the frames."""
        return inputs, True


class Differences(nn.Module):
    """What changed since the frame before, and the frame itself if asked; at the first frame nothing has changed.

    An encoder that pools its map over the whole frame forgets where things are, and so how they move. In a difference a
    thing that moves has a bright and a dark edge, whose direction is that of the motion.

    Args:
        channels: of a frame.
        frames: whether the frame's channels come first.

    Raises:
        ValueError: clips or a state of another shape, in `forward`.
    """

    def __init__(self, channels: int, *, frames: bool) -> None:
        super().__init__()
        self.channels, self.frames = channels, frames
        self.out_channels = 2 * channels if frames else channels

    def initial_state(self, batch: int, frame_size: Size) -> State:
        """Return a frame, and 0 for each clip of which no frame was seen."""
        return torch.zeros(batch, self.channels, *frame_size), torch.zeros(batch)

    def forward(
        self, clips: Float[Tensor, "batch time channels height width"], state: State
    ) -> tuple[Float[Tensor, "batch time out_channels height width"], State]:
        """Return the frames, if wanted, and their differences."""
        check_shape("clips", clips, "batch", "time", self.channels, "height", "width")
        check_shape("states", state[0], len(clips), *clips.shape[2:])
        previous, seen = (part.to(clips) for part in state)
        first = (clips[:, :1] - previous.unsqueeze(1)) * seen.view(-1, 1, 1, 1, 1)
        changes = torch.cat((first, clips[:, 1:] - clips[:, :-1]), 1)
        inputs = torch.cat((clips, changes), 2) if self.frames else changes
        return inputs, (clips[:, -1], torch.ones_like(seen))

    def picture(self, inputs: Tensor) -> tuple[Tensor, bool]:
        """Return the frames, or where there are none the changes."""
        return inputs[:, : self.channels], self.frames


INPUTS: dict[str, Callable[[int], nn.Module]] = {
    "frames": PlainFrames,
    "differences": lambda channels: Differences(channels, frames=False),
    "both": lambda channels: Differences(channels, frames=True),
}
"""What an encoder sees, by name, built from the number of channels of a frame."""
