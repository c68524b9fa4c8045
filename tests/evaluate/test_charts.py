"""Charts of fractions as SVG."""

import re

import pytest

from saccade.evaluate.charts import Series, chart, even_ticks


def test_a_chart_extends_to_its_last_point_beyond_its_last_tick():
    drawn = chart([Series("accent", [(t, 0.5) for t in range(31)])], even_ticks(30, per_second=16), "seconds", "")
    first, *_, last = (float(x) for x in re.findall(r"[ML]([\d.]+) ", drawn))
    ticks = [float(x) for x in re.findall(r'<text x="([\d.]+)" y="166"', drawn)]
    assert ticks[0] == first
    assert ticks[-1] == pytest.approx(first + (last - first) * 24 / 30, abs=0.2)


@pytest.mark.parametrize("last", [0, 1, 2, 7, 50, 4321])
@pytest.mark.parametrize("per_second", [None, 14.985, 30])
def test_ticks_are_few_and_at_round_numbers(last, per_second):
    ticks = even_ticks(last, per_second)
    assert 1 <= len(ticks) <= 5
    assert all(0 <= at <= last for at, _ in ticks)
    assert all(len(text.replace(".", "").strip("0")) <= 2 for _, text in ticks)
