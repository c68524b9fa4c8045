"""Tables of speed: ratios of times that one run of a benchmark measured."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .layout import mean_and_range, percent, table

PASSES = {"forward": "forward", "both": "forward and backward"}
# The operators whose memory is shown, and what they are called.
OPERATORS = {
    "ours": "Saccade",
    "portable": "Saccade, portable",
    "torchvision": "torchvision",
    "onnxruntime": "onnxruntime",
}


def training(path: Path) -> str:
    """Show training clips a second beside a plain loop of the same model."""
    lines = [
        [
            row["model"],
            row["precision"],
            f"{row['clips_per_s']:.0f}",
            f"{row['plain_clips_per_s']:.0f}",
            f"{row['ratio']:.2f}",
        ]
        for row in _read(path)["rows"]
    ]
    return table(["model", "precision", "clips/s", "plain float32 loop, clips/s", "ratio"], lines)


def streaming(*paths: Path) -> str:
    """Show the time from a raw frame to probabilities."""
    lines = []
    for path in paths:
        result = _read(path)
        for row in result["rows"]:
            figures = [
                f"{row['p50_ms']:.1f}",
                f"{row['p99_ms']:.1f}",
                f"{row['per_s']:.0f}" if row["per_s"] > 9 else f"{row['per_s']:.1f}",
            ]
            lines.append([result["device"], row["model"], row["runtime"], row["frame"], *figures])
    return table(["processor", "model", "runtime", "frame", "median, ms", "99 % within, ms", "predictions/s"], lines)


def generator(path: Path) -> str:
    """Show frames a second of the generator of moving digits beside a plain one."""
    lines = [
        [
            row["condition"],
            f"{row['cpu']:,.0f}",
            f"{row['plain']:,.0f}" if "plain" in row else "",
            f"{row['ratio']:.1f}" if "ratio" in row else "",
        ]
        for row in _read(path)["rows"]
    ]
    return table(["condition", "frames/s", "plain NumPy and SciPy, one core, frames/s", "ratio"], lines)


def operator(*paths: Path) -> str:
    """Show how deformable convolution compares on the CPU: geometric mean, lowest and highest of the shapes."""
    ratios = (("torchvision", "ours"), ("onnxruntime", "ours"), ("ours", "conv2d"))
    lines = []
    for path in paths:
        result = _read(path)
        rows = [row for row in result["rows"] if not row["training"]]
        for part, name in PASSES.items():
            found = ([_ratio(row[part], one, other) for row in rows if one in row[part]] for one, other in ratios)
            lines.append([result["device"], name, *(mean_and_range(several) if several else "" for several in found)])
    head = ["processor", "pass", "torchvision's time / ours", "onnxruntime's time / ours", "our time / `conv2d`"]
    return table(head, lines)


def operator_in_training(*paths: Path) -> str:
    """Show the shape of a training step in bfloat16, which is not in the means."""
    lines = []
    for path in paths:
        result = _read(path)
        (row,) = (row for row in result["rows"] if row["training"])
        for part, name in PASSES.items():
            ratios = (_ratio(row[part], "portable", "ours"), _ratio(row[part], "ours", "conv2d"))
            lines.append([result["device"], name, *(f"{ratio:.2f}" for ratio in ratios)])
    return table(["processor", "pass", "the portable backend's time / ours", "our time / `conv2d`"], lines)


def operator_memory(*paths: Path) -> str:
    """Show what a forward pass takes beside input and output, as a share of the matrix of all samples."""
    lines = []
    for path in paths:
        result = _read(path)
        memories = [row["memory"] for row in result["rows"] if "memory" in row]
        shares = [[memory["extra_of_column_matrix"][name] for memory in memories] for name in OPERATORS]
        shares.insert(1, [memory["ours_beside_a_copy_of_input_of_column_matrix"] for memory in memories])
        lines.append([result["device"], *(f"{percent(min(found))} to {percent(max(found))}" for found in shares)])
    names = list(OPERATORS.values())
    return table(["processor", names[0], f"{names[0]}, less a copy of the input", *names[1:]], lines)


def gpu_large(path: Path) -> str:
    """Show two large shapes on a GPU: milliseconds, and times the floor of the matrix product and of memory."""
    lines = []
    for row in _read(path)["big"]:
        ours, theirs, plain = (row["ms"][name] for name in ("triton", "torchvision float16", "conv2d"))
        times = [f"{ms:.2f}" for ms in (ours, theirs, plain)]
        ratios = [f"{ratio:.1f}" for ratio in (theirs / ours, ours / plain, ours / row["floor_ms"])]
        lines.append([_shape(row), row["part"], *times, *ratios])
    head = ["shape", "pass", "ours, bfloat16, ms", "torchvision, float16, ms", "`conv2d`, bfloat16, ms"]
    return table([*head, "torchvision's time / ours", "our time / `conv2d`", "our time / floor"], lines)


def gpu_small(path: Path) -> str:
    """Show torchvision's time by ours on the six small shapes of a GPU, by the GPU's time and by calls from Python."""
    rows = _read(path)["shapes"]
    lines = [
        [
            name,
            dtype,
            *(mean_and_range(_against_torchvision(rows, kind, part, dtype)) for kind in ("gpu_ms", "call_ms")),
        ]
        for part, name in PASSES.items()
        for dtype in ("float32", "float16")
    ]
    return table(["pass", "precision", "by the GPU's time", "by the time of a call"], lines)


def _read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _ratio(times: dict[str, dict[str, float]], one: str, other: str) -> float:
    return times[one]["ms"] / times[other]["ms"]


def _against_torchvision(rows: Sequence[dict[str, Any]], kind: str, part: str, dtype: str) -> list[float]:
    found = (row[kind] for row in rows if (row["part"], row["dtype"]) == (part, dtype))
    return [times["torchvision"] / times["triton"] for times in found]


def _shape(row: dict[str, Any]) -> str:
    return ", ".join(map(str, row["shape"]))
