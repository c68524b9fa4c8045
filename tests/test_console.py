import io
import re

import pytest
from rich.console import Console

from saccade import console


def rows(last):
    return [{"step": step, "num_steps": last, "loss": 1.0, "elapsed_s": 2.0 * step} for step in range(1, last + 1)]


@pytest.fixture
def screen(monkeypatch):
    """A terminal whose text can be read."""
    text = io.StringIO()
    monkeypatch.setattr(console, "err", Console(file=text, force_terminal=True, width=110, highlight=False))
    return text


def test_each_training_has_its_lines_where_there_is_no_terminal(capsys):
    with console.training_bars() as bars:
        for title in ("first", "second"):
            take = bars.begin(title)
            for row in rows(20):
                take(row)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 20
    assert lines[0].startswith("first  step 2/20  loss 1.000")
    assert lines[-1].startswith("second  step 20/20")


def test_lines_say_how_long_all_of_it_still_takes(capsys):
    with console.training_bars() as bars:
        take = bars.begin("first")
        bars.left(430)
        take(rows(1)[0])
    assert capsys.readouterr().err.splitlines() == [
        "first  step 1/1  loss 1.000  2 s;  about 7 min left in total",
    ]


def test_bars_of_trainings_side_by_side_stand_above_the_time_that_is_left(screen):
    with console.training_bars() as bars:
        first, second = bars.begin("first"), bars.begin("second")
        bars.left(7300)
        first(rows(4)[1])
        second(rows(5)[3])
        second({"clips": 30, "num_clips": 40})
    last = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", screen.getvalue()).splitlines()[-3:]
    assert ["first" in last[0], "2/4" in last[0], "loss 1.000" in last[0]] == [True] * 3
    assert ["second" in last[1], "30/40" in last[1], "clips tested" in last[1]] == [True] * 3
    assert last[2].strip() == "about 2.0 h left in total"


def test_trainings_that_are_done_make_room_for_those_that_begin(screen):
    with console.training_bars() as bars:
        for number in range(40):
            take = bars.begin(f"training {number}")
            take(rows(3)[2 if number < 38 else 1])
        bars.left(60)
    last = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", screen.getvalue()).splitlines()[-3:]
    assert [line.split(" ━")[0].strip() for line in last] == ["training 38", "training 39", "about 1 min left in total"]


def test_a_bar_fits_into_eighty_columns(screen, monkeypatch):
    monkeypatch.setattr(console, "err", Console(file=screen, force_terminal=True, width=80, highlight=False))
    with console.training_bars() as bars:
        take = bars.begin("dcn-lstm-rotation_scaling-seed0")
        take({"step": 1234, "num_steps": 4000, "loss": 0.5, "accuracy": 0.5, "clips_per_s": 100.0})
    last = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", screen.getvalue()).splitlines()[-1]
    assert "1234/4000" in last
    assert "loss 0.500" in last
    assert "clips/s" not in last
    assert "…" not in last


def test_accuracy_on_training_and_on_validation_clips_are_told_apart(capsys):
    with console.training_bars() as bars:
        take = bars.begin("first")
        take({"step": 1, "num_steps": 20, "accuracy": 1.0, "validation_accuracy": 0.25})
        take({"step": 2, "num_steps": 20, "accuracy": 0.5, "validation_accuracy": 0.75})
        take({"step": 4, "num_steps": 20, "accuracy": 1.0})
    told = [" ".join(line.split()) for line in capsys.readouterr().err.splitlines()]
    # Single batches are averaged; all validation clips are one figure.
    assert told == [
        "first step 2/20 training accuracy 95% validation 75%",
        "first step 4/20 training accuracy 96% validation 75%",
    ]


def test_a_slow_training_has_a_speed(screen):
    with console.training_bars() as bars:
        bars.begin("first")({"step": 1, "num_steps": 20, "clips_per_s": 0.3})
    assert "0.3 clips/s" in screen.getvalue()


def test_what_comes_before_the_first_step_is_no_test(screen):
    with console.training_bars() as bars:
        take = bars.begin("first")
        take({"clips": 3, "num_clips": 40})
    last = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", screen.getvalue()).splitlines()[-1]
    assert "3/40" in last
    assert "clips prepared" in last


def test_a_training_that_breaks_off_leaves_no_bar_behind(screen, monkeypatch):
    ended = []
    real = console.Live.__exit__
    monkeypatch.setattr(console.Live, "__exit__", lambda self, *what: ended.append(self) or real(self, *what))

    def break_off():
        with console.training_bars() as bars:
            bars.begin("first")(rows(20)[0])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        break_off()
    assert len(ended) == 1
