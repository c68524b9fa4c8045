"""Show what a model still gets wrong on moving digits: accuracy without 6 and 9, by overlap, and pictures of errors.

A 6 that is turned by 90 degrees is a 9 that is turned by -90. Two digits that cover each other in many frames can
hardly be told apart, most of all when they are small. A row says what the accuracy is without them.

Usage: python recipes/remaining_errors.py --model RUN [--num-clips 2000] [--split validation] [--out FOLDER]
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from PIL import Image, ImageDraw
from torch import Tensor

from saccade import checkpoint, console
from saccade.data.digits import DigitsConfig
from saccade.evaluate import append_rows, evaluate, standard_test
from saccade.intervals import wilson_interval

NUM_PICTURES, FRAMES_SHOWN, SHOWN_PX, TEXT_PX = 12, 10, 64, 150
APART = 0.5
Clip = dict[str, Any]
SUBSETS: dict[str, Callable[[Clip], bool]] = {
    "all": lambda clip: True,
    "without 6 and 9": lambda clip: not set("69") & set(clip["shows"]),
    "two of a kind": lambda clip: clip["shows"][0] == clip["shows"][1],
    f"apart in at least {APART:.0%} of the frames": lambda clip: clip["apart"] >= APART,
    f"apart in fewer than {APART:.0%}": lambda clip: clip["apart"] < APART,
}


@dataclass(frozen=True)
class Options:
    """Which model, and on which clips.

    Args:
        model: a checkpoint or run folder of pairs of digits.
        num_clips: the number of clips of each condition.
        split: validation or test.
        digits_dir: the folder that is searched for MNIST.
        out: the folder for rows and pictures.
    """

    model: Path
    num_clips: int = 2000
    split: str = "validation"
    digits_dir: Path | None = None
    out: Path = Path("runs/remaining-errors")


def main(options: Options) -> None:
    """Write `errors.csv` and a picture for each condition, and print the rows."""
    model, header = checkpoint.load(options.model)
    options.out.mkdir(parents=True, exist_ok=True)
    asked = {"num_clips": options.num_clips} | ({"digits_dir": options.digits_dir} if options.digits_dir else {})
    data = standard_test(options.model, **asked)
    assert isinstance(data, DigitsConfig), f"{options.model} does not know moving digits"
    for part in data.parts():
        clips = part.clips(options.split)
        with console.counting_bar(part.condition[0]) as progress:
            found = evaluate(model, clips, batch_size=20, progress=progress)
        described = [
            {
                "index": index,
                "shows": clips.labels.names[verdict.target],
                "says": clips.labels.names[verdict.verdict],
                "right": verdict.right,
                "probability": verdict.probability,
                "of_target": verdict.target_probability,
                "apart": apart,
            }
            for index, (verdict, apart) in enumerate(zip(found.clips, shares_apart(clips), strict=True))
        ]
        facts = {"model": header.model, "seed": header.seed, **clips.facts}
        subsets = {name: [clip for clip in described if holds(clip)] for name, holds in SUBSETS.items()}
        rows = [facts | {"subset": name} | figures(some) for name, some in subsets.items() if some]
        append_rows(options.out / "errors.csv", rows)
        for row in rows:
            low, high = wilson_interval(round(row["accuracy"] * row["num_clips"]), row["num_clips"])
            print(
                f"{part.condition[0]:18}{row['subset']:32}{row['num_clips']:6}"
                f"{100 * row['accuracy']:7.2f} % ({100 * low:.2f} to {100 * high:.2f})"
            )
        wrong = sorted((clip for clip in described if not clip["right"]), key=lambda clip: -clip["probability"])
        picture(clips, wrong[:NUM_PICTURES]).save(options.out / f"{part.condition[0]}.png")


def figures(clips: list[Clip]) -> dict[str, Any]:
    """Return accuracy and cross entropy on some clips, and their number."""
    num = len(clips)
    return {
        "accuracy": sum(clip["right"] for clip in clips) / num,
        "cross_entropy": sum(-math.log(max(clip["of_target"], 1e-300)) for clip in clips) / num,
        "num_clips": num,
    }


def shares_apart(clips: Any, batch_size: int = 50) -> list[float]:
    """Return for each clip the share of the frames in which the boxes around its two digits do not meet."""
    shares: list[float] = []
    for first in range(0, len(clips), batch_size):
        poses = clips.located(torch.arange(first, min(first + batch_size, len(clips)))).poses
        one, other = poses.box_px[:, :, 0], poses.box_px[:, :, 1]
        meets = (torch.minimum(one[..., 2:], other[..., 2:]) > torch.maximum(one[..., :2], other[..., :2])).all(-1)
        shares += (1 - meets.double().mean(1)).tolist()
    return shares


def picture(clips: Any, wrong: list[Clip]) -> Image.Image:
    """Return a row for each clip: what it shows, what the model says, and some of its frames."""
    sheet = Image.new("L", (TEXT_PX + FRAMES_SHOWN * (SHOWN_PX + 2), max(1, len(wrong)) * (SHOWN_PX + 2)), 40)
    drawn = ImageDraw.Draw(sheet)
    for row, clip in enumerate(wrong):
        frames: Tensor = clips.batch(torch.tensor([clip["index"]])).frames[0, :, 0]
        top = row * (SHOWN_PX + 2)
        told = f"clip {clip['index']}\nshows {clip['shows']}, says {clip['says']}\n({clip['probability']:.0%} sure)"
        drawn.multiline_text((6, top + 8), told, fill=255)
        chosen = torch.linspace(0, len(frames) - 1, FRAMES_SHOWN).round().long()
        for column, number in enumerate(chosen.tolist()):
            sheet.paste(Image.fromarray(frames[number].numpy()), (TEXT_PX + column * (SHOWN_PX + 2), top))
    return sheet


if __name__ == "__main__":
    main(tyro.cli(Options, config=(tyro.conf.OmitArgPrefixes,)))
