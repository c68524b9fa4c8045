"""Models without batch normalisation."""

import pytest
import torch
from torch import nn

from saccade import models
from saccade.clips import FrameFormat
from saccade.labels import Labels
from saccade.models.folding import folded

LABELS = Labels(("a", "b"))


@pytest.mark.parametrize(("trunk", "attention"), models.COMBINATIONS)
def test_a_folded_model_computes_the_same(trunk, attention):
    torch.manual_seed(0)
    model = models.build(labels=LABELS, trunk=trunk, attention=attention, temporal="lstm").eval()
    learn_statistics(model)
    clips = torch.rand(1, 2, model.frame_format.channels, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(folded(model).features(clips)[0], model.features(clips)[0], rtol=1e-4, atol=1e-5)


def test_no_normalisation_is_left_unless_a_negative_factor_comes_after_pooling():
    model = models.build(labels=LABELS, trunk="wide", attention="dcn").eval()
    learn_statistics(model)
    assert count(folded(model)) == 0
    pooled = [block[2] for block in model.encoder.trunk if isinstance(block[1], nn.MaxPool2d)]
    with torch.no_grad():
        pooled[0].weight[3] = -0.5
    assert count(folded(model)) == 1
    clips = torch.rand(1, 2, 1, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(folded(model).features(clips)[0], model.features(clips)[0], rtol=1e-4, atol=1e-5)


def test_the_model_itself_is_unchanged():
    model = models.create("dcn-lstm", labels=LABELS)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    folded(model)
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def learn_statistics(model):
    """Give normalisation layers statistics and factors that are not those of a new layer."""
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            for value, low, high in (
                (layer.running_mean, -0.2, 0.2),
                (layer.running_var, 0.5, 2),
                (layer.weight.data, 0.5, 1.5),
                (layer.bias.data, -0.2, 0.2),
            ):
                value.uniform_(low, high)


def count(model):
    """Count the normalisation layers."""
    return sum(isinstance(layer, nn.BatchNorm2d) for layer in model.modules())


def test_formats_are_kept():
    model = models.build(labels=LABELS, frame_format=FrameFormat(3, size=(64, 64), fps=10))
    assert folded(model).frame_format == model.frame_format
