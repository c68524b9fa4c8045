"""The published three: sizes, start, shapes, and what they refuse."""

import math

import pytest
import torch
from torch import nn

from saccade.labels import Labels
from saccade.models.published import (
    CNNS,
    MNIST_MEAN,
    PublishedCNN,
    dcn_lstm_published,
    lenet_lstm_published,
    recurrent_part,
    stn_lstm_published,
)
from saccade.nn.attention import attention_layers, num_attention_parameters, switched_off

NAMES = list(CNNS)
VIDEO_MODELS = (lenet_lstm_published, stn_lstm_published, dcn_lstm_published)


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.fixture(scope="module")
def cnns() -> dict[str, PublishedCNN]:
    torch.manual_seed(0)
    return {name: create() for name, create in CNNS.items()}


@pytest.mark.parametrize(
    ("name", "whole", "features", "attention"),
    [
        ("lenet-lstm-published", 6_431_080, 6_426_070, []),
        ("stn-lstm-published", 25_741_976, 25_736_966, [110_896]),
        ("dcn-lstm-published", 102_483_280, 102_478_270, [7_200, 45_000]),
    ],
)
def test_parameter_counts(
    cnns: dict[str, PublishedCNN], name: str, whole: int, features: int, attention: list[int]
) -> None:
    cnn = cnns[name]
    assert count(cnn) == whole
    assert count(cnn.features) == features
    assert [count(layer.positions) for layer in attention_layers(cnn).values()] == attention
    assert num_attention_parameters(cnn) == sum(attention)


def test_parameter_counts_of_the_recurrent_part() -> None:
    recurrent = recurrent_part()
    assert (count(recurrent.temporal), count(recurrent.head)) == (16_288, 40_100)
    assert count(recurrent) == 56_388


@pytest.mark.parametrize("name", NAMES)
def test_features_are_rectified_and_logits_ten(cnns: dict[str, PublishedCNN], name: str) -> None:
    frames = torch.rand(2, 1, 64, 64)
    features = cnns[name].features(frames)
    assert features.shape == (2, 500)
    assert features.min() == 0
    assert features.max() > 0
    assert cnns[name](frames).shape == (2, 10)


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_of_two_is_two_batches_of_one(cnns: dict[str, PublishedCNN], name: str) -> None:
    frames = torch.rand(2, 1, 64, 64)
    together = cnns[name](frames)
    torch.testing.assert_close(together, torch.cat([cnns[name](frame[None]) for frame in frames]), atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", NAMES)
def test_bytes_are_floats(cnns: dict[str, PublishedCNN], name: str) -> None:
    frames = torch.randint(256, (1, 1, 64, 64), dtype=torch.uint8)
    assert torch.equal(cnns[name](frames), cnns[name](frames.float() / 255))


@pytest.mark.parametrize("name", NAMES)
def test_input_is_centred_on_the_mean_of_mnist(cnns: dict[str, PublishedCNN], name: str) -> None:
    grey = torch.full((1, 1, 64, 64), MNIST_MEAN)
    assert round(255 * MNIST_MEAN, 4) == 33.3184
    # At the mean every activation of a net with zero biases is zero, and so are the logits.
    assert cnns[name](grey).abs().max() == 0


@pytest.mark.parametrize("name", NAMES)
def test_starts_as_in_keras(cnns: dict[str, PublishedCNN], name: str) -> None:
    positions = {id(p) for layer in attention_layers(cnns[name]).values() for p in layer.positions.parameters()}
    layers = [m for m in cnns[name].modules() if isinstance(m, nn.Conv2d | nn.Linear) and id(m.weight) not in positions]
    assert len(layers) == 4  # two convolutions, fc 500, softmax
    for layer in layers:
        assert layer.bias is not None
        assert layer.bias.abs().max() == 0
        fan_out, fan_in = layer.weight.shape[0], layer.weight[0].numel()
        limit = math.sqrt(6 / (fan_in + fan_out * layer.weight[0, 0].numel()))
        assert 0.98 * limit < layer.weight.abs().max() <= limit


@pytest.mark.parametrize("name", ["stn-lstm-published"])
def test_the_transformer_starts_as_the_identity(cnns: dict[str, PublishedCNN], name: str) -> None:
    frames = torch.rand(2, 1, 64, 64)
    with switched_off(cnns[name]):
        without = cnns[name](frames)
    assert torch.equal(cnns[name](frames), without)


@pytest.mark.parametrize("create", VIDEO_MODELS)
def test_every_parameter_gets_a_finite_gradient(create: object) -> None:
    torch.manual_seed(0)
    model = create(num_frames=2)  # type: ignore[operator]
    for layer in attention_layers(model).values():
        for parameter in layer.positions.parameters():
            parameter.data.add_(1e-3 * torch.randn_like(parameter))  # leave the start, where few gradients flow
    logits = model(torch.rand(1, 2, 1, 64, 64))
    assert logits.shape == (1, 1, 100)
    logits.square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


def test_video_model_reads_features_in_order() -> None:
    torch.manual_seed(0)
    model = lenet_lstm_published(labels=Labels.numbered(7), num_frames=3)
    clips = torch.rand(2, 3, 1, 64, 64)
    features = torch.stack([model.encoder(clip) for clip in clips])
    torch.testing.assert_close(model(clips), model.recurrent(features).unsqueeze(1))
    assert model(clips).shape == (2, 1, 7)
    assert not torch.allclose(model(clips), model(clips.flip(1)))
    assert not model.causal


def test_refuses_other_lengths_and_sizes() -> None:
    model = lenet_lstm_published(num_frames=3)
    clips = torch.rand(2, 4, 1, 64, 64)
    with pytest.raises(ValueError, match="the clip has 4 frames; this model reads exactly 3"):
        model(clips)
    with pytest.raises(ValueError, match=r"clips have lengths \[3, 2\]"):
        model(clips[:, :3], lengths=torch.tensor([3, 2]))
    assert torch.equal(model(clips[:, :3], lengths=torch.tensor([3, 3])), model(clips[:, :3]))
    with pytest.raises(ValueError, match=r"\(8, 1, 32, 32\); a published model needs \(batch, 1, 64, 64\)"):
        model(torch.rand(2, 4, 1, 32, 32))
