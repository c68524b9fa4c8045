import pytest
import torch
from torch import nn

from saccade.nn import attention_layers, num_attention_parameters, recorded, switched_off
from saccade.nn.spatial_transformer import IdentityLinear, SpatialTransformer


class Flat(nn.Module):
    def forward(self, frames):
        return frames.flatten(1)


@pytest.fixture
def model():
    """Two transformers, one in the other's output, that both look somewhere else than straight ahead."""
    torch.manual_seed(0)

    def layer():
        last = IdentityLinear(64)
        nn.init.normal_(last.weight, std=0.05)
        return SpatialTransformer(nn.Sequential(Flat(), last))

    return nn.Sequential(layer(), nn.Conv2d(1, 1, 1), nn.ModuleDict({"inner": layer()})["inner"])


@pytest.fixture
def frames():
    return torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def test_layers_are_found_in_order_with_their_names(model):
    layers = attention_layers(model)
    assert list(layers) == ["0", "2"]
    assert layers["2"] is model[2]
    assert attention_layers(nn.Conv2d(1, 1, 1)) == {}


def test_attention_parameters_are_those_of_the_positions(model):
    assert num_attention_parameters(model) == 2 * (64 * 6 + 6)
    assert sum(p.numel() for p in model.parameters()) == num_attention_parameters(model) + 2
    assert num_attention_parameters(nn.Conv2d(1, 1, 1)) == 0


def test_what_is_predicted_is_recorded_by_name(model, frames):
    plain = model(frames)
    with recorded(model) as seen:
        assert seen == {}
        assert torch.equal(model(frames), plain)
    assert torch.equal(seen["0"], model[0].positions(frames))
    assert torch.equal(seen["2"], model[2].positions(model[1](model[0](frames))))
    assert not seen["0"].requires_grad


def test_recording_does_not_stop_the_gradient(model, frames):
    with recorded(model):
        model(frames).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_after_recording_nothing_is_recorded_any_more(model, frames):
    with recorded(model) as seen:
        model(frames)
    kept = seen["0"].clone()
    model(frames.flip(0))
    assert torch.equal(seen["0"], kept)
    with pytest.raises(ZeroDivisionError), recorded(model) as seen:
        raise ZeroDivisionError
    model(frames)
    assert seen == {}


def test_switched_off_looks_straight_ahead(model, frames):
    plain = model(frames)
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with switched_off(model):
        assert torch.allclose(model(frames), model[1](frames), atol=1e-6)
    assert not torch.allclose(plain, model[1](frames), atol=1e-2)
    assert torch.equal(model(frames), plain)
    assert all(torch.equal(weights[name], tensor) for name, tensor in model.state_dict().items())


def test_switching_off_ends_with_an_error_too(model, frames):
    plain = model(frames)
    with pytest.raises(ZeroDivisionError), switched_off(model):
        raise ZeroDivisionError
    assert torch.equal(model(frames), plain)


def test_what_is_recorded_while_switched_off_is_neutral(model, frames):
    with switched_off(model), recorded(model) as seen:
        model(frames)
    assert torch.equal(seen["0"], torch.eye(2, 3).flatten().expand(5, 6))
