"""Layers on the pixels' way, told by the encoder."""

import pytest
import torch
from torch import nn

from saccade.attention import look, sampling_points
from saccade.clips import FrameFormat
from saccade.labels import Labels
from saccade.models.efficientnet import EfficientNetLite0
from saccade.models.encoder import FrameEncoder
from saccade.models.inputs import PlainFrames
from saccade.models.video_classifier import VideoClassifier
from saccade.nn import LSTM, DeformConv2d

from .stand_ins import constant_offsets, random_frames


class Block(nn.Module):
    """A convolution beside a shortcut that strides as well, as in a ResNet, or without it."""

    def __init__(self, *, shortcut):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, stride=2, padding=1)
        self.downsample = nn.Conv2d(1, 4, 1, stride=2) if shortcut else None
        self.relu = nn.ReLU()

    def forward(self, frames):
        found = self.conv(frames)
        return self.relu(found if self.downsample is None else found + self.downsample(frames))

    def path(self):
        return [self.conv, self.relu]


class Trunk(nn.Module):
    """A block, and two layers with offsets behind it."""

    out_channels = 4

    def __init__(self, *, shortcut):
        super().__init__()
        self.block = Block(shortcut=shortcut)
        self.deep = nn.Sequential(
            constant_offsets(DeformConv2d(4, 4, 3, padding=1), (0.5, -1.0)),
            nn.MaxPool2d(2),
            constant_offsets(DeformConv2d(4, 4, 3, padding=1), (-1.25, 2.0)),
        )

    def forward(self, frames):
        return self.deep(self.block(frames))

    def path(self):
        return [*self.block.path(), *self.deep]


def classifier(trunk):
    torch.manual_seed(0)
    return VideoClassifier(
        input=PlainFrames(1),
        encoder=FrameEncoder(attention=None, trunk=trunk, channels=1, num_features=6),
        temporal=LSTM(6, 5),
        head=nn.Linear(5, 2),
        labels=Labels(("a", "b")),
        frame_format=FrameFormat(),
    ).eval()


def test_a_branch_beside_the_way_moves_no_sampling_point():
    frame = random_frames(1, (64, 48))[0]
    branched, plain = (sampling_points(classifier(Trunk(shortcut=given)), frame, (7, 4)) for given in (True, False))
    assert torch.equal(branched, plain)
    # A step is 4 px in the deep map, of 2 px in the shallow one, which lies half a step of pooling further.
    middle = torch.tensor([4 * (7 - 1.25) + 1 + 2 * 0.5, 4 * (4 + 2.0) + 1 - 2 * 1.0])
    assert torch.allclose(branched.mean(0), middle, atol=1e-4)
    assert torch.allclose(branched.amax(0) - branched.amin(0), torch.tensor([12.0, 12.0]), atol=1e-4)


def test_a_branch_beside_the_way_moves_nothing_that_a_look_shows():
    frames = random_frames(2, (64, 48))
    # Of all units: which are the strongest is another matter.
    branched, plain = (look(classifier(Trunk(shortcut=given)), frames, num_units=192)[0] for given in (True, False))
    assert torch.equal(branched.arrows_px, plain.arrows_px)
    assert torch.equal(branched.unit_px.sort(1).values, plain.unit_px.sort(1).values)
    assert branched.unit_px.shape == (2, 192, 2)


def test_parts_of_a_sequence_tell_their_own_way():
    frame, layer = random_frames(1)[0], constant_offsets(DeformConv2d(4, 1, 3, padding=1), (1.0, 0.0))
    sequence = nn.Sequential(Block(shortcut=True), layer)
    assert torch.allclose(sampling_points(sequence, frame, (5, 6)).mean(0), torch.tensor([12.0, 12.0]))


@pytest.mark.parametrize(
    ("size", "start_px"), [((192, 160), (15.0, 15.0)), ((177, 191), (0.0, 14.0)), ((150, 163), (5.0, 2.0))]
)
def test_same_padding_moves_points_by_the_size_of_the_frame(size, start_px):
    # Above even sizes a map starts at 1, above odd ones at 0: 150, 75, 38, 19 make 1 + 2 * 0 + 4 * 1 + 8 * 0.
    torch.manual_seed(0)
    layer = constant_offsets(DeformConv2d(112, 4, 3, padding=1), (0.5, -1.0))
    sequence = nn.Sequential(EfficientNetLite0(stride=16), layer).eval()
    points = sampling_points(sequence, random_frames(1, size, channels=3)[0].float(), (4, 3))
    middle = torch.tensor([start_px[0] + 16 * 4.5, start_px[1] + 16 * 2.0])
    assert torch.allclose(points.mean(0), middle, atol=1e-3)


def test_attention_in_a_model_that_does_not_tell_its_way_is_refused():
    class Silent(nn.Module):
        def __init__(self):
            super().__init__()
            self.trunk = Trunk(shortcut=False)

        def forward(self, frames):
            return self.trunk(frames)

    with pytest.raises(ValueError, match=r"2 attention layers were not reached, .* after Silent .* method path\(\)"):
        sampling_points(Silent(), random_frames(1)[0], (1, 1))
