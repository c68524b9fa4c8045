import csv
import json
import resource
from dataclasses import replace

import pytest
import torch
from rich.console import Console

from saccade import checkpoint, cli, models
from saccade.checkpoint import Header
from saccade.clips import FrameFormat
from saccade.data.digits import DigitsConfig
from saccade.data.digits import sources as digit_sources
from saccade.data.digits.motion import Motion
from saccade.data.digits.moving_digits import MovingDigits
from saccade.errors import DataError, UsageError
from saccade.evaluate import (
    EvaluateConfig,
    confusion_svg,
    each,
    evaluate,
    read_rows,
    render,
    run,
    standard_test,
    worst_confusions,
)
from saccade.labels import Labels

from .stand_ins import Canned

TRAINING = {"step": 12, "config": {"seed": 5}}
SMALL = {"num_clips": 6, "num_frames": 3}


def header(name="stn-lstm", *, facts=None, frame_format=None, arguments=None, **changes):
    """Describe a model that learned from moving digits."""
    learned = DigitsConfig(**{"digits": "uci", "condition": "scaling"} | changes)
    told = {**learned.facts, "protocol": "end_to_end", **(facts or {})}
    data = {"config": learned.as_json(), "facts": told}
    return Header(name, arguments or {}, learned.labels, frame_format or learned.frame_format, data, TRAINING)


def save(path, described):
    """Save an untrained model; its attention does something."""
    torch.manual_seed(0)
    model = described.create_model()
    if described.model == "stn-lstm":
        torch.nn.init.normal_(model.encoder.attention.positions.to_map.bias, std=0.7)
    checkpoint.save(path / checkpoint.NAME, model, described)
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run folder with a checkpoint of a model that attends."""
    return save(tmp_path_factory.mktemp("run"), header())


def measured(trained, out=None, attention=None, **digits):
    """Measure a model on few short clips."""
    return run(EvaluateConfig(trained, out=out, attention=attention), standard_test(trained, **SMALL | digits))


def clips_of(folder, described, split="test", **digits):
    """Return the clips that a model is tested on."""
    return standard_test(save(folder, described), **SMALL | digits).clips(split)


def images(clips):
    """Tell which digit images the first clips show."""
    return clips.located(torch.arange(8)).poses.instance.tolist()


def test_what_is_left_open_is_as_in_training(trained):
    result = measured(trained)
    row = result.row
    assert (row["model"], row["protocol"], row["condition"]) == ("stn-lstm", "end_to_end", "scaling")
    assert (row["digits"], row["labels"], row["instances"], row["split"]) == ("uci", "pair", "disjoint", "test")
    # Intervals are over trainings, so the row carries the seed of training; the clips have their own.
    assert (row["seed"], row["clips_seed"]) == (5, 0)
    assert (row["trained_on"], row["steps"], row["num_clips"], row["num_frames"]) == ("scaling", 12, 6, 3)
    assert row["verdicts_changed_by_attention"] == result.attention.num_changed
    assert row["map_deviation"] > 0.1


def test_the_pass_without_attention_can_be_left_out(trained):
    whole = measured(trained).row
    row = run(EvaluateConfig(trained, without_attention=False), standard_test(trained, **SMALL)).row
    missing = {name for name, value in row.items() if value is None and whole[name] is not None}
    assert missing == {f"{name}_without_attention" for name in ("accuracy", "cross_entropy")} | {
        "verdicts_changed_by_attention"
    }
    assert row["attention_summary"].startswith("affine maps with spread")
    assert row["attention_summary"] in whole["attention_summary"]
    assert "without" not in row["attention_summary"]
    assert {**row, **dict.fromkeys([*missing, "attention_summary"])} == {
        **whole,
        **dict.fromkeys([*missing, "attention_summary"]),
    }


def test_the_command_gives_what_the_function_gives(trained):
    model, _ = checkpoint.load(trained)
    clips = MovingDigits(digit_sources.load("uci", "test"), Motion("rotation", 3), num_clips=6, seed=4)
    result = measured(trained, condition="rotation", clips_seed=4)
    assert result.evaluation == evaluate(model, clips)


def test_rows_are_added_to_a_file_and_a_repetition_replaces_its_own(trained, tmp_path):
    out = tmp_path / "results" / "table.csv"
    for condition in ("normal", "rotation", "rotation"):
        result = measured(trained, condition=condition, out=out)
    rows = read_rows(out)
    assert [row["condition"] for row in rows] == ["normal", "rotation"]
    assert {name: value for name, value in rows[1].items() if value is not None} == {
        name: value for name, value in result.row.items() if value is not None
    }


def test_a_row_of_version_0_1_is_replaced_when_it_is_measured_again(trained, tmp_path):
    out = tmp_path / "table.csv"
    now = measured(trained, out=out).row
    with out.open(newline="") as file:
        (row,) = csv.DictReader(file)
    first = ["model", "protocol", "condition", "digits", "instances", "labels", "seed"]
    columns = dict.fromkeys((*first, "accuracy", "cross_entropy", "num_clips", *(row.keys() - {"data"})))
    with out.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerow(row | {"accuracy": 0.75})
    assert read_rows(out)[0]["accuracy"] == 0.75
    measured(trained, out=out)
    (found,) = read_rows(out)
    assert (found["accuracy"], found["data"]) == (now["accuracy"], "moving digits")


def test_where_a_model_looks_goes_to_a_file_of_its_own(trained, tmp_path):
    out, attention = tmp_path / "table.csv", tmp_path / "attention.csv"
    result = measured(trained, out=out, attention=attention)
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
    measured(trained, attention=attention)
    assert read_rows(attention) == rows
    assert "sampled area" in shown(result)
    assert json.loads(json.dumps(result.as_json(), allow_nan=False))["looks"] == result.looks


def test_disjoint_shared_and_validation_instances(tmp_path):
    test, train, validation = (digit_sources.load("uci", split) for split in ("test", "train", "validation"))
    assert images(clips_of(tmp_path, header())) == images(MovingDigits(test, Motion("scaling", 3)))
    of_validation = clips_of(tmp_path, header(), "validation")
    assert images(of_validation) == images(MovingDigits(validation, Motion("scaling", 3)))
    shared = clips_of(tmp_path, header(), instances="shared")
    training = MovingDigits(train, Motion("scaling", 3), seed=5)  # the seed of training
    assert images(shared) == images(training)
    assert not torch.equal(shared.batch(torch.arange(2)).frames, training.batch(torch.arange(2)).frames)
    assert shared.split == "test"


def test_shared_instances_of_another_source_are_refused(tmp_path):
    with pytest.raises(UsageError, match="those of training, from mnist; got uci"):
        clips_of(tmp_path, header(facts={"digits": "mnist"}), instances="shared", digits="uci")


def test_order_and_angle_reach_the_clips(tmp_path):
    asked = {"condition": "rotation", "angle": 20}
    hidden = clips_of(tmp_path, header(), scheme="ordered", order="hidden", **asked)
    visible = clips_of(tmp_path, header(scheme="ordered"), **asked)
    assert hidden.scheme.name == visible.scheme.name == "ordered"
    assert not torch.equal(hidden.batch(torch.arange(4)).frames, visible.batch(torch.arange(4)).frames)
    assert visible.located(torch.arange(8)).poses.angle_deg.abs().max() <= 20
    from_training = clips_of(tmp_path, header(scheme="ordered", order="hidden"), **asked)
    assert torch.equal(from_training.batch(torch.arange(4)).frames, hidden.batch(torch.arange(4)).frames)


def test_a_model_for_clips_of_one_length_gets_them(trained, tmp_path):
    published = header("lenet-lstm-published", scheme="ordered", arguments={"num_frames": 4})
    save(tmp_path, published)
    assert standard_test(tmp_path).clips("test").motion.num_frames == 4
    assert standard_test(trained).clips("test").motion.num_frames == 50
    with pytest.raises(UsageError, match=r"do not fit the model: .*has 3 frames; this model reads exactly 4"):
        measured(tmp_path)


def test_clutter_and_noise_reach_the_clips_and_the_row(trained):
    asked = standard_test(trained, **SMALL | {"num_clips": 1}, clutter=2, noise=10.0)
    motion = asked.clips("test").motion
    assert (motion.clutter, motion.noise) == (2, 10.0)
    row = run(EvaluateConfig(trained), asked).row
    assert (row["clutter"], row["noise"]) == (2, 10.0)


def test_each_condition_is_measured_by_itself_and_once(trained):
    asked = ("rotation", "normal", "rotation")
    done = []
    config, clips = EvaluateConfig(trained, batch_size=4), standard_test(trained, **SMALL, condition=asked)
    found = list(each(config, clips, progress=lambda *counts: done.append(counts)))
    assert [result.row["condition"] for result in found] == ["rotation", "normal"]
    normal = standard_test(trained, **SMALL, condition=("normal",))
    assert found[1].evaluation == run(config, normal).evaluation
    assert done == [(4, 6), (6, 6)] * 4  # with attention and without, under two conditions


@pytest.mark.parametrize(("trunk", "told"), [("wide", None), ("small", "small")])
def test_a_row_names_the_trunk_and_the_numbers_of_digits(tmp_path, trunk, told):
    save(tmp_path, header("lenet-lstm", scheme="digits", arguments={"trunk": trunk}))
    asked = standard_test(tmp_path, num_clips=2, num_frames=1, num_digits=(1, 4))
    row = run(EvaluateConfig(tmp_path), asked).row
    assert (row["trunk"], row["num_digits"]) == (told, "1 to 4")


def test_digits_of_training_are_looked_for_where_they_lay(tmp_path):
    described = header()
    described.data["config"] |= {"digits": "mnist", "digits_dir": str(tmp_path / "gone")}
    save(tmp_path, described)
    with pytest.raises(DataError, match="gone"):
        run(EvaluateConfig(tmp_path))


def test_a_model_of_colour_is_refused(tmp_path):
    save(tmp_path, header(frame_format=FrameFormat(channels=3)))
    with pytest.raises(UsageError, match="do not fit the model: frames have 1 channels; this model takes 3"):
        measured(tmp_path)


def test_a_folder_of_digits_is_found_by_its_path(tmp_path):
    gone = header()
    gone.data["config"]["digits"] = str(tmp_path / "gone")
    with pytest.raises(UsageError, match="gone"):
        clips_of(tmp_path, gone)


def test_what_a_model_learned_on_must_be_known_or_named(trained, tmp_path):
    checkpoint.save(tmp_path / checkpoint.NAME, models.create("lenet-lstm"), Header("lenet-lstm"))
    with pytest.raises(UsageError, match="does not name its training data"):
        run(EvaluateConfig(tmp_path))
    assert run(EvaluateConfig(tmp_path), standard_test(trained, **SMALL)).row["num_clips"] == 6


def test_several_conditions_are_measured_one_by_one(tmp_path):
    save(tmp_path, header(condition=("normal", "rotation", "normal")))
    results = each(EvaluateConfig(tmp_path), standard_test(tmp_path, **SMALL))
    assert [result.row["condition"] for result in results] == ["normal", "rotation"]
    with pytest.raises(UsageError, match="one at a time; name one of normal, rotation"):
        measured(tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"instances": "disjiont"}, "did you mean 'disjoint'"),
        ({"num_clips": 0}, "num_clips must be at least 1; got 0"),
        ({"condition": "rotations"}, "did you mean 'rotation'"),
        ({"scheme": "ordered"}, r"clips have 100 classes \(00, 01, 02 \.\.\.\), the model 55"),
        ({"num_digits": 3}, "use labels='digits'"),
    ],
)
def test_clips_that_cannot_be_had_or_do_not_fit(trained, options, message):
    with pytest.raises(UsageError, match=message):
        measured(trained, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "train"}, "no split is called 'train'"),
        ({"batch_size": 0}, "batch_size must be at least 1; got 0"),
        ({"device": "gpu"}, "no device is called 'gpu'"),
    ],
)
def test_wrong_calls(trained, options, message):
    with pytest.raises(UsageError, match=message):
        run(EvaluateConfig(trained, **options), standard_test(trained, **SMALL))


def test_a_failure_leaves_the_file_as_it_was(trained, tmp_path):
    out = tmp_path / "table.csv"
    measured(trained, out=out)
    before = out.read_bytes()
    with pytest.raises(UsageError, match="100 classes"):
        measured(trained, scheme="ordered", out=out)
    assert out.read_bytes() == before


def test_no_checkpoint(tmp_path):
    with pytest.raises(DataError, match="no checkpoint"):
        run(EvaluateConfig(tmp_path))


def test_the_command_line(trained, tmp_path, capsys):
    out, attention = tmp_path / "a.csv", tmp_path / "b.csv"
    words = f"evaluate --model {trained} --condition elastic --digits uci --num-clips 7 --num-frames 2 --angle 180"
    words += f" --seed 2 --instances shared --split validation --out {out} --attention {attention} --json"
    assert cli.main(words.split()) == 0
    (row,) = read_rows(out)
    assert json.loads(capsys.readouterr().out)["row"] == row
    asked = {"condition": "elastic", "num_clips": 7, "num_frames": 2, "max_angle_deg": 180.0, "clips_seed": 2}
    assert {name: row[name] for name in asked} == asked
    assert (row["instances"], row["split"], len(read_rows(attention)) > 0) == ("shared", "validation", True)


def shown(result):
    console = Console(width=160, color_system=None)
    with console.capture() as captured:
        console.print(render(result))
    return captured.get()


def test_the_table_says_everything(trained):
    result = measured(trained)
    text = shown(result)
    assert "stn-lstm on scaling, uci, disjoint digits, test split" in text
    assert f"{100 * result.evaluation.accuracy:.1f} % (" in text
    assert "Wilson, 6 clips" in text
    for part in ("cross entropy", "top-5", "calibration error", "recall", "most confused", result.attention.summary):
        assert part in text
    shown_as, said, num = worst_confusions(result.evaluation)[0]
    assert f"{shown_as} as {said} ({num})" in text


def test_figures_are_told_in_per_cent(trained):
    result = measured(trained)
    clips = [replace(clip, right=index < 3) for index, clip in enumerate(result.evaluation.clips)]
    known = replace(result.evaluation, accuracy=0.5, top5_accuracy=0.75, clips=clips)
    text = shown(replace(result, evaluation=known, row=result.row | {"accuracy": 0.5}))
    words = " ".join(text.split())
    assert "accuracy 50.0 % (18.8 to 81.2; Wilson, 6 clips)" in words
    assert "top-5 accuracy 75.0 %" in words
    assert "most confused" in words
    assert "6 clips show the first 6 of 55 classes only" in words


def test_cameras_are_measured_where_that_is_asked_for(trained):
    clips = standard_test(trained, **SMALL)
    done = []
    result = run(EvaluateConfig(trained, camera=True), clips, progress=lambda *counts: done.append(counts))
    assert done == [(6, 6)] * 8  # with attention, without, and through six cameras
    first, *others = result.camera
    assert (first.accuracy, first.num_changed) == (result.evaluation.accuracy, 0)
    assert len(others) == 6
    text = shown(result)
    for told in ("all frames", "every 4th frame", "10 % of the frames lost"):
        assert told in text
    told = json.loads(json.dumps(result.as_json(), allow_nan=False))
    assert len(told["camera"]) == 7
    assert measured(trained).camera == []
    assert "every 4th frame" not in shown(measured(trained))


def test_a_run_folder_keeps_what_cameras_cost(tmp_path):
    run_folder = save(tmp_path / "run", header(frame_format=FrameFormat(1, (64, 64), fps=12.0)))
    clips = standard_test(run_folder, **SMALL)
    result = run(EvaluateConfig(run_folder, camera=True), clips)
    kept = json.loads((run_folder / "camera.json").read_text())
    assert kept["rates"] == [
        {"fps": 12 / one.every, "accuracy": one.accuracy} for one in result.camera if not one.dropped
    ]
    assert (kept["split"], kept["num_clips"], len(kept["rates"])) == ("test", 6, 4)
    (run_folder / "camera.json").unlink()
    run(EvaluateConfig(run_folder), clips)
    # Of several conditions, none is the one that a camera will see.
    several = standard_test(run_folder, num_clips=2, num_frames=2, condition=("normal", "rotation"))
    assert len(list(each(EvaluateConfig(run_folder, camera=True), several))) == 2
    assert not (run_folder / "camera.json").exists()


def test_what_cameras_cost_is_told_also_where_the_folder_cannot_keep_it(tmp_path):
    run_folder = save(tmp_path / "run", header(frame_format=FrameFormat(1, (64, 64), fps=12.0)))
    (run_folder / "camera.json").mkdir()  # no file can take its place, also for a user who may do all
    assert len(run(EvaluateConfig(run_folder, camera=True), standard_test(run_folder, **SMALL)).camera) == 7


def test_the_confusion_matrix_goes_to_a_picture(trained, tmp_path):
    path = tmp_path / "new" / "matrix.svg"
    result = run(EvaluateConfig(trained, confusion=path), standard_test(trained, **SMALL))
    assert path.read_text(encoding="utf-8") == confusion_svg(result.evaluation)
    with pytest.raises(UsageError, match=r"matrix\.png; a file that ends in \.svg is needed"):
        EvaluateConfig(trained, confusion=tmp_path / "matrix.png")
    several = standard_test(trained, **SMALL, condition=("normal", "rotation"))
    with pytest.raises(UsageError, match="--confusion writes a file for one condition, and 2 are measured"):
        list(each(EvaluateConfig(trained, confusion=path), several))


def test_a_digit_is_confused_with_nothing_where_it_is_missed(trained):
    cells = [[[20, 0], [0, 0]]] * 10
    cells[3] = [[5, 2], [4, 9]]
    several = Labels(tuple("0123456789"), exclusive=False)
    found = replace(measured(trained).evaluation, labels=several, confusion_matrix=cells)
    assert worst_confusions(found) == [("3", "nothing", 4), ("nothing", "3", 2)]


def test_everything_is_json(trained):
    told = json.loads(json.dumps(measured(trained).as_json(), allow_nan=False))
    assert told["row"]["model"] == "stn-lstm"
    assert told["interval"]["label"] == "Wilson, 6 clips"
    assert told["attention"]["layers"]["encoder.attention"]["map_deviation"] > 0


def test_presence_of_digits_from_checkpoint_to_table(tmp_path):
    save(tmp_path, header("lenet-lstm", scheme="digits"))
    result = measured(tmp_path, num_digits=4)
    assert result.row["num_digits"] == 4
    assert result.row["top5_accuracy"] is None
    text = shown(result)
    assert "top-5" not in text
    assert "nothing" in text
    assert "attention" not in text


def test_worst_confusions_come_in_order(make_clips):
    said = torch.tensor([0, 0, 0, 1, 4, 5])
    logits = torch.nn.functional.one_hot(said, 55).float()
    found = evaluate(Canned(logits), make_clips(6))
    assert worst_confusions(found) == [("01", "00", 1), ("02", "00", 1), ("03", "01", 1)]
    twice = evaluate(Canned(logits), make_clips(60), batch_size=6)
    assert worst_confusions(twice, 1)[0][2] == 2


def test_figures_are_told_even_where_the_disk_is_full(trained, tmp_path):
    asked = EvaluateConfig(trained, out=tmp_path / "rows.csv", device="cpu")
    results = each(asked, standard_test(trained, **SMALL))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        told = next(results)
        with pytest.raises(OSError, match=r"rows\.csv"):
            next(results)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert told.evaluation.num_clips == 6
