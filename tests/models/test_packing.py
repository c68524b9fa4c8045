"""Convolutions with arranged weights compute what they computed before."""

import copy
import pickle

import pytest
import torch
from torch import nn

from saccade import models
from saccade.labels import Labels
from saccade.models import packing
from saccade.models.efficientnet import SameConv2d
from saccade.models.folding import folded

LABELS = Labels(("a", "b"))


@pytest.mark.parametrize("attention", ["none", "stn", "dcn"])
@pytest.mark.parametrize("trunk", models.TRUNKS)
def test_a_packed_model_computes_the_same_at_any_size(trunk, attention):
    torch.manual_seed(0)
    model = folded(models.build(labels=LABELS, trunk=trunk, attention=attention, temporal="lstm"))
    packed = copy.deepcopy(model)
    packing.pack(packed)
    with torch.inference_mode():
        for batch, height, width in ((1, 64, 64), (2, 64, 64), (1, 47, 50), (1, 64, 64)):
            clips = torch.rand(batch, 2, model.frame_format.channels, height, width)
            torch.testing.assert_close(packed.features(clips)[0], model.features(clips)[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("activation", [nn.ReLU, nn.ReLU6, nn.Tanh])
@pytest.mark.parametrize("layer", [nn.Conv2d(3, 8, 3, padding=1), SameConv2d(4, 4, 5, groups=4)])
def test_activations_are_computed_once(layer, activation):
    layers = nn.Sequential(copy.deepcopy(layer), nn.Identity(), activation()).requires_grad_(False)
    frames = 20 * torch.randn(1, layer.in_channels, 12, 14)
    wanted = layers(frames)
    packing.pack(layers)
    with torch.no_grad():
        torch.testing.assert_close(layers(frames), wanted, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(layers(frames), wanted, rtol=1e-4, atol=1e-4)
    assert isinstance(layers[2], nn.Tanh if activation is nn.Tanh else nn.Identity)


def test_other_number_formats_and_gradients_take_the_plain_way():
    layers = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()).double()
    packing.pack(layers)
    frames = torch.rand(1, 3, 8, 8, dtype=torch.float64, requires_grad=True)
    with torch.no_grad():
        assert layers(frames).dtype == torch.float64
    layers(frames).sum().backward()
    assert frames.grad.abs().sum() > 0


def test_without_the_operators_nothing_changes(monkeypatch):
    layers = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    packing.pack(layers)
    assert isinstance(layers[1], nn.ReLU)
    assert "forward" not in vars(layers[0])


@pytest.fixture
def used():
    """Packed layers that have seen a frame."""
    layers = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), SameConv2d(8, 4, 3), nn.ReLU6()).requires_grad_(False)
    packing.pack(layers)
    with torch.inference_mode():
        layers(torch.rand(1, 3, 10, 12))
    return layers


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda layers: pickle.loads(pickle.dumps(layers))])
def test_a_copy_computes_the_same_and_has_weights_of_its_own(used, copied):
    frames, other = torch.rand(1, 3, 10, 12), copied(used)
    with torch.inference_mode():
        wanted = used(frames)
        torch.testing.assert_close(other(frames), wanted)
    other[0].weight.mul_(2)
    with torch.inference_mode():
        assert not torch.equal(other(frames), wanted)
        torch.testing.assert_close(used(frames), wanted)


def test_other_weights_count_from_the_next_frame_on(used):
    plain = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), SameConv2d(8, 4, 3), nn.ReLU6()).requires_grad_(False)
    used.load_state_dict(plain.state_dict())
    frames = torch.rand(1, 3, 10, 12)
    with torch.inference_mode():
        torch.testing.assert_close(used(frames), plain(frames))


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("part", [0, 2, 3])
def test_a_broken_weight_is_not_hidden(part, value):
    layers = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8), nn.ReLU6())
    layers.append(nn.Conv2d(8, 8, 3)).append(nn.ReLU()).eval().requires_grad_(False)
    with torch.no_grad():
        layers[part].bias[0] = value
    frames = torch.rand(1, 3, 10, 12)
    wanted = layers(frames)
    packing.pack(layers)
    with torch.inference_mode():
        torch.testing.assert_close(layers(frames), wanted, equal_nan=True)
