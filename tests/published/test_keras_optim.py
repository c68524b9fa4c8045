"""The optimizers against Keras's update rules, computed by hand."""

import math
from collections.abc import Sequence

import pytest
import torch

from saccade.published.keras_optim import KerasAdadelta, KerasRMSprop

GRADIENTS = (0.5, -2.0, 1e-9, 3.0)  # the third is small enough for the place of epsilon to matter


def rmsprop_by_hand(weight: float, gradients: Sequence[float]) -> list[float]:
    lr, rho, epsilon, accumulator = 1e-3, 0.9, 1e-8, 0.0
    weights = []
    for g in gradients:
        accumulator = rho * accumulator + (1 - rho) * g**2
        weight = weight - lr * g / (math.sqrt(accumulator) + epsilon)
        weights.append(weight)
    return weights


def adadelta_by_hand(weight: float, gradients: Sequence[float]) -> list[float]:
    lr, rho, epsilon, accumulator, delta_accumulator = 1.0, 0.95, 1e-8, 0.0, 0.0
    weights = []
    for g in gradients:
        accumulator = rho * accumulator + (1 - rho) * g**2
        update = g * math.sqrt(delta_accumulator + epsilon) / math.sqrt(accumulator + epsilon)
        weight = weight - lr * update
        delta_accumulator = rho * delta_accumulator + (1 - rho) * update**2
        weights.append(weight)
    return weights


def taken(optimizer_class: type[torch.optim.Optimizer], weight: float, gradients: Sequence[float]) -> list[float]:
    parameter = torch.nn.Parameter(torch.tensor([weight], dtype=torch.double))
    optimizer = optimizer_class([parameter])
    weights = []
    for g in gradients:
        parameter.grad = torch.tensor([g], dtype=torch.double)
        optimizer.step()
        weights.append(parameter.item())
    return weights


@pytest.mark.parametrize("gradients", [GRADIENTS, (1e-9,), (1e-8, 1e-8)])
def test_rmsprop(gradients: Sequence[float]) -> None:
    expected = rmsprop_by_hand(1.0, gradients)
    assert taken(KerasRMSprop, 1.0, gradients) == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize("gradients", [GRADIENTS, (1e-9,), (1e-4, 1e-4)])
def test_adadelta(gradients: Sequence[float]) -> None:
    expected = adadelta_by_hand(1.0, gradients)
    assert taken(KerasAdadelta, 1.0, gradients) == pytest.approx(expected, rel=1e-14)


def test_adadelta_in_pieces_takes_the_steps_of_torchs() -> None:
    shapes = [(3, 5, 2, 2), (300, 400), (7,), ()]  # one larger than a piece, one with channels last
    ours, theirs = ([torch.nn.Parameter(torch.ones(shape)) for shape in shapes] for _ in range(2))
    for parameters in (ours, theirs):
        parameters[0].data = parameters[0].data.to(memory_format=torch.channels_last)
    optimizers = KerasAdadelta(ours), torch.optim.Adadelta(theirs, lr=1.0, rho=0.95, eps=1e-8, foreach=False)
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        for one, other in zip(ours, theirs, strict=True):
            one.grad = torch.randn(one.shape, generator=generator)
            other.grad = one.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    for one, other in zip(ours, theirs, strict=True):
        assert torch.allclose(one, other, rtol=1e-6, atol=1e-8)
        for name in ("square_avg", "acc_delta"):
            assert torch.allclose(optimizers[0].state[one][name], optimizers[1].state[other][name], rtol=1e-6), name


def test_rmsprop_of_torch_would_go_further() -> None:
    twenty = [1.0] * 20
    ours = 1 - taken(KerasRMSprop, 1.0, twenty)[-1]

    def torchs(parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.RMSprop(parameters, lr=1e-3)

    assert (1 - taken(torchs, 1.0, twenty)[-1]) / ours == pytest.approx(2.7, abs=0.1)  # type: ignore[arg-type]
