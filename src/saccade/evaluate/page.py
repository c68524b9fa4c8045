"""An evaluation as one HTML page that needs no other file and no script.

Text from outside (names of clips, classes and files) passes through `html.escape`.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from string import Template

from saccade.evaluate import charts, confusion
from saccade.evaluate.breakdown import largest_class
from saccade.evaluate.camera import rate_text
from saccade.evaluate.command import Result
from saccade.evaluate.html_page import html_page
from saccade.evaluate.page_sections import clean, percent, sections
from saccade.evaluate.report import classes_with_few_clips, one_group, title_of
from saccade.evaluate.wrong_clip import WrongClip


def render(result: Result, wrong: Sequence[WrongClip], *, command: str, provenance: str) -> str:
    """Return the page.

    Args:
        result: the results to show.
        wrong: the most wrong clips, in order.
        command: the command that made the page.
        provenance: a sentence on the time, the versions and the commit.
    """
    title = title_of(result.row)
    body = Template(_own("page.html")).substitute(
        title=clean(title),
        facts=clean(_facts(result)),
        notices="\n".join(f'<p class="notice">{clean(text)}</p>' for text in _notices(result)),
        figures="\n".join(_figures(result)),
        attention=_attention(result),
        sections="\n".join(sections(result, wrong)),
        reading="\n".join(f"<p>{paragraph}</p>" for paragraph in _reading(result)),
        origin=_origin(result),
        command=clean(command),
        provenance=clean(provenance),
    )
    return html_page(body, title=title, style="".join((_own("page.css"), confusion.STYLE, charts.STYLE)))


def _own(name: str) -> str:
    return (resources.files("saccade") / "evaluate" / name).read_text(encoding="utf-8")


def _facts(result: Result) -> str:
    found = result.evaluation
    parts = [f"{found.num_clips} clips", f"{len(found.labels.names)} classes"]
    if groups := found.by_group():
        parts.append(f"{len(groups)} group{'' if len(groups) == 1 else 's'}")
    if result.fps:
        parts.append(f"{rate_text(result.fps)} frames/s")
    return " · ".join(parts)


def _attention(result: Result) -> str:
    if not result.attention.layers:
        return ""
    return f'<p class="facts">{clean(f"Attention: {result.attention.summary}.")}</p>'


def _notices(result: Result) -> list[str]:
    found = result.evaluation
    told = [classes_with_few_clips(found.by_class()), one_group(found)]
    return [f"{text[0].upper()}{text[1:]}." for text in told if text]


def _figures(result: Result) -> list[str]:
    """Return the cards of figures."""
    found = result.evaluation
    low, high, label = found.interval
    most = "Largest class" if found.labels.exclusive else "Most frequent set"
    cards = [
        ("Accuracy", percent(found.accuracy), f"95 % interval {percent(low)} to {percent(high)} ({label})", "main"),
        (most, percent(largest_class(found.clips)), "accuracy of always predicting it", ""),
        ("Cross entropy", f"{found.cross_entropy:.3f}", "nats; lower is better", ""),
        ("Calibration error", f"{found.calibration_error:.3f}", "gap of confidence and accuracy", ""),
    ]
    if found.top5_accuracy is not None:
        cards.insert(2, ("Top-5 accuracy", percent(found.top5_accuracy), "class among the five most probable", ""))
    return [
        f'<div class="{kind}"><dt>{name}</dt><dd>{value} <small>{told}</small></dd></div>'
        for name, value, told, kind in cards
    ]


def _reading(result: Result) -> list[str]:
    groups = len(result.evaluation.by_group()) > 1
    told = [
        "<strong>Intervals</strong> cover the true value in 95 of 100 such tests."
        + (
            " Clips of one group resemble each other, so the interval for accuracy draws whole groups at random"
            " (bootstrap)."
            if groups
            else ""
        )
        + " Other intervals are Wilson's and treat clips as independent.",
        "<strong>Recall</strong> is the share of the clips of a class that the model recognised."
        " <strong>Precision</strong> is the share of the verdicts for a class that were right.",
        "<strong>Most wrong</strong> are the clips with a wrong verdict of high probability. Check their labels first:"
        " a clip in the wrong folder is often among them. A verdict is <em>unsure</em> if <code>saccade predict</code>,"
        " without further options, calls it so; it counts as right or wrong like any other.",
        "<strong>Probabilities</strong> are the output of the model, not how often it is right. The verdict is that of"
        " the last frame.",
    ]
    if not result.evaluation.labels.exclusive:
        told.append(
            "<strong>Sets.</strong> Several classes can be present at once. A verdict is right if the whole set is. The"
            " probability beside a verdict is that of exactly this set: the product over all classes, below that of"
            " each. The most probable classes of a clip have their own probabilities, each by itself."
        )
    if result.camera:
        told.append(
            "<strong>Camera.</strong> Frames that do not arrive are replaced by the last one that arrived, as for a"
            " slower camera whose video is brought to the model's frame rate. Lost frames are chosen at random, and the"
            " same ones each time. The difference is paired: both accuracies are on the same clips."
        )
    return told


def _origin(result: Result) -> str:
    row = result.row
    told = {
        "Model": row["model"],
        "Checkpoint": row.get("checkpoint"),
        "Trained on": row.get("trained_on"),
        "Training steps": row.get("steps"),
        "Training seed": row["seed"],
        "Clips": row["data"],
        "Split": row.get("split"),
    }
    kept = {name: value for name, value in told.items() if value is not None}
    return "".join(f"<dt>{name}</dt><dd>{clean(str(value))}</dd>" for name, value in kept.items())
