"""The sections of an evaluation's page: pictures, tables and the most wrong clips."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape

from saccade.evaluate.breakdown import Share, worst_first
from saccade.evaluate.camera import CameraFigures, rate_text
from saccade.evaluate.charts import Series, chart, even_ticks, span
from saccade.evaluate.command import Result
from saccade.evaluate.confusion import confusion_svg
from saccade.evaluate.evaluation import Evaluation
from saccade.evaluate.wrong_clip import WrongClip
from saccade.foreign import shown

_EXCLUSIVE = (
    "Rows: what the clips show. Columns: what the model predicted. Colour: share of the row, blue where the verdict is"
    " right."
)
_TOGETHER = (
    "Each class by itself. Left half: clips that show it; right half: clips that do not. Colour: share of this half of"
    " the row, blue where the verdict is right."
)


def clean(text: str) -> str:
    """Return text from outside as HTML."""
    return escape(shown(text))


def percent(fraction: float) -> str:
    """Format a fraction as a percentage."""
    return f"{100 * fraction:.1f}\N{NO-BREAK SPACE}%"


def sections(result: Result, wrong: Sequence[WrongClip]) -> list[str]:
    """Return the sections of the page that have something to show."""
    found = result.evaluation
    svg = confusion_svg(found, style="")
    matrix = (
        f'<div class="scroll matrix-box" role="region" aria-label="Matrix of counts" tabindex="0">{svg}</div>'
        f'<p class="legend">{_EXCLUSIVE if found.labels.exclusive else _TOGETHER}</p>'
    )
    told = [
        _section("confusion", "Confusion matrix", matrix),
        _section("classes", "By class, lowest recall first", _classes(found)),
    ]
    if groups := found.by_group():
        rows = [[_name(group.name), _number(group.accuracy.num_clips), *_share(group.accuracy)] for group in groups]
        table = _table(("Group", "Clips", "Accuracy", ""), rows, "By group")
        told.append(_section("groups", "By group, lowest accuracy first", table))
    if result.camera:
        told.append(_section("camera", "With a slower camera and with lost frames", _camera(result.camera, result.fps)))
    if wrong:
        clips = "\n".join(_clip(number, clip, result.fps) for number, clip in enumerate(wrong, 1))
        legend = f'<p class="legend">{clean(wrong[0].legend)}</p>'
        told.append(_section("wrong", "The most wrong clips", legend + clips))
    return told


def _classes(found: Evaluation) -> str:
    figures = sorted(found.by_class(), key=worst_first)
    rows = [[_name(one.name), _number(one.num_clips), *_share(one.recall), *_share(one.precision)] for one in figures]
    return _table(("Class", "Clips", "Recall", "", "Precision", ""), rows, "Figures of each class")


def _camera(figures: Sequence[CameraFigures], fps: float | None) -> str:
    slower = [one for one in figures if not one.dropped]
    lossy = [one for one in figures if one.every == 1]
    rates = [(1 / one.every, rate_text(fps / one.every) if fps else f"1/{one.every}") for one in slower]
    rates[0] = (1.0, rate_text(fps) if fps else "all")
    axis = "frames per second of the camera" if fps else "share of the frames that arrive"
    pictures = [
        ("Slower camera", chart([_line(slower, [x for x, _ in rates])], rates[::-1], axis, "Accuracy by frame rate")),
        (
            "Frames lost at random",
            chart(
                [_line(lossy, [one.dropped for one in lossy])],
                [(one.dropped, f"{100 * one.dropped:.0f} %") for one in lossy],
                "share of the frames that are lost",
                "Accuracy by share of lost frames",
            ),
        ),
    ]
    rows = [
        [
            _name(one.told(fps)),
            *_interval(one.accuracy, one.low, one.high),
            f"<td>{one.difference_text}</td>",
            _number(one.num_changed),
        ]
        for one in figures
    ]
    shown_as = "".join(f"<figure><figcaption>{name}</figcaption>{svg}</figure>" for name, svg in pictures)
    table = _table(("Camera", "Accuracy", "", "Difference in points", "Changed verdicts"), rows, "Accuracy by camera")
    return f'<div class="charts">{shown_as}</div>{table}'


def _line(figures: Sequence[CameraFigures], places: Sequence[float]) -> Series:
    points = [(x, one.accuracy) for x, one in zip(places, figures, strict=True)]
    return Series("accent", points, [(one.low, one.high) for one in figures])


def _time_axis(num_frames: int, fps: float | None) -> tuple[list[tuple[float, str]], str]:
    return even_ticks(num_frames - 1, fps), "seconds" if fps else "frame"


def _clip(number: int, clip: WrongClip, fps: float | None) -> str:
    width, height = clip.picture_size
    picture = base64.b64encode(clip.picture).decode("ascii")
    true = "true class" if clip.exclusive else "true classes"
    unsure = "" if clip.sure else "unsure: "
    if clip.right:
        verdict = f'{unsure}<span class="right">{clean(clip.shown)}</span> {percent(clip.probability)}, right'
    else:
        verdict = (
            f'predicted {unsure}<span class="wrong">{clean(clip.said)}</span> {percent(clip.probability)}, {true}'
            f' <span class="right">{clean(clip.shown)}</span> {percent(clip.target_probability)}'
        )
    did = "".join(f"<dt>{clean(name)}</dt><dd>{clean(value)}</dd>" for name, value in clip.did)
    if clip.command is not None:
        did += f"<dt>Every frame</dt><dd><code>{clean(clip.command)}</code></dd>"
    return f"""<article class="clip" aria-labelledby="clip-{number}">
<h3 id="clip-{number}">{number}. {clean(clip.name)}</h3>
<p class="said">{verdict}</p>
<div class="strip" role="region" aria-label="Frames of clip {number}" tabindex="0">
<img src="data:image/png;base64,{picture}" width="{width}" height="{height}" alt="{clean(clip.legend)}">
</div>
<div class="below">
<div>{_probabilities(clip, fps)}</div>
<dl class="did">{did}</dl>
</div>
</article>"""


def _probabilities(clip: WrongClip, fps: float | None) -> str:
    """Return the probabilities of the predicted and of the true class over time, with a key."""
    lines = [] if clip.right else [("verdict", clip.said, clip.said_over_time)]
    lines.append(("truth", clip.shown, clip.shown_over_time))
    key = "".join(
        f'<li><svg aria-hidden="true"><path class="line {kind}" d="M0 4H24"/></svg>{clean(name)}</li>'
        for kind, name, _ in lines
    )
    series = [
        Series(kind, list(enumerate(values, clip.num_frames - len(values))))  # some models predict at the end only
        for kind, _, values in lines
    ]
    svg = chart(series, *_time_axis(clip.num_frames, fps), "Probability over time")
    return f'<ul class="key">{key}</ul>{svg}'


def _section(name: str, title: str, content: str) -> str:
    return f'<section aria-labelledby="{name}">\n<h2 id="{name}">{title}</h2>\n{content}\n</section>'


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]], label: str) -> str:
    top = "".join(
        f'<th scope="col"{" class=number" if head in ("Clips", "Changed verdicts") else ""}>{head}</th>'
        if head
        else "<td></td>"
        for head in heads
    )
    body = "\n".join(f"<tr>{''.join(cells)}</tr>" for cells in rows)
    return (
        f'<div class="scroll" role="region" aria-label="{label}" tabindex="0">'
        f"<table><thead><tr>{top}</tr></thead><tbody>\n{body}\n</tbody></table></div>"
    )


def _name(name: str) -> str:
    return f'<th scope="row">{clean(name)}</th>'


def _number(number: int) -> str:
    return f'<td class="number">{number}</td>'


def _share(share: Share | None) -> tuple[str, str]:
    if share is None:
        return "<td><small>none</small></td>", "<td></td>"
    return _interval(share.value, *share.interval)


def _interval(value: float, low: float, high: float) -> tuple[str, str]:
    told = f"{percent(value)} <small>({100 * low:.0f} to {100 * high:.0f})</small>"
    return f"<td>{told}</td>", f"<td>{span(value, low, high)}</td>"
