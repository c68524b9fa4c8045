"""A cross-validation by steps: its folds, its figures, its final model, and how it goes on after an interrupt."""

import csv
import re
import signal
from dataclasses import replace
from statistics import median, median_high

import numpy as np
import pytest
import torch

from saccade import checkpoint, cli, run_folder
from saccade.data import Folder
from saccade.errors import DataError, Interrupted, UsageError
from saccade.evaluate import evaluate
from saccade.models import efficientnet
from saccade.train import TrainConfig, beside, folds_run, tables, train

from ..own_clips import write_folder

PERSON = r"_(\d+)_"
NUM_FOLDS = 2
CONFIG = TrainConfig("dcn-lstm", steps=4, batch_size=4, precision="float32")
WORDS = ["--model", "dcn-lstm", "--steps", "4", "--batch-size", "4", "--precision", "float32"]


@pytest.fixture(autouse=True)
def _without_pretrained(monkeypatch):
    """Leave out the rung of pretrained features, which takes most of the time."""
    monkeypatch.setattr(efficientnet, "pretrained_file", lambda: None)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Write six clips of each class, each class shown by the same six people."""
    return write_folder(tmp_path_factory.mktemp("own") / "my clips", per_class=6, num_people=6)


@pytest.fixture(scope="module")
def run(clips, tmp_path_factory):
    """A cross-validation with its final model, made by the command line."""
    out = tmp_path_factory.mktemp("runs") / "folds"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(efficientnet, "pretrained_file", lambda: None)
        words = ["train", "--data", str(clips), "--group", PERSON, "--folds", str(NUM_FOLDS), "--out", str(out)]
        assert cli.main([*words, *WORDS]) == 0
    return out


def data_of(clips):
    return Folder(clips, group=PERSON, hold_out=False)


def rows_of(run):
    with (run / tables.TESTED).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def folds_of(run):
    return [run / f"fold-{number}" for number in range(1, NUM_FOLDS + 1)]


def test_each_clip_is_tested_once_by_a_model_that_saw_nobody_in_it(clips, run):
    rows = rows_of(run)
    assert sorted(row["path"] for row in rows) == sorted(f.relative_to(clips).as_posix() for f in clips.rglob("*.mp4"))
    for number, folder in enumerate(folds_of(run)):
        model, header = checkpoint.load(folder)
        of_fold = header.data_config()
        tested = [row for row in rows if row["fold"] == str(number)]
        assert [row["path"] for row in tested] == list(of_fold.clips("test").names)
        right = [row["verdict"] == row["class"] for row in tested]
        assert evaluate(model, of_fold.clips("test")).accuracy == np.mean(right)
        people = [set(of_fold.clips(split).groups) for split in ("train", "validation", "test")]
        assert sum(map(len, people)) == len(set().union(*people)) == 6
        assert {row["group"] for row in tested} == people[2]


def test_the_run_says_what_was_measured(run):
    told, rows = run_folder.read(run), rows_of(run)
    assert told["finished"]
    assert told["num_folds"] == NUM_FOLDS
    assert told["tested"]["accuracy"] == np.mean([row["verdict"] == row["class"] for row in rows])
    assert told["tested"]["low"] <= told["tested"]["accuracy"] <= told["tested"]["high"]
    assert checkpoint.read_header(run).training["accuracy"] == told["tested"]["accuracy"]


def test_the_final_model_learned_from_all_clips_with_what_the_folds_settled(clips, run, tmp_path):
    found = [run_folder.read(folder)["validation"] for folder in folds_of(run)]
    steps = median_high(one["kept_step"] for one in found)
    temperature = median(one["temperature"] for one in found)
    train(replace(CONFIG, steps=steps), data_of(clips), tmp_path / "plain")
    plain, _ = checkpoint.load(tmp_path / "plain")
    model, header = checkpoint.load(run)
    assert header.data_config().hold_out is False
    assert torch.allclose(plain.head.weight, model.head.weight * temperature, rtol=1e-5)
    assert all(
        torch.equal(value, model.state_dict()[name])
        for name, value in plain.state_dict().items()
        if not name.startswith("head")
    )
    assert run_folder.read_log(run / run_folder.LOG)[-1]["step"] == steps
    assert sorted(path.name for path in run.iterdir() if path.is_dir()) == [folder.name for folder in folds_of(run)]


def test_the_screen_names_the_folds_and_ends_with_what_to_do_next(clips, run, capsys):
    """A finished run is not trained again."""
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*.safetensors")}
    assert cli.main(["train", "--resume", "--out", str(run)]) == 0
    said = capsys.readouterr()
    assert "2 trainings of 4 steps, one for each fold; then one on all clips" in said.err
    assert "all folds and the model of all clips are done" in said.err
    assert "fold 1" not in said.err
    assert "accuracy, 2 folds, each of 12 clips tested once (bootstrap intervals over groups):" in said.out
    assert {"model (dcn-lstm)", "without attention", "mean frame", "metadata"} <= {
        re.split("  +", line)[0] for line in said.out.splitlines()
    }
    assert said.err.splitlines()[-2] == f"use it with: saccade predict FILE --model {run}"
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*.safetensors")} == before


def stopping(title, step):
    """Press Ctrl-C in the training of a title, after a step; None for its test."""

    def begin(named):
        def show(row):
            if named == title and row.get("step") == step:
                if step is None:
                    raise KeyboardInterrupt
                signal.raise_signal(signal.SIGINT)

        return show

    return begin


def test_it_goes_on_in_the_fold_that_was_interrupted(clips, run, tmp_path, capsys):
    out, data = tmp_path / "run", data_of(clips)
    with pytest.raises(Interrupted, match=r"saved at step 2 of 4 in .*fold-2"):
        folds_run.cross_validate(CONFIG, data, out, num_folds=NUM_FOLDS, progress=stopping("fold 2 of 2", 2))
    first, lines = (out / "fold-1" / checkpoint.NAME).stat().st_mtime_ns, []
    with pytest.raises(Interrupted, match="2 of 2 folds are finished in"):
        folds_run.cross_validate(
            CONFIG,
            data,
            out,
            num_folds=NUM_FOLDS,
            resume=True,
            progress=stopping("fold 2 of 2", None),
            say=lines.append,
        )
    assert lines[0] == "fold 1 is done; continuing with fold 2"
    with pytest.raises(UsageError, match="already holds a run; add --resume"):
        folds_run.cross_validate(CONFIG, data, out, num_folds=NUM_FOLDS)
    words = ["train", "--data", str(clips), "--group", PERSON, "--folds", "2", *WORDS, "--out", str(out)]
    assert cli.main([*words, "--resume"]) == 0
    assert "folds 1 and 2 are done; continuing with all clips" in capsys.readouterr().err.splitlines()
    assert (out / "fold-1" / checkpoint.NAME).stat().st_mtime_ns == first
    assert rows_of(out) == rows_of(run)
    (model, _), (whole, _) = checkpoint.load(out), checkpoint.load(run)
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in whole.state_dict().items())


def test_the_models_of_folds_said_the_logits_and_the_final_model_goes_on_too(clips, run, tmp_path):
    out, data = tmp_path / "run", data_of(clips)
    found = folds_run.cross_validate(CONFIG, data, out, num_folds=NUM_FOLDS)
    row = beside.rung_of("model", found.logits, found.clips)
    for folder, (_, held) in zip(folds_of(out), found.parts, strict=True):
        of_fold, header = checkpoint.load(folder)
        logits = beside.logits_of(of_fold, header.data_config().clips("test"), lambda done, total: None)
        assert torch.equal(found.logits[held], logits)
    with pytest.raises(Interrupted, match="saved at step 1 of"):
        folds_run.finish(CONFIG, data, out, row, progress=stopping("all clips", 1))
    assert not run_folder.read(out)["finished"]
    model, _ = checkpoint.load(folds_run.finish(CONFIG, data, out, row))
    whole, _ = checkpoint.load(run)
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in whole.state_dict().items())


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--steps", "5"], "steps=4, now steps=5"),
        (["--seed", "7"], "seed=0, now seed=7"),
        (["--folds", "3"], "with --folds 2, now --folds 3"),
    ],
)
def test_it_goes_on_only_as_it_was_begun(run, capsys, words, why):
    assert cli.main(["train", "--resume", "--out", str(run), *words]) == 2
    assert why in capsys.readouterr().err


def test_it_does_not_go_on_with_other_clips(clips, run, tmp_path):
    other = write_folder(tmp_path / "other", per_class=6, num_people=6, fps=12.0)
    with pytest.raises(UsageError, match="was made with"):
        folds_run.cross_validate(CONFIG, data_of(other), run, num_folds=NUM_FOLDS, resume=True)


def test_a_damaged_description_is_told(run, tmp_path, capsys):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / run_folder.RUN).write_text('{"num_folds": "two", "config": {"seed": "x"}, "data": 3}')
    assert cli.main(["train", "--resume", "--out", str(tmp_path / "run")]) == 1
    assert "has a damaged run.json" in capsys.readouterr().err


def test_a_run_without_folds_does_not_get_some(clips, tmp_path, capsys):
    train(replace(CONFIG, steps=1), Folder(clips), tmp_path / "run")
    assert cli.main(["train", "--resume", "--folds", "2", "--out", str(tmp_path / "run")]) == 2
    assert "was made without --folds, now --folds 2" in capsys.readouterr().err


def test_a_given_test_is_in_no_fold(clips, tmp_path):
    files = sorted(clips.rglob("*.mp4"))
    person = {file: re.search(PERSON, file.name)[1] for file in files}
    split = {"04": "test", "05": "validation"}
    rows = [
        f"{file},{file.relative_to(clips).parts[0]},{split.get(person[file], 'train')},{person[file]}" for file in files
    ]
    (tmp_path / "clips.csv").write_text("\n".join(["path,class,split,group", *rows]), encoding="utf-8")
    data = Folder(tmp_path / "clips.csv", hold_out=False)
    found = folds_run.cross_validate(replace(CONFIG, steps=1), data, tmp_path / "run", num_folds=NUM_FOLDS)
    assert set(found.clips.groups) == {"00", "01", "02", "03", "05"}
    for folder in folds_of(tmp_path / "run"):
        of_fold = checkpoint.read_header(folder).data_config()
        groups = {group for split in ("train", "validation", "test") for group in of_fold.clips(split).groups}
        assert groups == set(found.clips.groups)


def test_folds_that_cannot_be_are_told_before_clips_are_read(clips, tmp_path, capsys):
    out = tmp_path / "run"
    words = ["train", "--data", str(clips), "--group", PERSON, "--folds", "7", "--out", str(out), *WORDS]
    assert cli.main(words) == 1
    assert "7 folds need at least 7 groups; got 6" in capsys.readouterr().err
    assert not out.exists()


def test_folds_without_validation_keep_the_last_step(tmp_path):
    """Two people are too few to spare one for validation."""
    clips = write_folder(tmp_path / "few", per_class=2, num_people=2)
    data, out = data_of(clips), tmp_path / "run"
    config = replace(CONFIG, steps=2, batch_size=2)
    found = folds_run.cross_validate(config, data, out, num_folds=2)
    lines = []
    folds_run.finish(config, data, out, beside.rung_of("model", found.logits, found.clips), say=lines.append)
    told = run_folder.read(out)
    assert (told["steps"], told["temperature"]) == (2, 1)
    assert lines == ["all clips: 2 steps; probabilities are not calibrated, since no fold had clips for validation"]


@pytest.mark.parametrize(
    ("words", "told"),
    [(["--minutes", "1"], "1 minute,"), (["--minutes", "1.5"], "1.5 minutes,"), (["--steps", "1"], "1 step,")],
)
def test_the_length_of_a_training_is_told(clips, tmp_path, capsys, monkeypatch, words, told):
    def stop(*_arguments, **_options):
        raise UsageError("stopped here")

    monkeypatch.setattr(folds_run, "cross_validate", stop)
    data = ["train", "--data", str(clips), "--group", PERSON, "--folds", "2", "--model", "dcn-lstm"]
    assert cli.main([*data, *words, "--out", str(tmp_path / "run")]) == 2
    assert f"2 trainings of {told} one for each fold; then one on all clips" in capsys.readouterr().err


def test_the_final_model_waits_for_all_folds(clips, tmp_path):
    out, data = tmp_path / "run", data_of(clips)
    with pytest.raises(Interrupted):
        folds_run.cross_validate(CONFIG, data, out, num_folds=NUM_FOLDS, progress=stopping("fold 2 of 2", 2))
    with pytest.raises(UsageError, match="fold-2 is not finished"):
        folds_run.finish(CONFIG, data, out, None)
    with pytest.raises(DataError):
        folds_run.finish(CONFIG, data, tmp_path / "nothing", None)
