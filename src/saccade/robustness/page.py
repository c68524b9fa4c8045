"""The page on robustness, which needs no other file and no script.

Text from outside (paths of checkpoints, names of collections) passes through `html.escape`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import resources
from string import Template

from saccade.evaluate import interval
from saccade.evaluate.html_page import html_page
from saccade.evaluate.page_sections import clean, percent
from saccade.evaluate.rows import Row
from saccade.robustness.changes import CHANGES
from saccade.robustness.curves import FALL, Curve, curves, title_of
from saccade.robustness.plots import plot
from saccade.robustness.transfer import Transfer
from saccade.robustness.turning import told_of_turning

_WHAT = {
    "turn": "Turned",
    "scale": "Scaled",
    "speed": "Slower and faster",
    "dim": "Dimmed",
    "compress": "Compressed",
    "occlude": "Occluded",
    "noise": "With noise",
    "drop": "With dropped frames",
}


def render(
    rows: Sequence[Row],
    *,
    chance: Mapping[str, float] | None = None,
    transfer: Transfer | None = None,
    notes: Sequence[str] = (),
    command: str = "",
    started: str = "",
) -> str:
    """Return the page on rows.

    Args:
        rows: the rows of `measure`, or of several runs.
        chance: the accuracy of always predicting the most frequent class, by the title of the run.
        transfer: the accuracy of each run on each test set.
        notes: what a reader must know before the rest.
        command: the command that made the page; empty for none.
        started: when, and with which commit.

    Raises:
        MissingExtraError: if matplotlib is not installed.
    """
    found, runs = curves(rows), list(dict.fromkeys(title_of(row) for row in rows))
    drawn = [name for name in CHANGES if any(curve.change == name for curve in found)]
    title = "How accurate " + (f"{runs[0]} stays" if len(runs) == 1 else f"{len(runs)} models stay")
    body = Template(_own("page.html")).substitute(
        title=clean(title),
        facts=clean(_facts(rows, runs)),
        notices="\n".join(f'<p class="notice">{clean(note)}</p>' for note in notes),
        summary=_summary(found),
        turning="\n".join(f"<p>{clean(line)}</p>" for line in told_of_turning(found)),
        plots="\n".join(_figure(name, found, runs, chance or {}) for name in drawn),
        transfer=_transfer(transfer),
        reading="\n".join(f"<p>{paragraph}</p>" for paragraph in _reading(rows)),
        origin=_origin(command, started),
    )
    return html_page(body, title=title, style=_own("page.css"))


def _own(name: str) -> str:
    return (resources.files("saccade") / "robustness" / name).read_text(encoding="utf-8")


def _facts(rows: Sequence[Row], runs: Sequence[str]) -> str:
    numbers = sorted({int(row["num_clips"]) for row in rows})
    clips = f"{numbers[0]}" if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"
    data = sorted({str(row["data"]) for row in rows})
    return " · ".join([", ".join(runs), ", ".join(data), f"{clips} clips"])


def _figure(change: str, found: Sequence[Curve], runs: Sequence[str], chance: Mapping[str, float]) -> str:
    own = [curve for curve in found if curve.change == change]
    told = "; ".join(
        f"{curve.run}: {percent(curve.unchanged.accuracy)} unchanged, {percent(curve.strongest.accuracy)} at"
        f" {_strength(curve.strongest.strength)}"
        for curve in own
    )
    return (
        f"<figure><figcaption>{_WHAT[change]}</figcaption>"
        f'<img src="{plot(change, own, runs, chance)}" alt="{clean(told)}"></figure>'
    )


def _summary(found: Sequence[Curve]) -> str:
    heads = (
        "Change",
        "Model",
        "Unchanged",
        "Strongest change",
        "Mean over the range",
        f"{100 * FALL:.0f} points lower at",
    )
    lines = []
    for change in CHANGES:
        own = [curve for curve in found if curve.change == change]
        name = (
            f'<th scope="rowgroup" rowspan="{len(own)}">{_WHAT[change]}<br><small>{CHANGES[change].axis}</small></th>'
        )
        for curve in own:
            turns = f", {curve.turns} turned copies" if curve.turns > 1 else ""
            falls = " and ".join(_strength(strength) for strength in curve.falls_at()) or "not in the range"
            strongest = curve.strongest
            cells = [
                _with_interval(curve.unchanged.accuracy, *curve.unchanged.interval[:2]),
                f"{_with_interval(strongest.accuracy, *strongest.interval[:2])} at {_strength(strongest.strength)}",
                percent(curve.area),
                falls,
            ]
            told = "".join(f"<td>{cell}</td>" for cell in cells)
            lines.append(f"<tr>{name if curve is own[0] else ''}<td>{clean(curve.run + turns)}</td>{told}</tr>")
    return _table(heads, lines, "Summary")


def _transfer(matrix: Transfer | None) -> str:
    if matrix is None or len(matrix.columns) < 2:
        return ""
    lines = []
    for run, rows in matrix.lines:
        cells = "".join(
            "<td></td>" if row is None else f"<td>{_with_interval(row['accuracy'], *interval([row])[:2])}</td>"
            for row in rows
        )
        lines.append(f'<tr><th scope="row">{clean(run)}</th>{cells}</tr>')
    table = _table(("Model", *map(clean, matrix.columns)), lines, "Transfer")
    legend = "Accuracy on the clips of each test set as they are. An empty cell was not measured."
    return (
        '<section aria-labelledby="transfer">\n<h2 id="transfer">From one test set to another</h2>\n'
        f'{table}\n<p class="legend">{legend}</p>\n</section>'
    )


def _table(heads: Sequence[str], lines: Sequence[str], label: str) -> str:
    top = "".join(f'<th scope="col">{head}</th>' for head in heads)
    body = "\n".join(lines)
    return (
        f'<div class="scroll" role="region" aria-label="{label}" tabindex="0"><table>'
        f"<thead><tr>{top}</tr></thead><tbody>\n{body}\n</tbody></table></div>"
    )


def _with_interval(value: float, low: float, high: float) -> str:
    return f"{percent(value)} <small>({100 * low:.0f} to {100 * high:.0f})</small>"


def _strength(strength: float) -> str:
    return f"{strength:.3g}"


def _reading(rows: Sequence[Row]) -> list[str]:
    drawn = any(row.get("condition") for row in rows)
    told = [
        "<strong>Bands and brackets</strong> are 95 % intervals (Wilson, clips as independent trials). Clips of one"
        " person or recording resemble each other: intervals for other persons are wider.",
        "<strong>Strongest change</strong> is the end of the measured range; of two ends, or of all angles, that with"
        " the lowest accuracy. <strong>Mean over the range</strong> is the area under the curve, divided by its width.",
        f"<strong>{100 * FALL:.0f} points lower at</strong> is the nearest strength at which accuracy has fallen so"
        " far, on a straight line between measured strengths. With few clips, chance moves it.",
        "<strong>Changes</strong> are made to the decoded frames, at the size and rate of the model, before it"
        " normalises them. What is drawn at random, such as the place of the black rectangle, depends on the seed and"
        " the clip alone.",
        "<strong>The dotted line</strong> is the accuracy of always predicting the most frequent class.",
    ]
    if drawn:
        told.append(
            "<strong>Moving digits</strong> are drawn anew with the angle, the scale or the speed: their pixels are not"
            " turned. All start upright, at scale 1. Scale applies to the whole canvas: above 1, parts of digits leave"
            " the frame."
        )
    return told


def _origin(command: str, started: str) -> str:
    if not command:
        return ""
    return (
        '<section aria-labelledby="origin">\n<h2 id="origin">Where this comes from</h2>\n'
        f'<pre class="command" tabindex="0" aria-label="Command">{clean(command)}</pre>\n'
        f'<p class="facts">Made {clean(started)}. The rows are in robustness.csv beside this page.</p>\n</section>'
    )
