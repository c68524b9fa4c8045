import json
from dataclasses import replace

import pytest
import torch
import tyro
from rich.console import Console

from saccade import checkpoint, models
from saccade.checkpoint import Header
from saccade.data import digits as digit_sources
from saccade.data.motion import Motion
from saccade.data.moving_digits import MovingDigits
from saccade.errors import DataError, UsageError
from saccade.evaluate import EvaluateConfig, each, evaluate, read_rows, render, run, worst_confusions
from saccade.evaluate.command import clips_for

DATA = {"digits": "uci", "condition": "scaling", "labels": "pair", "protocol": "end_to_end"}
TRAINING = {"step": 12, "config": {"seed": 5, "digits": "auto", "data_dir": None}}


def header(**changes):
    return Header("stn-lstm", {"num_classes": 55}, DATA | changes, TRAINING)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run folder with a checkpoint of a model that attends."""
    torch.manual_seed(0)
    model = models.create("stn-lstm", num_classes=55)
    torch.nn.init.normal_(model.encoder.attention.positions.to_map.bias, std=0.7)
    folder = tmp_path_factory.mktemp("run")
    checkpoint.save(folder / checkpoint.NAME, model, header())
    return folder


def small(trained, **options):
    return EvaluateConfig(trained, **{"num_clips": 6, "num_frames": 3} | options)


def images(clips):
    """Tell which digit images the first clips show."""
    return clips.batch(torch.arange(8), poses=True).poses.instance.tolist()


def test_what_is_left_open_is_as_in_training(trained):
    result = run(small(trained))
    row = result.row
    assert (row["model"], row["protocol"], row["condition"]) == ("stn-lstm", "end_to_end", "scaling")
    assert (row["digits"], row["labels"], row["instances"], row["split"]) == ("uci", "pair", "disjoint", "test")
    # Intervals are over trainings, so the row carries the seed of training; the clips have their own.
    assert (row["seed"], row["clips_seed"]) == (5, 0)
    assert (row["trained_on"], row["steps"], row["num_clips"], row["num_frames"]) == ("scaling", 12, 6, 3)
    assert row["verdicts_changed_by_attention"] == result.attention.num_changed
    assert row["map_deviation"] > 0.1


def test_the_command_gives_what_the_function_gives(trained):
    model, _ = checkpoint.load(trained)
    clips = MovingDigits(digit_sources.load("uci", "test"), Motion("rotation", 3), num_clips=6, seed=4)
    result = run(small(trained, condition="rotation", seed=4))
    assert result.evaluation == evaluate(model, clips)


def test_rows_are_added_to_a_file_and_a_repetition_replaces_its_own(trained, tmp_path):
    out = tmp_path / "results" / "table.csv"
    for condition in ("normal", "rotation", "rotation"):
        result = run(small(trained, condition=condition, out=out))
    rows = read_rows(out)
    assert [row["condition"] for row in rows] == ["normal", "rotation"]
    assert {name: value for name, value in rows[1].items() if value is not None} == {
        name: value for name, value in result.row.items() if value is not None
    }


def test_where_a_model_looks_goes_to_a_file_of_its_own(trained, tmp_path):
    out, attention = tmp_path / "table.csv", tmp_path / "attention.csv"
    result = run(small(trained, out=out, attention=attention))
    rows = read_rows(attention)
    assert len(read_rows(out)) == 1
    assert [(row["trained"], row["measure"]) for row in rows[:2]] == [
        ("trained", "gradient"),
        ("trained", "sampled_area"),
    ]
    assert (rows[0]["model"], rows[0]["seed"], rows[0]["condition"], rows[0]["num_clips"]) == (
        "stn-lstm",
        5,
        "scaling",
        6,
    )
    assert rows[0]["accuracy"] == result.row["accuracy"]
    assert {row["seed"] for row in rows if row["trained"] == "untrained"} == {0, 1, 2}
    run(small(trained, attention=attention))
    assert read_rows(attention) == rows
    assert "sampled area" in shown(result)
    assert json.loads(json.dumps(result.as_json(), allow_nan=False))["looks"] == result.looks


def test_disjoint_shared_and_validation_instances(trained):
    config = small(trained)
    test, train, validation = (digit_sources.load("uci", split) for split in ("test", "train", "validation"))
    assert images(clips_for(config, header())) == images(MovingDigits(test, Motion("scaling", 3)))
    of_validation = clips_for(small(trained, split="validation"), header())
    assert images(of_validation) == images(MovingDigits(validation, Motion("scaling", 3)))
    shared = clips_for(small(trained, instances="shared"), header())
    training = MovingDigits(train, Motion("scaling", 3), seed=5)  # the seed of training
    assert images(shared) == images(training)
    assert not torch.equal(shared.batch(torch.arange(2)).frames, training.batch(torch.arange(2)).frames)
    assert shared.split == "test"


def test_shared_instances_of_another_source_are_refused(trained):
    with pytest.raises(UsageError, match="those of training, from mnist; got uci"):
        clips_for(small(trained, instances="shared", digits="uci"), header(digits="mnist"))


def test_order_and_angle_reach_the_clips(trained):
    hidden = clips_for(small(trained, labels="ordered", order="hidden", condition="rotation", angle=20), header())
    visible = clips_for(small(trained, condition="rotation", angle=20), header(labels="ordered"))
    assert hidden.labels.name == visible.labels.name == "ordered"
    assert not torch.equal(hidden.batch(torch.arange(4)).frames, visible.batch(torch.arange(4)).frames)
    assert visible.batch(torch.arange(8), poses=True).poses.angle_deg.abs().max() <= 20
    from_training = clips_for(small(trained, condition="rotation", angle=20), header(labels="ordered", order="hidden"))
    assert torch.equal(from_training.batch(torch.arange(4)).frames, hidden.batch(torch.arange(4)).frames)


def test_clutter_and_noise_reach_the_clips_and_the_row(trained):
    motion = clips_for(small(trained, clutter=2, noise=10.0), header()).motion
    assert (motion.clutter, motion.noise) == (2, 10.0)
    row = run(small(trained, num_clips=1, clutter=2, noise=10.0)).row
    assert (row["clutter"], row["noise"]) == (2, 10.0)


def test_each_condition_is_measured_by_itself_and_once(trained):
    asked = ("rotation", "normal", "rotation")
    done = []
    found = list(each(small(trained, condition=asked, batch_size=4), progress=lambda *counts: done.append(counts)))
    assert [result.row["condition"] for result in found] == ["rotation", "normal"]
    assert found[1].evaluation == run(small(trained, condition="normal", batch_size=4)).evaluation
    assert done == [(4, 6), (6, 6)] * 4  # with attention and without, under two conditions


@pytest.mark.parametrize(("trunk", "told"), [("wide", None), ("light", "light")])
def test_a_row_names_the_trunk_and_the_numbers_of_digits(tmp_path, trunk, told):
    path = tmp_path / "digits.safetensors"
    arguments = {"num_classes": 10, "trunk": trunk}
    described = Header("lenet-lstm", arguments, DATA | {"labels": "digits"}, TRAINING)
    checkpoint.save(path, models.create("lenet-lstm", **arguments), described)
    row = run(EvaluateConfig(path, num_clips=2, num_frames=1, num_digits=(1, 4))).row
    assert (row["trunk"], row["num_digits"]) == (told, "1 to 4")


def test_digits_of_training_are_looked_for_where_they_lay(trained, tmp_path):
    training = {"config": {"data_dir": str(tmp_path / "gone")}}
    with pytest.raises(DataError, match="gone"):
        clips_for(small(trained), Header("stn-lstm", {}, DATA | {"digits": "mnist"}, training))


def test_a_model_for_clips_of_one_length_gets_them(trained):
    published = Header("lenet-lstm-published", {"num_classes": 100, "num_frames": 20}, DATA | {"labels": "ordered"})
    assert clips_for(EvaluateConfig(trained), published).motion.num_frames == 20
    assert clips_for(EvaluateConfig(trained), header()).motion.num_frames == 50
    with pytest.raises(UsageError, match="exactly 20 frames; got num_frames 3"):
        clips_for(small(trained), published)


def test_a_model_of_colour_is_refused(trained):
    with pytest.raises(UsageError, match="3 channels"):
        clips_for(small(trained), Header("stn-lstm", {"channels": 3}, DATA))


def test_a_folder_of_digits_is_found_by_its_path(trained, tmp_path):
    training = {"config": {"digits": str(tmp_path / "gone"), "seed": 1}}
    with pytest.raises(UsageError, match="gone"):
        clips_for(small(trained), Header("stn-lstm", {}, DATA | {"digits": "gone"}, training))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"instances": "disjiont"}, "did you mean 'disjoint'"),
        ({"split": "train"}, "no split is called 'train'"),
        ({"num_clips": 0}, "num_clips must be at least 1; got 0"),
        ({"batch_size": 0}, "batch_size must be at least 1; got 0"),
        ({"condition": "rotations"}, "did you mean 'rotation'"),
        ({"labels": "ordered"}, "'ordered' have 100 classes; the model has 55"),
        ({"device": "gpu"}, "no device is called 'gpu'"),
        ({"num_digits": 3}, "use labels='digits'"),
    ],
)
def test_wrong_calls(trained, options, message):
    with pytest.raises(UsageError, match=message):
        run(small(trained, **options))


def test_a_failure_leaves_the_file_as_it_was(trained, tmp_path):
    out = tmp_path / "table.csv"
    run(small(trained, out=out))
    before = out.read_bytes()
    with pytest.raises(UsageError, match="100 classes"):
        run(small(trained, labels="ordered", out=out))
    assert out.read_bytes() == before


def test_no_checkpoint(tmp_path):
    with pytest.raises(DataError, match="no checkpoint"):
        run(EvaluateConfig(tmp_path))


def test_the_command_line_knows_every_field(trained):
    words = f"--model {trained} --condition elastic --digits uci --labels pair --num-clips 7 --angle 180 --seed 2"
    config = tyro.cli(
        EvaluateConfig, args=[*words.split(), "--instances", "shared", "--out", "a.csv", "--attention", "b.csv"]
    )
    assert (config.model, config.condition, config.num_clips, config.angle) == (trained, ("elastic",), 7, 180.0)
    assert (config.instances, config.seed, config.out.name) == ("shared", 2, "a.csv")
    assert config.attention.name == "b.csv"


def shown(result):
    console = Console(width=160, color_system=None)
    with console.capture() as captured:
        console.print(render(result))
    return captured.get()


def test_the_table_says_everything(trained):
    result = run(small(trained))
    text = shown(result)
    assert "stn-lstm on scaling, uci, disjoint digits, test split" in text
    assert f"{100 * result.evaluation.accuracy:.1f} % (" in text
    assert "Wilson, 6 clips" in text
    for part in ("cross entropy", "top-5", "calibration error", "recall", "most confused", result.attention.summary):
        assert part in text
    shown_as, said, num = worst_confusions(result.evaluation)[0]
    assert f"{shown_as} as {said} ({num})" in text


def test_figures_are_told_in_per_cent(trained):
    result = run(small(trained))
    recall = [0.25, None, *([1.0] * 8)]
    known = replace(result.evaluation, accuracy=0.5, top5_accuracy=0.75, digit_recall=recall)
    text = shown(replace(result, evaluation=known, row=result.row | {"accuracy": 0.5}))
    words = " ".join(text.split())
    assert "accuracy 50.0 % (18.8 to 81.2; Wilson, 6 clips)" in words
    assert "top-5 accuracy 75.0 %" in words
    assert "25.0 none 100.0 100.0" in words
    assert "6 clips show the first 6 of 55 classes only" in words


def test_a_digit_is_confused_with_nothing_where_it_is_missed(trained):
    cells = [[[20, 0], [0, 0]]] * 10
    cells[3] = [[5, 2], [4, 9]]
    found = replace(run(small(trained)).evaluation, labels="digits", confusion_matrix=cells)
    assert worst_confusions(found) == [("3", "nothing", 4), ("nothing", "3", 2)]


def test_everything_is_json(trained):
    told = json.loads(json.dumps(run(small(trained)).as_json(), allow_nan=False))
    assert told["row"]["model"] == "stn-lstm"
    assert told["interval"]["label"] == "Wilson, 6 clips"
    assert told["attention"]["layers"]["encoder.attention"]["map_deviation"] > 0


def test_presence_of_digits_from_checkpoint_to_table(tmp_path):
    torch.manual_seed(0)
    path = tmp_path / "digits.safetensors"
    described = Header("lenet-lstm", {"num_classes": 10}, DATA | {"labels": "digits"}, TRAINING)
    checkpoint.save(path, models.create("lenet-lstm", num_classes=10), described)
    result = run(EvaluateConfig(path, num_clips=4, num_frames=2, num_digits=4))
    assert result.row["num_digits"] == 4
    assert result.row["top5_accuracy"] is None
    text = shown(result)
    assert "top-5" not in text
    assert "nothing" in text
    assert "no attention" in text


def test_worst_confusions_come_in_order(make_clips):
    from .stand_ins import Canned

    said = torch.tensor([0, 0, 0, 1, 4, 5])
    logits = torch.nn.functional.one_hot(said, 55).float()
    found = evaluate(Canned(logits), make_clips(6))
    assert worst_confusions(found) == [("01", "00", 1), ("02", "00", 1), ("03", "01", 1)]
    twice = evaluate(Canned(logits), make_clips(60), batch_size=6)
    assert worst_confusions(twice, 1)[0][2] == 2
