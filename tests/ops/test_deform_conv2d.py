"""What a deformable convolution is, whichever backend computes it."""

import pytest
import torch
from torch.nn import functional as F

from saccade.ops import deform_conv2d


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def ramp(slope_y, slope_x, height=12, width=12):
    """Make an image that rises evenly: bilinear interpolation is exact on it."""
    y, x = torch.arange(height).double()[:, None], torch.arange(width).double()
    return (slope_y * y + slope_x * x).expand(1, 1, height, width)


@pytest.mark.parametrize(
    ("kernel", "groups", "arguments"),
    [
        ((3, 3), 1, {"padding": 1}),
        ((1, 1), 1, {}),
        ((5, 5), 1, {"padding": 2}),
        ((3, 2), 2, {"stride": (2, 1), "padding": (0, 2), "dilation": (1, 2)}),
        ((2, 3), 6, {"stride": 3, "padding": 1}),
    ],
)
def test_zero_offset_is_conv2d(backend, kernel, groups, arguments):
    image, weight, bias = torch.randn(2, 6, 9, 11), torch.randn(12, 6 // groups, *kernel), torch.randn(12)
    plain = F.conv2d(image, weight, bias, groups=groups, **arguments)
    offset = torch.zeros(2, 2 * kernel[0] * kernel[1], *plain.shape[2:])
    found = deform_conv2d(image, offset, weight, bias, **arguments, backend=backend)
    torch.testing.assert_close(found, plain, rtol=1e-5, atol=1e-5)
    ones = torch.ones(2, kernel[0] * kernel[1], *plain.shape[2:])
    masked = deform_conv2d(image, offset, weight, bias, mask=ones, **arguments, backend=backend)
    torch.testing.assert_close(masked, plain, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("down", "right"), [(1, 0), (0, -2), (3, 2), (-1, 5)])
def test_integer_offset_is_the_shifted_input(backend, down, right):
    image, weight = torch.randn(2, 3, 7, 6), torch.randn(4, 3, 3, 3)
    offset = torch.tensor([down, right] * 9).float().view(1, 18, 1, 1).expand(2, 18, 7, 6)
    padded = F.pad(image, (8, 8, 8, 8))
    shifted = padded[:, :, 7 + down : 16 + down, 7 + right : 15 + right]
    found = deform_conv2d(image, offset, weight, padding=1, backend=backend)
    torch.testing.assert_close(found, F.conv2d(shifted, weight), rtol=1e-5, atol=1e-5)


def test_offsets_are_dy_dx_for_each_tap_and_then_offset_group(backend):
    image, weight = torch.randn(1, 4, 6, 6).double(), torch.randn(2, 4, 2, 2).double()
    offset = torch.zeros(1, 16, 5, 5).double()
    # Second group (channels 2 and 3), third tap (lower left): one down.
    offset[:, 8 + 2 * 2] = 1
    kernel = torch.zeros(2, 4, 3, 2).double()
    kernel[:, :, :2] = weight
    kernel[:, 2:, 1, 0], kernel[:, 2:, 2, 0] = 0, weight[:, 2:, 1, 0]
    expected = F.conv2d(F.pad(image, (0, 0, 0, 1)), kernel)
    torch.testing.assert_close(deform_conv2d(image, offset, weight, backend=backend), expected)


def test_between_pixels_it_interpolates_and_the_gradient_is_the_slope(backend):
    offset = torch.rand(1, 2, 12, 12).double().requires_grad_()
    weight = torch.ones(1, 1, 1, 1).double()
    found = deform_conv2d(ramp(3, -2), offset, weight, backend=backend)
    (gradient,) = torch.autograd.grad(found.sum(), offset)
    inside = (slice(None), slice(None), slice(0, 11), slice(0, 11))
    expected = ramp(3, -2) + 3 * offset[:, :1] - 2 * offset[:, 1:]
    torch.testing.assert_close(found[inside], expected[inside])
    torch.testing.assert_close(
        gradient[inside], torch.tensor([3.0, -2.0]).double().view(1, 2, 1, 1).expand(1, 2, 11, 11)
    )


def test_outside_is_zero_and_the_border_fades(backend):
    image, weight = torch.ones(1, 1, 3, 3), torch.ones(1, 1, 1, 1)
    positions = torch.tensor([-1.5, -1.0, -0.25, 0.0, 2.0, 2.25, 3.0, 3.5])
    offset = torch.zeros(1, 2, 3, 3).repeat(8, 1, 1, 1)
    offset[:, 0, 0, 0] = positions
    found = deform_conv2d(image.expand(8, 1, 3, 3), offset, weight, backend=backend)[:, 0, 0, 0]
    assert found.tolist() == [0, 0, 0.75, 1, 1, 0.75, 0, 0]


@pytest.mark.parametrize(("position", "slope"), [(-1, 5), (0, -4), (1, -1), (2, 0), (-2, 0), (-1.5, 0), (2.5, 0)])
def test_at_whole_pixels_the_gradient_is_that_of_the_interval_above(backend, position, slope):
    image = torch.tensor([5.0, 1.0]).double().view(1, 1, 2, 1)  # and zero at 2 and -1
    offset = torch.zeros(1, 2, 1, 1).double()
    offset[0, 0] = position
    offset.requires_grad_()
    weight = torch.ones(1, 1, 2, 1).double()
    mask = torch.tensor([1.0, 0.0]).double().view(1, 2, 1, 1)
    offsets = torch.cat((offset, torch.zeros_like(offset)), 1)
    found = deform_conv2d(image, offsets, weight, mask=mask, backend=backend)
    (gradient,) = torch.autograd.grad(found.sum(), offset)
    assert gradient[0, 0].item() == slope


def test_linear_in_weight_and_mask(backend):
    image, offset = torch.randn(2, 3, 6, 5).double(), torch.randn(2, 18, 6, 5).double()
    weights, masks = torch.randn(2, 4, 3, 3, 3).double(), torch.randn(2, 2, 9, 6, 5).double()

    def run(weight, mask):
        return deform_conv2d(image, offset, weight, padding=1, mask=mask, backend=backend)

    both = run(weights[0], masks[0]) * 2 - run(weights[1], masks[0])
    torch.testing.assert_close(run(2 * weights[0] - weights[1], masks[0]), both)
    both = run(weights[0], masks[0]) * 2 - run(weights[0], masks[1])
    torch.testing.assert_close(run(weights[0], 2 * masks[0] - masks[1]), both)


def test_a_batch_of_two_is_two_batches_of_one(backend):
    image, offset, weight = torch.randn(2, 3, 7, 7), torch.randn(2, 18, 7, 7) * 4, torch.randn(4, 3, 3, 3)
    both = deform_conv2d(image, offset, weight, padding=1, backend=backend)
    for i in range(2):
        alone = deform_conv2d(image[i : i + 1], offset[i : i + 1], weight, padding=1, backend=backend)
        torch.testing.assert_close(both[i : i + 1], alone, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), 1e9, -1e9, 3e38])
def test_wild_offsets_sample_outside_and_harm_nothing_else(backend, value):
    image, weight = torch.randn(2, 3, 6, 6), torch.randn(4, 3, 3, 3)
    offset = torch.randn(2, 18, 6, 6)
    offset[0, 4, 2, 3] = value  # third tap, dy
    offset[1, 9, 0, 0] = value  # fifth tap, dx
    mask = torch.ones(2, 9, 6, 6)
    dropped, calm = mask.clone(), offset.clone()
    for index in ((0, 2, 2, 3), (1, 4, 0, 0)):
        dropped[index] = 0
        calm[index[0], 2 * index[1] : 2 * index[1] + 2, index[2], index[3]] = 0
    results = []
    for positions, factors in ((offset, mask), (calm, dropped)):
        leaves = [t.clone().requires_grad_() for t in (image, positions, weight)]
        found = deform_conv2d(*leaves, padding=1, mask=factors, backend=backend)
        results.append([found, *torch.autograd.grad(found.square().sum(), leaves)])
    for wild, expected in zip(*results, strict=True):
        torch.testing.assert_close(wild, expected, rtol=1e-5, atol=1e-5)
    assert results[0][2][0, 4:6, 2, 3].tolist() == [0, 0]


def test_an_empty_batch_gives_an_empty_batch(backend):
    leaves = [torch.randn(0, 3, 6, 5), torch.randn(0, 18, 3, 3), torch.randn(4, 3, 3, 3), torch.randn(4)]
    leaves = [leaf.requires_grad_() for leaf in leaves]
    found = deform_conv2d(*leaves, stride=2, padding=1, backend=backend)
    assert found.shape == (0, 4, 3, 3)
    for leaf, gradient in zip(leaves, torch.autograd.grad(found.sum(), leaves), strict=True):
        assert torch.equal(gradient, torch.zeros_like(leaf))


def test_positions_are_float32_under_autocast(backend):
    # Rises from 0 to 1 between the columns 62 and 63. In bfloat16 62.3 would be 62.25, and 0 + 62.3 likewise.
    image = torch.zeros(1, 1, 1, 64)
    image[..., 63] = 1
    offset = torch.zeros(1, 2, 1, 64)
    offset[0, 1, 0, 62], offset[0, 1, 0, 0], offset[0, 1, 0, 63] = 0.3, 62.3, -1 / 1024
    with torch.autocast("cpu", torch.bfloat16):
        found = deform_conv2d(image, offset, torch.ones(1, 1, 1, 1), backend=backend)
    assert found[0, 0, 0, [62, 0, 63]].tolist() == torch.tensor([0.3, 62.3 - 62, 1 - 1 / 1024]).bfloat16().tolist()


@pytest.mark.parametrize(
    ("image", "kernel"),
    [(torch.float32, torch.float32), (torch.bfloat16, torch.float32), (torch.float64, torch.float64)],
)
def test_the_result_has_the_dtype_of_conv2d_under_autocast(backend, image, kernel):
    inputs = torch.randn(1, 3, 5, 5, dtype=image), torch.randn(4, 3, 3, 3, dtype=kernel, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        plain = F.conv2d(*inputs, padding=1)
        found = deform_conv2d(inputs[0], torch.zeros(1, 18, 5, 5), inputs[1], padding=1, backend=backend)
        (gradient,) = torch.autograd.grad(found.sum(), inputs[1])
    assert found.dtype == plain.dtype
    assert gradient.dtype == kernel
    torch.testing.assert_close(found, plain, rtol=2e-2, atol=2e-2)


def test_no_uninitialised_memory_is_read(backend):
    leaves = [torch.randn(2, 4, 6, 5), torch.randn(2, 36, 3, 5) * 3, torch.randn(4, 2, 3, 3), torch.randn(4)]
    leaves = [leaf.requires_grad_() for leaf in leaves]

    def run():
        found = deform_conv2d(*leaves, stride=(2, 1), padding=1, backend=backend)
        return [found, *torch.autograd.grad(found.square().sum(), leaves)]

    plain = run()
    torch.use_deterministic_algorithms(True)  # and with it new memory is filled with NaN
    try:
        poisoned = run()
    finally:
        torch.use_deterministic_algorithms(False)
    for one, other in zip(plain, poisoned, strict=True):
        assert torch.equal(one, other)
