"""A video classifier: an encoder for every frame, a recurrent network over the sequence, a head for every state."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor, nn

from saccade.nn.recurrent import Recurrent, State


class VideoClassifier(nn.Module):
    """Classify a clip at every frame from that frame and those before it.

    *Conventions:* clips are (batch, time, channels, height, width), float in [0, 1] or uint8 in [0, 255]. Any frame
    size that the encoder takes and any number of frames.

    Args:
        encoder: frames (batch, channels, height, width) -> features (batch, features).
        temporal: features over time -> states over time.
        head: states -> logits.

    >>> from saccade import models
    >>> model = models.create("lenet-lstm", num_classes=55).eval()
    >>> model(torch.zeros(2, 3, 1, 64, 64)).shape
    torch.Size([2, 3, 55])
    """

    causal = True

    def __init__(self, *, encoder: nn.Module, temporal: Recurrent, head: nn.Module) -> None:
        super().__init__()
        self.encoder, self.temporal, self.head = encoder, temporal, head

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
            ValueError: clips that are not five-dimensional, lengths outside 1 to the number of frames.
        """
        logits, _ = self._classify(self._features(clips, lengths), None)
        return logits

    def step(self, clips: Tensor, state: State | None) -> tuple[Float[Tensor, "batch time classes"], State]:
        """Go on with the next frames of clips whose earlier frames left `state`; return logits and the new state."""
        return self._classify(self._features(clips, None), state)

    def _classify(
        self, features: Float[Tensor, "batch time features"], state: State | None
    ) -> tuple[Float[Tensor, "batch time classes"], State]:
        states, state = self.temporal(features, state)
        # In float32: bfloat16 has so few numbers that the two likeliest classes often tie.
        with torch.autocast(states.device.type, enabled=False):
            logits: Tensor = self.head(states)
        return logits.float(), state

    def _features(self, clips: Tensor, lengths: Int64[Tensor, "batch"] | None) -> Float[Tensor, "batch time features"]:
        """Encode every frame that counts; the features of padded frames are zero."""
        if clips.dim() != 5:
            raise ValueError(f"clips have shape {tuple(clips.shape)}; (batch, time, channels, height, width) is needed")
        if clips.shape[1] == 0:
            raise ValueError("clips have no frames; at least 1 is needed")
        if lengths is not None and lengths.shape != clips.shape[:1]:
            raise ValueError(f"lengths have shape {tuple(lengths.shape)}; one for each of {len(clips)} clips is needed")
        frames = clips.flatten(0, 1)
        if lengths is None:
            features: Tensor = self.encoder(as_float(frames)).unflatten(0, clips.shape[:2])
            return features
        valid = valid_frames(lengths, clips.shape[1])
        encoded = self.encoder(as_float(frames[valid.flatten()]))
        features = encoded.new_zeros(*clips.shape[:2], encoded.shape[-1])
        return features.masked_scatter(valid.unsqueeze(-1), encoded)


def as_float(frames: Tensor) -> Tensor:
    """Bring uint8 pixels to [0, 1]; leave float ones as they are."""
    return frames.float() / 255 if frames.dtype == torch.uint8 else frames


def valid_frames(lengths: Int64[Tensor, "batch"], num_frames: int) -> Bool[Tensor, "batch time"]:
    """Mark the frames that count.

    Raises:
        ValueError: a length outside 1 to `num_frames`.
    """
    if bool(((lengths < 1) | (lengths > num_frames)).any()):
        raise ValueError(f"lengths must lie in 1 to {num_frames}; got {lengths.tolist()}")
    return torch.arange(num_frames, device=lengths.device) < lengths.unsqueeze(1)


def verdict(
    logits: Float[Tensor, "batch time classes"], lengths: Int64[Tensor, "batch"] | None = None
) -> Float[Tensor, "batch classes"]:
    """Return the logits of each clip's last valid frame, which are the clip's verdict."""
    if lengths is None:
        return logits[:, -1]
    return logits[torch.arange(len(logits), device=logits.device), lengths - 1]
