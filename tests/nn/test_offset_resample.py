"""The published layer: every value of a map is moved by an offset of its own."""

import pytest
import torch
from torch import nn

from saccade.nn.attention import attention_layers, num_attention_parameters, recorded, switched_off
from saccade.nn.offset_resample import OffsetResample2d


class Say(nn.Module):
    """Positions that are what the test wants."""

    def __init__(self, positions):
        super().__init__()
        self.said = positions

    def forward(self, input):
        return self.said


def resampled(image, offset):
    layer = OffsetResample2d(image.shape[1])
    layer.positions = Say(offset)
    return layer(image)


def by_hand(image, offset):
    """Sample value by value, as the paper's layer does: clipped to the map, floor and ceiling."""
    out = torch.empty_like(image)
    height, width = image.shape[2:]
    for n, c, y, x in torch.cartesian_prod(*(torch.arange(s) for s in image.shape)).tolist():
        at_y = min(max(y + offset[n, 2 * c, y, x].item(), 0), height - 1)
        at_x = min(max(x + offset[n, 2 * c + 1, y, x].item(), 0), width - 1)
        low_y, low_x = int(at_y), int(at_x)
        high_y, high_x = min(low_y + 1, height - 1), min(low_x + 1, width - 1)
        pixels = image[n, c]
        upper = pixels[low_y, low_x] + (pixels[low_y, high_x] - pixels[low_y, low_x]) * (at_x - low_x)
        lower = pixels[high_y, low_x] + (pixels[high_y, high_x] - pixels[high_y, low_x]) * (at_x - low_x)
        out[n, c, y, x] = upper + (lower - upper) * (at_y - low_y)
    return out


@pytest.mark.parametrize("size", [(5, 4), (1, 6), (8, 8), (3, 7)])
@pytest.mark.parametrize("scale", [0.3, 3.0])
def test_it_is_the_published_formula(size, scale):
    torch.manual_seed(0)
    image, offset = torch.randn(2, 3, *size).double(), torch.randn(2, 6, *size).double() * scale
    torch.testing.assert_close(resampled(image, offset), by_hand(image, offset))
    torch.testing.assert_close(
        resampled(image.float(), offset.float()).double(), by_hand(image, offset), rtol=0, atol=1e-5
    )


@pytest.mark.parametrize("channels_last", [False, True])
def test_switched_off_it_leaves_the_map_as_it_is(channels_last):
    layer, image = OffsetResample2d(4), torch.randn(2, 4, 16, 32)
    if channels_last:
        image = image.contiguous(memory_format=torch.channels_last)
    with switched_off(layer):
        assert torch.equal(layer(image), image)


def test_each_channel_has_its_own_offset():
    torch.manual_seed(0)
    image, offset = torch.randn(1, 3, 6, 6), torch.zeros(1, 6, 6, 6)
    offset[:, 2 * 1] = 2  # channel 1 looks two down
    offset[:, 2 * 2 + 1] = -1  # channel 2 looks one left
    found = resampled(image, offset)
    torch.testing.assert_close(found[:, 0], image[:, 0], rtol=0, atol=1e-5)
    torch.testing.assert_close(found[:, 1, :4], image[:, 1, 2:], rtol=0, atol=1e-5)
    torch.testing.assert_close(found[:, 1, 4:], image[:, 1, [5, 5]], rtol=0, atol=1e-5)
    torch.testing.assert_close(found[:, 2, :, 1:], image[:, 2, :, :5], rtol=0, atol=1e-5)


def test_its_gradients_are_right():
    torch.manual_seed(0)
    image = torch.randn(2, 2, 4, 5).double().requires_grad_()
    # Away from whole pixels and from the border, where the derivative jumps.
    offset = (torch.rand(2, 4, 4, 5).double() * 0.4 + 0.1).requires_grad_()
    assert torch.autograd.gradcheck(resampled, (image, offset))


def test_from_outside_the_gradient_is_zero():
    offset = torch.full((1, 2, 4, 4), 50.0, requires_grad=True)
    resampled(torch.randn(1, 1, 4, 4), offset).sum().backward()
    assert torch.equal(offset.grad, torch.zeros_like(offset))


@pytest.mark.parametrize(("channels", "parameters"), [(20, 7_200), (50, 45_000)])
def test_the_published_parameter_counts(channels, parameters):
    layer = OffsetResample2d(channels)
    assert sum(p.numel() for p in layer.parameters()) == num_attention_parameters(layer) == parameters
    assert layer.positions.weight.std().item() == pytest.approx(0.01, rel=0.1)
    assert list(attention_layers(layer)) == [""]


def test_positions_are_float32_under_autocast():
    # Rises from 0 to 1 between the columns 62 and 63; in bfloat16 62.3 would be 62.25.
    image = torch.zeros(1, 1, 1, 64)
    image[..., 63] = 1
    offset = torch.zeros(1, 2, 1, 64)
    offset[0, 1, 0, 62] = 0.3
    with torch.autocast("cpu", torch.bfloat16):
        found = resampled(image, offset)
    assert found.dtype == torch.float32
    assert found[0, 0, 0, 62].item() == pytest.approx(0.3, abs=1e-5)


def test_it_learns_to_look_elsewhere():
    torch.manual_seed(0)
    layer, image = OffsetResample2d(2), torch.randn(2, 2, 8, 8)
    with recorded(layer) as seen:
        layer(image).square().sum().backward()
    assert seen[""].shape == (2, 4, 8, 8)
    assert layer.positions.weight.grad.isfinite().all()
    assert layer.positions.weight.grad.abs().min() > 0


def test_an_even_kernel_is_refused():
    with pytest.raises(ValueError, match="kernel_size is 4; it must be odd"):
        OffsetResample2d(3, kernel_size=4)
