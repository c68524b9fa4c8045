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

    *Conventions:* clips are (batch, time, channels, height, width), float in [0, 1] or uint8 in [0, 255]. They may have
    any number of frames, and any frame size that the encoder takes.

    Args:
        input: the module from clips to the input of the encoder, see `FrameInput`.
        encoder: the module from frames (batch, channels, height, width) to features (batch, features).
        temporal: the module from features over time to states over time, see `Temporal`.
        head: the module from states to logits.
        labels: the classes.
        frame_format: the frames that the model expects.

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
            clips: the clips; shorter ones are padded at the end with arbitrary values.
            lengths: the number of valid frames in each clip; None if all are valid. Padding changes neither the logits
                of valid frames nor, in training, the batch statistics; the logits at padded frames are meaningless.

        Raises:
            ValueError: if clips are not five-dimensional, have no frames, or have an integer dtype other than uint8;
                if lengths lie outside 1 to the number of frames.
        """
        logits, _ = self._classify(clips, lengths, None)
        return logits

    def initial_state(self, batch: int, frame_size: Size) -> State:
        """Return the state of a batch of clips before their first frame."""
        return *self._input_state(batch, frame_size), *self._temporal_state(batch)

    def step(self, clips: Tensor, state: State | None) -> tuple[Float[Tensor, "batch time classes"], State]:
        """Process the next frames of clips, given the state after their earlier frames; return logits and new state.

        Before the first frame the state is None, or that of `initial_state`.

        Raises:
            ValueError: if `forward` would refuse the clips, or the state does not fit them.
        """
        return self._classify(clips, None, state)

    def encoder_input(
        self, clips: Tensor, state: State | None = None
    ) -> tuple[Float[Tensor, "batch time seen_channels height width"], State]:
        """Return the input of the encoder, and the state of `input` to pass in with the next frames."""
        check_clips(clips)
        state = self._input_state(len(clips), (clips.shape[-2], clips.shape[-1])) if state is None else state
        levels = self.frame_format.normalise(clips)
        # Frames may have any precision; the encoder needs that of its weights.
        levels = levels.to(next(self.encoder.parameters(), levels).dtype)
        seen: tuple[Tensor, State] = self.input(levels, state)
        return seen

    def features(self, clips: Tensor, state: State | None = None) -> tuple[Float[Tensor, "batch time features"], State]:
        """Return the feature of every frame, and the state of `input` to pass in with the next frames."""
        inputs, state = self.encoder_input(clips, state)
        return self._features(inputs, None), state

    def follow(
        self, features: Float[Tensor, "batch time features"], state: State | None = None
    ) -> tuple[Float[Tensor, "batch time classes"], State]:
        """Return the logits for features of the next frames, and the state to pass in with further ones."""
        state = self._temporal_state(len(features)) if state is None else state
        states, state = self.temporal(features, state)
        # In float32: bfloat16 has so few values that the two most likely classes often tie.
        with torch.autocast(states.device.type, enabled=False):
            logits: Tensor = self.head(states)
        return logits.float(), state

    def picture(
        self, inputs: Float[Tensor, "frames seen_channels height width"]
    ) -> Float[Tensor, "frames channels height width"]:
        """Return the input of the encoder as a picture in [0, 1]; in a picture of differences, grey means no change."""
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
        logits, of_temporal = self.follow(self._features(inputs, lengths), state[num_own:])
        return logits, (*of_input, *of_temporal)

    def _features(self, inputs: Tensor, lengths: Int64[Tensor, "batch"] | None) -> Float[Tensor, "batch time features"]:
        """Encode every valid frame; the features of padded frames are zero."""
        frames = inputs.flatten(0, 1)
        if lengths is None:
            features: Tensor = self.encoder(frames).unflatten(0, inputs.shape[:2])
            return features
        valid = valid_frames(lengths, inputs.shape[1])
        encoded = self.encoder(frames[valid.flatten()])
        features = encoded.new_zeros(*inputs.shape[:2], encoded.shape[-1])
        return features.masked_scatter(valid.unsqueeze(-1), encoded)


def check_clips(clips: Tensor, lengths: Int64[Tensor, "batch"] | None = None) -> None:
    """Raise ValueError if no model can read the clips, or if the lengths do not fit them."""
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
        ValueError: if logits have another shape, or lengths lie outside 1 to the number of frames.
    """
    check_shape("logits", logits, "batch", "time", "classes")
    if lengths is None or logits.shape[1] == 1:
        return logits[:, -1]
    if lengths.shape != logits.shape[:1] or bool(((lengths < 1) | (lengths > logits.shape[1])).any()):
        raise ValueError(
            f"lengths are {lengths.tolist()}; one in 1 to {logits.shape[1]} for each of {len(logits)} clips is needed"
        )
    return logits[torch.arange(len(logits), device=logits.device), lengths - 1]
