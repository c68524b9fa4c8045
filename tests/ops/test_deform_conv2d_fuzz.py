"""100,000 random small calls of the CPU's kernels, value and gradients, against the reference in float64."""

import math
import random

import pytest
import torch

from saccade.ops import deform_conv2d
from saccade.ops.deform_conv import cpu

CASES, SEEDS = 5000, 20
FAR = [math.nan, math.inf, -math.inf, 1e9, -1e9, 3e38, -3e38, 2.0**24, -(2.0**29), 2.0**31, -1e-10, 1e-40, -0.0]
# Of the largest magnitude: what the kernels promise, and what storing a number in 16 bits may add, or multiplying so.
RELATIVE = {torch.float32: 1e-5, torch.float64: 1e-12}
STORED = {torch.float32: 2.0**-24, torch.float64: 0, torch.bfloat16: 2.0**-6, torch.float16: 2.0**-10}
HALF = (torch.bfloat16, torch.float16)


@pytest.mark.slow
@pytest.mark.skipif(cpu.unavailable() is not None, reason="the kernels were not built")
@pytest.mark.parametrize("seed", range(SEEDS))
def test_random_calls_are_those_of_the_reference(seed, monkeypatch):
    for number in range(seed * CASES, (seed + 1) * CASES):
        check(number, monkeypatch)


def check(number, monkeypatch):
    """Compare one call; its number says all about it."""
    rng = random.Random(number)
    torch.manual_seed(number)
    shapes, given = draw_shapes(rng)
    tensors = draw_tensors(rng, shapes, given)
    wanted = [name for name in tensors if rng.random() < 0.7] if rng.random() < 0.8 else []
    sets = cpu.instruction_sets()
    # The one that serves here half of the time, and each other one in turn.
    chosen = sets[0] if rng.random() < 0.5 else rng.choice(sets)
    in_double = tensors["input"].dtype == torch.float64
    # Offsets are rounded to the precision of positions first.
    exact = {n: (t if in_double else t.float() if n == "offset" else t).double() for n, t in tensors.items()}
    grad = draw_numbers((shapes["input"][0], shapes["weight"][0], *shapes["offset"][2:]), tensors["weight"].dtype)
    grad = rng.choice(LAYOUTS)(grad)
    expected = value_and_gradients(exact, given, "reference", wanted, grad.double())
    with monkeypatch.context() as patch:
        patch.setattr(cpu, "instruction_sets", lambda: [chosen])
        found = value_and_gradients(tensors, given, "cpu", wanted, grad)
    for name, value in expected.items():
        problem = differs(found[name], value, in_double, sum_lengths(shapes)[name])
        about = {n: (t.dtype, tuple(t.shape), t.stride()) for n, t in tensors.items()}
        assert not problem, f"case {number}, {chosen}: {name} {problem}; {about} {given}"


def draw_shapes(rng):
    """Draw a small call: the tensors' shapes, and what else is given."""
    groups, offset_groups = rng.choice([1, 1, 2, 3]), rng.choice([1, 1, 2, 3])
    channels = math.lcm(groups, offset_groups) * rng.randint(1, 3)
    kernel = [rng.choice([1, 2, 3, 3, 4]) for _ in range(2)]
    stride, dilation = ((rng.choice([1, 1, 2, 3]), rng.choice([1, 1, 2])) for _ in range(2))
    padding = rng.randint(0, 3), rng.randint(0, 3)
    reach = [dilation[a] * (kernel[a] - 1) + 1 for a in (0, 1)]
    size = [max(1, reach[a] - 2 * padding[a]) + rng.randint(0, 4) for a in (0, 1)]
    out = [(size[a] + 2 * padding[a] - reach[a]) // stride[a] + 1 for a in (0, 1)]
    batch, channels_out = rng.choice([0, *[1] * 30, *[2] * 30, 5]), groups * rng.choice([1, 1, 2, 3, 9])
    maps = offset_groups * kernel[0] * kernel[1]
    shapes = {
        "input": (batch, channels, *size),
        "offset": (batch, 2 * maps, *out),
        "weight": (channels_out, channels // groups, *kernel),
        "bias": (channels_out,),
        "mask": (batch, maps, *out),
    }
    return shapes, {"stride": stride, "padding": padding, "dilation": dilation}


def draw_tensors(rng, shapes, given):
    """Draw the tensors, in dtypes and layouts of all kinds."""
    dtype = rng.choice([torch.float32, torch.float32, torch.float64, torch.float64, *HALF])
    # Autocast to 16 bits concerns weight and bias; offset and mask may have any dtype at any time.
    product = rng.choice(HALF) if dtype == torch.float32 and rng.random() < 0.2 else dtype
    mixed = rng.random() < 0.2
    tensors = {}
    for name, shape in shapes.items():
        if name in ("bias", "mask") and rng.random() < 0.5:
            continue
        own = product if name in ("weight", "bias") else dtype
        if mixed and name in ("offset", "mask"):
            own = rng.choice(list(STORED))
        numbers = draw_offset(rng, shapes, given) if name == "offset" else draw_numbers(shape, own)
        tensors[name] = rng.choice(LAYOUTS)(numbers.to(own))
    return tensors


def draw_numbers(shape, dtype):
    return (torch.rand(shape) * 2 - 1).to(dtype)


def draw_offset(rng, shapes, given):
    """Draw offsets around nothing, at whole pixels, at the image's border, and some that are no place at all."""
    kernel, size, shape = shapes["weight"][2:], shapes["input"][2:], shapes["offset"]
    offset = (torch.rand(shape, dtype=torch.float64) * 2 - 1) * rng.choice([0.5, 2, 6])
    kind = rng.randrange(4)
    if kind == 1:
        offset = offset.round()
    if kind == 2:
        for axis in (0, 1):
            taps = torch.arange(kernel[0] * kernel[1])
            taps = taps // kernel[1] if axis == 0 else taps % kernel[1]
            places = torch.arange(shape[2 + axis]) * given["stride"][axis] - given["padding"][axis]
            plain = taps[:, None, None] * given["dilation"][axis] + (places[:, None] if axis == 0 else places[None, :])
            part = offset.unflatten(1, (-1, len(taps), 2))[:, :, :, axis]
            borders = torch.tensor([-2, -1, 0, size[axis] - 1, size[axis], size[axis] + 1])
            nearly = torch.tensor([0, 0, 1e-6, -1e-6, 1e-3, -1e-3], dtype=torch.float64)
            part.copy_(borders[torch.randint(6, part.shape)] + nearly[torch.randint(6, part.shape)] - plain)
    if rng.random() < 0.5:
        far = torch.tensor(FAR, dtype=torch.float64)[torch.randint(len(FAR), shape)]
        offset = torch.where(torch.rand(shape) < 0.1, far, offset)
    return offset


def channels_last(tensor):
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.dim() == 4 else tensor


def turned(tensor):
    return tensor.mT.contiguous().mT if tensor.dim() == 4 else tensor


def with_gaps(tensor):
    """Return the numbers among NaNs."""
    wide = tensor.new_full([n + 2 for n in tensor.shape], math.nan)
    inner = wide[tuple(slice(1, n + 1) for n in tensor.shape)]
    return inner.copy_(tensor)


def repeated(tensor):
    return tensor[:1].expand(tensor.shape)


LAYOUTS = [*[torch.Tensor.contiguous] * 3, channels_last, turned, with_gaps, repeated]


def value_and_gradients(tensors, given, backend, wanted, grad):
    """Return the output, and the wanted gradients by name."""
    leaves = {name: t.detach().requires_grad_(name in wanted) for name, t in tensors.items()}
    dtype = leaves["weight"].dtype
    with torch.autocast("cpu", dtype, enabled=dtype != leaves["input"].dtype):
        output = deform_conv2d(**leaves, **given, backend=backend)
    found = {"output": output.detach()}
    if wanted:
        gradients = torch.autograd.grad(output, [leaves[name] for name in wanted], grad)
        found |= dict(zip(wanted, gradients, strict=True))
    return found


def sum_lengths(shapes):
    """Return how many products at most are added up to make a number, by tensor."""
    batch, channels, *_ = shapes["input"]
    channels_out, per_group, kernel_h, kernel_w = shapes["weight"]
    positions, taps = math.prod(shapes["offset"][2:]), kernel_h * kernel_w
    out_per_group = channels_out * per_group // channels
    arriving = out_per_group * channels // (shapes["offset"][1] // (2 * taps))
    return {
        "output": taps * per_group + 1,
        "input": taps * positions * out_per_group,
        "offset": 2 * arriving,
        "weight": batch * positions,
        "bias": batch * positions,
        "mask": arriving,
    }


def differs(found, expected, in_double, sum_length):
    """Say by how much `found` is off, if by too much."""
    if found.shape != expected.shape:
        return f"has shape {tuple(found.shape)}"
    if not expected.numel():
        return None
    largest = expected.abs().max().item()
    error = (found.double() - expected).abs().max().item()
    compute = torch.float64 if in_double else torch.float32
    allowed = (RELATIVE[compute] + STORED[found.dtype]) * largest
    if error <= allowed:
        return None
    # Sums of numbers of up to 1 that cancel: all that a tensor of few numbers holds may be rounding. And float16 ends.
    allowed += 16 * torch.finfo(compute).eps * math.sqrt(sum_length) + (2.0**-24 if found.dtype == torch.float16 else 0)
    return None if error <= allowed else f"is off by {error:.3g}, allowed {allowed:.3g} (largest {largest:.3g})"
