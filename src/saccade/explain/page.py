"""The report as one HTML page that needs no other file.

Text from outside (file names, the contents of checkpoints) passes through `html.escape` or is part of the packed data.
"""

from __future__ import annotations

from html import escape
from importlib import resources
from string import Template

from saccade.evaluate.html_page import html_page
from saccade.explain import payload, prose, tables
from saccade.explain.explanation import Column, Explanation
from saccade.explain.figures import decided, listed, percent, right, verdict
from saccade.foreign import shown

_LAYERS = {
    "quad": "sampled area",
    "points": "sampling points",
    "arrows": "offsets",
    "saliency": "saliency",
    "field": "receptive field",
    "boxes": "true places",
}
_SHOWN_FIRST = ("quad", "points")


def render(explanation: Explanation, *, command: str, provenance: str) -> str:
    """Return the page.

    Args:
        explanation: the results to show.
        command: the command that made the page.
        provenance: a sentence on the time, the versions and the commit.
    """
    clip = shown(explanation.clip.name)
    facts = {
        "clip": escape(clip),
        "facts": escape(prose.facts(explanation)),
        "notices": "\n".join(f'<p class="notice">{escape(text)}</p>' for text in prose.notices(explanation)),
        "last_frame": str(explanation.num_frames - 1),
        "num_frames": str(explanation.num_frames),
        "layers": "".join(_layer_box(name, explanation) for name in layers_of(explanation)),
        "columns": "\n".join(_column(index, c, explanation) for index, c in enumerate(explanation.columns)),
        "figures": tables.figures(explanation),
        "every_frame": tables.every_frame(explanation),
        "reading": "\n".join(f"<p>{paragraph}</p>" for paragraph in prose.reading(explanation)),
        "checkpoints": tables.checkpoints(explanation),
        "command": escape(shown(command)),
        "data": payload.pack(explanation),
    }
    template = Template(_own("explain", "report.html"))
    title, style, script = f"{clip}: where {_names(explanation)} looked", _own("explain", "report.css"), _script()

    def page(provenance: str) -> str:
        body = template.substitute(facts, provenance=escape(provenance))
        return html_page(body, title=title, style=style, script=script)

    # The page states its own size without this sentence, which is too short to change the rounded figure.
    size = len(page(provenance).encode())
    return page(f"{provenance} This page: {_in_bytes(size)}, no network.")


def layers_of(explanation: Explanation) -> list[str]:
    """Return the layers that at least one model has."""
    looks = [column.look for column in explanation.columns]
    there = {
        "quad": any(look.quadrilateral_px is not None for look in looks),
        "points": any(look.points_px is not None for look in looks),
        "arrows": any(look.arrows_px is not None for look in looks),
        "saliency": any(look.saliency is not None for look in looks),
        "field": any(look.receptive_field is not None for look in looks),
        "boxes": any(column.boxes_px is not None for column in explanation.columns),
    }
    return [name for name in _LAYERS if there[name]]


def _names(explanation: Explanation) -> str:
    return ", ".join(column.name for column in explanation.columns)


def _own(package: str, name: str) -> str:
    return (resources.files("saccade") / package / name).read_text(encoding="utf-8")


def _script() -> str:
    """Return the page's module after the module that it imports: one script, because the page cannot load another."""
    drawing = _own("visualize", "overlay.js").replace("\nexport function", "\nfunction")
    imports, _, program = _own("explain", "report.js").partition("\n")
    assert imports.startswith("import "), imports
    return f"{drawing}\n{program}"


def _layer_box(name: str, explanation: Explanation) -> str:
    # If no model has attention, saliency is the main content of the page.
    shown = name in _SHOWN_FIRST or (name == "saliency" and not set(_SHOWN_FIRST) & set(layers_of(explanation)))
    checked = " checked" if shown else ""
    return f'<label><input type="checkbox" name="{name}"{checked}>{_LAYERS[name]}</label>'


def _column(index: int, column: Column, explanation: Explanation) -> str:
    said, name = column.prediction, escape(column.name)
    marks = {True: ' <span class="right">right</span>', False: ' <span class="wrong">wrong</span>', None: ""}
    judged = marks[right(column, explanation)]
    at = decided(said, explanation.fps)
    when = at if not said.sure else f"decided at {at}"
    chart = f"Probability of each class over time; at the end {listed(said.top)}"
    return f"""<article class="column" aria-labelledby="model-{index}">
<h2 id="model-{index}"><span class="swatch"></span>{name}</h2>
<p class="verdict"><strong>{escape(verdict(said))}</strong>{percent(said.probability)}{judged}
<span class="when">{escape(when)}</span></p>
<div class="views">
<figure><canvas class="frame" role="img" aria-label="The input frames of {name}"></canvas></figure>
{_aside(column)}
</div>
<p class="now"></p>
<canvas class="chart" role="img" aria-label="{escape(chart)}"></canvas>
</article>"""


def _aside(column: Column) -> str:
    if column.look.crop is not None:
        caption = f"<figcaption>{prose.legend(column)}</figcaption>"
        return f'<figure><canvas class="crop" role="img" aria-label="Input of the encoder"></canvas>{caption}</figure>'
    return f'<p class="legend">{prose.legend(column)}</p>'


def _in_bytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size / 1e3:.0f} kB"
