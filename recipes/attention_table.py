"""Print the tables of docs/attention.md from results/attention.csv.

Usage: python recipes/attention_table.py results/attention.csv
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from saccade.evaluate import mean_interval, read_rows

CONDITIONS = ("normal", "rotation", "scaling", "rotation_scaling")
NETWORKS = {"trained": ("trained", "on"), "attention off": ("trained", "off"), "untrained": ("untrained", "on")}
KINDS = (
    ("lenet-lstm", "gradient"),
    ("stn-lstm", "gradient"),
    ("dcn-lstm", "gradient"),
    ("stn-lstm", "sampled_area"),
    ("dcn-lstm", "sampling_points"),
    ("lenet-lstm", "ink"),
)
FOLLOWING = {
    "stn-lstm": ("sampled_area", ("angle_slope", "angle_correlation", "scale_slope", "scale_correlation")),
    "dcn-lstm": ("sampling_points", ("ratio_min_gain",)),
}


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lay out a table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def figure(rows: Sequence[dict[str, Any]], column: str) -> str:
    """Return a mean with half its interval, or nothing."""
    found = mean_interval(rows, column) if rows else None
    if found is None:
        return ""
    return f"{found.mean:.2f}" if found.high is None else f"{found.mean:.2f} ± {found.high - found.mean:.2f}"


def main(path: Path) -> None:
    """Print the tables."""
    rows = read_rows(path)
    seeds = sorted({row["seed"] for row in rows if row["trained"] == "trained"})

    def cell(model: str, measure: str, condition: str, network: str, seed: int = seeds[0]) -> list[dict[str, Any]]:
        wanted = dict(zip(("trained", "attention"), NETWORKS[network], strict=True))
        wanted |= {"model": model, "measure": measure, "condition": condition}
        wanted |= {"seed": seed} if network != "untrained" else {}
        return [row for row in rows if all(row[name] == value for name, value in wanted.items())]

    weakest = []
    for model, measure in KINDS:
        for condition in CONDITIONS:
            trained = cell(model, measure, condition, "trained")
            found = [figure(cell(model, measure, condition, network), "ratio_min") for network in NETWORKS]
            who = "no model" if measure == "ink" else model
            weakest.append([measure.replace("_", " "), who, condition, *found, figure(trained, "ratio_min_elsewhere")])
    print(table(["attention by", "model", "condition", *NETWORKS, "trained, elsewhere"], weakest), end="\n\n")
    for model, (measure, names) in FOLLOWING.items():
        lines = [
            [
                condition,
                *(figure(cell(model, measure, condition, network), name) for network in networks for name in names),
            ]
            for condition in CONDITIONS
            for networks in [("trained",) if model == "stn-lstm" else ("trained", "untrained")]
        ]
        heads = [name.replace("_", " ") for name in names] if model == "stn-lstm" else ["trained", "untrained"]
        print(table(["condition", *heads], lines), end="\n\n")
    lines = [
        [
            name.replace("_", " "),
            measure.replace("_", " "),
            model,
            *(figure(cell(model, measure, CONDITIONS[-1], "trained", seed), name) for seed in seeds),
        ]
        for model, measure in KINDS
        if measure != "ink"
        for name in ("ratio_min", "ratio_min_elsewhere", *(FOLLOWING[model][1] if measure != "gradient" else ()))
    ]
    print(table([CONDITIONS[-1], "attention by", "model", *(f"seed {seed}" for seed in seeds)], lines))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
