import pytest
import torch

from saccade.nn import TEMPORAL


def features_of(batch=3, time=7, size=6):
    return torch.randn(batch, time, size, generator=torch.Generator().manual_seed(0))


@pytest.fixture(params=TEMPORAL)
def layer(request):
    torch.manual_seed(0)
    return TEMPORAL[request.param](6, 5)


def read(layer, features):
    """Read features from the beginning."""
    return layer(features, layer.initial_state(len(features)))


def test_there_is_a_state_for_every_frame(layer):
    states, _ = read(layer, features_of())
    assert states.shape == (3, 7, 5)
    assert (layer.in_features, layer.num_units) == (6, 5)


def test_the_future_does_not_reach_the_past(layer):
    features = features_of()
    states, _ = read(layer, features)
    features[:, 4:] = torch.nan
    changed, _ = read(layer, features)
    assert torch.equal(changed[:, :4], states[:, :4])
    assert changed[:, 4:].isnan().all()


def test_the_past_reaches_the_future(layer):
    features = features_of()
    states, _ = read(layer, features)
    features[:, 0] += 1
    changed, _ = read(layer, features)
    assert (changed != states).any(-1).all()


@pytest.mark.parametrize("cuts", [[1] * 7, [3, 4], [6, 1]])
def test_going_on_from_a_state_is_reading_the_whole(layer, cuts):
    features = features_of()
    whole, end = read(layer, features)
    parts, state = [], layer.initial_state(len(features))
    for part in features.split(cuts, dim=1):
        states, state = layer(part, state)
        parts.append(states)
    assert torch.allclose(torch.cat(parts, 1), whole, atol=1e-6)
    for one, other in zip(state, end, strict=True):
        assert torch.allclose(one, other, atol=1e-6)


def test_a_state_keeps_its_shapes(layer):
    first = layer.initial_state(3)
    _, last = read(layer, features_of())
    assert isinstance(last, tuple)
    assert [part.shape for part in last] == [part.shape for part in first]
    assert not any(part.any() for part in first)


def test_clips_of_a_batch_do_not_meet(layer):
    features = features_of()
    together, _ = read(layer, features)
    alone = torch.cat([read(layer, clip)[0] for clip in features.split(1)])
    assert torch.allclose(together, alone, atol=1e-6)


def test_states_are_float32_under_autocast(layer):
    features = features_of()
    expected, _ = read(layer, features)
    with torch.autocast("cpu", torch.bfloat16):
        states, state = read(layer, features)
        again, _ = layer(features[:, :1].bfloat16(), state)
    assert torch.equal(states, expected)
    assert again.dtype == torch.float32


def test_every_weight_has_a_finite_gradient(layer):
    read(layer, features_of())[0].square().sum().backward()
    for name, parameter in layer.named_parameters():
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name
