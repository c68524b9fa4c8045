from itertools import pairwise

import pytest
import torch

from saccade import visualize
from saccade.visualize.probability_chart import SERIES_COLOURS, paints, spread_out, strongest_classes

pyplot = pytest.importorskip("matplotlib.pyplot")


def chart_of(probabilities, **options):
    figure = pyplot.figure(figsize=(4, 2), dpi=100)
    axis = figure.add_axes((0.1, 0.2, 0.75, 0.7))
    names = [f"class {k}" for k in range(probabilities.shape[1])]
    options = {"num_frames": len(probabilities)} | options
    return figure, axis, visualize.ProbabilityChart(axis, probabilities, names, **options)


def close(figure):
    pyplot.close(figure)


def test_the_strongest_classes_are_named_and_the_rest_pale():
    probabilities = torch.tensor([[0.1, 0.6, 0.3], [0.1, 0.8, 0.1]])
    figure, axis, _ = chart_of(probabilities, strongest=2)
    assert {text.get_text() for text in axis.texts} == {"class 1", "class 2"}
    colours = [line.get_color() for line in axis.lines[:3]]
    assert colours == ["0.6", SERIES_COLOURS[1], SERIES_COLOURS[2]]
    assert axis.lines[1].get_ydata() == pytest.approx([0.6, 0.8])
    close(figure)


def test_names_stand_at_the_height_of_the_last_frame():
    figure, axis, _ = chart_of(torch.tensor([[0.9, 0.1, 0.0], [0.1, 0.6, 0.3]]), strongest=3)
    heights = {text.get_text(): text.xy[1] for text in axis.texts}
    assert heights == {
        name: pytest.approx(p, abs=0.05) for name, p in (("class 0", 0.1), ("class 1", 0.6), ("class 2", 0.3))
    }
    assert {y: text.get_text() for y, text in zip(axis.get_yticks(), axis.get_yticklabels(), strict=True)} == {
        0: "0",
        0.5: "50",
        1: "100 %",
    }
    close(figure)


def test_the_axis_spans_the_clip_and_marks_stay():
    figure, axis, chart = chart_of(torch.tensor([[0.2, 0.8]]), num_frames=50)
    chart.mark(7)
    chart.show(3)
    assert axis.get_xlim() == (1, 50)  # people count frames from 1
    assert axis.get_xlabel() == "frame"
    assert list(axis.lines[-1].get_xdata()) == [8, 8]
    close(figure)


def test_the_moment_of_decision_is_marked():
    figure, axis, _ = chart_of(torch.full((10, 2), 0.5), decided_at=7)
    assert "decided" in [text.get_text() for text in axis.texts]
    assert any(list(line.get_xdata()) == [8, 8] for line in axis.lines)
    close(figure)


def test_the_frame_that_is_shown_is_marked():
    probabilities = torch.rand(10, 3)
    figure, _, chart = chart_of(probabilities, strongest=1)
    chart.show(4)
    cursor, dots = chart.artists
    assert list(cursor.get_xdata()) == [5, 5]
    (k,) = strongest_classes(probabilities, 1)
    assert dots.get_offsets().tolist() == [pytest.approx([5, probabilities[4, k].item()])]
    close(figure)


def test_a_model_that_speaks_at_the_end_has_one_dot_there():
    figure, axis, chart = chart_of(torch.tensor([[0.2, 0.8]]), num_frames=50)
    assert list(axis.lines[0].get_xdata()) == [50]
    chart.show(10)
    assert chart.artists[1].get_offsets()[0][0] < 0  # out of sight
    close(figure)


def test_one_frame_alone():
    figure, _, chart = chart_of(torch.tensor([[0.2, 0.8]]), decided_at=0)
    frames = visualize.animate(figure, [chart], 1)
    assert frames.shape == (1, 3, 200, 400)


def test_colours_differ_and_stay_with_their_class():
    assert paints([3])[3] == paints([7, 3])[3] == SERIES_COLOURS[3]
    assert len(set(paints([3, 13, 23, 4]).values())) == 4


def test_the_last_frame_counts_as_much_as_all_others():
    assert strongest_classes(torch.tensor([[0.9, 0.1]] * 3 + [[0.2, 0.8]]), 1) == [1]
    assert strongest_classes(torch.tensor([[0.9, 0.1]] * 3 + [[0.4, 0.6]]), 1) == [0]


@pytest.mark.parametrize("heights", [[], [0.5], [0.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0], [0.1, 0.4, 0.41, 0.9]])
def test_names_do_not_lie_upon_each_other(heights):
    found = spread_out(heights, 0.2)
    assert len(found) == len(heights)
    assert all(b - a >= 0.2 - 1e-9 for a, b in pairwise(found))
    assert not found or max(found) <= 1
