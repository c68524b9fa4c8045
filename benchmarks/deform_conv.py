"""Deformable convolution on the CPU: our backend beside torchvision's operator and `conv2d`, the floor.

torchvision's wheels want a torch of their own (7 GB with its CUDA libraries; works without a GPU), so this runs in an
environment apart, into which Saccade is installed too:

    python3 -m venv .venv-bench
    .venv-bench/bin/pip install torch torchvision
    .venv-bench/bin/pip install -e .
    .venv-bench/bin/python benchmarks/deform_conv.py [--turns 9] [--threads 2]

The competitors take turns, and a time is the median over turns. Results are compared before anything is timed. Without
torchvision it times what there is and writes no file; else benchmarks/results/deform_conv.json.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn import functional as F

from saccade import files
from saccade.checkpoint import versions
from saccade.ops import deform_conv2d
from saccade.run_folder import commit, device_name

try:
    import torchvision
except ImportError:
    torchvision = None

# (batch, channels in, height = width, channels out, kernel height = width)
SHAPES = [
    (32, 20, 32, 50, 5),
    (32, 20, 32, 50, 3),
    (8, 64, 56, 64, 3),
    (2, 256, 28, 256, 3),
    (16, 32, 32, 32, 3),
    (1, 64, 56, 64, 3),
]
# As the deformable models train: every frame of a batch of clips, bfloat16, channels last. Not in the geometric means.
TRAINING = (480, 48, 16, 48, 3)
Run = Callable[[], object]


def competitors(shape: tuple[int, int, int, int, int], *, training: bool) -> dict[str, tuple[Run, Run]]:
    """Return, for each operator, its forward pass and its forward and backward pass on the same tensors."""
    batch, channels, size, channels_out, kernel = shape
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        drawn = torch.randn(shape, generator=generator)
        return drawn.contiguous(memory_format=torch.channels_last) if training else drawn

    image, weight = normal(batch, channels, size, size), normal(channels_out, channels, kernel, kernel)
    offset, grad = normal(batch, 2 * kernel**2, size, size), normal(batch, channels_out, size, size)
    if training:
        image, grad = image.bfloat16(), grad.bfloat16()
    for leaf in (image, offset, weight):
        leaf.requires_grad_()
    padding = kernel // 2
    operators: dict[str, tuple[Callable[[], Tensor], list[Tensor]]] = {
        "conv2d": (lambda: F.conv2d(image, weight, padding=padding), [image, weight]),
        "ours": (lambda: deform_conv2d(image, offset, weight, padding=padding), [image, offset, weight]),
    }
    if torchvision is not None and not training:
        torchvisions = torchvision.ops.deform_conv2d
        operators["torchvision"] = (
            lambda: torchvisions(image, offset, weight, padding=padding),
            [image, offset, weight],
        )

    def pair(operator: Callable[[], Tensor], leaves: list[Tensor]) -> tuple[Run, Run]:
        def forward() -> Tensor:
            with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=training):
                return operator()

        def both() -> tuple[Tensor, ...]:
            with torch.autocast("cpu", torch.bfloat16, enabled=training):
                out = operator()
            return torch.autograd.grad(out, leaves, grad)

        return forward, both

    return {name: pair(*operator) for name, operator in operators.items()}


def check(runs: dict[str, tuple[Run, Run]]) -> None:
    """Stop unless ours gives what torchvision gives, values and gradients."""
    for ours, theirs in zip(runs["ours"], runs["torchvision"], strict=True):
        found, expected = ours(), theirs()
        for one, other in zip(*((r if isinstance(r, tuple) else (r,)) for r in (found, expected)), strict=True):
            error = (one - other).abs().max() / other.abs().max()
            if not error < 1e-4:
                raise SystemExit(f"ours and torchvision differ by {error:.1e} of the largest value; nothing is timed")


def medians_ms(runs: dict[str, Run], num_turns: int) -> dict[str, float]:
    """Let all take turns, after one that does not count."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(num_turns + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - start)
    return {name: 1000 * statistics.median(several[1:]) for name, several in times.items()}


def measure(shape: tuple[int, int, int, int, int], num_turns: int, *, training: bool = False) -> dict[str, object]:
    """Return the row of one shape."""
    runs = competitors(shape, training=training)
    if "torchvision" in runs:
        check(runs)
    row: dict[str, object] = {"shape": list(shape), "training": training}
    for i, part in enumerate(("forward", "both")):
        ms = medians_ms({name: several[i] for name, several in runs.items()}, num_turns)
        row[part] = {
            "ms": ms,
            "times_conv2d": ms["ours"] / ms["conv2d"],
            "faster_than_torchvision": ms["torchvision"] / ms["ours"] if "torchvision" in ms else None,
        }
    return row


def geometric_means(rows: list[dict]) -> dict[str, dict[str, float]]:
    """Return the geometric means of both ratios, forward and both."""
    means: dict[str, dict[str, float]] = {}
    for part in ("forward", "both"):
        means[part] = {}
        for ratio in ("times_conv2d", "faster_than_torchvision"):
            values = [row[part][ratio] for row in rows if row[part][ratio] is not None]
            if values:
                means[part][ratio] = math.exp(statistics.fmean(map(math.log, values)))
    return means


def table_of(part: str, rows: list[dict], means: dict[str, dict[str, float]]) -> Table:
    table = Table(title={"forward": "forward, ms", "both": "forward + backward, ms"}[part])
    table.add_column("batch, in, size, out, kernel")
    for heading in ("conv2d", "torchvision", "ours", "torchvision\n/ ours", "ours\n/ conv2d"):
        table.add_column(heading, justify="right")
    for row in rows:
        ms = row[part]["ms"]
        table.add_row(
            ", ".join(map(str, row["shape"])) + (" (bf16)" if row["training"] else ""),
            *(f"{ms[name]:.1f}" if name in ms else "" for name in ("conv2d", "torchvision", "ours")),
            _ratio(row[part]["faster_than_torchvision"]),
            _ratio(row[part]["times_conv2d"]),
            end_section=row is rows[-1],
        )
    ratios = _ratio(means[part].get("faster_than_torchvision")), _ratio(means[part]["times_conv2d"])
    table.add_row("geometric mean of float32", "", "", "", *ratios)
    return table


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "deform_conv.json")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows = [measure(shape, arguments.turns) for shape in SHAPES]
    means = geometric_means(rows)
    rows.append(measure(TRAINING, arguments.turns, training=True))
    device = f"{device_name('cpu')}, {torch.get_num_threads()} threads"
    console = Console()
    console.print(f"deformable convolution, {device}, torch {torch.__version__}, commit {commit()}")
    for part in ("forward", "both"):
        console.print(table_of(part, rows, means))
    if torchvision is None:
        print("torchvision is not installed here; `head benchmarks/deform_conv.py` says how to compare with it")
        return
    result = {
        "device": device,
        "versions": versions() | {"torchvision": torchvision.__version__},
        "commit": commit(),
        "turns": arguments.turns,
        "rows": rows,
        "geometric_means": means,
    }
    files.write_json(arguments.out, result)


if __name__ == "__main__":
    main()
