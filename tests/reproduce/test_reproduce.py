import csv
import dataclasses
import json
import signal

import pytest

from saccade import run_folder
from saccade.errors import Interrupted, UsageError
from saccade.reproduce import PRESETS, ReproduceConfig, reproduce, run
from saccade.reproduce.presets import CONDITIONS, MODELS, SHARES
from saccade.reproduce.published_figures import PUBLISHED
from saccade.reproduce.table import markdown

pytest.importorskip("matplotlib")


def config_of(out, **changes):
    """One step a cell: a whole reproduction in seconds, of models that know nothing."""
    standard = {
        "preset": "full",
        "digits": "uci",
        "steps": 1,
        "seeds": 1,
        "num_clips": 11,
        "models": ("lenet-lstm",),
        "conditions": ("normal",),
    }
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
    checkpoint = tmp_path / "cells" / "lenet-lstm-normal-seed0" / "checkpoint.safetensors"
    before = checkpoint.stat().st_mtime_ns
    trained = []

    def progress(title):
        trained.append(title)
        return lambda row: None

    quietly(config_of(tmp_path, conditions=("normal", "scaling"), seeds=2), progress=progress)
    assert trained == ["lenet-lstm-scaling-seed0", "lenet-lstm-normal-seed1", "lenet-lstm-scaling-seed1"]
    assert checkpoint.stat().st_mtime_ns == before
    assert len(table_of(tmp_path)) == 4


def test_an_interrupted_cell_is_resumed(tmp_path):
    def press(title):
        def stop(row):
            if row["step"] == 2:
                signal.raise_signal(signal.SIGINT)

        return stop

    config = config_of(tmp_path, steps=3)
    with pytest.raises(Interrupted):
        quietly(config, progress=press)
    steps = []
    quietly(config, progress=lambda title: lambda row: steps.append(row["step"]))
    assert steps == [3]


def test_a_folder_of_another_kind_is_refused(tmp_path):
    quietly(config_of(tmp_path))
    for name, value in (("steps", 2), ("num_clips", 12), ("preset", "quick")):
        with pytest.raises(UsageError, match=f"holds a reproduction with {name}="):
            quietly(config_of(tmp_path, **{name: value}))


def test_a_call_that_goes_wrong_leaves_the_folder_free(tmp_path):
    with pytest.raises(UsageError, match="no digit source is called 'minst'"):
        quietly(config_of(tmp_path, digits="minst"))
    quietly(config_of(tmp_path))


def test_a_folder_is_not_continued_on_other_digits(tmp_path, monkeypatch, uci):
    quietly(config_of(tmp_path, digits="auto"))
    other = dataclasses.replace(uci["train"], images=255 - uci["train"].images)
    monkeypatch.setattr(run.digit_sources, "load", lambda *_given, **_options: other)
    with pytest.raises(UsageError, match=r"holds a reproduction with digits_\w+="):
        quietly(config_of(tmp_path, digits="auto"))


def test_minutes_are_divided_once(tmp_path):
    config = ReproduceConfig(out=tmp_path, digits="uci", models=("lenet-lstm",), conditions=("normal",), minutes=0.01)
    run._open(config, run.digit_sources.load("uci"))
    run._open(config, run.digit_sources.load("uci"))
    assert len(run_folder.read(tmp_path)["later_calls"]) == 1
    with pytest.raises(UsageError, match="holds a reproduction with conditions="):
        run._open(dataclasses.replace(config, conditions=("normal", "scaling")), run.digit_sources.load("uci"))


def test_a_warm_up_is_shared_by_the_conditions(tmp_path):
    begun = []
    config = ReproduceConfig(
        out=tmp_path,
        digits="uci",
        minutes=0.02,
        num_clips=11,
        models=("lenet-lstm",),
        conditions=("normal", "scaling"),
    )
    quietly(config, progress=lambda title: begun.append(title) or (lambda row: None))
    assert begun == ["lenet-lstm-warm-up-seed0", "lenet-lstm-normal-seed0", "lenet-lstm-scaling-seed0"]
    asked = run_folder.read(tmp_path / "cells" / "lenet-lstm-normal-seed0")["config"]
    assert asked["start_from"] == str(tmp_path / "cells" / "lenet-lstm-warm-up-seed0" / "checkpoint.safetensors")
    row = table_of(tmp_path)[0]
    warm_up = run_folder.read(tmp_path / "cells" / "lenet-lstm-warm-up-seed0")
    assert (row["before_condition"], row["before_steps"]) == ("rotation_scaling", str(warm_up["steps"]))
    assert "on Rotation+Scaling, shared by a model's conditions, then" in (tmp_path / "table.md").read_text()


def test_the_published_protocol(tmp_path):
    changes = {"preset": "published", "steps": None, "seeds": None, "num_clips": None, "stage1_minutes": 0.001}
    quietly(config_of(tmp_path, retrainings=2, **changes))
    (row,) = table_of(tmp_path)
    assert (row["model"], row["protocol"], row["labels"]) == ("lenet-lstm-published", "published", "ordered")
    assert (row["instances"], row["order"]) == ("training_clips", "hidden")
    text = (tmp_path / "table.md").read_text()
    assert f"20 an LSTM, 2 LSTMs a cell; the CNN {row['stage1_steps']}, which name" in text


# --- The presets


def test_presets_say_either_steps_or_minutes():
    for name, preset in PRESETS.items():
        if preset.protocol == "end_to_end":
            assert (preset.steps is None) != (preset.minutes is None), name
    assert sum(SHARES.values()) == pytest.approx(1)
    assert set(SHARES) == set(MODELS)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"preset": "ful"}, "no preset is called 'ful'; did you mean 'full'"),
        ({"models": ("lenet",)}, "no model is called 'lenet'; did you mean 'lenet-lstm'"),
        ({"conditions": ("rotate",)}, "no condition is called 'rotate'; did you mean 'rotation'"),
        ({"models": ()}, "no model was asked for"),
        ({"minutes": 3.0}, "both --steps and --minutes"),
        ({"steps": 0}, "steps must be above 0"),
        ({"seeds": 0}, "seeds must be above 0"),
        ({"instances": "share", "preset": "published", "steps": None, "num_clips": None}, "did you mean 'shared'"),
        ({"instances": "shared"}, "instances has no use for the preset full"),
        ({"preset": "published"}, "steps has no use for the preset published"),
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
    assert "do not compete" in markdown([row_of()])
    changes = {"protocol": "published", "labels": "ordered", "instances": "shared", "order": "hidden"}
    alike = row_of("lenet-lstm-published", **changes, stage1_steps=7815, stage1_accuracy=0.97, retrainings=300)
    assert "do not compete" not in markdown([alike])
    for change in ({"stage1_steps": 12}, {"digits": "uci"}, {"order": "visible"}):
        assert "do not compete" in markdown([alike | change])


def test_kinds_of_intervals_are_told_apart():
    seeds = [row_of(seed=seed, accuracy=0.9 + 0.01 * seed) for seed in range(3)]
    assert "interval (t, 3 seeds)" in markdown(seeds)
    mixed = markdown([*seeds, row_of("dcn-lstm")])
    assert "t, 3 seeds)" in mixed
    assert "Wilson, 2000 clips)" in mixed


def test_what_attention_did_stands_below():
    told = row_of("stn-lstm", accuracy_without_attention=0.9, attention_summary="changes nothing: maps of nothing")
    assert "- stn-lstm, Normal: changes nothing: maps of nothing" in markdown([told])


def test_no_row_is_no_table():
    assert "No cell is finished yet" in markdown([])


def test_rows_are_kept_with_their_cell(tmp_path):
    quietly(config_of(tmp_path))
    row = json.loads((tmp_path / "cells" / "lenet-lstm-normal-seed0" / "row.json").read_text())
    assert row["steps"] == 1
    assert row["seed"] == 0
