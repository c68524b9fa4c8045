"""The verb `robustness`: rows, page, resuming, the transfer matrix, folds and moving digits."""

import json

import pytest
import torch

from saccade import checkpoint, cli, run_folder
from saccade.checkpoint import Header
from saccade.data import Folder
from saccade.data.digits import DigitsConfig
from saccade.data.digits.changed import drawn_changed
from saccade.errors import Interrupted
from saccade.evaluate import COLUMNS, EvaluateConfig, read_rows, standard_test
from saccade.evaluate import evaluate as evaluate_model
from saccade.evaluate import run as evaluate
from saccade.robustness import RobustnessConfig, robustness

from ..own_clips import write_folder

CHANGES = ("occlude", "noise")


def save(folder, data, *, seed=0, model="lenet-lstm"):
    """Save an untrained model as if it had learned from data."""
    torch.manual_seed(seed)
    training = {"step": 3, "config": {"seed": seed}}
    learned = {"config": data.as_json(), "facts": dict(data.facts)}
    header = Header(model, {}, data.labels, data.frame_format, learned, training)
    folder.mkdir(parents=True)
    checkpoint.save(folder / checkpoint.NAME, header.create_model(), header)
    return folder


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """A folder of short clips."""
    return write_folder(tmp_path_factory.mktemp("own") / "clips", per_class=6)


@pytest.fixture(scope="module")
def trained(clips, tmp_path_factory):
    """A run on the folder."""
    return save(tmp_path_factory.mktemp("runs") / "one", Folder(clips))


@pytest.fixture(scope="module")
def measured(trained, tmp_path_factory):
    """A folder of results, and what was said."""
    out, said = tmp_path_factory.mktemp("out"), []
    robustness(RobustnessConfig((trained,), changes=CHANGES, out=out), say=said.append)
    return out, said


def test_rows_hold_what_result_files_hold_and_nothing_computed(measured, trained):
    out, said = measured
    rows = read_rows(out / "robustness.csv")
    assert [row["change"] for row in rows] == ["none"] + ["occlude"] * 6 + ["noise"] * 6
    assert set(COLUMNS) <= rows[0].keys()
    assert not [name for row in rows for name in row if "interval" in name or "low" in name]
    assert all(0 <= row["accuracy"] <= 1 for row in rows)
    assert rows[0]["split"] == "test"
    assert [line.split(": ")[2].split(";")[0] for line in said] == ["unchanged clips", "occlude", "noise"]


def test_unchanged_clips_are_those_of_evaluate(measured, trained):
    row = read_rows(measured[0] / "robustness.csv")[0]
    other = evaluate(EvaluateConfig(trained, precision="float32")).row
    assert row["accuracy"] == other["accuracy"]
    assert row["cross_entropy"] == pytest.approx(other["cross_entropy"], rel=1e-6)
    assert row["num_clips"] == other["num_clips"]


def test_the_page_needs_no_other_file(measured):
    page = (measured[0] / "robustness.html").read_text(encoding="utf-8")
    assert page.count("<img ") == 2
    assert "http" not in page.split("<main>")[1].split("base64")[0]
    assert "small differences mean nothing" in page
    assert "From one test set to another" not in page  # of a single run on one test set


def test_results_are_not_overwritten_and_resuming_measures_nothing_again(measured, trained, capsys):
    out, _ = measured
    words = ["robustness", "--model", str(trained), "--out", str(out), "--changes", *CHANGES]
    assert cli.main(words) == 2
    assert "add --resume" in capsys.readouterr().err
    before = (out / "robustness.csv").stat()
    assert cli.main([*words, "--resume"]) == 0
    told = capsys.readouterr()
    assert "continuing: 13 of 13 rows are done" in told.err
    assert "occlude" in told.out
    assert (out / "robustness.csv").stat() == before


def test_an_interrupt_keeps_the_rows_and_resuming_gives_the_same_ones(measured, trained, tmp_path):
    def stop(done, total):
        if done > total // 2:
            raise KeyboardInterrupt

    config = RobustnessConfig((trained,), changes=CHANGES, out=tmp_path)
    with pytest.raises(Interrupted, match=r"6 of 13 rows are in .*robustness\.csv"):
        robustness(config, progress=stop)
    assert len(read_rows(config.csv)) == 6
    robustness(RobustnessConfig((trained,), changes=CHANGES, out=tmp_path, resume=True))
    assert read_rows(config.csv) == read_rows(measured[0] / "robustness.csv")


def test_a_model_that_was_trained_again_is_measured_again(trained, clips, tmp_path):
    run = save(tmp_path / "run", Folder(clips))
    asked = {"changes": ("occlude",), "out": tmp_path / "out"}
    robustness(RobustnessConfig((run,), **asked))
    (run / checkpoint.NAME).unlink()
    run.joinpath("checkpoint.json").unlink()
    run.rmdir()
    save(run, Folder(clips), seed=5)
    said = []
    robustness(RobustnessConfig((run,), **asked, resume=True), say=said.append)
    assert said[0] == "continuing: 0 of 7 rows are done"
    assert len(read_rows(tmp_path / "out" / "robustness.csv")) == 14


def test_runs_are_measured_on_each_others_clips_unless_they_learned_them(trained, clips, tmp_path):
    elsewhere = write_folder(tmp_path / "brighter", per_class=6, size=(64, 64))
    runs = (trained, save(tmp_path / "two", Folder(elsewhere)), save(tmp_path / "three", Folder(clips, seed=3)))
    report = robustness(RobustnessConfig(runs, changes=("noise",), num_clips=3, out=tmp_path / "out"))
    columns, lines = report.transfer.columns, report.transfer.lines
    assert columns[:2] == ["clips", "brighter"]
    assert len(columns) == 3
    filled = [[row is not None for row in rows] for _, rows in lines]
    assert filled == [[True, True, False], [True, True, True], [False, True, True]]
    assert sum("its training used" in note for note in report.notes) == 2
    page = report.page.read_text(encoding="utf-8")
    assert "From one test set to another" in page
    assert all(row["num_clips"] <= 3 for row in report.rows)


def test_other_classes_leave_a_cell_empty(trained, clips, tmp_path):
    (tmp_path / "other").mkdir()
    for number, folder in enumerate(sorted(clips.iterdir())):
        (tmp_path / "other" / f"class {number}").symlink_to(folder)
    runs = (trained, save(tmp_path / "run", Folder(tmp_path / "other")))
    report = robustness(RobustnessConfig(runs, changes=("noise",), num_clips=2, out=tmp_path / "out"))
    assert [[row is not None for row in rows] for _, rows in report.transfer.lines] == [[True, False], [False, True]]
    assert sum("the classes differ" in note for note in report.notes) == 2


def test_folds_are_measured_on_what_they_have_not_seen(clips, tmp_path):
    whole = Folder(clips, hold_out=False)
    names = [clip.name for clip in whole.files]
    save(tmp_path / "run", whole)
    (tmp_path / "run" / run_folder.RUN).write_text(json.dumps({"num_folds": 2}), encoding="utf-8")
    for number, held in enumerate((names[::2], names[1::2]), 1):
        split = {"held_out": {"test": held, "validation": []}, "clips": {"test": held, "validation": []}}
        save(tmp_path / "run" / f"fold-{number}", Folder.from_json(whole.as_json() | split), seed=number)
    report = robustness(RobustnessConfig((tmp_path / "run",), changes=("noise",), out=tmp_path / "out"))
    assert {row["num_clips"] for row in report.rows} == {len(names)}
    right = [evaluate(EvaluateConfig(tmp_path / "run" / f"fold-{n}", precision="float32")).row for n in (1, 2)]
    pooled = sum(row["accuracy"] * row["num_clips"] for row in right) / len(names)
    assert report.rows[0]["accuracy"] == pytest.approx(pooled)
    assert any("cross-validation" in note for note in report.notes)


def test_moving_digits_are_drawn_turned_and_tested_in_each_condition(tmp_path, capsys):
    run = save(tmp_path / "run", DigitsConfig("uci", condition=("rotation",), scheme="digits"), model="stn-lstm")
    words = [
        "robustness",
        "--model",
        str(run),
        "--changes",
        "turn",
        "--num-clips",
        "2",
        "--turns",
        "2",
        "--digits",
        "uci",
    ]
    assert cli.main([*words, "--out", str(tmp_path / "out")]) == 0
    rows = read_rows(tmp_path / "out" / "robustness.csv")
    conditions = [row["condition"] for row in rows if row["change"] == "none" and row.get("turns") is None]
    assert conditions == ["normal", "rotation", "scaling", "rotation_scaling", "elastic"]
    assert {row["condition"] for row in rows if row["change"] == "turn"} == {"normal"}
    averaged = {row["strength"]: row for row in rows if row.get("turns") == 2}
    assert len(averaged) == 14
    plain = next(row for row in rows if row["strength"] == 45 and row["turns"] is None)
    assert averaged[45]["cross_entropy"] != plain["cross_entropy"]
    upright = standard_test(run, condition=("normal",), num_clips=2, num_frames=20).clips("test")
    drawn = evaluate_model(checkpoint.load(run)[0], drawn_changed(upright, "turn", 45.0), precision="float32")
    assert plain["cross_entropy"] == pytest.approx(drawn.cross_entropy, rel=1e-6)
    page = (tmp_path / "out" / "robustness.html").read_text(encoding="utf-8")
    assert "turned copies" in page
    assert "their pixels are not turned" in page
    assert "2 turned copies" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["--changes", "nois"], 2, "did you mean 'noise'"),
        (["--num-clips", "0"], 2, "num_clips must be at least 1; got 0"),
        (["--digits", "uci"], 2, "--digits is not an option of clips in a folder"),
    ],
)
def test_a_wrong_call_writes_nothing(words, status, message, trained, tmp_path, capsys):
    assert cli.main(["robustness", "--model", str(trained), "--out", str(tmp_path / "out"), *words]) == status
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_clips_that_have_moved_are_told_in_one_line(tmp_path, capsys):
    root = write_folder(tmp_path / "clips", per_class=6)
    run = save(tmp_path / "run", Folder(root))
    root.rename(tmp_path / "elsewhere")
    assert cli.main(["robustness", "--model", str(run), "--out", str(tmp_path / "out")]) == 1
    assert "put the clips there again" in capsys.readouterr().err
