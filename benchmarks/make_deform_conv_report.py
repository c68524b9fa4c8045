"""Show the measurements of deform_conv.py as tables, and with --plot as the plot of the README.

Run `python benchmarks/make_deform_conv_report.py [RESULT.json] [--plot FILE.png]`; nothing is measured again.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from saccade import files

PARTS = {"forward": "forward", "both": "forward + backward"}
NAMES = ("conv2d", "ours", "portable", "onnxruntime", "torchvision")
RATIOS = {"forward": ("torchvision / ours", "onnxruntime / ours", "ours / conv2d")}
RATIOS["both"] = (RATIOS["forward"][0], RATIOS["forward"][2])
COLOURS = {"ours": "#228833", "portable": "#99cc99", "onnxruntime": "#4477aa", "torchvision": "#ee7733"}
LABELS = {"ours": "saccade", "portable": "saccade, portable"}
BROKEN = {"portable": "port-\nable", "onnxruntime": "onnx-\nruntime", "torchvision": "torch-\nvision"}


def show(console: Console, result: dict) -> None:
    """Print the tables with device and versions, and the geometric means in words."""
    rows, means = result["rows"], result["geometric_means"]
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items() if name != "python")
    kernels = result["instruction_set"] or "none"
    console.print(f"Deformable convolution on {result['device']}, commit {result['commit']}", highlight=False)
    console.print(f"{versions}; kernels: {kernels}", highlight=False)
    for part, name in PARTS.items():
        console.print(f"\n[bold]{name}: milliseconds, and ratios[/]")
        console.print(_times(part, rows, means[part]))
    if any(row["training"] for row in rows):
        console.print("* bfloat16, channels last, as in training; not in the means", style="dim")
    if "memory" in rows[0]:
        console.print("\n[bold]forward: peak memory in MB, without inputs and output[/]")
        console.print(_memory([row for row in rows if "memory" in row]))
        console.print("Matrix: all samples. %: our share of it, with and without a copy of the input.", style="dim")
    console.print()
    console.print(_errors(rows), _spread(rows), sep="\n", highlight=False)
    for part, name in PARTS.items():
        if words := _in_words(means[part]):
            console.print(f"[bold]{name}:[/] {words}", highlight=False)


def _table(headings: list[str]) -> Table:
    """Make a table that fits 80 columns."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("batch,in,size,\nout,kernel", no_wrap=True)
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def _label(row: dict) -> str:
    return ",".join(map(str, row["shape"])) + ("*" if row["training"] else "")


def _ms(milliseconds: float) -> str:
    return f"{milliseconds:.0f}" if milliseconds >= 100 else f"{milliseconds:.1f}"


def _times(part: str, rows: list[dict], means: dict[str, float]) -> Table:
    names = [name for name in NAMES if any(name in row[part] for row in rows)]
    ratios = [ratio for ratio in RATIOS[part] if ratio in means]
    headings = [BROKEN.get(name, name) for name in names]
    for one, other in (ratio.split(" / ") for ratio in ratios):
        headings.append(f"{BROKEN.get(one, one)}\n/ {other}")
    table = _table(headings)
    for row in rows:
        ms = (_ms(row[part][name]["ms"]) if name in row[part] else "" for name in names)
        found = row["ratios"][part]
        table.add_row(_label(row), *ms, *(f"[bold]{found[ratio]:.2f}[/]" if ratio in found else "" for ratio in ratios))
    table.add_row()
    table.add_row("geometric mean", *[""] * len(names), *(f"{means[ratio]:.2f}" for ratio in ratios), style="bold")
    return table


def _memory(rows: list[dict]) -> Table:
    names = [name for name in NAMES if name in rows[0]["memory"]["extra_bytes"]]
    headings = ["column\nmatrix", "input", *(BROKEN.get(name, name) for name in names)]
    table = _table([*headings, "ours,\n%", "less\ncopy"])
    for row in rows:
        memory = row["memory"]
        sizes = memory["column_matrix_bytes"], memory["input_bytes"], *(memory["extra_bytes"][name] for name in names)
        shares = memory["extra_of_column_matrix"].get("ours"), memory["ours_beside_a_copy_of_input_of_column_matrix"]
        shown = ("" if share is None else f"[bold]{100 * share:.1f}[/]" for share in shares)
        table.add_row(_label(row), *(f"{size / 1e6:.1f}" for size in sizes), *shown)
    return table


def _errors(rows: list[dict]) -> str:
    """Return a sentence with the largest error of each operator; the two sessions of onnxruntime count as one."""
    worst: dict[str, tuple[float, str]] = {}
    for row in rows:
        for name, errors in row["errors"].items():
            if not row["training"]:
                worst[name] = max(worst.get(name, (0.0, "")), max((error, what) for what, error in errors.items()))
    found = []
    for name, (error, what) in worst.items():
        at = "" if what == "out" else f" (gradient of {what})"
        at = " (gradient of offset, at borders of pixels)" if what == "offset" and error > 1e-4 else at
        found += [] if "," in name else [f"{name} {error:.0e}{at}"]
    return f"Largest error against float64, as a share of the largest value: {', '.join(found)}"


def _spread(rows: list[dict]) -> str:
    """Return a sentence with the largest distance of a quartile from its median."""
    widest = max(
        (max(abs(quartile / found["ms"] - 1) for quartile in found["quartiles"]), name, _label(row), PARTS[part])
        for row in rows
        for part in PARTS
        for name, found in row[part].items()
    )
    return f"Quartiles of the times: at most {100 * widest[0]:.0f} % from the median ({', '.join(widest[1:])})"


def _in_words(means: dict[str, float]) -> str:
    words = {
        "torchvision / ours": "{:.1f} times as fast as torchvision",
        "onnxruntime / ours": "{:.1f} times as fast as onnxruntime",
        "ours / conv2d": "{:.1f} times the time of conv2d",
    }
    return ", ".join(text.format(means[ratio]) for ratio, text in words.items() if ratio in means)


def draw(path: Path, result: dict) -> None:
    """Draw the time of each operator as a multiple of that of `conv2d`: bars from 1 on a logarithmic scale."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows, means = [row for row in result["rows"] if not row["training"]], result["geometric_means"]
    figure, axes = pyplot.subplots(1, 2, figsize=(9.6, 5.9), sharex=True)
    # The first group of bars, the mean, stands apart.
    tops = [0, *(1.4 + 1.25 * i for i in range(len(rows)))]
    labels = ["geometric mean"]
    for batch, channels, size, channels_out, kernel in (row["shape"] for row in rows):
        images = "image" if batch == 1 else "images"
        labels.append(f"{channels} → {channels_out} channels, {kernel}x{kernel}\n{batch} {images} of {size}x{size}")
    every = []
    for axis, (part, title) in zip(axes, PARTS.items(), strict=True):
        names = [name for name in COLOURS if f"{name} / conv2d" in means[part]]
        for top, ratios in zip(tops, [means[part], *(row["ratios"][part] for row in rows)], strict=True):
            for i, name in enumerate(names):
                every.append(ratios[f"{name} / conv2d"])
                _draw_bar(axis, top + (i + 0.5) / len(names), 0.9 / len(names), name, every[-1], named=top == 0)
        axis.set_title(title, fontsize=11, loc="left", pad=8)
        axis.set_yticks([top + 0.5 for top in tops], labels if axis is axes[0] else [""] * len(labels))
        axis.set_ylim(tops[-1] + 1.1, -0.15)
        axis.axhspan(-0.15, 1.15, color="#f2f2f2", zorder=0)
        _dress(axis)
    axes[0].get_yticklabels()[0].set_fontweight("bold")
    axes[0].set_xlim(min(1, 0.8 * min(every)), 3.5 * max(every))
    figure.suptitle("Deformable convolution on the CPU: cost in plain convolutions (conv2d = 1)", x=0.01, ha="left")
    note = (
        f"{result['device']}, torch {result['versions']['torch']}; medians, in turns in one process; shorter is faster"
    )
    figure.text(0.01, 0.012, note, fontsize=7.5, color="#555555")
    figure.tight_layout(rect=(0, 0.025, 1, 0.995), w_pad=2)
    with files.whole(path) as temporary:
        figure.savefig(temporary, dpi=120)
    pyplot.close(figure)


def _draw_bar(axis: Any, y: float, height: float, name: str, times: float, *, named: bool) -> None:
    ours = name == "ours"
    axis.barh(y, times - 1, left=1, height=height, color=COLOURS[name], zorder=2)
    axis.annotate(
        f"{times:.1f}" + (f"  {LABELS.get(name, name)}" if named else ""),
        (max(times, 1), y),
        (4, -0.5),
        textcoords="offset points",
        va="center",
        fontsize=8.5 if named else 7.5,
        fontweight="bold" if ours else "normal",
        color=COLOURS[name] if ours else "#333333",
    )


def _dress(axis: Any) -> None:
    axis.set_xscale("log")
    ticks = (1, 2, 5, 10, 20, 50, 100)
    axis.set_xticks(ticks, ["1\nconv2d", *map(str, ticks[1:])])
    axis.minorticks_off()
    axis.axvline(1, color="black", linewidth=0.8)
    axis.tick_params(axis="y", length=0, labelsize=8.5)
    axis.tick_params(axis="x", labelsize=8.5)
    axis.grid(axis="x", alpha=0.25)
    axis.set_axisbelow(True)
    axis.spines[["top", "right", "left"]].set_visible(False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("result", nargs="?", type=Path, default=Path(__file__).parent / "results/deform_conv.json")
    parser.add_argument("--plot", type=Path, help="the file to write the plot to")
    arguments = parser.parse_args()
    result = json.loads(arguments.result.read_text(encoding="utf-8"))
    show(Console(), result)
    if arguments.plot:
        draw(arguments.plot, result)


if __name__ == "__main__":
    main()
