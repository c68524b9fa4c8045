import torch
from torch import nn

from saccade.models.encoder import FrameEncoder


class Pixels(nn.Module):
    """A trunk that changes nothing."""

    out_channels = 2

    def forward(self, frames):
        return frames

    def path(self):
        return []


def test_a_feature_comes_of_the_maps_largest_values_and_then_of_its_means():
    encoder = FrameEncoder(attention=None, trunk=Pixels(), channels=2, num_features=4)
    encoder.dense[0].weight.data, encoder.dense[0].bias.data = torch.eye(4), torch.zeros(4)
    frames = torch.rand(3, 2, 28, 31)
    expected = torch.cat((frames.amax((2, 3)), frames.mean((2, 3))), 1)
    assert torch.allclose(encoder(frames), expected, atol=1e-6)


def test_attention_comes_first_on_the_way():
    attention, trunk = nn.Identity(), nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU())
    trunk.out_channels, trunk.path = 2, lambda: list(trunk)
    encoder = FrameEncoder(attention=attention, trunk=trunk, channels=1, num_features=4)
    assert encoder.path() == [attention, *trunk]
    assert FrameEncoder(attention=None, trunk=trunk, channels=1, num_features=4).path() == list(trunk)
