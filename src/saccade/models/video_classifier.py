"""A video classifier: an encoder for every frame, a temporal part over the sequence, a head for every state."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn

from saccade.clips import FrameFormat, Size, valid_frames
from saccade.labels import Labels
from saccade.nn.shapes import check_shape
from saccade.nn.temporal import State

_INTEGERS = torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8


class VideoClassifier(nn.Module):
    """Classify a clip at every frame from that frame and those before it.

    *Conventions:* clips are (batch, time, channels, height, width), float in [0, 1] or uint8 in [0, 255]. Any frame
    size that the encoder takes and any number of frames.

    Args:
        input: clips -> what the encoder sees of them, see `FrameInput`.
        encoder: frames (batch, channels, height, width) -> features (batch, features).
        temporal: features over time -> states over time, see `Temporal`.
        head: states -> logits.
        labels: the classes.
        frame_format: what it wants of a frame.

    >>> from saccade import models
    >>> model = models.create("lenet-lstm").eval()
    >>> model(torch.zeros(2, 3, 1, 64, 64)).shape
    torch.Size([2, 3, 55])
    """

    causal = True

    def __init__(
        self,
        *,
        input: nn.Module,
        encoder: nn.Module,
        temporal: nn.Module,
        head: nn.Module,
        labels: Labels,
        frame_format: FrameFormat,
    ) -> None:
        super().__init__()
        self.input, self.encoder, self.temporal, self.head = input, encoder, temporal, head
        self.labels, self.frame_format = labels, frame_format

    def forward(
        self,
        clips: Float[Tensor, "batch time channels height width"] | UInt8[Tensor, "batch time channels height width"],
        lengths: Int64[Tensor, "batch"] | None = None,
    ) -> Float[Tensor, "batch time classes"]:
        """Return the logits at every frame.

        Args:
            clips: the clips, shorter ones padded at the end with anything.
            lengths: number of frames that count in each clip; None counts all. Padding touches neither other frames'
                logits nor, in training, the batch statistics; the logits at padded frames mean nothing.

        Raises:
            ValueError: clips that are not five-dimensional, without frames or of integers other than uint8, lengths
                outside 1 to the number of frames.
        """
        logits, _ = self._classify(clips, lengths, None)
        return logits

    def initial_state(self, batch: int, frame_size: Size) -> State:
        """Return the state of so many clips before their first frame."""
        return *self._input_state(batch, frame_size), *self._temporal_state(batch)

    def step(self, clips: Tensor, state: State | None) -> tuple[Float[Tensor, "batch time classes"], State]:
        """Go on with the next frames of clips whose earlier frames left `state`; return logits and the new state.

        At the start the state is None, or `initial_state`.

        Raises:
            ValueError: clips that `forward` refuses, or a state of other clips.
        """
        return self._classify(clips, None, state)

    def encoder_input(
        self, clips: Tensor, state: State | None = None
    ) -> tuple[Float[Tensor, "batch time seen_channels height width"], State]:
        """Return what the encoder sees of clips, and what that needs to know of them with the next frames."""
        check_clips(clips)
        state = self._input_state(len(clips), (clips.shape[-2], clips.shape[-1])) if state is None else state
        levels = self.frame_format.normalise(clips)
        # Frames of any precision are frames; the encoder's weights have one.
        levels = levels.to(next(self.encoder.parameters(), levels).dtype)
        seen: tuple[Tensor, State] = self.input(levels, state)
        return seen

    def picture(
        self, inputs: Float[Tensor, "frames seen_channels height width"]
    ) -> Float[Tensor, "frames channels height width"]:
        """Return what an encoder sees as something to look at, in [0, 1]; where nothing changed, changes are grey."""
        shown, is_frames = self.input.picture(inputs)  # type: ignore[operator]
        picture: Tensor = self.frame_format.restore(shown) if is_frames else 0.5 + shown / 2
        return picture.clamp(0, 1)

    def _input_state(self, batch: int, frame_size: Size) -> State:
        state: State = self.input.initial_state(batch, frame_size)  # type: ignore[operator]
        return state

    def _temporal_state(self, batch: int) -> State:
        state: State = self.temporal.initial_state(batch)  # type: ignore[operator]
        return state

    def _classify(
        self, clips: Tensor, lengths: Int64[Tensor, "batch"] | None, state: State | None
    ) -> tuple[Float[Tensor, "batch time classes"], State]:
        check_clips(clips, lengths)
        start = self.initial_state(len(clips), (clips.shape[-2], clips.shape[-1]))
        state = start if state is None else state
        shapes, wanted = ([tuple(part.shape) for part in parts] for parts in (state, start))
        if shapes != wanted:
            raise ValueError(f"state has shapes {shapes}; clips of shape {tuple(clips.shape)} need {wanted}")
        num_own = len(self._input_state(1, (1, 1)))
        inputs, of_input = self.encoder_input(clips, state[:num_own])
        states, of_temporal = self.temporal(self._features(inputs, lengths), state[num_own:])
        # In float32: bfloat16 has so few numbers that the two likeliest classes often tie.
        with torch.autocast(states.device.type, enabled=False):
            logits: Tensor = self.head(states)
        return logits.float(), (*of_input, *of_temporal)

    def _features(self, inputs: Tensor, lengths: Int64[Tensor, "batch"] | None) -> Float[Tensor, "batch time features"]:
        """Encode every frame that counts; the features of padded frames are zero."""
        frames = inputs.flatten(0, 1)
        if lengths is None:
            features: Tensor = self.encoder(frames).unflatten(0, inputs.shape[:2])
            return features
        valid = valid_frames(lengths, inputs.shape[1])
        encoded = self.encoder(frames[valid.flatten()])
        features = encoded.new_zeros(*inputs.shape[:2], encoded.shape[-1])
        return features.masked_scatter(valid.unsqueeze(-1), encoded)


def check_clips(clips: Tensor, lengths: Int64[Tensor, "batch"] | None = None) -> None:
    """Raise ValueError for clips, or lengths of them, that no model can read."""
    if clips.dim() != 5:
        raise ValueError(f"clips have shape {tuple(clips.shape)}; (batch, time, channels, height, width) is needed")
    if clips.shape[1] == 0:
        raise ValueError("clips have no frames; at least 1 is needed")
    if clips.dtype != torch.uint8 and not clips.is_floating_point():
        raise ValueError(f"clips are {clips.dtype}; uint8 in [0, 255] or float in [0, 1] is needed")
    if lengths is not None and lengths.shape != clips.shape[:1]:
        raise ValueError(f"lengths have shape {tuple(lengths.shape)}; one for each of {len(clips)} clips is needed")
    if lengths is not None and lengths.dtype not in _INTEGERS:
        raise ValueError(f"lengths are {lengths.dtype}; whole numbers of frames are needed")


def verdict(
    logits: Float[Tensor, "batch time classes"], lengths: Int64[Tensor, "batch"] | None = None
) -> Float[Tensor, "batch classes"]:
    """Return the logits of each clip's last valid frame, which are the clip's verdict.

    Raises:
        ValueError: logits of another shape, lengths outside 1 to the number of frames.
    """
    check_shape("logits", logits, "batch", "time", "classes")
    if lengths is None or logits.shape[1] == 1:
        return logits[:, -1]
    if lengths.shape != logits.shape[:1] or bool(((lengths < 1) | (lengths > logits.shape[1])).any()):
        raise ValueError(
            f"lengths are {lengths.tolist()}; one in 1 to {logits.shape[1]} for each of {len(logits)} clips is needed"
        )
    return logits[torch.arange(len(logits), device=logits.device), lengths - 1]
