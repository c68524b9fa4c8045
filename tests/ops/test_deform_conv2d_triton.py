"""The Triton backend: in Triton's interpreter, and on a GPU where there is one.

The interpreter has to be on before Triton is first imported, and then is on for the whole process. So what is to run in
it is named `interpreted_...`, which pytest does not collect, and `test_in_the_interpreter` runs pytest on this file
once more, in a process of its own, for those names.
"""

import os
import random
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from saccade.ops import deform_conv2d
from saccade.ops.deform_conv import triton, triton_layout
from saccade.ops.deform_conv.arguments import Tensors, memory_format
from saccade.ops.deform_conv.geometry import check

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
RELATIVE = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 3e-3}
WILD = [float("nan"), float("inf"), float("-inf"), 1e9, -1e9, 3e38]
NAMES = ("input", "offset", "weight", "bias", "mask")
gpu = pytest.mark.skipif(not torch.cuda.is_available() or INTERPRETED, reason="needs a CUDA device")

if INTERPRETED:
    from triton.runtime import interpreter

    _patch_tensor = interpreter._patch_lang_tensor

    def _patch_tensor_for_numpy(tensor, scope):
        # Triton 3.6 makes ranges of arrays with one element, which NumPy 2.4 no longer takes for integers.
        _patch_tensor(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: self.handle.data.item())

    interpreter._patch_lang_tensor = _patch_tensor_for_numpy


@pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed")
def test_in_the_interpreter():
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-o", "python_functions=interpreted_*", __file__]
    finished = subprocess.run(
        command,
        env={**environment, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    assert finished.returncode == 0, finished.stdout[-5000:] + finished.stderr[-2000:]


@pytest.mark.skipif(torch.cuda.is_available() or INTERPRETED, reason="a GPU is here")
def test_without_a_gpu_it_says_why_it_cannot():
    inputs = torch.zeros(1, 2, 3, 3), torch.zeros(1, 18, 3, 3), torch.zeros(2, 2, 3, 3)
    with pytest.raises(ValueError, match=r"triton: (there is no NVIDIA GPU|triton is not installed)"):
        deform_conv2d(*inputs, padding=1, backend="triton")


def call(
    groups=1, offset_groups=1, size=(3, 4), channels=6, channels_out=6, kernel=(3, 3), batch=2, scale=1.5, **given
):
    """Draw the tensors of a call with everything in it; `given` are its stride, padding and dilation."""
    image, weight = torch.randn(batch, channels, *size), torch.randn(channels_out, channels // groups, *kernel)
    out_size = torch.nn.functional.conv2d(image, weight, groups=groups, **given).shape[2:]
    taps = offset_groups * kernel[0] * kernel[1]
    offset, mask = torch.randn(batch, 2 * taps, *out_size) * scale, torch.rand(batch, taps, *out_size)
    tensors = dict(zip(NAMES, (image, offset, weight, torch.randn(channels_out), mask), strict=True))
    return tensors, given


def random_call(seed, largest=2):
    """Draw a call of odd sizes, with or without bias and mask."""
    rng = random.Random(seed)
    torch.manual_seed(seed)
    given = {name: (rng.randint(1, 3), rng.randint(1, 2)) for name in ("stride", "dilation")}
    kernel = rng.choice([(3, 3), (1, 1), (2, 2), (3, 1), (1, 5)])
    tensors, given = call(
        *(rng.choice([1, 1, 2, 3]), rng.choice([1, 1, 2, 3])),
        size=[given["dilation"][a] * (kernel[a] - 1) + 1 + rng.randint(0, largest) for a in (0, 1)],
        channels=6 * rng.choice([1, 2]),
        channels_out=6 * rng.randint(1, 2),
        kernel=kernel,
        batch=rng.randint(1, 3),
        scale=rng.choice([0.5, 2, 6]),
        padding=(rng.randint(0, 3), rng.randint(0, 3)),
        **given,
    )
    left_out = {name for name in ("bias", "mask") if rng.random() < 0.5}
    return {name: tensor for name, tensor in tensors.items() if name not in left_out}, given


def value_and_gradients(tensors, given, backend="triton", grad=None):
    """Return the output and all gradients, each by name."""
    leaves = {name: tensor.detach().requires_grad_() for name, tensor in tensors.items()}
    output = deform_conv2d(**leaves, **given, backend=backend)
    if grad is None:
        grad = torch.ones_like(output)
    gradients = torch.autograd.grad(output, list(leaves.values()), grad.to(output.dtype))
    return {"output": output.detach(), **{f"grad_{n}": g for n, g in zip(leaves, gradients, strict=True)}}


def expect(tensors, given):
    """Return the reference's output and gradients in float64, and the gradient of the output that was given."""
    doubles = {name: tensor.double() for name, tensor in tensors.items()}
    dtype = tensors["weight"].dtype
    grad = torch.randn_like(deform_conv2d(**doubles, **given, backend="reference")).to(dtype).double()
    return value_and_gradients(doubles, given, "reference", grad), grad


def assert_close(found, expected, relative):
    """Compare by the largest magnitude of each tensor."""
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].shape == value.shape, name
        error = (found[name].double() - value.double()).abs().max().item() if value.numel() else 0
        assert error <= relative * value.abs().max().item() if value.numel() else True, f"{name} is off by {error}"


def assert_right(tensors, given, relative=1e-5):
    """Compare with the reference, values and dtypes."""
    expected, grad = expect(tensors, given)
    found = value_and_gradients(tensors, given, "triton", grad)
    assert_close(found, expected, relative)
    assert found["output"].dtype == tensors["weight"].dtype
    assert all(found[f"grad_{name}"].dtype == tensor.dtype for name, tensor in tensors.items())


@pytest.mark.parametrize("seed", range(3))
def interpreted_odd_calls(seed):
    assert_right(*random_call(seed))


@pytest.mark.parametrize(("groups", "offset_groups"), [(1, 2), (2, 1), (2, 3), (6, 3), (2, 2)])
def interpreted_groups_and_offset_groups_cross(groups, offset_groups):
    assert_right(*call(groups, offset_groups, size=(2, 3), kernel=(1, 2), padding=(0, 1)))


@pytest.mark.parametrize(("channels", "channels_out"), [(80, 70), (40, 3), (1, 1), (20, 24), (64, 130)])
def interpreted_more_and_fewer_channels_than_a_block(channels, channels_out):
    assert_right(*call(size=(2, 2), kernel=(1, 2), channels=channels, channels_out=channels_out, batch=1))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def interpreted_halves(dtype):
    tensors, given = call(2, 1, kernel=(2, 3), stride=2, padding=1)
    tensors = {name: tensor if name == "offset" else tensor.to(dtype) for name, tensor in tensors.items()}
    assert_right(tensors, given, RELATIVE[dtype])


@pytest.mark.parametrize(("image", "kernel"), [(torch.float32, torch.float16), (torch.float16, torch.float32)])
def interpreted_autocast_mixes_dtypes(image, kernel):
    tensors, given = call(padding=1)
    geometry = check(Tensors(**tensors), stride=1, padding=1, dilation=1)
    arguments = Tensors(*(tensors[name].to(kernel if name in ("weight", "bias") else image) for name in NAMES))
    found = triton.forward(arguments, geometry)
    assert found.dtype == kernel
    expected = deform_conv2d(**tensors, **given, backend="reference")
    assert_close({"output": found}, {"output": expected}, RELATIVE[torch.float16])
    gradients = triton.backward(torch.ones_like(found), arguments, geometry, (True,) * 5)
    assert [gradient.dtype for gradient in gradients] == [argument.dtype for argument in arguments]
    expected = list(value_and_gradients(tensors, given, "reference").values())[1:]
    assert_close(dict(enumerate(gradients)), dict(enumerate(expected)), RELATIVE[torch.float16])


def interpreted_any_layout():
    tensors, given = call(2, 3, kernel=(1, 2))
    expected, grad = expect(tensors, given)
    last = {n: t.contiguous(memory_format=torch.channels_last) if t.dim() == 4 else t for n, t in tensors.items()}
    gaps = {n: t.repeat_interleave(2, -1)[..., ::2] for n, t in tensors.items()}
    turned = {n: t.mT.contiguous().mT if t.dim() == 4 else t for n, t in tensors.items()}
    for layout in (last, gaps, turned):
        found = value_and_gradients(layout, given, "triton", grad)
        assert_close(found, expected, 1e-5)
        assert found["output"].is_contiguous(memory_format=memory_format(layout["input"]))
    constant = grad[:1, :1, :1, :1].expand_as(grad)
    expected = value_and_gradients(tensors, given, "reference", constant)
    assert_close(value_and_gradients(tensors, given, "triton", constant), expected, 1e-5)


def interpreted_channels_last_is_not_copied_unless_it_starts_between_vectors():
    tensors, given = call(channels=16, kernel=(1, 2))
    image = tensors["input"] = tensors["input"].contiguous(memory_format=torch.channels_last)
    assert triton_layout.rows(image, 1, 16).data_ptr() == image.data_ptr()
    assert_right(tensors, given)
    shifted = torch.empty(image.numel() + 1)[1:].as_strided(image.shape, image.stride()).copy_(image)
    rows = triton_layout.rows(shifted, 1, 16)
    assert rows.data_ptr() % 16 == 0
    assert torch.equal(rows.flatten(3).permute(0, 3, 1, 2), image)


@pytest.mark.parametrize("value", WILD)
def interpreted_wild_offsets_sample_outside_and_read_nothing(value):
    tensors, given = call(padding=1)
    tensors["input"][:, :, 0, 0] = float("nan")  # what an index of zero would read
    tensors["offset"][:, ::2] = value
    found = value_and_gradients(tensors, given)
    assert torch.equal(found["output"], tensors["bias"][:, None, None].expand_as(found["output"]))
    for name in ("input", "offset", "weight", "mask"):
        assert torch.equal(found[f"grad_{name}"], torch.zeros_like(tensors[name])), name


def interpreted_at_whole_pixels_slopes_are_those_of_the_interval_above():
    tensors, given = call(size=(4, 4), padding=1)
    tensors["offset"] = torch.randint(-3, 4, tensors["offset"].shape).float()
    assert_right(tensors, given)


def interpreted_positions_far_from_zero_are_exact():
    tensors, given = call(size=(1, 64), kernel=(1, 1), batch=1)
    tensors["offset"] = torch.full_like(tensors["offset"], 2.0**-12)
    assert_right(tensors, given, 1e-6)


@pytest.mark.parametrize("wanted", [("input",), ("offset",), ("weight",), ("bias", "mask")])
def interpreted_only_the_gradients_that_are_needed(wanted):
    tensors, given = call(padding=1, size=(2, 2))
    expected = value_and_gradients(tensors, given, "reference")
    leaves = {name: tensor.requires_grad_(name in wanted) for name, tensor in tensors.items()}
    found = torch.autograd.grad(deform_conv2d(**leaves, **given, backend="triton").sum(), [leaves[n] for n in wanted])
    assert_close(dict(zip(wanted, found, strict=True)), {name: expected[f"grad_{name}"] for name in wanted}, 1e-5)


def interpreted_an_empty_batch():
    tensors, given = call(batch=0, padding=1)
    found = value_and_gradients(tensors, given)
    assert found["output"].shape == (0, 6, 3, 4)
    for name, tensor in tensors.items():
        assert torch.equal(found[f"grad_{name}"], torch.zeros_like(tensor))


def interpreted_deterministic_algorithms(monkeypatch):
    tensors, given = call(2, 2, kernel=(2, 2), scale=0.3)
    torch.use_deterministic_algorithms(True)
    try:
        assert_right(tensors, given)
        first, second = (value_and_gradients(tensors, given) for _ in range(2))
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(torch.equal(first[name], second[name]) for name in first)


def interpreted_images_beyond_memory_or_32_bits_come_one_by_one(monkeypatch):
    tensors, given = call(kernel=(1, 2), batch=3, size=(2, 3))
    monkeypatch.setattr(triton, "COLUMN_BYTES", 1)
    assert_right(tensors, given)
    monkeypatch.setattr(triton_layout, "INT32_MAX", 1)
    assert_right(tensors, given)


def interpreted_what_it_cannot_take():
    image, offset, weight = torch.zeros(1, 2, 3, 3), torch.zeros(1, 18, 3, 3), torch.zeros(2, 2, 3, 3)
    with pytest.raises(
        ValueError, match=r"triton: it computes in float32, bfloat16 and float16; input is torch\.float64"
    ):
        deform_conv2d(image.double(), offset, weight.double(), padding=1, backend="triton")
    huge = torch.zeros(1).expand(1, 1, 30_000, 30_000)
    moves = torch.zeros(1).expand(1, 18, 30_000, 30_000)
    with pytest.raises(ValueError, match="triton: it numbers the values of an image in 32 bits"):
        deform_conv2d(huge, moves, torch.zeros(1, 1, 3, 3), padding=1, backend="triton")


# (batch, channels in, height = width, channels out, kernel height = width), as in benchmarks/deform_conv_gpu.py.
SHAPES = [(32, 20, 32, 50, 5), (8, 64, 56, 64, 3), (2, 256, 28, 256, 3), (16, 32, 32, 32, 3), (1, 64, 56, 64, 3)]


def on_gpu(tensors, dtype=torch.float32):
    return {name: (t if name == "offset" else t.to(dtype)).cuda() for name, t in tensors.items()}


@gpu
@pytest.mark.gpu
@pytest.mark.parametrize("seed", range(6))
def test_odd_calls_on_a_gpu(seed):
    tensors, given = random_call(seed, largest=20)
    assert_right(on_gpu(tensors), given)


@gpu
@pytest.mark.gpu
@pytest.mark.parametrize("dtype", RELATIVE)
@pytest.mark.parametrize("shape", SHAPES)
def test_real_sizes_on_a_gpu(shape, dtype):
    torch.manual_seed(0)
    batch, channels, size, channels_out, kernel = shape
    sizes = {"size": (size, size), "channels": channels, "channels_out": channels_out, "kernel": (kernel, kernel)}
    tensors, given = call(**sizes, batch=batch, padding=kernel // 2)
    tensors = on_gpu(tensors, dtype)
    if dtype == torch.bfloat16:
        tensors["input"] = tensors["input"].contiguous(memory_format=torch.channels_last)
    assert_right(tensors, given, RELATIVE[dtype])
    if dtype == torch.float32:
        assert_close(value_and_gradients(tensors, given), value_and_gradients(tensors, given, "portable"), 2e-5)


@gpu
@pytest.mark.gpu
def test_torchvision_gives_the_same_on_a_gpu():
    torchvision = pytest.importorskip("torchvision")
    tensors, given = call(2, 3, size=(20, 17), channels=12, stride=2, padding=1)
    leaves = {name: tensor.requires_grad_() for name, tensor in on_gpu(tensors).items()}
    theirs = torchvision.ops.deform_conv2d(**leaves, **given)
    expected = [theirs, *torch.autograd.grad(theirs.sum(), list(leaves.values()))]
    found = list(value_and_gradients(leaves, given).values())
    assert_close(dict(enumerate(found)), dict(enumerate(expected)), 2e-5)


@gpu
@pytest.mark.gpu
def test_deterministic_algorithms_on_a_gpu(monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it matrix products refuse
    tensors, given = call(size=(40, 40), channels=32, padding=1, scale=0.2)
    tensors = on_gpu(tensors)
    torch.use_deterministic_algorithms(True)
    try:
        runs = [value_and_gradients(tensors, given) for _ in range(3)]
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(torch.equal(run[name], runs[0][name]) for run in runs[1:] for name in run)
    assert_close(runs[0], value_and_gradients(tensors, given), 1e-5)


# Torch's own: its scripts are deprecated, and it recommends less exact products.
@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning", "ignore:TensorFloat32:UserWarning")
@gpu
@pytest.mark.gpu
def test_compiled_on_a_gpu():
    tensors, given = call(size=(9, 9), padding=1)
    tensors = on_gpu(tensors)

    @torch.compile(fullgraph=True)
    def compiled(**leaves):
        return deform_conv2d(**leaves, **given).relu()

    leaves = {name: tensor.requires_grad_() for name, tensor in tensors.items()}
    found = torch.autograd.grad(compiled(**leaves).sum(), list(leaves.values()))
    expected = torch.autograd.grad(deform_conv2d(**leaves, **given).relu().sum(), list(leaves.values()))
    assert_close(dict(enumerate(found)), dict(enumerate(expected)), 1e-5)


@gpu
@pytest.mark.gpu
def test_wild_offsets_on_a_gpu():
    tensors, given = call(size=(30, 30), padding=1)
    wild = torch.tensor(WILD)[torch.randint(len(WILD), tensors["offset"].shape)]
    tensors["offset"] = torch.where(torch.rand_like(tensors["offset"]) < 0.3, wild, tensors["offset"])
    assert_right(on_gpu(tensors), given)
