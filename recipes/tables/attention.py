"""Tables of docs/attention.md: where models look, as means with half their 95 % interval."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from saccade.attention.covering import COVERED
from saccade.evaluate import mean_interval, read_rows

from .layout import table

Row = dict[str, Any]

CONDITIONS = ("normal", "rotation", "scaling", "rotation_scaling")
HARDEST = CONDITIONS[-1]
NETWORKS = {"trained": ("trained", "on"), "attention off": ("trained", "off"), "untrained": ("untrained", "on")}
KINDS = (
    ("lenet-lstm", "gradient"),
    ("stn-lstm", "gradient"),
    ("dcn-lstm", "gradient"),
    ("stn-lstm", "sampled_area"),
    ("dcn-lstm", "sampling_points"),
    ("lenet-lstm", "ink"),
)
# What is measured besides the ratios, of the models' own measures.
FOLLOWING = ("angle_slope", "angle_correlation", "scale_slope", "scale_correlation")
FIGURES = {
    "gradient": ("ratio_min", "ratio_min_elsewhere"),
    "sampled_area": ("ratio_min", "ratio_min_elsewhere", *FOLLOWING),
    "sampling_points": ("ratio_min", "ratio_min_elsewhere", "ratio_min_gain"),
}
NAMES = {
    "ratio_min": "weakest digit",
    "ratio_min_elsewhere": "weakest digit, elsewhere",
    "ratio_min_gain": "weakest digit, gain by offsets",
}


def weakest_digit(path: Path) -> str:
    """Show the weakest digit's ratio for each model, measure and condition, beside the controls."""
    rows = read_rows(path)
    lines = []
    for model, measure in KINDS:
        for condition in CONDITIONS:
            trained = _cell(rows, model, measure, condition, "trained")
            found = [_figure(_cell(rows, model, measure, condition, network), "ratio_min") for network in NETWORKS]
            who = "no model" if measure == "ink" else model
            lines.append([_words(measure), who, condition, *found, _figure(trained, "ratio_min_elsewhere")])
    return table(["attention by", "model", "condition", *NETWORKS, "trained, elsewhere"], lines)


def window(path: Path) -> str:
    """Show how far the transformer's windows follow angle and scale of the digits."""
    rows = read_rows(path)
    (model,) = {row["model"] for row in rows if row["measure"] == "sampled_area"}
    lines = [
        [condition, *(_figure(_cell(rows, model, "sampled_area", condition, "trained"), name) for name in FOLLOWING)]
        for condition in CONDITIONS
    ]
    return table(["condition", *map(_words, FOLLOWING)], lines)


def offsets_alone(path: Path) -> str:
    """Show what the offsets alone add to the weakest digit's ratio."""
    rows = read_rows(path)
    networks = ("trained", "untrained")
    lines = [
        [
            condition,
            *(
                _figure(_cell(rows, "dcn-lstm", "sampling_points", condition, network), "ratio_min_gain")
                for network in networks
            ),
        ]
        for condition in CONDITIONS
    ]
    return table(["condition", *networks], lines)


def glimpses(path: Path) -> str:
    """Show whether each digit has a glimpse of its own, beside the same glimpses on the digits of another clip."""
    rows = [row for row in read_rows(path) if row["measure"] == "sampled_area" and row["attention"] == "on"]
    lines = []
    for condition in CONDITIONS:
        for name in COVERED:
            cells = [
                _figure([row for row in rows if (row["condition"], row["trained"]) == (condition, network)], column)
                for column in (name, f"{name}_elsewhere")
                for network in ("trained", "untrained")
            ]
            lines.append([_words(name), condition, *cells])
    return table(["figure", "condition", "trained", "untrained", "trained, elsewhere", "untrained, elsewhere"], lines)


def by_seed(path: Path) -> str:
    """Show the figures of each training, on the same clips with rotation and scaling."""
    rows = read_rows(path)
    seeds = _seeds(rows)
    lines = [
        [
            NAMES.get(name, _words(name)),
            _words(measure),
            model,
            *(_figure(_cell(rows, model, measure, HARDEST, "trained", seed), name) for seed in seeds),
        ]
        for model, measure in KINDS
        if measure != "ink"
        for name in FIGURES[measure]
    ]
    return table(["figure", "attention by", "model", *(f"seed {seed}" for seed in seeds)], lines)


def _seeds(rows: Sequence[Row]) -> list[int]:
    return sorted({row["seed"] for row in rows if row["trained"] == "trained"})


def _cell(
    rows: Sequence[Row], model: str, measure: str, condition: str, network: str, seed: int | None = None
) -> list[Row]:
    """Return the rows of one cell: of one training, by default the first, or of all untrained networks."""
    trained, attention = NETWORKS[network]
    wanted: Row = {
        "model": model,
        "measure": measure,
        "condition": condition,
        "trained": trained,
        "attention": attention,
    }
    if trained == "trained":
        wanted["seed"] = _seeds(rows)[0] if seed is None else seed
    return [row for row in rows if all(row[name] == value for name, value in wanted.items())]


def _figure(rows: Sequence[Row], column: str) -> str:
    found = mean_interval(rows, column) if rows else None
    if found is None:
        return ""
    return f"{found.mean:.2f}" if found.high is None else f"{found.mean:.2f} ± {found.high - found.mean:.2f}"


def _words(name: str) -> str:
    return name.replace("_", " ")
