"""The figures of a report: the verdict of each model and where it looked, with one value for each model."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from saccade.attention import Attended
from saccade.attention.following import turn_and_zoom
from saccade.explain.explanation import Column, Explanation
from saccade.predict import Prediction

_MASSES = {
    "gradient": "Saliency",
    "sampled_area": "Sampled area",
    "sampling_points": "Sampling points",
    "ink": "Brightness, for comparison",
}


@dataclass(frozen=True)
class Figure:
    """One figure, with a value for each model.

    Args:
        name: the name of the figure.
        values: the value of each model as text; empty if a model has no value.
        good: whether each model is right, for a figure that can be right or wrong.
    """

    name: str
    values: tuple[str, ...]
    good: tuple[bool | None, ...] = ()


def figures_of(explanation: Explanation) -> dict[str, list[Figure]]:
    """Return the figures in groups, without the figures that no model has."""
    groups = {
        "Verdict": _verdict(explanation),
        "Where it looked: median over frames (smallest to largest)": _looks(explanation),
        "On the digits: share of the attention divided by share of the area; 1 is chance": _masses(explanation),
        "A glimpse for each digit: share of the frames": _covering(explanation),
        "How the spatial transformer follows the digits: regression slope (correlation)": _following(explanation),
    }
    kept = {name: [f for f in group if any(f.values)] for name, group in groups.items()}
    return {name: group for name, group in kept.items() if group}


def right(column: Column, explanation: Explanation) -> bool | None:
    """Return whether the verdict is the true class; None if the true class is not known."""
    wanted = explanation.truth and explanation.truth.named_by(column.labels)
    return None if wanted is None else column.prediction.verdict == wanted


def moment(t: int, fps: float | None) -> str:
    """Format the number of a frame, with its time in seconds if the frame rate is known; people count frames from 1.

    >>> moment(0, None), moment(6, 4.0)
    ('frame 1', 'frame 7 (1.5 s)')
    """
    return f"frame {t + 1} ({t / fps:.1f} s)" if fps else f"frame {t + 1}"


def named(name: str, sure: bool) -> str:
    """Return the name of a verdict, and that it is unsure if it is.

    >>> named("wave", sure=True), named("wave", sure=False)
    ('wave', 'unsure: wave')
    """
    return name if sure else f"unsure: {name}"


def verdict(prediction: Prediction) -> str:
    """Return the verdict, and that it is unsure if it is."""
    return named(prediction.verdict, prediction.sure)


def decided(prediction: Prediction, fps: float | None) -> str:
    """Return when the verdict was decided, as `saccade predict` tells it."""
    if not prediction.sure:
        return "not decided"
    return "the end, its only prediction" if prediction.decided_at is None else moment(prediction.decided_at, fps)


def percent(p: float) -> str:
    """Format a fraction as a percentage."""
    return f"{100 * p:.1f}\N{NO-BREAK SPACE}%"


def listed(classes: Sequence[tuple[str, float]]) -> str:
    """Format classes with their probabilities."""
    return ", ".join(f"{name}\N{NO-BREAK SPACE}{percent(p)}" for name, p in classes)


def _verdict(explanation: Explanation) -> list[Figure]:
    columns = explanation.columns
    judged = tuple(right(column, explanation) for column in columns)

    def each(name: str, value: Callable[[Column], str]) -> Figure:
        return Figure(name, tuple(value(column) for column in columns))

    return [
        Figure("Verdict, by the last frame", tuple(verdict(column.prediction) for column in columns), judged),
        each("Its probability", lambda column: percent(column.prediction.probability)),
        each("True class", lambda column: (explanation.truth and explanation.truth.named_by(column.labels)) or ""),
        each("Decided at", lambda column: decided(column.prediction, column.prediction.fps)),
        each(_most_probable(columns), lambda column: listed(column.prediction.top)),
        each("Input frames", lambda column: str(column.prediction.num_frames)),
        each("Input size", lambda column: "{1}x{0} px".format(*column.frame_size)),
    ]


def _most_probable(columns: Sequence[Column]) -> str:
    together = any(not column.labels.exclusive for column in columns)
    return f"Most probable classes{', each by itself' if together else ''}"


def _looks(explanation: Explanation) -> list[Figure]:
    columns = explanation.columns

    def each(name: str, value: Callable[[Column], Tensor | None], unit: str, digits: int = 1) -> Figure:
        found = [value(column) for column in columns]
        return Figure(name, tuple("" if v is None else _by_glimpse(v, unit, digits) for v in found))

    return [
        each("Sampled area, share of the frame", _area_percent, " %", 0),
        each("Rotation of the sampled area", _turn_deg, "°"),
        each("Shift by the first layer's offsets, mean over its taps", _offset_px, " px", 2),
    ]


def _masses(explanation: Explanation) -> list[Figure]:
    if explanation.truth is None:
        return []
    digits = explanation.truth.digits
    return [
        Figure(name, tuple(_on_digits(column.attended.get(key), digits) for column in explanation.columns))
        for key, name in _MASSES.items()
    ]


def _on_digits(attended: Attended | None, digits: tuple[int, ...]) -> str:
    if attended is None:
        return ""
    ratios = zip(digits, attended.ratio[0].tolist(), strict=True)
    each = ", ".join(f"{ratio:.2f} on {digit}" for digit, ratio in ratios)
    least = attended.ratio_min.item()
    return each if len(digits) == 1 or math.isnan(least) else f"{each} (least {least:.2f})"


def _covering(explanation: Explanation) -> list[Figure]:
    """Return how the glimpses of models that have several cover the digits."""

    def told(column: Column, name: str, *, is_share: bool = True) -> str:
        if column.look.theta is None or column.look.theta.shape[1] == 1:
            return ""
        value = _of_area(column).get(name)
        if value is None or bool(value.isnan().any()):
            return ""
        return percent(value.item()) if is_share else f"{value.item():.2f}"

    columns = explanation.columns
    return [
        Figure("Each digit in another glimpse", tuple(told(column, "one_each") for column in columns)),
        Figure("Each digit alone in a glimpse", tuple(told(column, "alone") for column in columns)),
        Figure("Digits in any glimpse", tuple(told(column, "covered") for column in columns)),
        Figure(
            "Intersection over union with the best glimpse",
            tuple(told(column, "iou", is_share=False) for column in columns),
        ),
    ]


def _of_area(column: Column) -> Mapping[str, Tensor]:
    return column.attended["sampled_area"].following if "sampled_area" in column.attended else {}


def _following(explanation: Explanation) -> list[Figure]:
    def told(column: Column, name: str) -> str:
        following = _of_area(column)
        slope, correlation = (following.get(f"{name}_{part}") for part in ("slope", "correlation"))
        if slope is None or correlation is None or bool(slope.isnan().any()):
            return ""
        return f"{slope.item():.2f} ({correlation.item():.2f})"

    return [
        Figure(f"Its {name} against that of the digits", tuple(told(column, name) for column in explanation.columns))
        for name in ("angle", "scale")
    ]


def _by_glimpse(values: Tensor, unit: str, digits: int) -> str:
    """Format figures over time, or (time, glimpses): those of each glimpse, with its number if there are several."""
    told = [_spread(own, unit, digits) for own in values.view(len(values), -1).unbind(1)]
    return told[0] if len(told) == 1 else "; ".join(f"glimpse {i}: {one}" for i, one in enumerate(told, 1))


def _spread(values: Tensor, unit: str, digits: int) -> str:
    # 0.0 added: a tiny negative value would be shown as -0.0.
    quantiles = values.quantile(torch.tensor([0.0, 0.5, 1.0])).tolist()
    low, mid, high = (f"{round(v, digits) + 0.0:.{digits}f}" for v in quantiles)
    return f"{mid}{unit} ({low} to {high})"


def _area_percent(column: Column) -> Tensor | None:
    found = _turn_and_zoom(column)
    return None if found is None else 100 * found[1].square()


def _turn_deg(column: Column) -> Tensor | None:
    found = _turn_and_zoom(column)
    return None if found is None else found[0]


def _turn_and_zoom(column: Column) -> tuple[Tensor, Tensor] | None:
    look = column.look
    if look.theta is None or look.crop is None:
        return None
    turn, zoom = turn_and_zoom(look.theta.cpu(), (look.crop.shape[-2], look.crop.shape[-1]), column.frame_size)
    # Adding 0.0 turns -0.0 into 0.0, which is shown without a sign.
    return turn.float() + 0.0, zoom.float()


def _offset_px(column: Column) -> Tensor | None:
    if column.look.arrows_px is None:
        return None
    start, end = column.look.arrows_px.cpu().unbind(-2)
    lengths: Tensor = torch.linalg.vector_norm(end - start, dim=-1)
    return lengths.flatten(1).mean(1)
