"""Every backend against the reference, and both against what torchvision recorded."""

import json
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from saccade.ops import deform_conv2d
from saccade.ops.deform_conv import rows, tiles

GOLDEN = Path(__file__).parents[1] / "golden" / "deform_conv2d.safetensors"
with safe_open(GOLDEN, "pt") as file:
    ARGUMENTS = json.loads(file.metadata()["arguments"])
ORDER = ("input", "offset", "weight", "bias", "mask")


def arguments(rng, dtype=torch.float64, chance=0.5):
    """Draw a small call: sizes, groups, strides, offsets of some pixels; bias and mask by chance."""
    groups, offset_groups = rng.choice([1, 1, 2, 3]), rng.choice([1, 1, 2, 3])
    channels = 6 * rng.choice([1, 2])
    kernel = rng.choice([(3, 3), (1, 1), (2, 3), (5, 5), (3, 1)])
    given = {name: (rng.randint(1, 3), rng.randint(1, 2)) for name in ("stride", "dilation")}
    given["padding"] = (rng.randint(0, 3), rng.randint(0, 3))
    size = [given["dilation"][a] * (kernel[a] - 1) + 1 + rng.randint(0, 7) for a in (0, 1)]
    batch, out_channels = rng.randint(1, 3), groups * rng.randint(1, 4)
    image = torch.randn(batch, channels, *size, dtype=dtype)
    weight = torch.randn(out_channels, channels // groups, *kernel, dtype=dtype)
    out_size = torch.nn.functional.conv2d(image, weight, groups=groups, **given).shape[2:]
    taps = offset_groups * kernel[0] * kernel[1]
    tensors = {
        "input": image,
        "offset": torch.randn(batch, 2 * taps, *out_size, dtype=dtype) * rng.choice([0.5, 2, 6]),
        "weight": weight,
        "bias": torch.randn(out_channels, dtype=dtype) if rng.random() < chance else None,
        "mask": torch.rand(batch, taps, *out_size, dtype=dtype) if rng.random() < chance else None,
    }
    return {name: tensor for name, tensor in tensors.items() if tensor is not None}, given


def value_and_gradients(tensors, given, backend, grad=None):
    """Return the output and all gradients, each by name."""
    leaves = {name: tensor.detach().requires_grad_() for name, tensor in tensors.items()}
    output = deform_conv2d(**leaves, **given, backend=backend)
    grad = torch.ones_like(output) if grad is None else grad.to(output.dtype)
    gradients = torch.autograd.grad(output, list(leaves.values()), grad)
    return {"output": output.detach(), **{f"grad_{n}": g for n, g in zip(leaves, gradients, strict=True)}}


def assert_close(found, expected, relative):
    """Compare by the largest magnitude of each tensor."""
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].shape == value.shape, name
        error = (found[name].double() - value.double()).abs().max().item()
        assert error <= relative * value.abs().max().item(), f"{name} is off by {error}"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ARGUMENTS)
def test_torchvision_gave_the_same(backend, name, dtype):
    recorded = {k.split("/")[1]: v for k, v in load_file(GOLDEN).items() if k.startswith(f"{name}/")}
    tensors = {key: recorded.pop(key).to(dtype) for key in ORDER if key in recorded}
    found = value_and_gradients(tensors, ARGUMENTS[name], backend, recorded.pop("grad"))
    assert_close(found, recorded, 1e-5 if dtype == torch.float32 else 1e-6)


def test_the_recorded_cases_cover_what_there_is():
    recorded = load_file(GOLDEN)
    assert {key.split("/")[1] for key in recorded} == {*ORDER, "grad", "output", *(f"grad_{n}" for n in ORDER)}
    assert {key for given in ARGUMENTS.values() for key in given} == {"stride", "padding", "dilation"}


@pytest.mark.parametrize("seed", range(40))
def test_fast_backends_are_the_reference_in_float64(fast_backend, seed, monkeypatch):
    torch.manual_seed(seed)
    rng = random.Random(seed)
    tensors, given = arguments(rng)
    # From single lines of single images to all at once.
    monkeypatch.setattr(tiles, "TILE_BYTES_ON_CPU", rng.choice([1, 3000, 30000, 1 << 22]))
    expected = value_and_gradients(tensors, given, "reference")
    grad = torch.randn_like(expected["output"])
    expected = value_and_gradients(tensors, given, "reference", grad)
    assert_close(value_and_gradients(tensors, given, fast_backend, grad), expected, 1e-12)


@pytest.mark.parametrize(("dtype", "relative"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2), (torch.float16, 3e-3)])
@pytest.mark.parametrize("seed", range(4))
def test_every_dtype_is_near_the_float64_reference(backend, dtype, relative, seed):
    torch.manual_seed(seed)
    tensors, given = arguments(random.Random(seed), torch.float32)
    if dtype != torch.float32:
        tensors = {name: tensor if name == "offset" else tensor.to(dtype) for name, tensor in tensors.items()}
    expected = value_and_gradients({name: tensor.double() for name, tensor in tensors.items()}, given, "reference")
    found = value_and_gradients(tensors, given, backend)
    assert [found[f"grad_{name}"].dtype for name in tensors] == [tensor.dtype for tensor in tensors.values()]
    assert_close(found, expected, relative)


def test_memory_layout_changes_no_number(backend):
    torch.manual_seed(0)
    tensors, given = arguments(random.Random(3), chance=1)
    expected = value_and_gradients(tensors, given, "reference")
    last = {n: t.contiguous(memory_format=torch.channels_last) if t.dim() == 4 else t for n, t in tensors.items()}
    gaps = {n: t.repeat_interleave(2, -1)[..., ::2] for n, t in tensors.items()}
    turned = {n: t.mT.contiguous().mT if t.dim() == 4 else t for n, t in tensors.items()}
    for layout in (last, gaps, turned):
        assert_close(value_and_gradients(layout, given, backend), expected, 1e-12)


def test_the_answer_has_the_layout_of_the_input(fast_backend):
    image, offset, weight = torch.randn(2, 3, 6, 5), torch.randn(2, 18, 6, 5), torch.randn(4, 3, 3, 3)
    assert deform_conv2d(image, offset, weight, padding=1, backend=fast_backend).is_contiguous()
    last = image.contiguous(memory_format=torch.channels_last)
    found = deform_conv2d(last, offset, weight, padding=1, backend=fast_backend)
    assert found.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("wanted", ORDER)
def test_each_gradient_is_given_alone(fast_backend, wanted):
    torch.manual_seed(1)
    tensors, given = arguments(random.Random(8), chance=1)
    expected = value_and_gradients(tensors, given, "reference")
    tensors[wanted].requires_grad_()
    (found,) = torch.autograd.grad(deform_conv2d(**tensors, **given, backend=fast_backend).sum(), tensors[wanted])
    assert_close({wanted: found}, {wanted: expected[f"grad_{wanted}"]}, 1e-12)


def small_double_inputs():
    torch.manual_seed(0)
    # Away from whole pixels, where the derivative jumps.
    offset = torch.randint(-2, 2, (1, 16, 2, 3)) + torch.rand(1, 16, 2, 3) * 0.8 + 0.1
    shapes = (1, 2, 3, 4), None, (2, 2, 2, 2), (2,), (1, 8, 2, 3)
    tensors = [offset.double() if shape is None else torch.randn(shape).double() for shape in shapes]
    return [tensor.requires_grad_() for tensor in tensors]


def run(backend):
    return lambda image, offset, weight, bias, mask: deform_conv2d(
        image, offset, weight, bias, mask=mask, backend=backend
    )


def test_gradcheck(backend):
    assert torch.autograd.gradcheck(run(backend), small_double_inputs(), fast_mode=False)


def test_gradgradcheck_of_the_reference():
    assert torch.autograd.gradgradcheck(run("reference"), small_double_inputs(), fast_mode=True)


def test_fast_backends_are_not_differentiable_twice_and_say_so(fast_backend):
    inputs = small_double_inputs()
    (gradient,) = torch.autograd.grad(run(fast_backend)(*inputs).square().sum(), inputs[0], create_graph=True)
    with pytest.raises(RuntimeError, match=r"use deform_conv2d.*backend='reference'"):
        gradient.sum().backward()


@pytest.fixture
def two_threads(monkeypatch):
    """Make any work large enough to be shared by two threads."""
    monkeypatch.setattr(tiles, "TILE_BYTES_ON_CPU", 1)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    assert torch.get_num_threads() == 2
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(torch.get_num_threads).result() == 2
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("seed", range(10))
def test_threads_that_share_the_images_change_nothing(seed):
    torch.manual_seed(seed)
    tensors, given = arguments(random.Random(seed))
    expected = value_and_gradients(tensors, given, "reference")
    assert_close(value_and_gradients(tensors, given, "portable"), expected, 1e-12)
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            found = deform_conv2d(**tensors, **given, backend="portable")
        assert_close({"output": found}, {"output": expected["output"]}, 1e-12)


@pytest.mark.usefixtures("two_threads")
def test_what_goes_wrong_in_a_thread_is_raised(monkeypatch):
    gather = rows.gather

    def fail(*given):
        if threading.current_thread() is not threading.main_thread():
            raise MemoryError("no more")
        return gather(*given)

    monkeypatch.setattr(tiles, "gather", fail)
    image, offset, weight = torch.randn(4, 3, 6, 5), torch.randn(4, 18, 6, 5), torch.randn(4, 3, 3, 3)
    with pytest.raises(MemoryError, match="no more"):
        deform_conv2d(image, offset, weight, padding=1, backend="portable")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("seed", range(10))
def test_portable_on_a_gpu_is_the_reference_on_the_cpu(seed):
    torch.manual_seed(seed)
    tensors, given = arguments(random.Random(seed))
    expected = value_and_gradients(tensors, given, "reference")
    found = value_and_gradients({name: tensor.cuda() for name, tensor in tensors.items()}, given, "portable")
    assert_close({name: value.cpu() for name, value in found.items()}, expected, 1e-12)
