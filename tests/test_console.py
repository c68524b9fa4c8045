import pytest

from saccade import console


def rows(last):
    return [{"step": step, "num_steps": last, "loss": 1.0, "elapsed_s": 2.0 * step} for step in range(1, last + 1)]


def test_each_training_has_its_lines_where_there_is_no_terminal(capsys):
    with console.training_bars() as bars:
        for title in ("first", "second"):
            take = bars(title)
            for row in rows(20):
                take(row)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 20
    assert lines[0].startswith("first  step 2/20  loss 1.000")
    assert lines[-1].startswith("second  step 20/20")


def test_a_training_that_breaks_off_leaves_no_bar_behind(monkeypatch):
    ended = []
    real = console.Progress.__exit__
    monkeypatch.setattr(console.Progress, "__exit__", lambda self, *what: ended.append(self) or real(self, *what))

    def break_off():
        with console.training_bars() as bars:
            bars("first")(rows(20)[0])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        break_off()
    assert len(ended) == 1
