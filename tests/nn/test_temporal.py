import math

import pytest
import torch

from saccade.nn import TEMPORAL
from saccade.nn.temporal import Mean, Transformer


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
    features[:, 4:] = 1e4 * features[:, 4:].flip(1)
    changed, _ = read(layer, features)
    assert torch.equal(changed[:, :4], states[:, :4])
    assert (changed[:, 4:] != states[:, 4:]).any(-1).all()


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


def test_an_empty_batch_gives_an_empty_batch_and_zero_gradients(layer):
    empty = torch.zeros(0, 3, 6, requires_grad=True)
    states, _ = read(layer, empty)
    assert states.shape == (0, 3, 5)
    for gradient in torch.autograd.grad(states.sum(), [empty, *layer.parameters()]):
        assert gradient.isfinite().all()
        assert not gradient.any()


def test_a_state_of_other_features_is_told(layer):
    for state in (layer.initial_state(3), (), (*layer.initial_state(2), torch.zeros(1, 2, 4))):
        with pytest.raises(ValueError, match=r"state has shapes \[.*\]; features of shape \(2, 3, 6\) need \["):
            layer(torch.zeros(2, 3, 6), state)


def in_chunks(layer, features, cuts):
    parts, state = [], layer.initial_state(len(features))
    for part in features.split(cuts, dim=1):
        states, state = layer(part, state)
        parts.append(states)
    return torch.cat(parts, 1)


@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_mean_and_deviation_stay_exact_over_ten_thousand_frames(offset):
    layer = Mean(2, 4)
    layer.linear.weight.data, layer.linear.bias.data = torch.eye(4), torch.zeros(4)
    features = offset + features_of(2, 10_000, 2)
    with torch.no_grad():
        whole, streamed = read(layer, features)[0], in_chunks(layer, features, 16)
    assert torch.allclose(whole, streamed, rtol=1e-6, atol=1e-6)
    for num in (2, 100, 10_000):
        seen = features[:, :num].double()
        expected = torch.cat((seen.mean(1), seen.std(1, correction=0)), -1).float()
        assert torch.allclose(whole[:, num - 1], expected, rtol=1e-5)


def test_the_mean_of_one_frame_is_the_frame_and_has_a_gradient():
    layer = Mean(3, 6)
    layer.linear.weight.data, layer.linear.bias.data = torch.eye(6), torch.zeros(6)
    frame = features_of(2, 1, 3).requires_grad_()
    found, _ = read(layer, frame)
    assert torch.allclose(found[..., :3], frame)
    assert torch.allclose(found[..., 3:], torch.tensor(1e-4))
    assert torch.autograd.grad(found.sum(), frame)[0].isfinite().all()


def naive(layer, features):
    """Compute a transformer from its definition: every pair of frames, absolute times as complex turns, one mask."""
    num, size = features.shape[1], layer.width // layer.layers[0].num_heads
    time = torch.arange(num)
    apart = time[:, None] - time
    unseen = (apart < 0) | (apart >= layer.window)
    turn = torch.polar(torch.ones(num, size // 2), time[:, None] / 10_000 ** (2 * torch.arange(size // 2) / size))

    def turned(heads):
        one, other = heads.chunk(2, -1)
        return torch.view_as_real(torch.complex(one, other) * turn).transpose(-1, -2).flatten(-2)

    hidden = layer.to_width(features)
    for block in layer.layers:
        parts = block.to_heads(block.norm(hidden)).chunk(3, -1)
        query, key, value = (part.unflatten(-1, (-1, size)).transpose(1, 2) for part in parts)
        score = turned(query) @ turned(key).mT / math.sqrt(size)
        read = score.masked_fill(unseen, -torch.inf).softmax(-1) @ value
        hidden = hidden + block.from_heads(read.transpose(1, 2).flatten(2))
        hidden = hidden + block.feed_forward(hidden)
    return layer.to_units(hidden)


@pytest.fixture
def short_sighted():
    """Build a transformer of a short window that looks sharply, so that time matters."""
    torch.manual_seed(0)
    layer = Transformer(6, 5, window=8, width=16, num_heads=2)
    for block in layer.layers:
        torch.nn.init.normal_(block.to_heads.weight, std=0.5)
    return layer


@pytest.mark.parametrize("num", [1, 7, 8, 9, 40])
def test_a_transformer_is_what_its_definition_says(short_sighted, num):
    features = features_of(2, num)
    assert torch.allclose(read(short_sighted, features)[0], naive(short_sighted, features), atol=1e-5)


@pytest.mark.parametrize("cuts", [1, 3, 8, 11, [25, 1, 14]])
def test_a_transformer_streams_clips_longer_than_its_window(short_sighted, cuts):
    features = features_of(2, 40)
    whole, _ = read(short_sighted, features)
    assert torch.allclose(in_chunks(short_sighted, features, cuts), whole, atol=1e-5)


def test_a_transformer_reaches_as_far_as_its_windows(short_sighted):
    features = features_of(1, 40)
    whole, _ = read(short_sighted, features)
    features[:, 10] += 1
    changed, _ = read(short_sighted, features)
    # Two layers, each of which reaches 7 frames back.
    reached = (changed != whole).any(-1)[0].nonzero().flatten().tolist()
    assert reached == list(range(10, 10 + 2 * 7 + 1))


def test_a_transformer_forgets_when_it_started(short_sighted):
    late = features_of(1, 60)
    whole, end = read(short_sighted, late)
    again, same_end = read(short_sighted, late[:, 20:])
    assert torch.allclose(whole[:, -20:], again[:, -20:], atol=1e-5)
    assert not torch.allclose(whole[:, 20], again[:, 0], atol=1e-3)
    for one, other in zip(end, same_end, strict=True):
        assert torch.allclose(one, other, atol=1e-5)


def test_a_transformer_reads_a_long_clip_a_window_at_a_time(short_sighted):
    sizes = []
    short_sighted.layers[0].register_forward_pre_hook(lambda _layer, inputs: sizes.append(inputs[0].shape[1]))
    read(short_sighted, features_of(1, 19))
    assert sizes == [8, 8, 3]


def test_a_transformer_sees_the_order_of_frames(short_sighted):
    features = features_of(1, 6)
    swapped = features[:, [0, 2, 1, 3, 4, 5]]
    assert not torch.allclose(
        read(short_sighted, features)[0][:, -1], read(short_sighted, swapped)[0][:, -1], atol=1e-3
    )


def test_a_window_of_one_frame_has_no_past():
    torch.manual_seed(0)
    layer, features = Transformer(6, 5, window=1), features_of()
    alone = torch.cat([read(layer, frame)[0] for frame in features.split(1, 1)], 1)
    assert torch.allclose(read(layer, features)[0], alone, atol=1e-6)


def test_sizes_that_make_no_transformer_are_told():
    with pytest.raises(ValueError, match="window is 0 frames"):
        Transformer(6, 5, window=0)
    with pytest.raises(ValueError, match=r"width is 20; 4 heads .* multiple of 8"):
        Transformer(6, 5, width=20)
