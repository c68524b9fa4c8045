"""Time deformable convolution on the CPU: our kernels, the operators of torchvision and onnxruntime, and `conv2d`.

    make bench BENCHMARKS=benchmarks/deform_conv.py [ARGS="--turns 5 --no-memory"]

creates a separate environment, .venv-bench, with torchvision, onnxruntime and Saccade, and runs this script in it:
torchvision's wheels need their own version of torch (7 GB with its CUDA libraries; works without a GPU).

The values and gradients of all operators are checked against float64 before they are timed. Then the operators take
turns in one process, with a pause after each turn, since the threads of torch and onnxruntime keep spinning for a
while. A time is the median over turns; a slow operator has fewer turns. onnxruntime runs with and without spinning, and
the faster one counts. Memory is the peak of a first forward pass, in a separate process.

Writes benchmarks/results/deform_conv.json and docs/images/deform_conv_speed.png; a run that a flag shortens, or that
lacks an operator, writes nothing.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from pathlib import Path

import make_deform_conv_report as report
import plain_deform_conv
import torch
from plain_deform_conv import FORWARD_ONLY, Problem, Run, Shape, competitors, runs_of
from rich.console import Console
from torch import Tensor

from saccade import files
from saccade.checkpoint import versions
from saccade.ops import deform_conv2d
from saccade.ops.deform_conv import cpu
from saccade.run_folder import commit, device_name

SHAPES = [
    Shape(32, 20, 32, 50, 5),
    Shape(32, 20, 32, 50, 3),
    Shape(8, 64, 56, 64, 3),
    Shape(2, 256, 28, 256, 3),
    Shape(16, 32, 32, 32, 3),
    Shape(1, 64, 56, 64, 3),
]
# Every frame of a batch of clips, as in the training of the deformable models. Not in the geometric means.
TRAINING = Shape(480, 48, 16, 48, 3)
PARTS = ("forward", "both")
RATIOS = [
    *(("torchvision", "ours"), ("onnxruntime", "ours"), ("portable", "ours")),
    *((name, "conv2d") for name in ("ours", "portable", "onnxruntime", "torchvision")),
]
# The seconds of all turns of a slow operator, and its minimum number of turns.
SECONDS, FEWEST_TURNS = 2.5, 3
# The pause in which the threads of a turn may keep spinning; those of onnxruntime spin longer.
PAUSE_S, LONG_PAUSE_S = 0.006, 0.05
ROOT = Path(__file__).parents[1]
OUT, PLOT = ROOT / "benchmarks/results/deform_conv.json", ROOT / "docs/images/deform_conv_speed.png"


def check(shape: Shape, *, training: bool) -> dict[str, dict[str, float]]:
    """Return the largest error of each operator, as a share of the largest value; exit if any operator is wrong."""
    problem = Problem(shape._replace(batch=min(shape.batch, 32)), training=training)
    expected = truth(problem)
    found: dict[str, dict[str, float]] = {}
    for name in competitors(problem):
        if name == "conv2d":
            continue
        runs = runs_of(name, problem)
        results = runs["both"]() if "both" in runs else (runs["forward"](),)
        found[name] = {}
        for what, result, right in zip(("out", "input", "weight", "offset"), results, expected, strict=False):
            errors = (result.double() - right).abs() / right.abs().max()
            found[name][what] = errors.max().item()
            if name in ("ours", "portable"):
                wrong = not found[name][what] <= (1e-2 if training else 1e-5)
            else:
                # The others add offset and position in float32: one sample in a million crosses the border of a pixel,
                # and has another gradient.
                wrong = not (errors > 1e-4).double().mean() <= 1e-4
            if wrong:
                at = "out" if what == "out" else f"the gradient of {what}"
                raise SystemExit(f"{name}, {tuple(shape)}: {at} is off by {found[name][what]:.1e} of the largest value")
    return found


def truth(problem: Problem) -> tuple[Tensor, ...]:
    """Return out and the gradients of input, weight and offset in float64: torchvision's, or our reference's."""
    weight = problem.weight.bfloat16() if problem.training else problem.weight
    leaves = [t.detach().double().requires_grad_() for t in (problem.image, weight, problem.offset)]
    image, weight, offset = leaves
    if plain_deform_conv.torchvision is None:
        out = deform_conv2d(image, offset, weight, padding=problem.padding, backend="reference")
    else:
        out = plain_deform_conv.torchvision.ops.deform_conv2d(image, offset, weight, padding=problem.padding)
    return out.detach(), *torch.autograd.grad(out, leaves, problem.grad.double())


def take_turns(runs: dict[str, Run], most_turns: int) -> dict[str, list[float]]:
    """Return the milliseconds of the turns of each operator, which are spread evenly over the rounds."""
    turns = {}
    for name, run in runs.items():
        seconds = clocked(name, run)
        if seconds < 0.5:  # a first turn may be slower than the others
            seconds = clocked(name, run)
        turns[name] = min(most_turns, max(FEWEST_TURNS, int(SECONDS / seconds)))
    rounds, times = max(turns.values()), {name: [] for name in runs}
    for i in range(rounds):
        order = list(runs) if i % 2 else list(reversed(runs))  # so that none always follows the same other
        for name in order:
            if (i + 1) * turns[name] // rounds > i * turns[name] // rounds:
                times[name].append(1000 * clocked(name, runs[name]))
    return times


def clocked(name: str, run: Run) -> float:
    started = time.perf_counter()
    run()
    seconds = time.perf_counter() - started
    time.sleep(LONG_PAUSE_S if "spinning" in name else PAUSE_S)
    return seconds


def measure(shape: Shape, most_turns: int, *, training: bool = False) -> dict:
    """Return the row of one shape."""
    row: dict = {"shape": list(shape), "training": training, "errors": check(shape, training=training)}
    problem = Problem(shape, training=training)
    runs = {name: runs_of(name, problem) for name in competitors(problem)}
    for part in PARTS:
        found = {}
        times = take_turns({name: several[part] for name, several in runs.items() if part in several}, most_turns)
        for name, several in times.items():
            found[name] = {"ms": statistics.median(several), "quartiles": quartiles(several), "turns": len(several)}
        spinning = {name: found.pop(name) for name in FORWARD_ONLY if name in found}
        if spinning:
            found["onnxruntime"] = min(spinning.values(), key=lambda several: several["ms"])
            row["onnxruntime"] = spinning
        row[part] = found
    row["ratios"] = {part: ratios(row, part) for part in PARTS}
    return row


def quartiles(times: list[float]) -> list[float]:
    return statistics.quantiles(times, n=4, method="inclusive")[::2] if len(times) > 1 else times * 2


def ratios(row: dict, part: str) -> dict[str, float]:
    pairs = (pair for pair in RATIOS if {*pair} <= {*row[part]})
    return {f"{one} / {other}": row[part][one]["ms"] / row[part][other]["ms"] for one, other in pairs}


def geometric_means(rows: list[dict]) -> dict[str, dict[str, float]]:
    """Return the geometric mean of each ratio over the rows of float32."""
    several = {part: [row["ratios"][part] for row in rows if not row["training"]] for part in PARTS}
    return {
        part: {ratio: statistics.geometric_mean(ratios[ratio] for ratios in found) for ratio in found[0]}
        for part, found in several.items()
    }


def measure_memory(rows: list[dict], num_threads: int) -> None:
    """Add to each row the memory of a forward pass of each operator, without its inputs and output."""
    names = [name for name in plain_deform_conv.PREPARE if name in rows[0]["forward"]]
    tasks = list(itertools.product(names, (Shape(*row["shape"]) for row in rows)))
    found = dict(zip(tasks, plain_deform_conv.extra_bytes(tasks, num_threads), strict=True))
    for row in rows:
        shape = Shape(*row["shape"])
        extra, matrix = {name: found[name, shape] for name in names}, shape.column_matrix_bytes()
        row["memory"] = {
            "column_matrix_bytes": matrix,
            "input_bytes": shape.image_bytes(),
            "out_bytes": shape.out_bytes(),
            "extra_bytes": extra,
            "extra_of_column_matrix": {name: several / matrix for name, several in extra.items()},
            "ours_beside_a_copy_of_input_of_column_matrix": (extra["ours"] - shape.image_bytes()) / matrix
            if "ours" in extra
            else None,
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=25, help="maximum number of turns of each operator")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, default=OUT, help="another .json; the plot is written next to it")
    some = range(1, len(SHAPES) + 1)
    parser.add_argument("--only-shapes", type=int, choices=some, help="use only this many shapes; writes no file")
    parser.add_argument("--no-memory", action="store_true", help="measure only time; writes no file")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    console = Console()
    rows = []
    with console.status("") as status:
        for shape in SHAPES[: arguments.only_shapes]:
            status.update(f"timing {tuple(shape)}")
            rows.append(measure(shape, arguments.turns))
        status.update("measuring memory")
        memory = not arguments.no_memory and plain_deform_conv.CLEAR.exists()
        if memory:
            measure_memory(rows, arguments.threads)
        if arguments.only_shapes is None:
            status.update(f"timing {tuple(TRAINING)} in bfloat16")
            rows.append(measure(TRAINING, arguments.turns, training=True))
    result = {
        "device": f"{device_name('cpu')}, {torch.get_num_threads()} threads",
        "instruction_set": next(iter(cpu.instruction_sets()), None),
        "versions": versions() | plain_deform_conv.peers_versions(),
        "commit": commit(),
        "turns": arguments.turns,
        "rows": rows,
        "geometric_means": geometric_means(rows),
    }
    report.show(console, result)
    absent = [f"{name} {reason}" for name, reason in plain_deform_conv.missing().items()]
    if absent or not memory or arguments.only_shapes is not None:
        console.print("No file was written: " + ("; ".join(absent) or "not everything was measured") + ".")
        return
    files.write_json(arguments.out, result)
    plot = PLOT if arguments.out == OUT else arguments.out.with_suffix(".png")
    report.draw(plot, result)
    console.print(f"Wrote {arguments.out} and {plot}")


if __name__ == "__main__":
    main()
