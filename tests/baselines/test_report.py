import io

import numpy as np
import pytest
from rich.console import Console

from saccade.baselines import judged, render

TRUTH = np.ones(100, int)


def rung(name, num_right):
    return judged(name, (np.arange(100) < num_right).astype(int), TRUTH)


def printed(rungs, model_rows=()):
    stream = io.StringIO()
    Console(file=stream, width=200, color_system=None).print(render(rungs, model_rows))
    return stream.getvalue()


LADDER = [rung("largest class", 30), rung("mean frame", 60), rung("motion", 50)]


def test_every_row_has_its_interval():
    lines = printed(LADDER, [rung("model", 90)]).splitlines()
    assert [line.split("  ")[0] for line in lines[:5]] == ["classifier", *(row.name for row in LADDER), "model"]
    assert "60.0 %" in lines[2]
    assert f"{100 * LADDER[1].low:.1f} to {100 * LADDER[1].high:.1f}" in lines[2]


@pytest.mark.parametrize(
    ("num_right", "wanted"),
    [
        (90, "model beats the best baseline, mean frame: +30.0 points (95 % interval +2"),
        (61, "model does not clearly beat the best baseline, mean frame: +1.0 points"),
        (20, "model is worse than the best baseline, mean frame: -40.0 points"),
    ],
)
def test_the_verdict_is_said_in_words(num_right, wanted):
    assert wanted in printed(LADDER, [rung("model", num_right)])


def test_a_variant_is_compared_with_the_model():
    said = printed(LADDER, [rung("model", 90), rung("model, attention off", 70)])
    assert "model beside model, attention off: +20.0 points" in said


def test_a_ladder_alone_has_no_verdict():
    assert len(printed(LADDER).splitlines()) == 4


def test_names_are_no_markup():
    assert "[red]me\\x1b" in printed(LADDER, [rung("[red]me\x1b", 90)])
