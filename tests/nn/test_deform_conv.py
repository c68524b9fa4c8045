"""The convolution that predicts where its taps look."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from saccade.nn.attention import attention_layers, num_attention_parameters, recorded, switched_off
from saccade.nn.deform_conv import DeformConv2d
from saccade.ops import deform_conv2d

KINDS = {
    "plain": {},
    "modulated": {"modulated": True},
    "limited": {"max_offset_px": 2.0},
    "everything": {
        "stride": (2, 1),
        "padding": (0, 1),
        "dilation": 2,
        "groups": 2,
        "offset_groups": 3,
        "bias": False,
        "modulated": True,
        "max_offset_px": 1.5,
    },
}


def make(kind, *, moved=False):
    torch.manual_seed(0)
    layer = DeformConv2d(6, 8, (3, 2), **KINDS[kind])
    if moved:
        nn.init.normal_(layer.positions.weight, std=0.3)
        nn.init.normal_(layer.positions.bias)
    return layer


def plain_of(kind):
    arguments = {k: v for k, v in KINDS[kind].items() if k in ("stride", "padding", "dilation", "groups", "bias")}
    return nn.Conv2d(6, 8, (3, 2), **arguments)


@pytest.mark.parametrize("kind", KINDS)
def test_it_starts_as_the_plain_convolution_of_its_weights(kind):
    layer, plain, image = make(kind), plain_of(kind), torch.randn(2, 6, 9, 7)
    missing, unexpected = layer.load_state_dict(plain.state_dict(), strict=False)
    assert unexpected == []
    assert missing == ["positions.weight", "positions.bias"]
    torch.testing.assert_close(layer(image), plain(image), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_switched_off_it_is_the_plain_convolution_and_otherwise_not(kind):
    layer, plain, image = make(kind, moved=True), plain_of(kind), torch.randn(2, 6, 9, 7)
    plain.load_state_dict({k: v for k, v in layer.state_dict().items() if "positions" not in k})
    with switched_off(layer):
        torch.testing.assert_close(layer(image), plain(image), rtol=1e-5, atol=1e-6)
    assert (layer(image) - plain(image)).abs().max() > 0.1


def test_it_samples_where_positions_says():
    layer, image = make("modulated", moved=True), torch.randn(2, 6, 9, 7)
    with recorded(layer) as seen:
        found = layer(image)
    offset, logits = seen[""].split([12, 6], 1)
    assert torch.equal(layer.offset_px(seen[""]), offset)
    expected = deform_conv2d(image, offset, layer.weight, layer.bias, mask=2 * torch.sigmoid(logits))
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_gets_a_finite_gradient_from_the_start(kind):
    layer = make(kind)
    # Offsets of exactly zero have the gradient of the interpolation to the lower right.
    layer(torch.randn(2, 6, 9, 7)).square().sum().backward()
    for name, parameter in layer.named_parameters():
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name


def test_no_offset_is_longer_than_the_limit_and_small_ones_are_left_alone():
    layer, free = make("limited", moved=True), make("plain", moved=True)
    image = torch.randn(2, 6, 9, 7)
    limited, unlimited = layer.positions(100 * image), free.positions(100 * image)
    assert unlimited.abs().max() > 20
    assert 1.9 < limited.abs().max() <= 2
    small = image * 1e-3
    with torch.no_grad():
        layer.positions.bias.zero_()
        free.positions.bias.zero_()
    torch.testing.assert_close(layer.positions(small), free.positions(small), rtol=1e-4, atol=0)


def test_a_limit_leaves_the_factors_alone():
    torch.manual_seed(0)
    layer = DeformConv2d(2, 2, 1, modulated=True, max_offset_px=0.5)
    nn.init.constant_(layer.positions.bias, 3.0)
    said = layer.positions(torch.zeros(1, 2, 1, 1)).flatten().tolist()
    assert max(said[:2]) < 0.5
    assert said[2] == 3


def test_positions_are_float32_under_autocast_and_the_result_is_not():
    layer, image = make("modulated", moved=True), torch.randn(2, 6, 9, 7)
    with torch.autocast("cpu", torch.bfloat16), recorded(layer) as seen:
        found = layer(image)
    assert found.dtype == torch.bfloat16
    assert torch.equal(seen[""], layer.positions(image))
    torch.testing.assert_close(found.float(), layer(image), rtol=3e-2, atol=3e-2)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_a_whole_layer_of_another_dtype_works(dtype):
    layer, image = make("modulated", moved=True), torch.randn(2, 6, 9, 7)
    expected = layer(image)
    found = layer.to(dtype)(image.to(dtype))
    assert found.dtype == dtype
    tolerance = 1e-5 if dtype == torch.float64 else 0.1
    torch.testing.assert_close(found.float(), expected, rtol=tolerance, atol=tolerance)


def test_it_is_an_attention_layer_whose_positions_are_counted():
    model = nn.Sequential(nn.Conv2d(1, 6, 3), make("modulated"))
    assert list(attention_layers(model)) == ["1"]
    assert num_attention_parameters(model) == (6 * 3 * 2 + 1) * 3 * 6


@pytest.mark.parametrize("integer", [np.int64, np.uint8])
def test_any_integer_is_an_int(integer):
    numbers = {"stride": 2, "padding": (1, 2), "dilation": 2, "groups": 2, "offset_groups": 3}
    taken = {k: tuple(map(integer, v)) if isinstance(v, tuple) else integer(v) for k, v in numbers.items()}
    layers = []
    for channels, kernel, given in ((6, (3, 2), numbers), (integer(6), (integer(3), integer(2)), taken)):
        torch.manual_seed(0)
        layers.append(DeformConv2d(channels, channels, kernel, **given))
    image = torch.randn(2, 6, 9, 7)
    assert torch.equal(layers[0](image), layers[1](image))
    assert DeformConv2d(6, 8, integer(3), padding=integer(1))(image).shape == (2, 8, 9, 7)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths:UserWarning")  # of the plain one
@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("dilation", [1, 2, (3, 2)])
@pytest.mark.parametrize("kernel", [1, 2, 3, (4, 5), (2, 6)])
def test_padding_by_name_is_that_of_the_plain_convolution(padding, dilation, kernel):
    layer = DeformConv2d(6, 8, kernel, padding=padding, dilation=dilation)
    plain = nn.Conv2d(6, 8, kernel, padding=padding, dilation=dilation)
    layer.load_state_dict(plain.state_dict(), strict=False)
    image = torch.randn(2, 6, 15, 14)
    torch.testing.assert_close(layer(image), plain(image), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("kernel", "dilation"), [((2, 4), 1), ((3, 2), (2, 3))])
def test_samples_that_move_see_nothing_of_an_uneven_padding(kernel, dilation):
    torch.manual_seed(0)
    same, valid = (DeformConv2d(3, 4, kernel, padding=padding, dilation=dilation) for padding in ("same", "valid"))
    nn.init.normal_(same.positions.weight, std=0.3)
    valid.load_state_dict(same.state_dict())
    image = torch.randn(2, 3, 7, 9)
    y, x = (d * (k - 1) for d, k in zip(same.dilation, kernel, strict=True))
    around = F.pad(image, (x // 2, x - x // 2, y // 2, y - y // 2))
    assert same(image).shape[2:] == image.shape[2:]
    torch.testing.assert_close(same(image), valid(around), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"offset_groups": 4}, "6 input channels do not divide into 4 offset groups"),
        ({"max_offset_px": 0}, "max_offset_px is 0; it must be a positive number of pixels or None"),
        ({"max_offset_px": float("nan")}, "max_offset_px is nan"),
        ({"padding": "same", "stride": (1, 2)}, r"'same' and stride \(1, 2\); 'same' needs stride 1, as for torch"),
        ({"padding": "reflect"}, "padding is 'reflect'; it must be 'same', 'valid', an int or a pair"),
        ({"padding": -1}, "padding is -1; it must be an int or a pair"),
        ({"stride": (2,)}, r"stride is \(2,\); it must be an int or a pair"),
        ({"dilation": 1.5}, "dilation is 1.5; it must be an int or a pair"),
        ({"offset_groups": 0}, "offset_groups is 0; it must be an int of at least 1"),
        ({"offset_groups": 2.0}, "offset_groups is 2.0; it must be an int of at least 1"),
        ({"groups": -1}, "groups is -1; it must be an int of at least 1"),
    ],
)
def test_wrong_arguments_are_told(wrong, message):
    with pytest.raises(ValueError, match=message):
        DeformConv2d(6, 8, 3, **wrong)


@pytest.mark.parametrize("kernel", [0, -1, (3,), (3, 3, 3), "3", 1.5])
def test_kernels_that_cannot_be_are_told(kernel):
    with pytest.raises(ValueError, match=r"kernel_size is .*; it must be an int or a pair \(y, x\)"):
        DeformConv2d(6, 8, kernel)


# --- A layer that passes on its map


@pytest.mark.parametrize("groups", [1, 3])
def test_an_identity_layer_passes_on_its_map_and_learns_where_to_look(groups):
    torch.manual_seed(0)
    layer, maps = DeformConv2d.identity(6, groups=groups), torch.rand(2, 6, 5, 7)
    found = layer(maps)
    assert torch.equal(found, maps)
    found.square().sum().backward()
    assert layer.positions.weight.grad.abs().max() > 0
    assert layer.weight.shape == (6, 6 // groups, 3, 3)


def test_an_identity_layer_with_offsets_is_the_moved_map():
    layer, maps = DeformConv2d.identity(2), torch.rand(1, 2, 5, 7)
    layer.positions.bias.data[1::2] = 1.0  # dx of every tap
    assert torch.allclose(layer(maps)[..., :-1], maps[..., 1:], atol=1e-6)
