"""Tables of accuracy: every interval is computed from the rows."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from saccade import models
from saccade.evaluate import interval, read_rows
from saccade.evaluate.cells import MIN_SEEDS
from saccade.intervals import t_interval
from saccade.models.matched import NUM_GLIMPSES
from saccade.reproduce.published_figures import PUBLISHED

from .layout import percent, table, with_interval

Row = dict[str, Any]

CONDITIONS = {
    "normal": "Normal",
    "rotation": "Rotation",
    "scaling": "Scaling",
    "rotation_scaling": "Rotation+Scaling",
}
MODELS = {"lenet-lstm": "LeNet-LSTM", "stn-lstm": "STN-LSTM", "dcn-lstm": "DCN-LSTM"}
ALL_MODELS = {"multi-stn-lstm": "Multi-STN-LSTM", **MODELS}
# What was aimed at with one set of weights: accuracy and cross entropy of the best model, accuracy of a transformer.
AIMS = {
    "normal": (0.995, 0.03, 0.99),
    "rotation": (0.995, 0.03, 0.99),
    "scaling": (0.993, 0.04, 0.99),
    "rotation_scaling": (0.992, 0.05, 0.985),
}
# The clips of a cell of the models of the package; rows of fewer clips are for the suite, which evaluates them again.
NUM_TESTED = 1000
# What the models of the package are tested on: the values of (digits, num_digits) in their rows.
TEST_SETS = {
    ("mnist", 2): "two digits, MNIST",
    ("strokes", 2): "two, strokes",
    ("uci", 2): "two, UCI (not in training)",
    ("mnist", "1 to 5"): "one to five, clutter, noise, MNIST",
}


def accuracy(path: Path) -> str:
    """Show accuracy by condition and model, with its 95 % interval."""
    return table(["", *MODELS.values()], _by_condition(read_rows(path)))


def accuracies(*paths: Path) -> str:
    """Show the same for several files, one below the other, with the steps and the seeds of their rows."""
    lines = []
    for path in paths:
        rows = read_rows(path)
        facts = [path.name, _all(rows, "steps"), _all(rows, "seed")]
        lines += [[*facts, *line] for line in _by_condition(rows)]
    return table(["rows", "steps", "seeds", "condition", *MODELS.values()], lines)


def trainings(path: Path) -> str:
    """Show a line for each training: what was trained on what, for how many steps, and what came out."""
    rows = read_rows(path)
    lines = [
        [*_named(row), f"{row['steps']:,}", accuracy_of([row]), f"{row['cross_entropy']:.3f}"] for row in _sorted(rows)
    ]
    return table(["model", "condition", "steps", "accuracy", "cross entropy"], lines)


def mixture(path: Path) -> str:
    """Show one set of weights in every condition, by model: accuracy and cross entropy, means over seeds."""
    rows = read_rows(path)
    names = _mixed(rows)
    facts = [["parameters", *(_parameters(model) for model in names)]]
    for column, name in (("seed", "seeds"), ("steps", "steps")):
        facts.append([name, *(_all(_where(rows, model=model), column) for model in names)])
    return table(["", *names.values()], facts + _of_mixture(rows, "accuracy"))


def aims(path: Path) -> str:
    """Show what was aimed at with one set of weights, and whether the means over seeds reach it."""
    rows = [row for row in read_rows(path) if row["model"] == "multi-stn-lstm"]
    lines = []
    for condition, name in CONDITIONS.items():
        found, (best, entropy, family) = _where(rows, condition=condition), AIMS[condition]
        accuracy, came = (sum(row[figure] for row in found) / len(found) for figure in ("accuracy", "cross_entropy"))
        met = [accuracy >= best, came <= entropy, accuracy >= family]
        aimed = [f"{100 * best:.1f} %", f"{entropy:.2f}", f"{100 * family:.1f} %"]
        lines.append([name, *(f"{aim}: {'met' if is_met else 'no'}" for aim, is_met in zip(aimed, met, strict=True))])
    return table(["aim", "best model", "its cross entropy", "spatial transformers"], lines)


def gains(path: Path) -> str:
    """Show by how many points the first model is more accurate than the others: mean over seeds, t-interval."""
    rows = read_rows(path)
    first, *others = _mixed(rows)
    lines = []
    for condition, name in CONDITIONS.items():
        own, *of_others = (_where(rows, condition=condition, model=model) for model in (first, *others))
        figures = ("accuracy", "accuracy_of_mean_logits")
        lines.append([name, *(_gain(own, found, figure) for found in of_others for figure in figures)])
    head = [f"{ALL_MODELS[other]}{of}" for other in others for of in (", last frame", ", mean logits")]
    return table([f"points more of {ALL_MODELS[first]} than", *head], lines)


def gains_of_recipe(longer: Path, shorter: Path) -> str:
    """Show by how many points one recipe is more accurate than another: mean over seeds, t-interval, each model."""
    found = [read_rows(path) for path in (longer, shorter)]
    names = _mixed(found[0])
    lines = []
    for condition, name in CONDITIONS.items():
        pairs = [[_where(rows, condition=condition, model=model) for rows in found] for model in names]
        lines.append([name, *(_gain(one, other, "accuracy") for one, other in pairs)])
    return table(["points more", *names.values()], lines)


def controls(path: Path, mixture: Path) -> str:
    """Show what the number of glimpses brings at equal parameters and steps: rows of `recipes/controls.py`.

    Args:
        path: rows of other numbers.
        mixture: rows of `recipes/mixture.sh`, with two.
    """
    rows = [
        row | {"num_glimpses": row.get("num_glimpses") or NUM_GLIMPSES}
        for row in (*read_rows(path), *read_rows(mixture))
        if row["model"] == "multi-stn-lstm"
    ]
    lines = []
    for num in sorted({row["num_glimpses"] for row in rows}):
        found = _where(rows, num_glimpses=num)
        facts = [str(num), _parameters("multi-stn-lstm", num), _all(found, "steps"), _all(found, "seed")]
        lines.append([*facts, *(_precise(_where(found, condition=condition)) for condition in CONDITIONS)])
    return table(["glimpses", "parameters", "steps", "seeds", *CONDITIONS.values()], lines)


def mixture_of_mean_logits(path: Path) -> str:
    """Show the same accuracy where the logits of all frames are averaged, in place of those of the last frame."""
    rows = read_rows(path)
    return table(["", *_mixed(rows).values()], _of_mixture(rows, "accuracy_of_mean_logits"))


def remaining(path: Path) -> str:
    """Show the accuracy on parts of the clips: without digits that are mistaken when turned, by how often they meet."""
    rows = read_rows(path)
    lines = [
        [subset, name, f"{sum(row['num_clips'] for row in found):,}", _precise(found)]
        for subset in dict.fromkeys(row["subset"] for row in rows)
        for condition, name in CONDITIONS.items()
        if (found := _where(rows, subset=subset, condition=condition))
    ]
    return table(["clips", "condition", "number", "accuracy"], lines)


def agreement(path: Path) -> str:
    """Show which errors several trainings share, and the figures of the mean of their probabilities."""
    lines = [
        [
            name,
            f"{row['num_clips']:,}",
            f"{100 * (1 - row['wrong_of_each'] / row['num_clips']):.2f} %",
            f"{row['wrong_of_each']:.0f}",
            str(row["wrong_of_all"]),
            str(row["same_wrong_verdict"]),
            _with_entropy([row], "accuracy"),
        ]
        for condition, name in CONDITIONS.items()
        for row in _where(read_rows(path), condition=condition)
    ]
    head = ["condition", "clips", "one training", "its wrong clips", "wrong in all", "in all, the same verdict"]
    return table([*head, "mean of their probabilities"], lines)


def attention_off(path: Path) -> str:
    """Show how accuracy changes when the attention of a trained model is switched off."""
    lines = [
        [
            *_named(row),
            percent(row["accuracy"]),
            percent(row["accuracy_without_attention"]),
            f"{row['verdicts_changed_by_attention']} of {row['num_clips']:,}",
        ]
        for row in _sorted(read_rows(path))
        if row["accuracy_without_attention"] is not None
    ]
    return table(["model", "condition", "as trained", "switched off", "verdicts that change"], lines)


def published(lenet: Path, stn: Path, other: Path) -> str:
    """Show the published protocol beside the published figures: cross entropy, accuracy."""
    on_training_clips = {"lenet-lstm": read_rows(lenet), "stn-lstm": read_rows(stn)}
    on_others = _where(read_rows(other), model="lenet-lstm-published", instances="shared", order="hidden")
    head = ["", "LeNet-LSTM published", "on its training clips", "on other trajectories"]
    head += ["STN-LSTM published", "on its training clips"]
    lines = []
    for condition, name in CONDITIONS.items():
        line = [name]
        for model, rows in on_training_clips.items():
            cross_entropy, right = PUBLISHED[model, condition]
            line += [f"{cross_entropy:.2f}, {percent(right)}", _both(_where(rows, condition=condition))]
            line += [_both(_where(on_others, condition=condition))] if model == "lenet-lstm" else []
        lines.append(line)
    return table(head, lines)


def published_readings(path: Path) -> str:
    """Show the readings of the published protocol in which the LSTM is tested on other trajectories."""
    rows = read_rows(path)
    lines = [
        [name, instances, order, *(_both(_where(found, condition=condition)) for condition in CONDITIONS)]
        for model, name in MODELS.items()
        for instances in ("shared", "disjoint")
        for order in ("hidden", "visible")
        for found in [_where(rows, model=f"{model}-published", instances=instances, order=order)]
    ]
    return table(["model", "instances", "order", *CONDITIONS.values()], lines)


def package_weights(path: Path) -> str:
    """Show how often the models of the package name exactly the digits of a clip, by test set and seed."""
    rows = [row for row in read_rows(path) if row["num_clips"] == NUM_TESTED]
    lines = [
        [name, str(seed), *(accuracy_of(_where(found, digits=digits, num_digits=num)) for digits, num in TEST_SETS)]
        for model, name in MODELS.items()
        for seed in sorted({row["seed"] for row in rows})
        for found in [_where(rows, model=model, seed=seed)]
    ]
    return table(["", "seed", *TEST_SETS.values()], lines)


def _by_condition(rows: Sequence[Row]) -> list[list[str]]:
    return [
        [name, *(accuracy_of(_where(rows, condition=condition, model=model)) for model in MODELS)]
        for condition, name in CONDITIONS.items()
    ]


def _of_mixture(rows: Sequence[Row], figure: str) -> list[list[str]]:
    return [
        [name, *(_with_entropy(_where(rows, condition=condition, model=model), figure) for model in _mixed(rows))]
        for condition, name in CONDITIONS.items()
    ]


def _gain(rows: Sequence[Row], others: Sequence[Row], figure: str) -> str:
    """Return by how many points a figure is higher than in other rows of the same seeds, with its interval."""
    beside = {row["seed"]: row[figure] for row in others}
    gains = [100 * (row[figure] - beside[row["seed"]]) for row in rows if row["seed"] in beside]
    mean = f"{sum(gains) / len(gains):+.2f}"
    if len(gains) < MIN_SEEDS:
        return mean
    low, high = t_interval(gains)
    return f"{mean} ({low:+.2f} to {high:+.2f})"


def _parameters(model: str, num_glimpses: int | None = None) -> str:
    made = models.create(model, trunk="wide", **({"num_glimpses": num_glimpses} if num_glimpses else {}))
    return f"{sum(p.numel() for p in made.parameters()):,}"


def _mixed(rows: Sequence[Row]) -> dict[str, str]:
    """Return the models of some rows, with their names, in one order."""
    return {model: name for model, name in ALL_MODELS.items() if _where(rows, model=model)}


def _with_entropy(rows: Sequence[Row], figure: str) -> str:
    """Return a figure as accuracy to two places; with that of the last frame, also the cross entropy."""
    told = _precise([row | {"accuracy": row[figure]} for row in rows])
    return told if figure != "accuracy" else f"{told}, {sum(row['cross_entropy'] for row in rows) / len(rows):.3f}"


def _precise(rows: Sequence[Row]) -> str:
    """Return accuracy to two places with its interval."""
    return accuracy_of(rows, places=2) if rows else ""


def _where(rows: Sequence[Row], **values: object) -> list[Row]:
    return [row for row in rows if all(row[name] == value for name, value in values.items())]


def _sorted(rows: Sequence[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: (list(MODELS).index(row["model"]), list(CONDITIONS).index(row["condition"])))


def _named(row: Row) -> tuple[str, str]:
    return MODELS[row["model"]], CONDITIONS[row["condition"]]


def _all(rows: Sequence[Row], name: str) -> str:
    found = sorted({row[name] for row in rows})
    return ", ".join(f"{value:,}" for value in found)


def accuracy_of(rows: Sequence[Row], places: int = 1) -> str:
    """Return the mean accuracy of some rows with its interval."""
    return with_interval(sum(row["accuracy"] for row in rows) / len(rows), interval(rows), places=places)


def _both(rows: Sequence[Row]) -> str:
    (row,) = rows
    return f"{row['cross_entropy']:.2f}, {percent(row['accuracy'])}"
