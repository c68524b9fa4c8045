"""What a wrong call is told, and which backend is taken."""

import numpy as np
import pytest
import torch

from saccade.ops import deform_conv2d
from saccade.ops.deform_conv import cpu

GOOD = {
    "input": torch.zeros(2, 6, 5, 5),
    "offset": torch.zeros(2, 18, 5, 5),
    "weight": torch.zeros(4, 6, 3, 3),
    "padding": 1,
}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            {"offset": torch.zeros(2, 17, 5, 5)},
            r"offset has 17 channels; a 3x3 kernel needs a multiple of 18 \(2 \* 3 \* 3\)",
        ),
        ({"offset": torch.zeros(2, 0, 5, 5)}, "offset has 0 channels"),
        ({"offset": torch.zeros(2, 72, 5, 5)}, r"makes 4 offset groups .*; the 6 input channels do not divide"),
        ({"offset": torch.zeros(2, 18, 4, 5)}, r"offset has shape \(2, 18, 4, 5\); .* needs \(2, 18, 5, 5\)"),
        ({"offset": torch.zeros(1, 18, 5, 5)}, r"offset has shape \(1, 18, 5, 5\); .* needs \(2, 18, 5, 5\)"),
        ({"mask": torch.zeros(2, 18, 5, 5)}, r"mask has shape \(2, 18, 5, 5\); .* needs \(2, 9, 5, 5\)"),
        ({"input": torch.zeros(6, 5, 5)}, r"input has 3 dimensions, shape \(6, 5, 5\); it must have 4"),
        ({"weight": torch.zeros(4, 4, 3, 3)}, "input has 6 channels; the weight takes 4 per group"),
        ({"weight": torch.zeros(4, 0, 3, 3)}, "input has 6 channels; the weight takes 0 per group"),
        ({"weight": torch.zeros(4, 2, 3, 3)}, "weight has 4 output channels; they must divide into 3 groups"),
        ({"weight": torch.zeros(4, 6, 3, 0)}, "the kernel must be at least 1x1"),
        ({"bias": torch.zeros(3)}, r"bias has shape \(3,\); the weight needs \(4,\)"),
        ({"bias": torch.zeros(4).double()}, "input, weight and bias must have one dtype outside autocast"),
        ({"weight": torch.zeros(4, 6, 3, 3).double()}, "input, weight and bias must have one dtype outside autocast"),
        ({"offset": torch.zeros(2, 18, 5, 5).long()}, "offset is torch.int64; it must be a floating-point tensor"),
        ({"mask": torch.zeros(2, 9, 5, 5, device="meta")}, "mask is on meta and input on cpu"),
        ({"stride": 0}, r"stride is 0; it must be an int or a pair \(y, x\) of ints, each at least 1"),
        ({"padding": (1, -1)}, r"padding is \(1, -1\).* at least 0"),
        ({"padding": (1, 1, 1)}, r"padding is \(1, 1, 1\)"),
        ({"dilation": 1.5}, r"dilation is 1.5"),
        ({"padding": np.float64(1)}, r"padding is np.float64\(1.0\); it must be an int"),
        ({"padding": np.int64(-1)}, r"padding is np.int64\(-1\); it must be an int .* at least 0"),
        ({"stride": np.array([1, 1])}, r"stride is array\(\[1, 1\]\); it must be an int or a pair"),
        ({"padding": "same"}, "padding is 'same'; it must be an int or a pair"),
        ({"dilation": (1, 4)}, "input is 7 pixels wide with its padding; the dilated kernel needs at least 9"),
        ({"dilation": (4, 1)}, "input is 7 pixels high with its padding; the dilated kernel needs at least 9"),
        ({"backend": "cuda"}, "no backend is called 'cuda'; known: auto, cpu, triton, portable, reference"),
    ],
)
def test_a_wrong_call_is_told_what_was_wanted_and_what_came(wrong, message):
    deform_conv2d(**GOOD)
    with pytest.raises(ValueError, match=message):
        deform_conv2d(**GOOD | wrong)


INTEGERS = [np.int64, np.uint8, np.array, torch.tensor]


@pytest.mark.parametrize("integer", INTEGERS)
@pytest.mark.parametrize("name", ["stride", "padding", "dilation"])
def test_any_integer_is_an_int(integer, name):
    given = {
        **GOOD,
        "input": torch.randn(2, 6, 7, 9),
        "offset": torch.randn(2, 18, 7, 9),
        "weight": torch.randn(4, 6, 3, 3),
    }
    for value in (1, (1, 1)):
        expected = deform_conv2d(**given | {name: value})
        taken = tuple(map(integer, value)) if isinstance(value, tuple) else integer(value)
        assert torch.equal(deform_conv2d(**given | {name: taken}), expected)


# 17 channels fill two vectors: 2,143,000,000 values, which fit 32 bits, become 4,034,000,000.
@pytest.mark.parametrize(("channels", "size"), [(4, 20000), (17, 11228)])
def test_an_image_too_large_for_32_bits_is_not_taken(channels, size):
    image, offset = (torch.ones(1, c, 1, 1).expand(1, c, size, size) for c in (channels, 2))
    message = f"an image's values in 32 bits; {channels} channels of {size}x{size} are too many"
    with pytest.raises(ValueError, match=message):
        deform_conv2d(image, offset, torch.ones(1, channels, 1, 1), backend="cpu")


def test_a_named_backend_says_why_not(monkeypatch):
    with pytest.raises(ValueError, match="no backend can take these inputs: triton: "):
        deform_conv2d(**GOOD, backend="triton")
    integers = GOOD | {"offset": GOOD["offset"].to(torch.float8_e4m3fn)}
    with pytest.raises(ValueError, match=r"cpu: it supports .*; offset is torch.float8_e4m3fn"):
        deform_conv2d(**integers, backend="cpu")
    monkeypatch.setattr(cpu, "_missing", "there was no file")
    with pytest.raises(ValueError, match=r"cpu: its kernels were not built .*there was no file"):
        deform_conv2d(**GOOD, backend="cpu")
    assert deform_conv2d(**GOOD).shape == (2, 4, 5, 5)


def test_the_kernels_are_built_here():
    assert cpu.unavailable() is None
    assert cpu.instruction_sets()[-1] == "baseline"
