"""The LSTM against Keras's formulas, written out gate by gate."""

import math

import numpy as np
import pytest
import torch

from saccade.nn.keras_lstm import KerasLSTM, hard_sigmoid


def by_hand(lstm: KerasLSTM, inputs: np.ndarray) -> np.ndarray:
    """Follow one sequence as the Keras documentation writes it, one gate at a time."""
    gates = ("i", "f", "c", "o")
    w, u, b = (
        dict(zip(gates, np.split(p.detach().double().numpy(), 4), strict=True))
        for p in (lstm.weight, lstm.recurrent, lstm.bias)
    )
    h = c = np.zeros(lstm.hidden)
    states = []
    for x in inputs:
        i, f, o = (np.clip(0.2 * (w[g] @ x + u[g] @ h + b[g]) + 0.5, 0, 1) for g in ("i", "f", "o"))
        c = f * c + i * np.tanh(w["c"] @ x + u["c"] @ h + b["c"])
        h = o * np.tanh(c)
        states.append(h)
    return np.stack(states)


def test_states_are_those_of_the_formulas() -> None:
    torch.manual_seed(0)
    lstm = KerasLSTM(5, 3)
    lstm.bias.data.normal_()
    inputs = 2 * torch.randn(2, 7, 5)  # large enough for some gates to be shut and some wide open
    for clip, states in zip(inputs, lstm(inputs), strict=True):
        np.testing.assert_allclose(states.detach(), by_hand(lstm, clip.double().numpy()), atol=1e-6)


def test_one_step_by_pencil() -> None:
    lstm = KerasLSTM(1, 1)
    for parameter in lstm.parameters():
        parameter.data.fill_(1.0)
    # Input 1: every gate sees 1 + 1 = 2; the gates are 0.9 open.
    cell = 0.9 * math.tanh(2)
    state = 0.9 * math.tanh(cell)
    assert lstm(torch.ones(1, 1, 1)).item() == pytest.approx(state, abs=1e-6)


def test_hard_sigmoid_is_not_the_one_of_torch() -> None:
    x = torch.tensor([-2.5, -2.4, 0.0, 1.0, 2.5])
    torch.testing.assert_close(hard_sigmoid(x), torch.tensor([0.0, 0.02, 0.5, 0.7, 1.0]))
    assert not torch.allclose(hard_sigmoid(x), torch.nn.functional.hardsigmoid(x))


def test_has_one_bias_per_gate() -> None:
    assert sum(p.numel() for p in KerasLSTM(500, 8).parameters()) == 4 * (8 * (500 + 8) + 8) == 16_288


def test_starts_as_in_keras() -> None:
    lstm = KerasLSTM(500, 8)
    forget = slice(8, 16)
    assert lstm.bias[forget].tolist() == [1.0] * 8
    assert lstm.bias.sum() == 8
    torch.testing.assert_close(lstm.recurrent.T @ lstm.recurrent, torch.eye(8))
    limit = math.sqrt(6 / (500 + 32))
    assert 0.99 * limit < lstm.weight.abs().max() <= limit
    assert lstm.weight.std().item() == pytest.approx(limit / math.sqrt(3), rel=0.03)


def test_weights_are_a_function_of_the_generator() -> None:
    lstms = [KerasLSTM(5, 3) for _ in range(3)]
    for lstm, seed in zip(lstms, (1, 1, 2), strict=True):
        lstm.reset_parameters(torch.Generator().manual_seed(seed))
    one, same, other = (torch.cat((lstm.weight.flatten(), lstm.recurrent.flatten())) for lstm in lstms)
    assert torch.equal(one, same)
    assert not torch.isclose(one, other).any()


def test_a_state_knows_only_what_came_before() -> None:
    lstm, inputs = KerasLSTM(5, 3), torch.randn(2, 6, 5)
    torch.testing.assert_close(lstm(inputs[:, :4]), lstm(inputs)[:, :4])
    torch.testing.assert_close(lstm(inputs[:1]), lstm(inputs)[:1])


def test_is_computed_in_float32_under_autocast() -> None:
    lstm, inputs = KerasLSTM(5, 3), torch.randn(2, 6, 5)
    with torch.autocast("cpu", torch.bfloat16):
        states = lstm(inputs)
    assert torch.equal(states, lstm(inputs))


def test_gradients() -> None:
    torch.manual_seed(0)
    lstm = KerasLSTM(2, 2).double()
    inputs = torch.randn(1, 3, 2, dtype=torch.double, requires_grad=True)
    parameters = dict(lstm.named_parameters())

    def follow(x: torch.Tensor, *values: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(lstm, dict(zip(parameters, values, strict=True)), (x,))

    assert torch.autograd.gradcheck(follow, (inputs, *parameters.values()))
