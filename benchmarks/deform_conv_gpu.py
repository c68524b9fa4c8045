"""Time deformable convolution on a GPU: the Triton and portable backends, torchvision's operator and `conv2d`.

    python benchmarks/deform_conv_gpu.py [--only check|shapes|big] [--out FILE]
    python benchmarks/deform_conv_gpu.py --sweep      tries other tiles on the two big shapes, and writes no file

Results are compared with the float64 reference before anything is timed. The competitors take turns, and a time is the
median over turns, of a call from Python and of the GPU's work alone, from replays of a CUDA graph. The big shapes are
compared with their floors: bytes divided by the bandwidth of a copy, and operations divided by the rate of an 8192^3
product, both measured in the same run. Writes benchmarks/results/deform_conv_gpu.json. In a checkout without
installation, set PYTHONPATH=src.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache, partial
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn import functional as F

from saccade import files
from saccade.ops import deform_conv2d
from saccade.ops.deform_conv import triton as backend
from saccade.run_folder import commit

try:
    import torchvision
except ImportError:
    torchvision = None

Shape = tuple[int, int, int, int, int]
# (batch, channels in, height = width, channels out, kernel height = width)
SHAPES: list[Shape] = [
    (32, 20, 32, 50, 5),
    (32, 20, 32, 50, 3),
    (8, 64, 56, 64, 3),
    (2, 256, 28, 256, 3),
    (16, 32, 32, 32, 3),
    (1, 64, 56, 64, 3),
]
BIG: list[Shape] = [(64, 256, 56, 256, 3), (32, 128, 112, 128, 3)]
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
# The largest errors allowed, relative to the largest magnitude of a tensor; torchvision's errors are printed too.
ALLOWED = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 3e-3}
PARTS = ("output", "grad_input", "grad_offset", "grad_weight")
console = Console(width=150)


class Call:
    """The tensors of a call, and the calls of all competitors with them."""

    def __init__(self, shape: Shape, dtype: torch.dtype, *, last: bool = False) -> None:
        batch, channels, size, channels_out, kernel = shape
        torch.manual_seed(0)
        layout = torch.channels_last if last else torch.contiguous_format

        def normal(*shape: int, dtype: torch.dtype = dtype) -> Tensor:
            return torch.randn(shape, device="cuda", dtype=dtype).contiguous(memory_format=layout)

        self.padding, self.dtype = kernel // 2, dtype
        self.image, self.grad = normal(batch, channels, size, size), normal(batch, channels_out, size, size)
        # torchvision requires offsets in the dtype of the other tensors.
        self.offset = normal(batch, 2 * kernel**2, size, size)
        self.weight = normal(channels_out, channels, kernel, kernel)
        self.leaves = [leaf.requires_grad_() for leaf in (self.image, self.offset, self.weight)]

    def run(self, name: str) -> Tensor:
        """Return the output of a competitor, by name."""
        image, offset, weight = self.leaves
        if name == "conv2d":
            return F.conv2d(image, weight, padding=self.padding)
        if name == "torchvision":
            return torchvision.ops.deform_conv2d(image, offset, weight, padding=self.padding)
        return deform_conv2d(image, offset, weight, padding=self.padding, backend=name)

    def forward(self, name: str) -> Tensor:
        with torch.no_grad():
            return self.run(name)

    def both(self, name: str) -> tuple[Tensor, ...]:
        leaves = [self.image, self.weight] if name == "conv2d" else self.leaves
        output = self.run(name)
        return output, *torch.autograd.grad(output, leaves, self.grad)

    def reference(self) -> list[Tensor]:
        """Return output and gradients in float64, computed image by image, since the definition takes much memory."""
        weight = self.weight.detach().double().requires_grad_()
        parts = []
        for i in range(len(self.image)):
            image, offset = (t[i : i + 1].detach().double().requires_grad_() for t in (self.image, self.offset))
            output = deform_conv2d(image, offset, weight, padding=self.padding, backend="reference")
            grads = torch.autograd.grad(output, (image, offset, weight), self.grad[i : i + 1].double())
            parts.append((output.detach(), *grads))
        output, image, offset, weights = zip(*parts, strict=True)
        return [torch.cat(output), torch.cat(image), torch.cat(offset), torch.stack(weights).sum(0)]


@cache
def competitors(dtype: torch.dtype) -> list[str]:
    """Return the names of the competitors that support a dtype; torchvision may not support bfloat16."""
    names = ["triton", "portable", "conv2d"]
    if torchvision is not None:
        with suppress(RuntimeError):
            Call((1, 8, 4, 8, 3), dtype).both("torchvision")
            names.insert(1, "torchvision")
    return names


def errors(found: tuple[Tensor, ...], expected: list[Tensor]) -> dict[str, float]:
    """Return the largest error of each part, relative to its largest magnitude."""
    return {
        part: ((one.double() - other).abs().max() / other.abs().max()).item()
        for part, one, other in zip(PARTS, found, expected, strict=True)
    }


def check() -> list[dict[str, object]]:
    """Compare with the reference, and exit if an error of the Triton backend is larger than allowed."""
    table = Table(title="largest error / largest magnitude, against the reference in float64")
    for heading in ("shape", "dtype", "who", *PARTS, "first call, s"):
        table.add_column(heading)
    rows, wrong = [], []
    shapes = [*SHAPES, *((16, *rest) for _, *rest in BIG)]
    for shape, (dtype_name, dtype) in ((s, d) for s in shapes for d in DTYPES.items()):
        call = Call(shape, dtype, last=shape[1:] in [big[1:] for big in BIG])
        expected = call.reference()
        for name in [name for name in competitors(dtype) if name in ("triton", "torchvision")]:
            start = time.perf_counter()
            found = errors(call.both(name), expected)
            seconds = time.perf_counter() - start
            table.add_row(str(shape), dtype_name, name, *(f"{e:.1e}" for e in found.values()), f"{seconds:.1f}")
            rows.append({"shape": shape, "dtype": dtype_name, "who": name, "errors": found, "first_call_s": seconds})
            if name == "triton" and not all(error <= ALLOWED[dtype] for error in found.values()):
                wrong.append(f"{shape} in {dtype_name}")
    console.print(table)
    if wrong:
        raise SystemExit(f"errors of the Triton backend are larger than allowed: {'; '.join(wrong)}; nothing is timed")
    return rows


def events_ms(run: Callable[[], object], repeats: int) -> float:
    """Return the mean time of several calls."""
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize()
    start.record()
    for _ in range(repeats):
        run()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end) / repeats


def graph_of(run: Callable[[], object]) -> Callable[[], None] | None:
    """Return a function that replays the GPU's work of a call, or None if it cannot be captured."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with suppress(RuntimeError):
        with torch.cuda.graph(graph):
            run()
        return graph.replay
    return None


def medians_ms(runs: dict[str, Callable[[], object]], turns: int, repeats: int) -> dict[str, float]:
    """Let all runs take turns, the first of which does not count; return the median time of each."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(turns + 1):
        for name, run in runs.items():
            times[name].append(events_ms(run, repeats))
    return {name: statistics.median(several[1:]) for name, several in times.items()}


def peak_mib(run: Callable[[], object]) -> float:
    """Return the memory of a call in MiB, without its inputs."""
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    result = run()
    peak = torch.cuda.max_memory_allocated()
    del result
    return (peak - before) / 2**20


def measure_shapes(turns: int) -> list[dict[str, object]]:
    """Time the small shapes, as calls from Python and as the GPU's work alone."""
    rows = []
    for shape, (dtype_name, dtype) in ((s, d) for s in SHAPES for d in DTYPES.items()):
        call = Call(shape, dtype)
        for part in ("forward", "both"):
            runs = {name: partial(getattr(call, part), name) for name in competitors(dtype)}
            eager = medians_ms(runs, turns, repeats=5)
            graphs = {name: graph_of(runs[name]) for name in runs if name != "portable"}
            captured = {name: graph for name, graph in graphs.items() if graph is not None}
            row = {"shape": shape, "dtype": dtype_name, "part": part, "call_ms": eager}
            row["gpu_ms"] = medians_ms(captured, turns, repeats=10)
            row["peak_mib"] = {name: peak_mib(run) for name, run in runs.items()}
            rows.append(row)
    return rows


def ratios(rows: list[dict], kind: str, part: str, dtype: str, theirs: str) -> list[float]:
    """Return, for each shape, torchvision's time in the dtype `theirs` divided by Triton's in `dtype`."""
    by_shape = {row["shape"]: row for row in rows if row["part"] == part and row["dtype"] == theirs}
    ours = [row for row in rows if row["part"] == part and row["dtype"] == dtype]
    pairs = [(row[kind].get("triton"), by_shape[row["shape"]][kind].get("torchvision")) for row in ours]
    return [other / own for own, other in pairs if own and other]


def show_shapes(rows: list[dict]) -> dict[str, float]:
    """Print the table, and return the geometric means of the ratios."""
    names = ["triton", "torchvision", "portable", "conv2d"]
    table = Table(title="ms: a call from Python (g: the GPU's work alone); MiB: the peak memory without the inputs")
    for heading in (
        "shape",
        "dtype",
        "part",
        *names,
        "triton g",
        "torchvision g",
        "conv2d g",
        "MiB",
        "torchvision MiB",
    ):
        table.add_column(heading, justify="right")
    for row in rows:
        calls, work, peak = row["call_ms"], row["gpu_ms"], row["peak_mib"]
        cells = [f"{calls[n]:.3f}" if n in calls else "" for n in names]
        cells += [f"{work[n]:.3f}" if n in work else "" for n in ("triton", "torchvision", "conv2d")]
        cells += [f"{peak[n]:.0f}" if n in peak else "" for n in ("triton", "torchvision")]
        table.add_row(",".join(map(str, row["shape"])), row["dtype"], row["part"], *cells)
    console.print(table)
    means = {}
    for kind in ("call_ms", "gpu_ms"):
        for part in ("forward", "both"):
            for dtype, theirs in (("float32", "float32"), ("float16", "float16"), ("bfloat16", "float16")):
                found = ratios(rows, kind, part, dtype, theirs)
                if found:
                    key = f"{kind[:-3]}, {part}: torchvision {theirs} / triton {dtype}"
                    means[key] = statistics.geometric_mean(found)
                    each = ", ".join(f"{ratio:.2f}" for ratio in found)
                    console.print(f"{key}: geometric mean [bold]{means[key]:.2f}[/] of {each}")
    return means


def ceilings() -> tuple[float, float]:
    """Return the bytes per second of a copy, read and written, and the operations per second of a bfloat16 product."""
    source = torch.randn(2**29, device="cuda")
    target = torch.empty_like(source)
    copy_ms = medians_ms({"copy": lambda: target.copy_(source)}, 5, 5)["copy"]
    del source, target
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    product_ms = medians_ms({"product": lambda: a @ b}, 5, 5)["product"]
    return 2 * 4 * 2**29 / copy_ms * 1e3, 2 * 8192**3 / product_ms * 1e3


def floors_ms(call: Call, bandwidth: float, rate: float) -> dict[str, float]:
    """Return the larger of the two floors, of bytes and of operations, for the forward and the backward pass."""
    image, offset, weight, out = (t.numel() * t.itemsize for t in (*call.leaves, call.grad))
    operations = 2 * call.grad.numel() * call.weight[0].numel()
    forward = max((image + offset + weight + out) / bandwidth, operations / rate)
    backward = max((2 * (image + offset + weight) + out) / bandwidth, 2 * operations / rate)
    return {"forward": 1e3 * forward, "backward": 1e3 * backward}


def apart(call: Call, name: str) -> dict[str, Callable[[], object]]:
    """Return the forward and the backward pass of a competitor, separately."""
    output = call.run(name)
    leaves = [call.image, call.weight] if name == "conv2d" else call.leaves
    return {
        "forward": lambda: call.forward(name),
        "backward": lambda: torch.autograd.grad(output, leaves, call.grad, retain_graph=True),
    }


def measure_big(turns: int) -> list[dict[str, object]]:
    """Time the big shapes in bfloat16, channels last, and their floors; the GPU has no pauses between calls."""
    bandwidth, rate = ceilings()
    console.print(f"copy {bandwidth / 1e12:.2f} TB/s, bfloat16 product {rate / 1e12:.0f} TFLOP/s")
    rows = []
    for shape in BIG:
        call = Call(shape, torch.bfloat16, last=True)
        floors = floors_ms(call, bandwidth, rate)
        found = {name: apart(call, name) for name in ("triton", "conv2d")}
        if torchvision is not None:
            half = Call(shape, torch.float16)
            found["torchvision float16"] = apart(half, "torchvision")
        for part in ("forward", "backward"):
            ms = medians_ms({name: runs[part] for name, runs in found.items()}, turns, repeats=2)
            peak = peak_mib(found["triton"][part])
            row = {"shape": shape, "part": part, "ms": ms, "floor_ms": floors[part], "peak_mib": peak}
            row |= {"bandwidth": bandwidth, "rate": rate, "kernels_us": kernels_us(found["triton"][part])}
            rows.append(row)
            times = ", ".join(f"{name} {value:.3f}" for name, value in ms.items())
            ratio = f"[bold]{ms['triton'] / floors[part]:.2f}[/] times the floor of {floors[part]:.3f}"
            console.print(f"{shape} {part}, ms: {times}; {ratio}; {peak:.0f} MiB without the inputs")
            console.print("   " + ", ".join(f"{name} {us:.0f} us" for name, us in row["kernels_us"].items()))
    return rows


def kernels_us(run: Callable[[], object]) -> dict[str, float]:
    """Return the GPU's microseconds in the slowest kernels of one call."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        run()
        torch.cuda.synchronize()
    times: dict[str, float] = {}
    for event in profile.key_averages():
        if event.device_time_total > 0:
            times[event.key[:50]] = times.get(event.key[:50], 0) + event.device_time_total
    return dict(sorted(times.items(), key=lambda item: -item[1])[:9])


def sweep(turns: int) -> None:
    """Try tiles of each kernel on the big shapes, and float32 with and without tensor cores."""
    tiles = {
        256: "64,256,32,8,128 64,256,64,8,128 64,256,16,8,128 128,256,32,8,255 128,256,64,8,255 128,256,32,16,128 "
        "128,128,32,8,128 64,128,64,8,128",
        128: "64,128,64,8,128 64,128,32,8,128 128,128,32,8,128 128,128,64,8,255 64,128,64,4,255 128,128,64,16,128 "
        "64,128,128,8,128",
    }
    keys = "BLOCK_M", "BLOCK_N", "BLOCK_K", "num_warps", "maxnreg"
    for shape in BIG:
        call = Call(shape, torch.bfloat16, last=True)
        runs = apart(call, "triton")
        for tile in tiles[shape[3]].split():
            blocks = dict(zip(keys, map(int, tile.split(",")), strict=True))
            try_tile("_convolve_blocks", blocks, shape, runs["forward"], turns)
        for rows, channels, warps in [(32, 64, 4), (64, 64, 8), (16, 64, 2), (16, 128, 4), (32, 128, 8), (16, 64, 4)]:
            blocks = {"BLOCK_M": rows, "BLOCK_K": channels, "num_warps": warps}
            try_tile("_differentiate_blocks", blocks, shape, runs["backward"], turns)
        for rows, channels in [(2, 256), (1, 256), (4, 128), (2, 128), (1, 128), (8, 64), (4, 64)]:
            if channels <= shape[1]:
                blocks = {"BLOCK_M": rows, "BLOCK_K": channels, "num_warps": 1}
                try_tile("_collect_blocks", blocks, shape, runs["backward"], turns)
        for mib in (128, 256, 512, 1024, 2048):
            backend.COLUMN_BYTES = mib << 20
            console.print(f"{shape} backward, columns of {mib} MiB: {best_ms(runs['backward'], turns):.3f} ms")
        backend.COLUMN_BYTES = 512 << 20
        del call, runs
    for shape in (SHAPES[2], SHAPES[3], (8, *BIG[0][1:])):
        call = Call(shape, torch.float32, last=True)
        expected = call.reference()[0]
        for precision in ("tf32x3", "ieee"):
            backend.PRECISION = precision
            error = ((call.forward("triton").double() - expected).abs().max() / expected.abs().max()).item()
            ms = best_ms(lambda call=call: call.forward("triton"), turns)
            console.print(f"{shape} float32 forward, {precision}: {ms:.3f} ms, error {error:.1e}")
        backend.PRECISION = "tf32x3"


def best_ms(run: Callable[[], object], turns: int) -> float:
    return medians_ms({"": run}, turns, 2)[""]


def try_tile(function: str, blocks: dict[str, int], shape: Shape, run: Callable[[], object], turns: int) -> None:
    """Time a call with other block sizes than those that the backend chooses."""
    usual = getattr(backend, function)
    setattr(backend, function, lambda *_: blocks)
    try:
        console.print(f"{shape} {function[1:]} {blocks}: {best_ms(run, turns):.3f} ms")
    except Exception as error:  # such as too much shared memory: the sweep reports it
        console.print(f"{shape} {function[1:]} {blocks}: {type(error).__name__}: {str(error)[:90]}")
    finally:
        setattr(backend, function, usual)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=["check", "shapes", "big"], help="run one part, and write no file")
    parser.add_argument("--sweep", action="store_true", help="try other tiles on the big shapes")
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "deform_conv_gpu.json")
    arguments = parser.parse_args()
    reason = backend.unavailable()
    if reason is not None:
        print(f"nothing to time: {reason}")
        return
    start = time.perf_counter()
    import triton

    versions = {"torch": torch.__version__, "triton": triton.__version__, "python": platform.python_version()}
    versions["torchvision"] = None if torchvision is None else torchvision.__version__
    result: dict[str, object] = {"device": torch.cuda.get_device_name(), "versions": versions, "commit": commit()}
    console.print(result)
    if arguments.sweep:
        sweep(min(arguments.turns, 5))
        return
    if arguments.only in (None, "check"):
        result["errors"] = check()
    if arguments.only in (None, "big"):
        result["big"] = measure_big(arguments.turns)
    if arguments.only in (None, "shapes"):
        rows = measure_shapes(arguments.turns)
        result |= {"shapes": rows, "geometric_means": show_shapes(rows)}
    console.print(f"{time.perf_counter() - start:.0f} s in all")
    if arguments.only is None:
        files.write_json(arguments.out, result)


if __name__ == "__main__":
    main()
