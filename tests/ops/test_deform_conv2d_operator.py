"""One operator of `torch.library`: what transforms, compilers and other processes see of it."""

import multiprocessing

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from saccade.nn import DeformConv2d
from saccade.ops import deform_conv2d
from saccade.ops.deform_conv import operator

SETTINGS = {"stride": (2, 1), "padding": (1, 2), "dilation": (1, 2)}


def tensors(requires_grad=True):
    torch.manual_seed(0)
    shapes = {
        "input": (2, 4, 7, 8),
        "offset": (2, 36, 4, 8),
        "weight": (6, 2, 3, 3),
        "bias": (6,),
        "mask": (2, 18, 4, 8),
    }
    return {name: torch.randn(shape).requires_grad_(requires_grad) for name, shape in shapes.items()}


def positional(given):
    return [given["input"], given["offset"], given["weight"], given.get("bias"), given.get("mask"), *SETTINGS.values()]


@pytest.mark.parametrize(("left_out", "channels_last"), [((), True), (("bias",), False), (("bias", "mask"), False)])
def test_opcheck(fast_backend, left_out, channels_last):
    given = {name: tensor for name, tensor in tensors().items() if name not in left_out}
    if channels_last:
        image = given["input"].detach().contiguous(memory_format=torch.channels_last)
        given["input"] = image.requires_grad_()
    torch.library.opcheck(operator.forward, (*positional(given), fast_backend))
    out = operator.forward(*positional(given), fast_backend)
    found = [None if t is None else t.detach() for t in positional(given)[:5]]
    needs = [tensor is not None for tensor in found]
    arguments = torch.randn_like(out), *found, *SETTINGS.values(), fast_backend, needs
    torch.library.opcheck(operator.backward, arguments)


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")  # of torch's own code
@pytest.mark.parametrize("compiler", ["aot_eager", "inductor"])
def test_compiles_to_one_graph(compiler):
    layer = DeformConv2d(3, 4, 3, padding=1, modulated=True, max_offset_px=4)
    torch.nn.init.normal_(layer.positions.weight, std=0.3)
    image = torch.randn(2, 3, 8, 9, requires_grad=True)

    def step(image):
        with torch.autocast("cpu", torch.bfloat16):
            return (layer(image).relu() + 1).float().square().mean()

    leaves = [image, *layer.parameters()]
    expected = [step(image), *torch.autograd.grad(step(image), leaves)]
    torch._dynamo.reset()
    compiled = torch.compile(step, fullgraph=True, backend=compiler)
    found = [compiled(image), *torch.autograd.grad(compiled(image), leaves)]
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=2e-2, atol=2e-2 * other.abs().max().item())


def test_exports_with_dynamic_sizes():
    layer = DeformConv2d(3, 4, 3, padding=1)
    torch.nn.init.normal_(layer.positions.weight, std=0.3)
    auto = torch.export.Dim.AUTO
    program = torch.export.export(layer, (torch.randn(2, 3, 8, 9),), dynamic_shapes=({0: auto, 2: auto, 3: auto},))
    assert torch.ops.saccade.deform_conv2d.default in {node.target for node in program.graph.nodes}
    image = torch.randn(3, 3, 5, 12)
    torch.testing.assert_close(program.module()(image), layer(image))


@pytest.mark.parametrize("batched", [("input", "offset", "mask"), ("offset",), ("input", "weight"), ("bias",)])
def test_vmap_is_a_loop(fast_backend, batched):
    given = tensors(requires_grad=False)
    many = {name: torch.randn(3, *tensor.shape) if name in batched else tensor for name, tensor in given.items()}

    def run(*values):
        return deform_conv2d(**dict(zip(given, values, strict=True)), **SETTINGS, backend=fast_backend)

    found = torch.vmap(run, tuple(0 if name in batched else None for name in given))(*many.values())
    for i in range(3):
        one = run(*(many[name][i] if name in batched else many[name] for name in given))
        torch.testing.assert_close(found[i], one, rtol=1e-5, atol=1e-5)


def test_batched_gradients(fast_backend):
    given = tensors()
    out = deform_conv2d(**given, **SETTINGS, backend=fast_backend)
    many, leaves = torch.randn(3, *out.shape), list(given.values())
    found = torch.autograd.grad(out, leaves, many, is_grads_batched=True, retain_graph=True)
    for i in range(3):
        for several, one in zip(found, torch.autograd.grad(out, leaves, many[i], retain_graph=True), strict=True):
            torch.testing.assert_close(several[i], one)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_any_number_of_threads_gives_the_same_bits(dtype):
    torch.manual_seed(0)
    results = []
    leaves = [torch.randn(3, 20, 19, 17), torch.randn(3, 36, 19, 17), torch.randn(30, 20, 3, 3), torch.randn(30)]
    leaves = [leaf.to(dtype).requires_grad_() for leaf in leaves]
    mask = torch.rand(3, 18, 19, 17)
    before = torch.get_num_threads()
    for num_threads in (1, 2, 3):
        torch.set_num_threads(num_threads)
        found = deform_conv2d(*leaves, padding=1, mask=mask, backend="cpu")
        results.append([found, *torch.autograd.grad(found.float().square().sum(), leaves)])
    torch.set_num_threads(before)
    for several in zip(*results, strict=True):
        assert all(torch.equal(several[0], other) for other in several[1:])


class Convolved(Dataset):
    def __len__(self):
        return 4

    def __getitem__(self, index):
        return convolve(index)


def convolve(seed):
    generator = torch.Generator().manual_seed(seed)
    image, offset, weight = (
        torch.randn(shape, generator=generator) for shape in [(4, 16, 32, 32), (4, 18, 32, 32), (16, 16, 3, 3)]
    )
    return deform_conv2d(image, offset, weight, padding=1, backend="cpu")


def _in_child(queue):
    torch.set_num_threads(2)
    queue.put(convolve(0)[0, 0, 0].tolist())  # no sum: torch's own threads would be waited for


@pytest.mark.parametrize("method", ["fork", "spawn", "raw fork"])
def test_other_processes_survive(method):
    before = torch.get_num_threads()
    torch.set_num_threads(2)  # so that there are threads that a child does not inherit
    expected = [convolve(index) for index in range(4)]
    torch.set_num_threads(before)
    if method == "raw fork":  # a child that goes on to use two threads
        context = multiprocessing.get_context("fork")
        queue = context.SimpleQueue()
        child = context.Process(target=_in_child, args=(queue,))
        child.start()
        child.join(30)
        child.kill()
        assert child.exitcode == 0
        assert queue.get() == expected[0][0, 0, 0].tolist()
        return
    loader = DataLoader(Convolved(), batch_size=None, num_workers=2, multiprocessing_context=method)
    for found, value in zip(loader, expected, strict=True):
        assert torch.equal(found, value)
