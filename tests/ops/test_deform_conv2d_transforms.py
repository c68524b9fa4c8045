"""The operator under `torch.func` and in forward mode: the definition can, the fast backends say who can."""

import pytest
import torch
from torch.autograd import forward_ad
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, vjp, vmap

from saccade.nn import DeformConv2d
from saccade.ops import deform_conv2d

# Torch's own code for forward mode.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
SETTINGS = {"stride": (2, 1), "padding": (1, 2), "dilation": (1, 2)}


def tensors():
    """Draw arguments in float64; the offsets stay away from whole pixels, where the derivative jumps."""
    torch.manual_seed(0)
    offset = torch.randint(-2, 3, (2, 36, 3, 5)) + torch.rand(2, 36, 3, 5) * 0.8 + 0.1
    shapes = (2, 4, 5, 5), None, (6, 2, 3, 3), (6,), (2, 18, 3, 5)
    return [(offset if shape is None else torch.randn(shape)).double() for shape in shapes]


def convolve(backend):
    def run(image, offset, weight, bias, mask):
        return deform_conv2d(image, offset, weight, bias, mask=mask, **SETTINGS, backend=backend)

    return run


def score(*given):
    return convolve("reference")(*given).sin().sum()


EVERY = tuple(range(5))


def test_grad_and_vjp_of_the_definition_are_those_of_autograd():
    given = tensors()
    leaves = [tensor.clone().requires_grad_() for tensor in given]
    expected = torch.autograd.grad(score(*leaves), leaves)
    for found in (grad(score, EVERY)(*given), vjp(score, *given)[1](torch.ones((), dtype=torch.float64))):
        torch.testing.assert_close(found, expected)


def test_jvp_of_the_definition_is_the_difference_quotient():
    given = tensors()
    directions = [torch.randn_like(tensor) for tensor in given]
    for moved in [*([index] for index in EVERY), EVERY]:
        along = [d if index in moved else torch.zeros_like(d) for index, d in enumerate(directions)]
        (before, after) = (
            score(*(tensor + step * d for tensor, d in zip(given, along, strict=True))) for step in (-1e-6, 1e-6)
        )
        value, slope = jvp(score, tuple(given), tuple(along))
        assert torch.equal(value, score(*given))
        torch.testing.assert_close(slope, (after - before) / 2e-6, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("argument", EVERY)
def test_jacobians_of_the_definition_agree_forward_and_backward(argument):
    given = tensors()
    run = convolve("reference")
    torch.testing.assert_close(jacfwd(run, argument)(*given), jacrev(run, argument)(*given))


def test_second_derivatives_of_the_definition_are_those_of_autograd():
    given = tensors()
    expected = torch.autograd.functional.hessian(lambda bias: score(*given[:3], bias, given[4]), given[3])
    torch.testing.assert_close(hessian(score, 3)(*given), expected)


@pytest.mark.parametrize("batched", [EVERY, (0,), (1, 4), (2, 3)])
def test_vmap_of_the_definition_and_of_its_gradient_is_a_loop(batched):
    given = tensors()
    many = [torch.stack([t, t.flip(0), 2 * t]) if i in batched else t for i, t in enumerate(given)]
    dims = tuple(0 if i in batched else None for i in EVERY)
    for run in (convolve("reference"), grad(score, EVERY)):
        found = vmap(run, dims)(*many)
        for row in range(3):
            expected = run(*(t[row] if i in batched else t for i, t in enumerate(many)))
            of_row = found[row] if isinstance(found, torch.Tensor) else tuple(each[row] for each in found)
            torch.testing.assert_close(of_row, expected)


def test_each_samples_gradient_of_a_layer():
    torch.manual_seed(0)
    layer = DeformConv2d(3, 4, 3, padding=1, modulated=True, backend="reference").double()
    torch.nn.init.normal_(layer.positions.weight, std=0.3)
    images = torch.randn(3, 3, 6, 5, dtype=torch.float64)
    parameters = {name: parameter.detach() for name, parameter in layer.named_parameters()}

    def loss(parameters, image):
        return functional_call(layer, parameters, (image[None],)).square().sum()

    found = vmap(grad(loss), (None, 0))(parameters, images)
    for row, image in enumerate(images):
        alone = torch.autograd.grad(layer(image[None]).square().sum(), list(layer.parameters()))
        for name, expected in zip(parameters, alone, strict=True):
            torch.testing.assert_close(found[name][row], expected)


def forward_mode(run, image):
    with forward_ad.dual_level():
        return run(forward_ad.make_dual(image, image))


def forward_mode_without_grad(run, image):
    with torch.no_grad():
        return forward_mode(run, image)


ASKED = {
    "grad": lambda run, image: grad(lambda image: run(image).sum())(image),
    "vmap of grad": lambda run, image: vmap(grad(lambda image: run(image).sum()))(image[None]),
    "vjp": lambda run, image: vjp(run, image),
    "jvp": lambda run, image: jvp(run, (image,), (image,)),
    "jacrev": lambda run, image: jacrev(run)(image),
    "jacfwd": lambda run, image: jacfwd(run)(image),
    "hessian": lambda run, image: hessian(run)(image),
    "forward mode": forward_mode,
    "forward mode without grad": forward_mode_without_grad,
}


@pytest.mark.parametrize("asked", ASKED)
def test_fast_backends_name_the_one_that_can(fast_backend, asked):
    image, *rest = tensors()
    ASKED[asked](lambda image: convolve("reference")(image, *rest), image)
    with pytest.raises(RuntimeError, match=r"torch.func .* need deform_conv2d.*backend='reference'") as caught:
        ASKED[asked](lambda image: convolve(fast_backend)(image, *rest), image)
    assert "\n" not in str(caught.value)


def test_forward_mode_of_fast_gradients_names_the_one_that_can(fast_backend):
    given = [tensor.requires_grad_() for tensor in tensors()]
    out = convolve(fast_backend)(*given)
    with forward_ad.dual_level(), pytest.raises(RuntimeError, match="backend='reference'"):
        torch.autograd.grad(out, given, forward_ad.make_dual(torch.ones_like(out), torch.ones_like(out)))
