import sys

import pytest
import torch

from saccade import visualize
from saccade.errors import MissingExtraError


def frames_of(time=10, height=8, width=6):
    return torch.arange(time, dtype=torch.uint8).view(-1, 1, 1).expand(time, height, width) * 20 + 1


def test_a_film_strip_shows_first_to_last_frame_with_lines_between():
    strip = visualize.film_strip(frames_of(), num_columns=4, gap_px=3, shade=99)
    assert strip.shape == (8, 4 * 6 + 3 * 3)
    assert strip.dtype == torch.uint8
    assert strip[0, ::9].tolist() == [1, 61, 121, 181]
    assert (strip[:, 6:9] == 99).all()
    assert (strip[:, 9:15] == 61).all()


@pytest.mark.parametrize(("time", "num_columns"), [(1, 1), (1, 3), (3, 5), (50, 1)])
def test_a_film_strip_of_any_number_of_frames(time, num_columns):
    strip = visualize.film_strip(frames_of(time) % 200, num_columns=num_columns)
    assert strip.shape == (8, num_columns * 8 - 2)
    assert strip[0, 0] == 1


def rows_of(num=5):
    return [{"elapsed_s": 30.0 * i, "loss": 4.0 / (i + 1), "accuracy": i / num, "step": i} for i in range(num)]


def size_of(path):
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG")
    return int.from_bytes(content[16:20]), int.from_bytes(content[20:24])


def test_samples_are_a_strip_a_condition(tmp_path):
    pytest.importorskip("matplotlib")
    clips = {condition: (frames_of() % 200, "03") for condition in ("normal", "rotation_scaling")}
    visualize.draw_samples(tmp_path / "one.png", {"normal": clips["normal"]})
    visualize.draw_samples(tmp_path / "two.png", clips)
    assert size_of(tmp_path / "two.png")[1] > 1.5 * size_of(tmp_path / "one.png")[1]
    assert {path.name for path in tmp_path.iterdir()} == {"one.png", "two.png"}


@pytest.mark.parametrize(
    "runs",
    [
        {"normal": {"lenet-lstm": rows_of()}},
        {c: {m: rows_of() for m in visualize.COLOURS} for c in ("normal", "rotation", "scaling", "rotation_scaling")},
        {"normal": {"lenet-lstm": rows_of(1), "a-model-of-yours": rows_of()}},
        {"normal": {"lenet-lstm": rows_of()}, "rotation": {"lenet-lstm": []}},
        {"normal": {"lenet-lstm": rows_of()}, "rotation": {}},
    ],
)
def test_curves_are_drawn_of_any_runs(runs, tmp_path):
    pytest.importorskip("matplotlib")
    visualize.draw_curves(tmp_path / "curves.png", runs)
    assert min(size_of(tmp_path / "curves.png")) > 300


@pytest.mark.parametrize(
    ("over", "label", "course"),
    [("minutes", "minutes of training", [0, 0.5, 1, 1.5, 2]), ("steps", "training steps", [0, 1, 2, 3, 4])],
)
def test_curves_are_of_loss_and_accuracy_over_the_course_of_training(tmp_path, monkeypatch, over, label, course):
    pytest.importorskip("matplotlib")
    drawn = []
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda figure, *_, **__: drawn.append(figure))
    level = [row | {"loss": 3.0, "accuracy": 0.25} for row in rows_of()]
    models = {"stn-lstm": level, "a-model-of-yours": level}
    visualize.draw_curves(tmp_path / "curves.png", {"rotation_scaling": models}, over=over)
    upper, lower = drawn[0].axes
    assert (upper.get_title(), lower.get_xlabel()) == ("rotation + scaling", label)
    for axis, level, name in ((upper, 3.0, "cross entropy"), (lower, 0.25, "accuracy")):
        assert name in axis.get_ylabel()
        assert [line.get_label() for line in axis.lines] == list(models)
        assert axis.lines[0].get_color() == visualize.COLOURS["stn-lstm"] != axis.lines[1].get_color()
        for line in axis.lines:
            assert list(line.get_xdata()) == course
            assert list(line.get_ydata()) == pytest.approx([level] * 5)


def test_drawing_leaves_no_figure_open(tmp_path):
    pyplot = pytest.importorskip("matplotlib.pyplot")
    pyplot.close("all")
    visualize.draw_curves(tmp_path / "curves.png", {"normal": {"lenet-lstm": rows_of()}})
    assert pyplot.get_fignums() == []


def test_curves_keep_a_level_and_halve_noise(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    drawn = []
    monkeypatch.setattr("saccade.visualize.training.write_figure", lambda figure, path: drawn.extend(figure.axes))
    rows = [{"elapsed_s": 60.0 * i, "loss": 2.0, "accuracy": i % 2} for i in range(40)]
    visualize.draw_curves(tmp_path / "curves.png", {"normal": {"lenet-lstm": rows}})
    loss, accuracy = (axis.lines[0].get_ydata() for axis in drawn)
    assert list(loss) == pytest.approx([2.0] * 40)
    assert max(accuracy[10:]) - min(accuracy[10:]) < 0.5
    assert list(drawn[0].lines[0].get_xdata()) == list(range(40))


def test_without_matplotlib_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(
        MissingExtraError, match=r"matplotlib is not installed; get it with: pip install 'saccade\[plot\]'"
    ):
        visualize.draw_curves(tmp_path / "curves.png", {"normal": {}})
    assert list(tmp_path.iterdir()) == []
