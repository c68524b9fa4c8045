"""Pictures of generated clips and of training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from jaxtyping import UInt8
from torch import Tensor

from saccade.visualize.figures import load_pyplot, write_figure

# One colour for each model in all pictures; people with red-green colour blindness can tell them apart.
COLOURS = {"lenet-lstm": "#4477aa", "stn-lstm": "#ee7733", "dcn-lstm": "#228833"}


def colour_of(kind: str) -> str:
    """Return the colour of a model by the kind of its attention, given its name in results.

    >>> colour_of("resnet18-dcn-gru") == COLOURS["dcn-lstm"], colour_of("lite0-memory") == COLOURS["lenet-lstm"]
    (True, True)
    """
    attention = next((part for part in kind.split("-") if part in ("stn", "dcn")), "lenet")
    return COLOURS[f"{attention}-lstm"]


def film_strip(
    frames: UInt8[Tensor, "time height width"], *, num_columns: int, gap_px: int = 2, shade: int = 60
) -> UInt8[Tensor, "strip_height strip_width"]:
    """Place evenly spaced frames of a clip side by side, with gaps of grey level `shade` between them.

    >>> film_strip(torch.zeros(10, 64, 64, dtype=torch.uint8), num_columns=3).shape
    torch.Size([64, 196])
    """
    chosen = torch.linspace(0, len(frames) - 1, num_columns).round().long()
    height, width = frames.shape[-2:]
    strip = torch.full((height, num_columns * (width + gap_px) - gap_px), shade, dtype=torch.uint8)
    for column, index in enumerate(chosen.tolist()):
        left = column * (width + gap_px)
        strip[:, left : left + width] = frames[index]
    return strip


def draw_samples(path: Path, clips: Mapping[str, tuple[UInt8[Tensor, "time height width"], str]]) -> None:
    """Draw one clip for each condition as a film strip, titled with its condition and class.

    Raises:
        MissingExtraError: if matplotlib is not installed.
    """
    pyplot = load_pyplot()
    figure, axes = pyplot.subplots(len(clips), 1, figsize=(10, 1.18 * len(clips)), squeeze=False)
    for axis, (condition, (frames, name)) in zip(axes[:, 0], clips.items(), strict=True):
        axis.imshow(film_strip(frames, num_columns=10).numpy(), cmap="gray", vmin=0, vmax=255)
        axis.set_title(f"{condition.replace('_', ' + ')}   “{name}”", fontsize=9, loc="left", pad=3)
        axis.set_axis_off()
    figure.tight_layout(pad=0.4)
    write_figure(figure, path)


def draw_curves(
    path: Path, runs: Mapping[str, Mapping[str, Sequence[Mapping[str, float]]]], *, over: str = "minutes"
) -> None:
    """Draw loss and accuracy during training, with a column for each condition and a line for each model.

    Args:
        path: the `.png` file to write.
        runs: the log rows by condition and model.
        over: the horizontal axis, `minutes` or `steps`.

    Raises:
        MissingExtraError: if matplotlib is not installed.
    """
    pyplot = load_pyplot()
    width = 3.1 * len(runs) + 0.8 if len(runs) > 1 else 6.4
    figure, axes = pyplot.subplots(2, len(runs), figsize=(width, 4.6), squeeze=False, sharex="col", sharey="row")
    for column, (condition, models) in enumerate(runs.items()):
        for model, rows in models.items():
            course = [row["step"] if over == "steps" else row["elapsed_s"] / 60 for row in rows]
            for axis, name in zip(axes[:, column], ("loss", "accuracy"), strict=True):
                style = {
                    "color": COLOURS.get(model),
                    "label": model,
                    "linewidth": 1.6,
                    "marker": "." if len(rows) < 20 else "",
                }
                axis.plot(course, _smooth([row[name] for row in rows]), **style)
        axes[0, column].set_title(condition.replace("_", " + "), fontsize=10)
        axes[1, column].set_xlabel("training steps" if over == "steps" else "minutes of training")
        axes[1, column].set_ylim(0, 1)
        for axis in axes[:, column]:
            axis.grid(alpha=0.25)
            axis.spines[["top", "right"]].set_visible(False)
    axes[0, 0].set_ylabel("training cross entropy")
    axes[1, 0].set_ylabel("training accuracy,\nlast frame")
    if axes[0, -1].lines:
        axes[0, -1].legend(frameon=False, fontsize=8)
    figure.tight_layout()
    write_figure(figure, path)


def _smooth(values: Sequence[float]) -> list[float]:
    # A row comes from one batch, which may be small, so each point averages over more rows if there are more rows.
    weight = max(0.7, 1 - 15 / max(1, len(values)))
    smoothed: list[float] = []
    for value in values:
        smoothed.append(weight * smoothed[-1] + (1 - weight) * value if smoothed else value)
    return smoothed
