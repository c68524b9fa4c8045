"""Tables in pages: a comment above each names what renders it and the files that its figures come from.

<!-- table: accuracy results/quick/uci.csv -->
"""

import re
from collections.abc import Callable
from pathlib import Path

from . import accuracy, attention, reliability, robustness, scale, speed

PAGES = (
    *("README.md", "docs/results.md", "docs/report.md", "docs/attention.md"),
    *("docs/reliability.md", "docs/scale.md", "docs/guide.md", "docs/deform_conv.md"),
)
RENDERERS: dict[str, Callable[..., str]] = {
    function.__name__: function
    for function in (
        *(accuracy.accuracy, accuracy.accuracies, accuracy.trainings, accuracy.attention_off),
        *(accuracy.mixture, accuracy.mixture_of_mean_logits, accuracy.gains, accuracy.gains_of_recipe),
        *(accuracy.aims, accuracy.controls),
        *(accuracy.remaining, accuracy.agreement),
        *(accuracy.published, accuracy.published_readings, accuracy.package_weights),
        *(attention.weakest_digit, attention.window, attention.offsets_alone, attention.by_seed, attention.glimpses),
        *(reliability.damaged, reliability.faults, reliability.soak),
        *(robustness.turned, robustness.changed),
        *(scale.reading, scale.naming, scale.ten_million, scale.processes),
        *(speed.training, speed.streaming, speed.generator),
        *(speed.operator, speed.operator_in_training, speed.operator_memory, speed.gpu_large, speed.gpu_small),
    )
}
TABLE = re.compile(r"^<!-- table: (?P<renderer>\w+)(?P<sources>(?: [\w./-]+)+) -->\n(?P<table>(?:\|.*\n)*)", re.M)


def rendered(text: str, root: Path) -> str:
    """Return a page with each table rendered anew from its files.

    Args:
        text: the page.
        root: the folder below which the files lie.

    Raises:
        ValueError: a comment names a renderer that is not there.
    """

    def render(found: re.Match[str]) -> str:
        name, sources = found["renderer"], found["sources"].split()
        if name not in RENDERERS:
            raise ValueError(f"a page names the table {name!r}; the tables are {', '.join(RENDERERS)}")
        new = RENDERERS[name](*(root / source for source in sources))
        return f"<!-- table: {name} {' '.join(sources)} -->\n{new}"

    return TABLE.sub(render, text)


def write(root: Path) -> list[str]:
    """Render every page in place; return the names of those that changed."""
    changed = []
    for name in PAGES:
        path = root / name
        text = path.read_text(encoding="utf-8")
        if (new := rendered(text, root)) != text:
            path.write_text(new, encoding="utf-8")
            changed.append(name)
    return changed
