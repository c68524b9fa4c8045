"""The published table next to ours, as Markdown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from saccade.evaluate import interval
from saccade.reproduce.published_figures import PUBLISHED

TITLES = {"lenet-lstm": "LeNet-LSTM", "stn-lstm": "STN-LSTM", "dcn-lstm": "DCN-LSTM"}
CONDITION_TITLES = {
    "normal": "Normal",
    "rotation": "Rotation",
    "scaling": "Scaling",
    "rotation_scaling": "Rotation+Scaling",
    "elastic": "Elastic",
}
# The steps of five epochs of MNIST's 50,000 training digits, in batches of 32.
_FIVE_EPOCHS = 5 * 1563
Row = Mapping[str, Any]


def family(model: str) -> str:
    """Return the column of a model; the published and the matched model of a kind share one."""
    return model.removesuffix("-published")


def markdown(rows: Sequence[Row]) -> str:
    """Render rows of results as a table of conditions by models, with the published figures next to ours.

    The lines above the table list the differences between the two experiments, since these limit the comparison.
    """
    kinds = _interval_kinds(rows)
    lines = _preface(rows, kinds)
    for trained_on, part in _by_training(rows).items():
        if trained_on:
            lines += ["", f"## {trained_on}"]
        lines += ["", *_table(part, one_kind=len(kinds) == 1)]
        if told := _attention(part):
            lines += ["", *told]
    return "\n".join([*lines, ""])


def _by_training(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Group the rows by the training data of their models, under headings if there are several kinds."""
    mixed = [row for row in rows if _is_mixture(row)]
    own = [row for row in rows if not _is_mixture(row)]
    if not mixed or not own:
        return {"": [*rows]} if rows else {}
    return {"One model for all conditions, trained on their mixture": mixed, "One model for each condition": own}


def _is_mixture(row: Row) -> bool:
    return "+" in str(row.get("trained_on") or "")


def _table(rows: Sequence[Row], *, one_kind: bool) -> list[str]:
    models = [model for model in TITLES if any(family(row["model"]) == model for row in rows)]
    conditions = [c for c in CONDITION_TITLES if any(row["condition"] == c for row in rows)]
    header = ["Moving digits", *(f"{TITLES[m]} {whose}" for m in models for whose in ("published", "ours"))]
    lines = [_line(header), _line(["---"] * len(header))]
    for condition in conditions:
        cells = [CONDITION_TITLES[condition]]
        for model in models:
            mine = [row for row in rows if family(row["model"]) == model and row["condition"] == condition]
            cells += [_published(model, condition), _ours(mine, one_kind=one_kind)]
        lines.append(_line(cells))
    return lines


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _published(model: str, condition: str) -> str:
    if (model, condition) not in PUBLISHED:
        return "—"
    cross_entropy, accuracy = PUBLISHED[model, condition]
    return f"{cross_entropy:.2f}, {100 * accuracy:.1f} %"


def _ours(rows: Sequence[Row], *, one_kind: bool) -> str:
    if not rows:
        return "missing"
    low, high, kind = interval(rows)
    accuracy = sum(float(row["accuracy"]) for row in rows) / len(rows)
    cross_entropy = sum(float(row["cross_entropy"]) for row in rows) / len(rows)
    bounds = f"{100 * low:.1f} to {100 * high:.1f}"
    return f"{cross_entropy:.2f}, {100 * accuracy:.1f} % ({bounds if one_kind else f'{bounds}; {kind}'})"


def _preface(rows: Sequence[Row], kinds: set[str]) -> list[str]:
    """Return the lines that describe the table and the differences from the published experiment."""
    if not rows:
        return ["# Moving digits: published and ours", "", "No cell is finished yet."]
    kind = f" ({next(iter(kinds))})" if len(kinds) == 1 else ", with its kind"
    differs = {
        "labels": ("100 ordered pairs", {"pair": "55 unordered pairs", "ordered": "100 ordered pairs"}),
        "instances": (
            "not stated",
            {
                "shared": "shared: test clips show the training clips' digit images",
                "disjoint": "disjoint: digits never seen",
                "training_clips": "tested on the training clips themselves",
            },
        ),
    }
    ours = {name: _values(rows, name) for name in ("protocol", "digits", "labels", "instances", "num_clips", "order")}
    lines = ["# Moving digits: published and ours", "", "Each cell: cross entropy, accuracy on test clips"]
    lines[-1] += f"; in brackets the 95 % interval{kind}."
    lines += ["", "| | published | ours |", "|---|---|---|"]
    lines.append(f"| protocol | three stages, CNN frozen | {ours['protocol']} |")
    lines.append(f"| digits | MNIST | {ours['digits']} |")
    for name, (theirs, words) in differs.items():
        lines.append(f"| {name} | {theirs} | {'; '.join(words.get(v, v) for v in ours[name].split(', '))} |")
    if ours["order"]:
        lines.append(f"| order of the pair | not visible | {ours['order']} |")
    lines.append(f"| test clips per cell | 100 | {ours['num_clips']} |")
    lines.append(f"| trained on | the condition that it is tested in | {_training(rows)} |")
    lines.append(f"| training steps | 20 per LSTM, 5 epochs for the CNN | {_steps(rows)} |")
    if not all(_like_published(row) for row in rows):
        lines += ["", "Because of these differences, the two columns cannot be compared directly."]
    return lines


def _like_published(row: Row) -> bool:
    """Return whether a row is comparable with the published table, which does not state that test digits are unseen."""
    alike = {"protocol": "published", "digits": "mnist", "labels": "ordered", "order": "hidden"}
    same = all(row.get(name) == value for name, value in alike.items())
    return same and row["instances"] != "disjoint" and row["stage1_steps"] >= _FIVE_EPOCHS


def _interval_kinds(rows: Sequence[Row]) -> set[str]:
    cells: dict[tuple[str, str, bool], list[Row]] = {}
    for row in rows:
        cells.setdefault((row["model"], row["condition"], _is_mixture(row)), []).append(row)
    return {interval(cell).label for cell in cells.values()}


def _training(rows: Sequence[Row]) -> str:
    """Return a description of the training data of the models."""
    told = ["the same"] if any(not _is_mixture(row) for row in rows) else []
    for mixture in dict.fromkeys(row["trained_on"] for row in rows if _is_mixture(row)):
        parts = Counter(mixture.split("+"))
        shares = (f"{number}/{parts.total()} {CONDITION_TITLES[name]}" for name, number in parts.items())
        told.append(f"one model for all conditions, on a mixture: {', '.join(shares)}")
    return "; ".join(told)


def _steps(rows: Sequence[Row]) -> str:
    """Return a description of the number of training steps, of the whole model or of the published protocol."""
    if stage1 := _values(rows, "stage1_steps"):
        retrainings, reached = (_values(rows, name) for name in ("retrainings", "stage1_accuracy"))
        reached = ", ".join(f"{100 * float(value):.1f} %" for value in reached.split(", "))
        return (
            f"20 per LSTM, {retrainings} LSTMs per cell; {stage1} for the CNN, with an accuracy of {reached} on single"
            " digits"
        )
    frames, precision = _values(rows, "frames_per_step"), _values(rows, "precision")
    return _values(rows, "steps") + (f" of {frames} frames" if frames else "") + (f", {precision}" if precision else "")


def _values(rows: Sequence[Row], name: str) -> str:
    values = {str(row[name]) for row in rows if row.get(name) not in (None, "")}
    if len(values) > 4 and all(value.isdigit() for value in values):
        numbers = sorted(map(int, values))
        return f"{numbers[0]} to {numbers[-1]}"
    return ", ".join(sorted(values))


def _attention(rows: Sequence[Row]) -> list[str]:
    models, conditions = list(TITLES), list(CONDITION_TITLES)
    told = [row for row in rows if row.get("accuracy_without_attention") not in (None, "")]
    if not told:
        return []
    lines = ["What the attention did:", ""]
    for row in sorted(told, key=lambda r: (models.index(family(r["model"])), conditions.index(r["condition"]))):
        seed = f", seed {row['seed']}" if len({r["seed"] for r in told}) > 1 else ""
        lines.append(f"- {row['model']}, {CONDITION_TITLES[row['condition']]}{seed}: {row['attention_summary']}")
    return lines
