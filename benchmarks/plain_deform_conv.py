"""The convolutions that deform_conv.py compares, and the measurement of their memory."""

from __future__ import annotations

import ctypes
import os
import re
import statistics
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from saccade.ops import deform_conv2d
from saccade.ops.deform_conv import cpu

try:
    import torchvision
except ImportError:
    torchvision = None
try:
    import onnx
    import onnxruntime
except ImportError:
    onnxruntime = None

Run = Callable[[], object]
BYTES = 4  # of a float32
CLEAR = Path("/proc/self/clear_refs")  # only on Linux


class Shape(NamedTuple):
    """A square image and kernel; the padding preserves the size."""

    batch: int
    channels: int
    size: int
    channels_out: int
    kernel: int

    def column_matrix_bytes(self) -> int:
        """Return the size of the matrix of all samples, which an operator that is not fused passes to one product."""
        return self.batch * self.size**2 * self.kernel**2 * self.channels * BYTES

    def image_bytes(self) -> int:
        return self.batch * self.size**2 * self.channels * BYTES

    def out_bytes(self) -> int:
        return self.batch * self.size**2 * self.channels_out * BYTES


class Problem:
    """The inputs of all convolutions: normal numbers, offsets with standard deviation 1 pixel, and a gradient.

    With `training`, as in the training of the models: image and gradient in bfloat16, channels last, under autocast.
    """

    def __init__(self, shape: Shape, *, training: bool = False) -> None:
        batch, channels, size, channels_out, kernel = shape
        generator = torch.Generator().manual_seed(0)

        def normal(*shape: int) -> Tensor:
            drawn = torch.randn(shape, generator=generator)
            return drawn.contiguous(memory_format=torch.channels_last) if training else drawn

        self.shape, self.training, self.padding = shape, training, kernel // 2
        self.image, self.weight = normal(batch, channels, size, size), normal(channels_out, channels, kernel, kernel)
        self.offset, self.grad = normal(batch, 2 * kernel**2, size, size), normal(batch, channels_out, size, size)
        if training:
            self.image, self.grad = self.image.bfloat16(), self.grad.bfloat16()
        for leaf in (self.image, self.offset, self.weight):
            leaf.requires_grad_()


def conv2d(problem: Problem) -> Callable[[], Tensor]:
    return lambda: F.conv2d(problem.image, problem.weight, padding=problem.padding)


def ours(problem: Problem, backend: str) -> Callable[[], Tensor]:
    image, offset, weight = problem.image, problem.offset, problem.weight
    return lambda: deform_conv2d(image, offset, weight, padding=problem.padding, backend=backend)


def torchvisions(problem: Problem) -> Callable[[], Tensor]:
    operator = torchvision.ops.deform_conv2d
    return lambda: operator(problem.image, problem.offset, problem.weight, padding=problem.padding)


def onnxruntimes(problem: Problem, *, spinning: bool) -> Callable[[], Tensor]:
    """Bind inputs and output once, to avoid copies; the weight is a constant, as in an exported model."""
    helper, kernel = onnx.helper, problem.shape.kernel
    arrays = {
        "image": problem.image.detach().numpy(),
        "offset": problem.offset.detach().numpy(),
        "out": torch.ones_like(problem.grad).numpy(),
    }
    *inputs, output = (
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, array.shape) for name, array in arrays.items()
    )
    settings = {"kernel_shape": [kernel, kernel], "pads": [problem.padding] * 4}
    node = helper.make_node("DeformConv", ["image", "weight", "offset"], ["out"], **settings)
    weight = onnx.numpy_helper.from_array(problem.weight.detach().numpy(), "weight")
    graph = helper.make_graph([node], "deform_conv", inputs, [output], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spinning)))
    options.enable_cpu_mem_arena = False  # no slower without, and leaner
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    for name, array in arrays.items():
        bind = binding.bind_ortvalue_output if name == "out" else binding.bind_ortvalue_input
        bind(name, onnxruntime.OrtValue.ortvalue_from_numpy(array))

    def run() -> Tensor:
        session.run_with_iobinding(binding)
        return torch.from_numpy(arrays["out"])  # the output is bound to the memory of this array

    return run


# The functions that prepare each operator for a problem.
PREPARE: dict[str, Callable[[Problem], Callable[[], Tensor]]] = {
    "conv2d": conv2d,
    "ours": partial(ours, backend="cpu"),
    "portable": partial(ours, backend="portable"),
    "torchvision": torchvisions,
    "onnxruntime": partial(onnxruntimes, spinning=False),
    "onnxruntime, spinning": partial(onnxruntimes, spinning=True),
}
FORWARD_ONLY = ("onnxruntime", "onnxruntime, spinning")


def missing() -> dict[str, str]:
    """Return the operators that cannot run here, and the reasons."""
    reasons = {"ours": cpu.unavailable() and f"cannot run: {cpu.unavailable()}"}
    for name, module in {"torchvision": torchvision, "onnxruntime": onnxruntime}.items():
        reasons[name] = None if module else "is not installed here (`make bench` uses an environment that has it)"
    return {name: reason for name, reason in reasons.items() if reason}


def peers_versions() -> dict[str, str]:
    peers = {"torchvision": torchvision, "onnxruntime": onnxruntime}
    return {name: module.__version__ for name, module in peers.items() if module}


def competitors(problem: Problem) -> Iterator[str]:
    """Return the names of the operators that support a problem."""
    others = ("torchvision", *FORWARD_ONLY) if problem.training else ()
    absent = missing()
    return (name for name in PREPARE if name.partition(",")[0] not in absent and name not in others)


def runs_of(name: str, problem: Problem) -> dict[str, Callable[[], Any]]:
    """Return the forward pass of an operator, and its forward and backward pass if it has gradients."""
    operator = PREPARE[name](problem)

    def autocast() -> torch.autocast:
        return torch.autocast("cpu", torch.bfloat16, enabled=problem.training)

    def forward() -> Tensor:
        with torch.no_grad(), autocast():
            return operator()

    leaves = [problem.image, problem.weight] + ([] if name == "conv2d" else [problem.offset])

    def both() -> tuple[Tensor, ...]:
        with autocast():
            out = operator()
        return out.detach(), *torch.autograd.grad(out, leaves, problem.grad)

    return {"forward": forward} if name in FORWARD_ONLY else {"forward": forward, "both": both}


def extra_bytes(tasks: list[tuple[str, Shape]], num_threads: int) -> list[int]:
    """Return the peak memory in bytes of the first forward pass of each operator, without its inputs and output.

    Each is the median over three new processes.
    """
    # Freed memory goes back to the system at once, so that leftover memory does not hide the peak.
    os.environ |= {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "0", "MALLOC_TOP_PAD_": "0"}
    context = get_context("forkserver")
    # Slow imports are done once, in the server of the processes; they start no threads.
    context.set_forkserver_preload(["saccade.ops", "torchvision", "onnx", "onnxruntime"])
    repeated = [(*task, num_threads) for task in tasks for _ in range(3)]
    with ProcessPoolExecutor(1, mp_context=context, max_tasks_per_child=1) as processes:
        found = list(processes.map(_extra_bytes, *zip(*repeated, strict=True)))
    return [int(statistics.median(found[i : i + 3])) for i in range(0, len(found), 3)]


def _extra_bytes(name: str, shape: Shape, num_threads: int) -> int:
    ctypes.CDLL(None).prctl(41, 1, 0, 0, 0)  # PR_SET_THP_DISABLE: pages of 2 MB would blur the figure
    torch.set_num_threads(num_threads)
    runs_of(name, Problem(shape._replace(batch=1, size=8)))["forward"]()  # starts threads
    forward = runs_of(name, Problem(shape))["forward"]
    CLEAR.write_text("5", encoding="ascii")  # resets the peak
    peak, code = _status_bytes("VmHWM"), _status_bytes("RssFile")
    out = forward()
    peak, code = _status_bytes("VmHWM") - peak, _status_bytes("RssFile") - code
    del out
    # Code that the first call loads does not count as its memory; onnxruntime's output was allocated before.
    return peak - code - (0 if name in FORWARD_ONLY else shape.out_bytes())


def _status_bytes(key: str) -> int:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(re.search(rf"{key}:\s+(\d+) kB", status)[1]) * 1024
