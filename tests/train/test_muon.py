import pytest
import torch
from torch import nn

from saccade.train.muon import Muon, orthogonalised


@pytest.mark.parametrize("shape", [(5, 5), (8, 40), (40, 8), (1, 9), (9, 1)])
def test_all_directions_get_about_the_same_size(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalised(matrix))
    assert values.min() > 0.3
    assert values.max() < 1.3


def test_directions_stay():
    left, values, right = torch.linalg.svd(torch.randn(6, 20, generator=torch.Generator().manual_seed(1)), False)
    found = left.T @ orthogonalised(left @ torch.diag(values) @ right) @ right.T
    assert torch.allclose(found, torch.diag(found.diagonal()), atol=1e-4)
    assert (found.diagonal() > 0).all()


def test_it_does_not_depend_on_the_scale_of_the_gradient():
    matrix = torch.randn(4, 7, generator=torch.Generator().manual_seed(2))
    assert torch.allclose(orthogonalised(matrix), orthogonalised(1e-3 * matrix), atol=1e-4)


def test_a_zero_gradient_is_no_step():
    assert torch.equal(orthogonalised(torch.zeros(3, 4)), torch.zeros(3, 4))


@pytest.mark.parametrize("shape", [(6, 9), (12, 3)])
def test_the_library_takes_the_same_steps_in_bfloat16(shape):
    ours, theirs = (nn.Parameter(torch.randn(shape, generator=torch.Generator().manual_seed(3))) for _ in range(2))
    first, second = Muon([ours], lr=0.1, weight_decay=0.2), torch.optim.Muon([theirs], lr=0.1, weight_decay=0.2)
    generator = torch.Generator().manual_seed(4)
    for _ in range(5):
        gradient = torch.randn(shape, generator=generator)
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        first.step()
        second.step()
    assert torch.allclose(ours, theirs, atol=0.02)


def test_a_kernel_is_a_row_in_any_memory_format():
    generator = torch.Generator().manual_seed(5)
    start, gradient = torch.randn(4, 3, 5, 5, generator=generator), torch.randn(4, 3, 5, 5, generator=generator)
    flat = nn.Parameter(start.flatten(1).clone())
    plain = nn.Parameter(start.clone())
    last = nn.Parameter(start.clone().to(memory_format=torch.channels_last))
    for parameter in (flat, plain, last):
        parameter.grad = gradient.reshape(parameter.shape).clone()
    last.grad = last.grad.to(memory_format=torch.channels_last)
    Muon([flat, plain, last], lr=0.3).step()
    assert torch.allclose(plain.flatten(1), flat)
    assert torch.allclose(last, plain, atol=1e-6)
    assert last.is_contiguous(memory_format=torch.channels_last)


def test_what_has_no_gradient_stays():
    parameter = nn.Parameter(torch.ones(2, 2))
    Muon([parameter], lr=1.0).step()
    assert torch.equal(parameter, torch.ones(2, 2))


def test_a_closure_computes_the_gradient():
    parameter = nn.Parameter(torch.ones(2, 3))

    def closure():
        loss = parameter.square().sum()
        loss.backward()
        return loss.item()

    assert Muon([parameter], lr=0.1).step(closure) == 6.0
    assert (parameter < 1).all()
