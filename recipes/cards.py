"""Write the model cards of the package's weights from their checkpoints and from results/weights.csv.

The suite evaluates the rows of few clips again; its slow part evaluates all rows.

Usage: python -m recipes.cards
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from recipes.tables.accuracy import accuracy_of
from recipes.tables.layout import table

from saccade import checkpoint, weights
from saccade.data.digits import DigitsConfig
from saccade.evaluate import read_rows

ROOT = Path(__file__).parent.parent
ROWS = ROOT / "results" / "weights.csv"
SOURCES = ("mnist", "strokes", "uci")
RECIPES = {
    "digits": "recipes/weights.sh",
    "pair": "MODELS={name} SEEDS={seed} STEPS={steps} JITTER={jitter:g} PACKAGED={name} recipes/mixture.sh",
}
RIGHT = {"digits": "The set of digits must be exact.", "pair": "Both digits must be right."}
# What a user must not expect, by the labels of a model.
LIMITS = {
    "digits": "It says which of the ten digits are there, and not how many of each.",
    "pair": "A clip has exactly two digits. With one, with three or with none, it still names two.",
}

CARD = """\
# {name}

A video classifier for digits that move, rotate and change scale in grey 64x64 frames. It comes with Saccade.

```bash
saccade predict CLIP.mp4 --model {name}
saccade evaluate --model {name} --digits strokes --num-clips 300 --num-digits 2
```

## What it learned

{learned}
Command, in the repository: `{recipe}`.
Digit images and trajectories of the test clips occur in no training clip.

## Accuracy

Test clips of 50 frames, verdict at the last frame. {right} The brackets hold Wilson's
95 % interval over clips. It says nothing about other trainings of the same kind.

{accuracy}
`*` The training had no images from this source. Rows of 300 clips are the first 300 of the same test clips; the test
suite evaluates them again.

## Limits

- {limit}
- It knows white strokes on black, 10 to 22 pixels high, turned by up to 90 degrees. A 6 turned by more is a 9.
- Probabilities are calibrated on validation clips of the same digit sources. On other digits it is overconfident.
- It knows no other things than digits. `saccade train` makes a model for your own clips.
"""


def text(name: str) -> str:
    """Return the card of a checkpoint of the package."""
    path = weights.paths()[name]
    model, header = checkpoint.load(path)
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    scheme, jitter = header.facts["labels"], cast(DigitsConfig, header.data_config()).jitter
    return CARD.format(
        name=name,
        learned=table(("", ""), learned(header, num_parameters)),
        recipe=RECIPES[scheme].format(name=name, seed=header.seed, steps=header.training["num_steps"], jitter=jitter),
        right=RIGHT[scheme],
        accuracy=table(("digits", "condition", "in a clip", "accuracy", "cross entropy", "clips"), measured(name)),
        limit=LIMITS[scheme],
    )


def learned(header: checkpoint.Header, num_parameters: int) -> list[tuple[str, str]]:
    """Return what the header of a checkpoint says about its training."""
    config, data = header.training["config"], cast(DigitsConfig, header.data_config())
    short = f"then clips of {data.num_frames}" if data.short_fraction else f"clips of {data.num_frames}"
    return [
        ("parameters", f"{num_parameters:,}"),
        ("labels", f"{len(header.labels.names) if header.labels else 0} classes, `{data.scheme}`"),
        ("digit images", data.digits),
        ("condition", shares([name.replace("_", " and ") for name in data.condition])),
        ("digits in a clip", in_clip(data.num_digits, data.clutter, data.noise)),
        ("change of each image", f"`--jitter {data.jitter:g}`" if data.jitter else "none"),
        ("frames", f"{100 * data.short_fraction:.0f} % of the steps with clips of {data.short_frames}, {short}"),
        ("steps", f"{header.training['step']:,} of {config['batch_size'] * data.num_frames} frames"),
        ("seed", str(header.seed)),
        ("time", f"{header.training['elapsed_s'] / 60:.0f} minutes"),
        ("number format", header.training["precision"]),
        ("temperature", f"{header.training['temperature']:.3f}"),
        ("versions", ", ".join(f"{package} {version}" for package, version in header.versions.items())),
    ]


def measured(name: str) -> list[tuple[str, ...]]:
    """Return the rows of a checkpoint's accuracy."""
    header = checkpoint.read_header(weights.paths()[name])
    seen = header.facts["digits"].split("+")
    return [
        (
            row["digits"] if row["digits"] in seen else f"{row['digits']} `*`",
            row["condition"].replace("_", " and "),
            in_clip(row["num_digits"], row["clutter"] or 0, row["noise"] or 0),
            accuracy_of([row]),
            f"{row['cross_entropy']:.4f}",
            f"{row['num_clips']:,}",
        )
        for row in rows_of(name)
    ]


def rows_of(name: str) -> list[dict[str, Any]]:
    """Return the rows of a checkpoint of the package."""
    checkpoint_of = f"src/saccade/weights/{name}.safetensors"
    rows = [row for row in read_rows(ROWS) if row["checkpoint"] == checkpoint_of and row["seed"] == 0]
    return sorted(rows, key=lambda row: (-row["num_clips"], SOURCES.index(row["digits"])))


def shares(conditions: Sequence[str]) -> str:
    """Say how often training clips had each condition.

    >>> shares(("normal", "rotation", "rotation"))
    'normal 1/3, rotation 2/3'
    """
    if len(set(conditions)) == 1:
        return conditions[0]
    return ", ".join(f"{name} {conditions.count(name)}/{len(conditions)}" for name in dict.fromkeys(conditions))


def in_clip(num_digits: object, clutter: float, noise: float) -> str:
    """Say what a clip shows.

    >>> in_clip((1, 5), 4, 25.0)
    '1 to 5, up to 4 pieces of clutter, noise of up to 25 grey levels'
    """
    number = " to ".join(map(str, num_digits)) if isinstance(num_digits, tuple) else str(num_digits)
    return number + (f", up to {clutter} pieces of clutter, noise of up to {noise:g} grey levels" if clutter else "")


if __name__ == "__main__":
    for known, path in weights.paths().items():
        path.with_suffix(".md").write_text(text(known), encoding="utf-8")
