import pytest
import torch
from rich.console import Console

from saccade import models
from saccade.attention.covering import COVERED
from saccade.attention.measure import measure
from saccade.clips import Poses
from saccade.data.digits.motion import Motion
from saccade.data.digits.moving_digits import MovingDigits
from saccade.errors import UsageError
from saccade.evaluate import attention_rows, attention_table, evaluate, mean_interval
from saccade.evaluate.attention_rows import NUM_UNTRAINED
from saccade.evaluate.forward import Setup
from saccade.evaluate.rows import ATTENDED, append_rows, read_rows
from saccade.intervals import t_interval

FACTS = {
    "model": "m",
    "data": "moving digits",
    "protocol": "end_to_end",
    "condition": "rotation_scaling",
    "digits": "uci",
    "instances": "disjoint",
    "labels": "pair",
    "seed": 7,
    "steps": 12,
    "checkpoint": "a.safetensors",
    "before_steps": 3,
    "num_digits": 2,
}


def made(name, seed):
    torch.manual_seed(seed)
    return models.create(name).eval()


def trained(name):
    model = made(name, 5)
    for layer in model.modules():
        if hasattr(layer, "positions"):
            for parameter in layer.positions.parameters():
                parameter.data += 0.02 * torch.randn_like(parameter)
    return model


def rows_of(name, clips, batch_size=3):
    setup = Setup.choose(clips, None, batch_size, "cpu", "float32")
    return attention_rows(trained(name), clips, setup, FACTS | {"model": name}, untrained=lambda seed: made(name, seed))


@pytest.fixture(scope="module")
def clips(test_digits):
    return MovingDigits(test_digits, Motion("rotation_scaling", 6, frames_per_setting=2), num_clips=5)


@pytest.fixture(scope="module")
def found(clips):
    return {name: rows_of(name, clips) for name in ("lenet-lstm", "stn-lstm", "dcn-lstm")}


def cells(rows):
    return [(row["trained"], row["attention"], row["measure"]) for row in rows if row["seed"] in (7, 0)]


def test_there_is_a_row_for_each_network_and_measure(found):
    assert cells(found["lenet-lstm"]) == [
        ("trained", "on", "gradient"),
        ("trained", "on", "ink"),
        ("untrained", "on", "gradient"),
    ]
    assert cells(found["stn-lstm"]) == [
        ("trained", "on", "gradient"),
        ("trained", "on", "sampled_area"),
        ("trained", "on", "ink"),
        ("trained", "off", "gradient"),
        ("untrained", "on", "gradient"),
        ("untrained", "on", "sampled_area"),
    ]
    assert cells(found["dcn-lstm"]) == [
        ("trained", "on", "gradient"),
        ("trained", "on", "sampling_points"),
        ("trained", "on", "ink"),
        ("trained", "off", "gradient"),
        ("trained", "off", "sampling_points"),
        ("untrained", "on", "gradient"),
        ("untrained", "on", "sampling_points"),
    ]
    fresh = [row for row in found["dcn-lstm"] if row["trained"] == "untrained"]
    assert sorted({row["seed"] for row in fresh}) == list(range(NUM_UNTRAINED))
    assert len({row["ratio"] for row in fresh}) == len(fresh)


def test_an_untrained_row_says_nothing_of_training(found):
    for row in found["stn-lstm"]:
        of_training = (row["steps"], row["checkpoint"], row["before_steps"])
        assert of_training == ((12, "a.safetensors", 3) if row["trained"] == "trained" else (None, None, None))


def test_figures_are_means_over_clips_with_their_errors(found, clips):
    row = found["dcn-lstm"][1]
    model, by_clip = trained("dcn-lstm"), []
    for index in range(5):
        batch = clips.batch(torch.tensor([index, index + 1]), poses=True)
        one = Poses(**{name: getattr(batch.poses, name)[:1] for name in Poses.__dataclass_fields__})
        by_clip.append(measure(model, batch.frames[:1], one, batch.poses.box_px[1:])[0]["sampling_points"])
    for name in ("ratio_min", "ratio_min_elsewhere", "all_above", "all_above_elsewhere"):
        values = torch.cat([getattr(clip, name) for clip in by_clip]).double()
        assert row[name] == pytest.approx(values.mean().item(), rel=1e-4)
        assert row[f"{name}_se"] == pytest.approx(values.std().item() / 5**0.5, rel=1e-3, abs=1e-6)
    ratio = torch.cat([clip.ratio for clip in by_clip])
    assert [row["ratio_digit_1"], row["ratio_digit_2"]] == pytest.approx(ratio.mean(0).tolist(), rel=1e-4)
    assert row["ratio"] == pytest.approx((row["ratio_digit_1"] + row["ratio_digit_2"]) / 2)
    assert row["ratio_min"] < row["ratio"]


def test_accuracy_is_that_of_the_same_clips(found, clips):
    expected = evaluate(trained("dcn-lstm"), clips, precision="float32")
    for row in found["dcn-lstm"][:3]:
        assert (row["accuracy"], row["num_clips"]) == (expected.accuracy, 5)
        assert row["cross_entropy"] == pytest.approx(expected.cross_entropy, rel=1e-4)


def test_the_batch_size_changes_nothing(found, clips):
    for row, other in zip(found["stn-lstm"], rows_of("stn-lstm", clips, batch_size=2), strict=True):
        assert row.keys() == other.keys()
        for name in row:
            # Slopes of a tiny map are roundings of it.
            close = pytest.approx(row[name], rel=1e-3, abs=1e-4) if isinstance(row[name], float) else row[name]
            assert other[name] == close, name


def test_the_area_that_an_untrained_transformer_samples_is_the_frame(found):
    area = next(row for row in found["stn-lstm"] if row["trained"] == "untrained" and row["measure"] == "sampled_area")
    assert (area["ratio"], area["ratio_min"]) == (pytest.approx(1), pytest.approx(1))
    assert (area["angle_slope"], area["angle_correlation"]) == (pytest.approx(0, abs=1e-6), None)


def test_glimpses_have_figures_of_the_digits_that_they_cover(clips, tmp_path):
    rows = rows_of("multi-stn-lstm", clips)
    areas = [row for row in rows if row["measure"] == "sampled_area"]
    assert [row["attention"] for row in areas] == ["on"] * (1 + NUM_UNTRAINED)
    for row in areas:
        assert 0 < row["iou"] <= row["covered"] <= 1
        assert 0 <= row["alone"] <= 1
        assert row["one_each_se"] >= 0
        assert {f"{name}_elsewhere" for name in COVERED} <= set(row)
    # At the start the two glimpses lie in opposite corners, so digits have different ones in some frames only.
    fresh = areas[1]
    assert 0 < fresh["one_each"] < 1
    assert fresh["one_each"] != fresh["one_each_elsewhere"]
    path = tmp_path / "attention.csv"
    append_rows(path, rows)
    again = [row for row in read_rows(path) if row["measure"] == "sampled_area"]
    assert [row["one_each"] for row in again] == [row["one_each"] for row in areas]
    table = attention_table(rows)
    header = [str(column.header) for column in table.columns]
    column = list(table.columns[header.index("one each")].cells)
    assert f"{100 * areas[0]['one_each']:.0f} ± " in column[1]
    assert column[0] == ""  # the gradient has no glimpses


def test_rows_go_through_a_file_and_a_repetition_replaces_them(found, tmp_path):
    path = tmp_path / "attention.csv"
    append_rows(path, found["stn-lstm"])
    append_rows(path, found["dcn-lstm"])
    changed = [row | dict.fromkeys((*ATTENDED, *(f"{name}_se" for name in ATTENDED)), 0.5) for row in found["stn-lstm"]]
    append_rows(path, changed)
    rows = read_rows(path)
    assert len(rows) == len(found["stn-lstm"]) + len(found["dcn-lstm"])
    assert [row["ratio"] for row in rows[-len(changed) :]] == [0.5] * len(changed)
    assert {name: value for name, value in rows[0].items() if value is not None} == {
        name: value for name, value in found["dcn-lstm"][0].items() if value is not None
    }


def test_two_digits_named_by_presence_are_measured(test_digits):
    clips = MovingDigits(test_digits, Motion("normal", 2), labels="digits", num_digits=2, num_clips=2)
    setup = Setup.choose(clips, None, 2, "cpu", "float32")
    model = models.create("lenet-lstm", labels=clips.labels)
    rows = attention_rows(model, clips, setup, FACTS, untrained=lambda seed: model)
    assert rows[0]["ratio_digit_2"] > 1
    one = MovingDigits(test_digits, Motion("normal", 2), labels="digits", num_digits=1, num_clips=1)
    row = attention_rows(model, one, Setup.choose(one, None, 1, "cpu", "float32"), FACTS, untrained=lambda seed: model)[
        0
    ]
    assert "ratio_digit_2" not in row
    assert row["ratio_se"] is None


def test_clips_of_several_numbers_of_digits_have_a_column_for_each(test_digits):
    clips = MovingDigits(test_digits, Motion("normal", 2), labels="digits", num_digits=(1, 3), num_clips=8)
    setup = Setup.choose(clips, None, 8, "cpu", "float32")
    model = models.create("lenet-lstm", labels=clips.labels)
    rows = attention_rows(model, clips, setup, FACTS | {"num_digits": "1 to 3"}, untrained=lambda seed: model)
    header = [str(column.header) for column in attention_table(rows).columns]
    assert [f"digit {digit}" in header for digit in (1, 2, 3, 4)] == [True, True, True, False]


@pytest.mark.parametrize("name", ["stn-lstm-published", "dcn-lstm-published"])
def test_published_models_are_measured(name, test_digits):
    clips = MovingDigits(test_digits, Motion("rotation", 2), labels="ordered", num_clips=1)
    model = models.create(name, num_frames=2)
    setup = Setup.choose(clips, None, 1, "cpu", "float32")
    rows = attention_rows(model, clips, setup, FACTS | {"labels": "ordered"}, untrained=lambda seed: model)
    assert rows[1]["measure"] == ("sampled_area" if name.startswith("stn") else "sampling_points")
    assert rows[1]["ratio"] > 0


def row(seed=0, ratio=3.0, error=0.1, num_clips=200, **facts):
    return {"seed": seed, "ratio": ratio, "ratio_se": error, "num_clips": num_clips, **facts}


def test_intervals_over_clips():
    assert mean_interval([row()], "ratio") == pytest.approx((3, 3 - 1.97196 * 0.1, 3 + 1.97196 * 0.1), abs=1e-4)
    assert mean_interval([row(num_clips=3)], "ratio") == pytest.approx(
        (3, 3 - 4.3027 * 0.1, 3 + 4.3027 * 0.1), abs=1e-4
    )
    # Two runs on the same clips are no more clips.
    both = mean_interval([row(0, 2.0), row(1, 4.0, 0.3)], "ratio")
    assert both == pytest.approx((3, 3 - 1.97196 * 0.2, 3 + 1.97196 * 0.2), abs=1e-4)


def test_intervals_over_seeds_where_these_are_wider():
    values = [1.0, 2.0, 3.0]
    seeds = [row(seed, value) for seed, value in enumerate(values)]
    assert mean_interval(seeds, "ratio") == pytest.approx((2, *t_interval(values)))
    alike = [row(seed) for seed in range(3)]
    assert mean_interval(alike, "ratio") == pytest.approx(mean_interval(alike[:1], "ratio"))


def test_a_figure_that_is_missing():
    assert mean_interval([row(ratio=None)], "ratio") is None
    assert mean_interval([row(error=None, num_clips=1)], "ratio") == (3, None, None)
    with pytest.raises(UsageError, match="have the measure gradient and ink: group them first"):
        mean_interval([row(measure="ink"), row(measure="gradient")], "ratio")


def test_the_table_has_a_line_for_each_network_and_measure(found):
    table = attention_table([*found["stn-lstm"], *found["lenet-lstm"]])
    header = [str(column.header) for column in table.columns]
    lines = [dict(zip(header, cells, strict=True)) for cells in zip(*(c.cells for c in table.columns), strict=True)]
    assert len(lines) == 6 + 3

    def area(network):
        return next(line for line in lines if (line["network"], line["attention by"]) == (network, "sampled area"))

    row = found["stn-lstm"][1]
    assert area("trained")["digit 1"].startswith(f"{row['ratio_digit_1']:.2f} ± ")
    assert f", r {row['angle_correlation']:.2f} ± " in area("trained")["angle"]
    assert area("untrained")["angle"] == "0.00 ± 0.00, constant"
    assert "95 % interval" in str(table.caption)
    console = Console(width=250, color_system=None)
    with console.capture() as captured:
        console.print(attention_table(found["dcn-lstm"]))
    shown = captured.get()
    assert "sampling points" in shown
    assert "angle" not in shown.splitlines()[0]


def test_each_figure_stands_under_its_name():
    known = {"ratio_digit_1": 2.0, "ratio_digit_2": 3.0, "ratio_min": 1.5, "ratio_min_elsewhere": 0.5}
    known |= {"all_above": 0.75, "all_above_elsewhere": 0.25}
    known |= {"angle_slope": 0.6, "angle_correlation": 0.9, "scale_slope": 0.4, "scale_correlation": 0.8}
    errors = {f"{name}_se": 0.1 for name in known}
    one = (
        FACTS | known | errors | {"num_clips": 200, "trained": "trained", "attention": "off", "measure": "sampled_area"}
    )
    table = attention_table([one])
    assert [(str(column.header), *column.cells) for column in table.columns] == [
        ("model", "m"),
        ("condition", "rotation_scaling"),
        ("network", "attention off"),
        ("attention by", "sampled area"),
        ("digit 1", "2.00 ± 0.20"),
        ("digit 2", "3.00 ± 0.20"),
        ("weakest digit", "1.50 ± 0.20"),
        ("elsewhere", "0.50 ± 0.20"),
        ("all above 1", "75 ± 20 %"),
        ("elsewhere", "25 ± 20 %"),
        ("angle", "0.60 ± 0.20, r 0.90 ± 0.20"),
        ("size", "0.40 ± 0.20, r 0.80 ± 0.20"),
    ]
    alone = attention_table([one | dict.fromkeys(errors)])
    assert [*alone.columns[4].cells, *alone.columns[8].cells] == ["2.00", "75 %"]


def test_the_table_tells_digit_sources_apart_where_there_are_several(found):
    rows = found["lenet-lstm"]
    both = attention_table([*rows, *({**row, "digits": "strokes"} for row in rows)])
    columns = {str(column.header): list(column.cells) for column in both.columns}
    assert columns["digits"] == ["uci"] * 3 + ["strokes"] * 3
    cluttered = attention_table([*rows, *({**row, "clutter": 4} for row in rows)])
    columns = {str(column.header): list(column.cells) for column in cluttered.columns}
    assert columns["clutter"] == [""] * 3 + ["4"] * 3
    alone = [str(column.header) for column in attention_table(rows).columns]
    assert alone[:4] == ["model", "condition", "network", "attention by"]
