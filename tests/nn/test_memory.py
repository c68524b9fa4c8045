import re

import numpy as np
import pytest
import torch

from saccade.nn.memory import Memory, MemoryHead

WINDOW, SIZE = 5, 3


def features_of(batch=2, time=17, size=SIZE, *, seed=0):
    return torch.randn(batch, time, size, generator=torch.Generator().manual_seed(seed))


def read(features, cuts=None, *, window=WINDOW):
    """Read features from the beginning, in parts of these lengths."""
    memory = Memory(features.shape[2], window=window)
    parts, state = [], memory.initial_state(len(features))
    for part in features.split(cuts or features.shape[1], 1):
        states, state = memory(part, state)
        parts.append(states)
    return torch.cat(parts, 1)


def defined(features, *, window=WINDOW):
    """Return the states of one clip by definition: NumPy's polynomials at the middle of each frame of the window."""
    found = []
    for end in range(1, len(features) + 1):
        seen = features[max(0, end - window) : end].double().numpy()
        at = (2 * np.arange(len(seen)) + 1) / len(seen) - 1
        basis = np.polynomial.legendre.legvander(at, 3) * np.sqrt(2 * np.arange(4) + 1)
        found.append(np.concatenate((*(basis.T @ seen / len(seen)), seen.std(0), [len(seen)])))
    return torch.from_numpy(np.stack(found)).float()


@pytest.mark.parametrize("window", [1, 2, 5, 16, 17, 18, 40])
def test_states_are_legendre_coefficients_and_the_deviation_of_the_window(window):
    features = features_of()
    found = read(features, window=window)
    expected = torch.stack([defined(clip, window=window) for clip in features])
    assert found.shape == (2, 17, 5 * SIZE + 1)
    # A deviation of 0 is told as the root of the least variance, 0.001.
    assert torch.allclose(found, expected, rtol=1e-4, atol=1.1e-3)


def test_polynomials_have_unit_mean_square_and_do_not_overlap():
    # With these features, coefficient k of feature j is the mean product of polynomials k and j.
    num = 400
    at = (2 * np.arange(num) + 1) / num - 1
    basis = np.polynomial.legendre.legvander(at, 3) * np.sqrt(2 * np.arange(4) + 1)
    found = read(torch.from_numpy(basis).float().unsqueeze(0), window=num)[0, -1]
    assert torch.allclose(found[:16].view(4, 4), torch.eye(4), atol=1e-3)


@pytest.mark.parametrize("time", [1, 3, 5, 6, 17])
@pytest.mark.parametrize("cuts", [1, 2, 4, 5, 7, [1, 11, 5]])
def test_streaming_is_reading_the_whole(time, cuts):
    if isinstance(cuts, list) and sum(cuts) != time:
        cuts = [time]
    features = features_of(time=time)
    assert torch.allclose(read(features, cuts), read(features), rtol=1e-5, atol=1e-5)


def test_a_state_keeps_its_shapes_and_does_not_grow():
    memory = Memory(SIZE, window=WINDOW)
    first = memory.initial_state(2)
    for time in (1, 3, 30):
        _, last = memory(features_of(time=time), first)
        assert [(part.shape, part.dtype) for part in last] == [(part.shape, part.dtype) for part in first]


def test_the_future_does_not_reach_the_past_and_the_window_ends():
    features = features_of()
    before = read(features)
    features[:, 6] += 10
    changed = (read(features) != before).any(-1)
    assert changed.nonzero()[:, 1].unique().tolist() == list(range(6, 6 + WINDOW))


def test_a_batch_of_two_is_two_batches_of_one():
    features = features_of()
    alone = torch.cat([read(clip) for clip in features.split(1)])
    assert torch.allclose(read(features), alone, rtol=1e-5, atol=1e-6)


def test_clips_of_a_batch_may_have_seen_different_numbers_of_frames():
    features, memory = features_of(), Memory(SIZE, window=WINDOW)
    new, old = memory.initial_state(1), memory(features[1:, :8], memory.initial_state(1))[1]
    together = tuple(torch.cat(parts) for parts in zip(new, old, strict=True))
    states, _ = memory(torch.stack((features[0, :4], features[1, 8:12])), together)
    assert torch.allclose(states[0], read(features[:1])[0, :4], atol=1e-5)
    assert torch.allclose(states[1], read(features[1:])[0, 8:12], atol=1e-5)


def test_a_constant_feature_has_a_mean_and_nothing_else():
    mean, *rest, _ = read(torch.full((1, 12, 1), 3.0)).unbind(-1)
    assert torch.allclose(mean, torch.tensor(3.0))
    assert torch.allclose(rest[-1], torch.zeros(1), atol=5e-3)
    # A window of an even number of frames leaves a little of degree 2: its mean over frames is not quite 0.
    assert rest[0].abs().max() < 1e-5
    assert rest[2].abs().max() < 1e-5


@pytest.mark.parametrize("mean", [-100, 1000])
def test_a_small_deviation_is_told_beside_a_large_mean(mean):
    features = mean + 0.1 * features_of()
    found = read(features)[..., 4 * SIZE : 5 * SIZE]
    expected = torch.stack([defined(clip) for clip in features])[..., 4 * SIZE : 5 * SIZE]
    assert torch.allclose(found, expected, rtol=1e-4, atol=1.1e-3)


def test_a_longer_clip_of_the_same_shape_has_the_same_state():
    clips = (torch.linspace(-1, 1, num).view(1, num, 1) ** 2 for num in (200, 50))
    slow, fast = (read(clip, window=256)[0, -1] for clip in clips)
    assert torch.allclose(slow[:-1], fast[:-1], atol=0.05)
    assert (slow[-1], fast[-1]) == (200, 50)


@pytest.mark.parametrize("features", [torch.zeros(1, 7, 2), torch.full((1, 7, 2), 5.0), features_of(1, 7, 2)])
def test_gradients_are_finite(features):
    features.requires_grad_()
    read(features).square().sum().backward()
    assert features.grad.isfinite().all()


def test_states_are_float32_under_autocast():
    features = features_of()
    with torch.autocast("cpu", torch.bfloat16):
        found = read(features)
        assert read(features.bfloat16()).dtype == torch.float32
    assert torch.equal(found, read(features))


def test_an_empty_batch_gives_an_empty_batch():
    assert read(torch.zeros(0, 4, SIZE)).shape == (0, 4, 5 * SIZE + 1)


def test_there_are_no_weights():
    memory = Memory(SIZE, window=WINDOW)
    assert not memory.state_dict()
    assert (memory.in_features, memory.num_units) == (SIZE, 5 * SIZE + 1)


@pytest.mark.parametrize("shape", [(4, SIZE), (1, 2, 4, SIZE), (2, 4, SIZE + 1), (2, 0, SIZE)])
def test_features_of_another_shape_are_told(shape):
    memory = Memory(SIZE, window=WINDOW)
    with pytest.raises(ValueError, match=rf"features have shape {re.escape(str(shape))}; \(batch, time, {SIZE}\)"):
        memory(torch.zeros(shape), memory.initial_state(2))


def test_a_state_of_another_window_or_batch_is_told():
    memory = Memory(SIZE, window=WINDOW)
    for state in (Memory(SIZE, window=WINDOW + 1).initial_state(2), memory.initial_state(3)):
        with pytest.raises(ValueError, match=rf"states have shape .*; \(2, {WINDOW - 1}, {SIZE}\) is needed"):
            memory(features_of(), state)


@pytest.mark.parametrize("window", [0, -1])
def test_a_window_without_frames_is_told(window):
    with pytest.raises(ValueError, match=f"window is {window}; at least 1 frame is needed"):
        Memory(SIZE, window=window)


def head_of(**options):
    torch.manual_seed(0)
    return MemoryHead(5 * SIZE + 1, 4, **options)


def test_a_head_without_a_temperature_is_linear_in_what_was_remembered():
    states, head = read(features_of()), head_of()
    assert {name: tuple(value.shape) for name, value in head.state_dict().items()} == {
        "weight": (4, 5 * SIZE),
        "bias": (4,),
    }
    assert torch.allclose(head(states), states[..., :-1] @ head.weight.T + head.bias, atol=1e-6)


def test_a_temperature_makes_first_frames_less_sure_and_changes_no_verdict():
    states, plain, head = read(features_of(), window=10), head_of(), head_of(early=8.0, decay=2.0)
    temperature = plain(states) / head(states)
    expected = 1 + 7 * torch.exp(-torch.arange(17).clamp(max=9) / 2)
    assert torch.allclose(temperature, expected[:, None].expand_as(temperature), rtol=1e-3)
    assert torch.equal(head(states).argmax(-1), plain(states).argmax(-1))


@pytest.mark.parametrize("wrong", [{"early": 0.9}, {"early": float("nan")}, {"early": float("inf")}, {"decay": 0.0}])
def test_a_temperature_that_cannot_be_is_told(wrong):
    with pytest.raises(ValueError, match=r"early is .* and decay .*; at least 1 and above 0 are needed, both finite"):
        head_of(**wrong)
