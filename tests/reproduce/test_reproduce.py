import csv
import dataclasses
import json
import signal

import pytest

from saccade import checkpoint, files, run_folder
from saccade.data.digits import DigitSourceConfig
from saccade.errors import DataError, Interrupted, UsageError
from saccade.models.published import CNNS
from saccade.reproduce import PRESETS, ReproduceConfig, pace, reproduce
from saccade.reproduce.pictures import Pictures
from saccade.reproduce.presets import CONDITIONS
from saccade.reproduce.published_figures import PUBLISHED
from saccade.reproduce.table import markdown

from ..published.small import small_cnn

pytest.importorskip("matplotlib")


@pytest.fixture(autouse=True)
def no_pictures(request, monkeypatch):
    """Draw only for the test that looks at what was drawn: pictures take as long as all the rest."""
    if request.node.name != "test_everything_lies_in_one_folder":
        for name in ("draw_curves", "draw_looks"):
            monkeypatch.setattr(Pictures, name, lambda self, **_options: None)


def config_of(out, **changes):
    """One step a cell: a whole reproduction in seconds, of models that know nothing."""
    standard = {
        "preset": "full",
        "source": DigitSourceConfig("uci"),
        "steps": 1,
        "seeds": 1,
        "num_clips": 11,
        "models": ("lenet-lstm",),
        "conditions": ("normal",),
        "trained_on": ("condition",),
        "jobs": 1,
    }
    if changes.get("preset") == "published":
        changes = {"steps": None, "num_clips": None, "trained_on": None, "jobs": None} | changes
    return ReproduceConfig(out=out, **standard | changes)


def quietly(config, **options):
    said = []
    reproduce(config, say=said.append, **options)
    return said


def table_of(folder):
    with (folder / "table.csv").open(newline="") as opened:
        return list(csv.DictReader(opened))


def row_of(model="lenet-lstm", condition="normal", **changes):
    standard = {
        "model": model,
        "protocol": "end_to_end",
        "condition": condition,
        "digits": "mnist",
        "instances": "disjoint",
        "labels": "pair",
        "seed": 0,
        "accuracy": 0.9,
        "cross_entropy": 0.5,
        "num_clips": 2000,
        "steps": 4000,
    }
    return standard | changes


# --- The whole


def test_everything_lies_in_one_folder(tmp_path):
    said = quietly(config_of(tmp_path, models=("lenet-lstm", "dcn-lstm"), conditions=("normal", "rotation_scaling")))
    for name in ("table.md", "table.csv", "curves.png", "attention.png", "samples.png", "rotation_scaling.gif"):
        assert (tmp_path / name).stat().st_size > 100, name
    described = run_folder.read(tmp_path)
    assert described["finished"]
    assert described["config"]["steps"] == 1
    rows = table_of(tmp_path)
    assert [(row["model"], row["condition"]) for row in rows] == [
        (model, condition) for model in ("dcn-lstm", "lenet-lstm") for condition in ("normal", "rotation_scaling")
    ]
    assert {row["num_clips"] for row in rows} == {"11"}
    assert all(
        (tmp_path / "cells" / f"{row['model']}-{row['condition']}-seed0" / "checkpoint.json").exists() for row in rows
    )
    assert said[0].startswith("digits: uci")
    assert any("lenet-lstm on rotation_scaling: accuracy" in line for line in said)


def test_a_second_call_does_only_what_is_missing(tmp_path):
    quietly(config_of(tmp_path))
    cell = tmp_path / "cells" / "lenet-lstm-normal-seed0"
    row = json.loads((cell / "row-normal.json").read_text())
    assert (row["steps"], row["seed"]) == (1, 0)
    weights = cell / "checkpoint.safetensors"
    before = weights.stat().st_mtime_ns
    trained = []

    def progress(title):
        trained.append(title)
        return lambda row: None

    quietly(config_of(tmp_path, conditions=("normal", "scaling"), seeds=2), progress=progress)
    assert trained == ["lenet-lstm-scaling-seed0", "lenet-lstm-normal-seed1", "lenet-lstm-scaling-seed1"]
    assert weights.stat().st_mtime_ns == before
    assert len(table_of(tmp_path)) == 4


def test_an_interrupted_cell_is_resumed(tmp_path):
    def press(title):
        def stop(row):
            if row.get("step") == 2:
                signal.raise_signal(signal.SIGINT)

        return stop

    config = config_of(tmp_path, steps=3)
    with pytest.raises(Interrupted):
        quietly(config, progress=press)
    steps = []
    quietly(config, progress=lambda title: lambda row: steps.append(row.get("step", "tested")))
    assert steps == [3, "tested", "tested"]


def test_a_folder_of_another_kind_is_refused(tmp_path):
    quietly(config_of(tmp_path))
    for name, value in (("steps", 2), ("num_clips", 12), ("preset", "quick")):
        with pytest.raises(UsageError, match=f"was made with {name}=.*, now {name}={value}; give the same"):
            quietly(config_of(tmp_path, **{name: value}))


def test_a_reproduction_of_an_earlier_version_is_not_continued(tmp_path):
    run_folder.create(tmp_path, "reproduce", {"preset": "full"}, device="cpu")
    with pytest.raises(UsageError, match="holds a reproduction of an earlier version"):
        quietly(config_of(tmp_path))


@pytest.mark.parametrize("condition", ["normal", "rotation_scaling"])
def test_a_mixture_of_one_condition_is_that_condition(tmp_path, condition):
    one = config_of(tmp_path, conditions=(condition,), trained_on=("mixture", "condition"))
    (training,) = one.trainings()
    assert training.trained_on == (condition,)
    names = [training.name for training in dataclasses.replace(one, conditions=CONDITIONS, elastic=True).trainings()]
    assert len(names) == len(set(names)) == 6


def test_progress_goes_from_training_to_the_last_clip_tested_and_never_back(tmp_path):
    rows = []
    changes = {"models": ("stn-lstm",), "trained_on": ("mixture",), "conditions": ("normal", "rotation")}
    quietly(config_of(tmp_path, steps=2, **changes), progress=lambda title: rows.append)
    assert [row["step"] for row in rows[:2]] == [1, 2]
    # Two conditions, with attention and without, 11 clips each in batches of 8.
    assert [row["clips"] for row in rows[2:]] == [8, 11, 19, 22, 30, 33, 41, 44]
    assert {row["num_clips"] for row in rows[2:]} == {44}


def test_only_cells_that_are_missing_are_tested_again(tmp_path):
    config = config_of(tmp_path, trained_on=("mixture",), conditions=("normal", "rotation"))
    quietly(config)
    cell = tmp_path / "cells" / "lenet-lstm-mixture-seed0"
    before = (cell / "row-normal.json").stat().st_mtime_ns
    (cell / "row-rotation.json").unlink()
    quietly(config)
    assert (cell / "row-normal.json").stat().st_mtime_ns == before
    assert len(table_of(tmp_path)) == 2


def test_a_call_that_goes_wrong_leaves_the_folder_free(tmp_path):
    with pytest.raises(UsageError, match="no digit source is called 'minst'"):
        quietly(config_of(tmp_path, source=DigitSourceConfig("minst")))
    quietly(config_of(tmp_path))


def test_a_folder_is_not_continued_on_other_digits(tmp_path, monkeypatch, uci):
    quietly(config_of(tmp_path))
    other = dataclasses.replace(uci["train"], images=255 - uci["train"].images)
    monkeypatch.setattr(DigitSourceConfig, "load", lambda *_given: other)
    with pytest.raises(UsageError, match=r"was made with digits_sha256=\w+, now digits_sha256=\w+"):
        quietly(config_of(tmp_path))


def test_a_model_may_come_later_but_a_condition_of_a_mixture_may_not(tmp_path):
    asked = {"trained_on": ("mixture",), "conditions": ("normal", "rotation")}
    quietly(config_of(tmp_path, **asked))
    quietly(config_of(tmp_path, **asked, models=("lenet-lstm", "stn-lstm")))
    assert len(run_folder.read(tmp_path)["later_calls"]) == 1
    with pytest.raises(UsageError, match="was made with conditions="):
        quietly(config_of(tmp_path, **asked | {"conditions": ("normal", "scaling")}))


def test_one_model_for_all_conditions(tmp_path):
    begun = []
    config = config_of(
        tmp_path, trained_on=("mixture", "condition"), conditions=("normal", "rotation_scaling"), num_clips=12
    )
    quietly(config, progress=lambda title: begun.append(title) or (lambda row: None))
    assert begun == ["lenet-lstm-mixture-seed0", "lenet-lstm-normal-seed0", "lenet-lstm-rotation_scaling-seed0"]
    learned = run_folder.read(tmp_path / "cells" / "lenet-lstm-mixture-seed0")["data"]
    assert learned["condition"] == ["normal", *["rotation_scaling"] * 3]
    rows = {(row["trained_on"], row["condition"]): row for row in table_of(tmp_path)}
    mixture = "normal+rotation_scaling+rotation_scaling+rotation_scaling"
    assert set(rows) == {
        (mixture, "normal"),
        (mixture, "rotation_scaling"),
        ("normal", "normal"),
        ("rotation_scaling", "rotation_scaling"),
    }
    text = (tmp_path / "table.md").read_text()
    assert "the same; one model for all conditions, on a mixture: 1/4 Normal, 3/4 Rotation+Scaling" in text
    both, own = text.split("## One model for each condition")
    assert "## One model for all conditions, trained on their mixture" in both
    for part in (both, own):
        assert part.count("| Rotation+Scaling |") == 1


def test_minutes_give_every_model_the_same_steps(tmp_path, monkeypatch):
    monkeypatch.setattr(pace, "measure", lambda _asked, _progress: pace.Pace(work_s=10_000, cores=1.0))
    config = config_of(
        tmp_path,
        preset="quick",
        steps=None,
        minutes=1500,
        models=("lenet-lstm", "dcn-lstm"),
        num_clips=8,
        trained_on=None,
    )
    said = quietly(config)
    steps = run_folder.read(tmp_path)["training_steps"]
    assert steps == 2  # 90 000 s, of which tests take 31 250
    assert "2 training steps for every model fit into 1500 minutes here" in said
    assert [row["steps"] for row in table_of(tmp_path)] == [str(steps)] * 2
    # A later call, on a machine as slow or as quick as it is then, trains by the same number.
    said = quietly(dataclasses.replace(config, seeds=2, models=("lenet-lstm",)))
    assert not any("timing" in line for line in said)
    assert [row["steps"] for row in table_of(tmp_path)] == [str(steps)] * 3


@pytest.mark.slow
def test_trainings_side_by_side_give_what_they_give_one_by_one(tmp_path):
    changes = {"models": ("lenet-lstm", "stn-lstm"), "steps": 2}
    titles, left = set(), []
    quietly(config_of(tmp_path / "one", **changes))
    quietly(
        config_of(tmp_path / "both", jobs=2, **changes),
        progress=lambda title: titles.add(title) or (lambda row: None),
        left=left.append,
    )
    assert titles == {"lenet-lstm-normal-seed0", "stn-lstm-normal-seed0"}
    assert left
    assert left[-1] == pytest.approx(0)
    one, both = table_of(tmp_path / "one"), table_of(tmp_path / "both")
    for row in (*one, *both):
        del row["minutes"]
    assert one == both


@pytest.mark.slow
def test_ctrl_c_stops_trainings_side_by_side_and_loses_none(tmp_path):
    def press(_title):
        def stop(row):
            if row.get("step") == 2:
                signal.raise_signal(signal.SIGINT)

        return stop

    config = config_of(tmp_path, models=("lenet-lstm", "stn-lstm"), steps=400, jobs=2)
    with pytest.raises(Interrupted, match="saved its state"):
        quietly(config, progress=press)
    for model in ("lenet-lstm", "stn-lstm"):
        folder = tmp_path / "cells" / f"{model}-normal-seed0"
        assert 1 <= checkpoint.read_header(folder).training["step"] < 400
    assert table_of(tmp_path) == []


@pytest.mark.slow
def test_a_training_that_fails_ends_the_others_with_their_state_saved(tmp_path):
    config = config_of(tmp_path, models=("lenet-lstm", "stn-lstm"), steps=400, jobs=2)

    def begun(line):
        if "samples.png" in line:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        reproduce(config, say=begun)
    bad = tmp_path / "cells" / "stn-lstm-normal-seed0" / "run.json"
    files.write_text(bad, "{")
    with pytest.raises(DataError, match=r"run\.json cannot be read"):
        quietly(config)
    assert checkpoint.read_header(tmp_path / "cells" / "lenet-lstm-normal-seed0").training["step"] < 400


def test_the_published_protocol(tmp_path, monkeypatch):
    monkeypatch.setitem(CNNS, "lenet-lstm-published", small_cnn)
    changes = {"preset": "published", "seeds": None, "stage1_minutes": 0.001}
    quietly(config_of(tmp_path, retrainings=2, **changes))
    (row,) = table_of(tmp_path)
    assert (row["model"], row["protocol"], row["labels"]) == ("lenet-lstm-published", "published", "ordered")
    assert (row["instances"], row["order"]) == ("training_clips", "hidden")
    text = (tmp_path / "table.md").read_text()
    assert f"20 per LSTM, 2 LSTMs per cell; {row['stage1_steps']} for the CNN, with an accuracy of" in text


# --- The presets


def test_presets_say_either_steps_or_minutes():
    for name, preset in PRESETS.items():
        if preset.protocol == "end_to_end":
            assert (preset.steps is None) != (preset.minutes is None), name


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"preset": "ful"}, "no preset is called 'ful'; did you mean 'full'"),
        ({"models": ("lenet",)}, "no model is called 'lenet'; did you mean 'lenet-lstm'"),
        ({"conditions": ("rotate",)}, "no condition is called 'rotate'; did you mean 'rotation'"),
        ({"models": ()}, "no model was given"),
        ({"minutes": 3.0}, "both --steps and --minutes"),
        ({"steps": 0}, "steps must be above 0"),
        ({"seeds": 0}, "seeds must be above 0"),
        ({"instances": "share", "preset": "published"}, "did you mean 'shared'"),
        ({"trained_on": ("mix",)}, "no kind of training is called 'mix'; did you mean 'mixture'"),
        ({"precision": "float16"}, "no precision is called 'float16'; did you mean 'bfloat16'"),
        ({"jobs": 0}, "jobs must be above 0"),
        ({"instances": "shared"}, "instances does not apply to the preset full"),
        ({"preset": "published", "steps": 3}, "steps does not apply to the preset published"),
        ({"preset": "published", "trained_on": ("mixture",)}, "trained_on does not apply to the preset published"),
    ],
)
def test_a_wrong_call_is_refused(changes, message, tmp_path):
    with pytest.raises(UsageError, match=message):
        config_of(tmp_path, **changes)


# --- The table


def test_the_published_figures_are_those_of_the_slides():
    assert len([key for key in PUBLISHED if key[1] in CONDITIONS]) == 12
    assert PUBLISHED["stn-lstm", "normal"] == (2.07, 0.849)
    assert PUBLISHED["dcn-lstm", "rotation_scaling"] == (1.23, 0.992)


def test_each_cell_stands_beside_the_published_one():
    text = markdown([row_of(), row_of(condition="scaling", accuracy=0.5), row_of("dcn-lstm")])
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    table = {line[0]: line[1:] for line in lines}
    assert table["Moving digits"] == [
        "LeNet-LSTM published",
        "LeNet-LSTM ours",
        "DCN-LSTM published",
        "DCN-LSTM ours",
    ]
    assert table["Normal"] == [
        "1.39, 98.2 %",
        "0.50, 90.0 % (88.6 to 91.2)",
        "1.27, 99.7 %",
        "0.50, 90.0 % (88.6 to 91.2)",
    ]
    assert table["Scaling"][1].startswith("0.50, 50.0 %")
    assert table["Scaling"][3] == "missing"


def test_what_is_not_alike_is_said_not_to_compete():
    assert "cannot be compared" in markdown([row_of()])
    changes = {"protocol": "published", "labels": "ordered", "instances": "shared", "order": "hidden"}
    alike = row_of("lenet-lstm-published", **changes, stage1_steps=7815, stage1_accuracy=0.97, retrainings=300)
    assert "cannot be compared" not in markdown([alike])
    for change in ({"stage1_steps": 12}, {"digits": "uci"}, {"order": "visible"}):
        assert "cannot be compared" in markdown([alike | change])


def test_kinds_of_intervals_are_told_apart():
    seeds = [row_of(seed=seed, accuracy=0.9 + 0.01 * seed) for seed in range(3)]
    assert "interval (t, 3 seeds)" in markdown(seeds)
    mixed = markdown([*seeds, row_of("dcn-lstm")])
    assert "t, 3 seeds)" in mixed
    assert "Wilson, 2000 clips)" in mixed


def test_a_cell_of_several_seeds_is_their_mean():
    rows = [row_of(seed=seed, cross_entropy=0.1 + seed, accuracy=0.9 + 0.02 * seed) for seed in range(3)]
    assert "| 1.10, 92.0 % (" in markdown(rows)


def test_what_attention_did_stands_below():
    told = row_of("stn-lstm", accuracy_without_attention=0.9, attention_summary="changes nothing: maps of nothing")
    assert "- stn-lstm, Normal: changes nothing: maps of nothing" in markdown([told])


def test_no_row_is_no_table():
    assert "No cell is finished yet" in markdown([])
