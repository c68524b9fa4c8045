"""The three models with the layer sizes of the paper, for 64x64 grey frames and clips of one length.

Each model consists of a CNN, which is trained on single digits, and a small recurrent part, which is trained on the
CNN's frozen features. They serve for comparison; for new work use the matched models.

Source: Shan and Atanasov 2017, arXiv 1707.02069.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import final

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from saccade.clips import FrameFormat, as_float
from saccade.labels import Labels
from saccade.models.video_classifier import check_clips
from saccade.nn.keras_lstm import KerasLSTM
from saccade.nn.offset_resample import OffsetResample2d
from saccade.nn.shapes import check_shape
from saccade.nn.spatial_transformer import IdentityLinear, SpatialTransformer
from saccade.ops.deform_conv.geometry import count

MNIST_MEAN = 0.1306604762738429
"""Mean of MNIST's training images; 33.3184 of 255 grey levels."""

FRAME_FORMAT = FrameFormat(channels=1, size=(64, 64), mean=(MNIST_MEAN,))
"""The frames that the published models expect; `GreyInput` applies this format."""

ORDERED_PAIRS = Labels(
    names=tuple(f"{a}{b}" for a in range(10) for b in range(10)),
    parts=tuple((str(a), str(b)) for a in range(10) for b in range(10)),
)
"""The 100 ordered pairs of ten things."""

Frames = Float[Tensor, "batch 1 64 64"] | UInt8[Tensor, "batch 1 64 64"]
Clips = Float[Tensor, "batch time 1 64 64"] | UInt8[Tensor, "batch time 1 64 64"]


@final
class GreyInput(nn.Module):
    """Check that frames are grey and 64x64, and subtract the mean of MNIST: `(x - 33.3184) / 255`.

    *Conventions:* uint8 frames are in [0, 255], float frames in [0, 1]. The output is 0 at the mean grey level, so
    the zero padding of later layers is that grey and not black.

    The mean is a constant of the published protocol and not a buffer: it is not learned, and it does not depend on
    the training data.

    Raises:
        ValueError: in `forward`, if frames have another shape or an integer dtype other than uint8.

    >>> round(GreyInput()(torch.full((1, 1, 64, 64), 255, dtype=torch.uint8)).max().item(), 6)
    0.86934
    """

    pointwise = True

    def forward(self, frames: Frames) -> Float[Tensor, "batch 1 64 64"]:
        """Return centred float frames."""
        if frames.ndim != 4 or frames.shape[1:] != (1, 64, 64):
            raise ValueError(
                f"frames have the shape {tuple(frames.shape)}; a published model needs (batch, 1, 64, 64): "
                "resize them, or use a matched model, which takes any size"
            )
        if frames.dtype != torch.uint8 and not frames.is_floating_point():
            raise ValueError(f"frames are {frames.dtype}; uint8 in [0, 255] or float in [0, 1] is needed")
        return as_float(frames) - MNIST_MEAN


@final
class PublishedEncoder(nn.Sequential):
    """The layers of a CNN in sequence, from frames to features."""

    def path(self) -> list[nn.Module]:
        """Return the layers between the pixels and the features, in order."""
        return list(self)

    def forward(self, frames: Frames) -> Float[Tensor, "batch 500"]:
        """Return the features of frames, which may be uint8 or any floating-point dtype."""
        dtype = next(self.parameters()).dtype
        given = frames.to(dtype) if frames.is_floating_point() else frames
        features: Tensor = super().forward(given)  # type: ignore[no-untyped-call]
        return features


@final
class PublishedCNN(nn.Module):
    """Classify the digit in a frame: 500 features, then a softmax layer that only the first training stage uses.

    Args:
        features: the module from frames to 500 activations after ReLU; it becomes part of the video model.
        num_classes: the number of classes of the softmax layer.

    >>> lenet_cnn()(torch.zeros(2, 1, 64, 64)).shape
    torch.Size([2, 10])
    >>> lenet_cnn().features(torch.zeros(2, 1, 64, 64)).shape
    torch.Size([2, 500])
    """

    def __init__(self, features: nn.Module, num_classes: int = 10) -> None:
        super().__init__()
        self.features = features
        self.logits = _dense(500, num_classes)

    def forward(self, frames: Frames) -> Float[Tensor, "batch classes"]:
        """Return a logit per class."""
        logits: Tensor = self.logits(self.features(frames))
        return logits


@final
class RecurrentClassifier(nn.Module):
    """Classify a sequence of features from all of its states, which are flattened into one dense layer.

    Args:
        temporal: the module from features to states.
        num_frames: the number of time steps of every sequence.
        num_classes: the number of classes.

    Raises:
        ValueError: if the number of frames is below 1; in `forward`, if the sequence has another shape.

    >>> recurrent = RecurrentClassifier(KerasLSTM(500, 8), num_frames=50, num_classes=100)
    >>> recurrent(torch.zeros(2, 50, 500)).shape
    torch.Size([2, 100])
    >>> sum(p.numel() for p in recurrent.parameters())
    56388
    """

    def __init__(self, temporal: KerasLSTM, *, num_frames: int, num_classes: int) -> None:
        super().__init__()
        self.num_frames = count(num_frames, "num_frames")
        self.temporal = temporal
        self.head = _dense(num_frames * temporal.hidden, num_classes)

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw new weights; the same generator state draws the same weights."""
        self.temporal.reset_parameters(generator)
        nn.init.xavier_uniform_(self.head.weight, generator=generator)
        nn.init.zeros_(self.head.bias)

    def forward(self, features: Float[Tensor, "batch time features"]) -> Float[Tensor, "batch classes"]:
        """Return a logit per class."""
        check_shape("features", features, "batch", "time", "features")
        if features.shape[1] != self.num_frames:
            raise ValueError(
                f"the clip has {features.shape[1]} frames; this model reads exactly {self.num_frames}: "
                "give it clips of that length, or use a matched model, which reads any length"
            )
        logits: Tensor = self.head(self.temporal(features).flatten(1))
        return logits


@final
class PublishedClassifier(nn.Module):
    """Classify a clip of fixed length, with one prediction at its end.

    The model is not causal, since its prediction needs every frame: `causal` is False, and the time dimension of the
    output has length 1. The matched models predict at every frame.

    Args:
        encoder: the module from frames to features, such as `PublishedCNN.features`.
        recurrent: the module from the features of a clip to logits.
        labels: the classes.

    Raises:
        ValueError: in `forward`, if clips are padded or have another shape or length.
    """

    causal = False
    frame_format = FRAME_FORMAT

    def __init__(self, *, encoder: nn.Module, recurrent: RecurrentClassifier, labels: Labels) -> None:
        super().__init__()
        self.encoder = encoder
        self.recurrent = recurrent
        self.labels = labels

    def picture(self, inputs: Float[Tensor, "frames 1 height width"]) -> Float[Tensor, "frames 1 height width"]:
        """Return the input of the encoder as a picture in [0, 1]."""
        return self.frame_format.restore(inputs).clamp(0, 1)

    def forward(self, frames: Clips, lengths: Int[Tensor, " batch"] | None = None) -> Float[Tensor, "batch 1 classes"]:
        """Return the logits at the end of each clip; if `lengths` is given, it must count all frames of each clip."""
        check_clips(frames, lengths)
        num_frames = frames.shape[1]
        if lengths is not None and bool((lengths != num_frames).any()):
            raise ValueError(
                f"clips have lengths {lengths.tolist()}; a published model needs all {num_frames} frames: "
                "give it whole clips, or use a matched model, which reads any length"
            )
        features = self.encoder(frames.flatten(0, 1)).unflatten(0, frames.shape[:2])
        logits: Tensor = self.recurrent(features)
        return logits.float().unsqueeze(1)


def lenet_cnn() -> PublishedCNN:
    """Build the CNN without attention: 6,431,080 parameters.

    >>> sum(p.numel() for p in lenet_cnn().parameters())
    6431080
    """
    return PublishedCNN(
        PublishedEncoder(
            GreyInput(),
            _conv(1, 20, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2),
            _conv(20, 50, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            _dense(50 * 16 * 16, 500),
            nn.ReLU(),
        )
    )


def stn_cnn() -> PublishedCNN:
    """Build the CNN that first maps the frame to 32x32 by one affine map: 25,741,976 parameters.

    The map starts as the identity. The sizes are those of a Keras example; as there, only the dense layer of the
    localisation network has a ReLU.
    """
    localisation = nn.Sequential(
        nn.MaxPool2d(2),
        _conv(1, 20),
        nn.MaxPool2d(2),
        _conv(20, 20),
        nn.Flatten(),
        _dense(20 * 10 * 10, 50),
        nn.ReLU(),
        IdentityLinear(50),
    )
    return PublishedCNN(
        PublishedEncoder(
            GreyInput(),
            SpatialTransformer(localisation, out_size=(32, 32), mode="affine"),
            _conv(1, 20, padding=2),
            nn.ReLU(),
            _conv(20, 50, padding=2),
            nn.ReLU(),
            nn.Flatten(),
            _dense(50 * 32 * 32, 500),
            nn.ReLU(),
        )
    )


def dcn_cnn() -> PublishedCNN:
    """Build the CNN that resamples both feature maps with learned offsets: 102,483,280 parameters."""
    return PublishedCNN(
        PublishedEncoder(
            GreyInput(),
            _conv(1, 20, padding=2),
            nn.ReLU(),
            OffsetResample2d(20),
            _conv(20, 50, padding=2),
            nn.ReLU(),
            OffsetResample2d(50),
            nn.Flatten(),
            _dense(50 * 64 * 64, 500),
            nn.ReLU(),
        )
    )


CNNS: dict[str, Callable[[], PublishedCNN]] = {
    "lenet-lstm-published": lenet_cnn,
    "stn-lstm-published": stn_cnn,
    "dcn-lstm-published": dcn_cnn,
}
"""Constructors of the CNNs that the first stage trains, by the name of the video model that each becomes part of."""


def lenet_lstm_published(*, labels: Labels = ORDERED_PAIRS, num_frames: int = 50) -> PublishedClassifier:
    """Build the published LeNet-LSTM, the baseline without attention.

    Args:
        labels: the classes.
        num_frames: the number of frames of every clip.

    >>> lenet_lstm_published(num_frames=4)(torch.zeros(2, 4, 1, 64, 64)).shape
    torch.Size([2, 1, 100])
    """
    return _video_model(lenet_cnn(), labels, num_frames)


def stn_lstm_published(*, labels: Labels = ORDERED_PAIRS, num_frames: int = 50) -> PublishedClassifier:
    """Build the published STN-LSTM: one global affine map per frame.

    Args:
        labels: the classes.
        num_frames: the number of frames of every clip.
    """
    return _video_model(stn_cnn(), labels, num_frames)


def dcn_lstm_published(*, labels: Labels = ORDERED_PAIRS, num_frames: int = 50) -> PublishedClassifier:
    """Build the published DCN-LSTM: offsets for every position and channel of two feature maps.

    Args:
        labels: the classes.
        num_frames: the number of frames of every clip.
    """
    return _video_model(dcn_cnn(), labels, num_frames)


def recurrent_part(*, num_classes: int = 100, num_frames: int = 50) -> RecurrentClassifier:
    """Build the part after the CNN, the same in all three models: an LSTM with 8 units, then one dense layer.

    Args:
        num_classes: the number of classes.
        num_frames: the number of frames of every clip.
    """
    return RecurrentClassifier(KerasLSTM(500, 8), num_frames=num_frames, num_classes=num_classes)


def _video_model(cnn: PublishedCNN, labels: Labels, num_frames: int) -> PublishedClassifier:
    recurrent = recurrent_part(num_classes=len(labels.names), num_frames=num_frames)
    return PublishedClassifier(encoder=cnn.features, recurrent=recurrent, labels=labels)


def _conv(in_channels: int, out_channels: int, padding: int = 0) -> nn.Conv2d:
    conv = nn.Conv2d(in_channels, out_channels, kernel_size=5, padding=padding)
    nn.init.xavier_uniform_(conv.weight)
    nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
    return conv


def _dense(in_features: int, out_features: int) -> nn.Linear:
    # Skip torch's own initialisation, which would draw up to 102 million weights in vain.
    dense: nn.Linear = nn.utils.skip_init(nn.Linear, in_features, out_features)
    nn.init.xavier_uniform_(dense.weight)
    nn.init.zeros_(dense.bias)
    return dense
