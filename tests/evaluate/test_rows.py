import csv
import json
import subprocess
import sys

import pytest

from saccade.errors import DataError, UsageError
from saccade.evaluate import COLUMNS, append_rows, interval, read_rows, write_rows
from saccade.evaluate.cells import CELL

ROW = {
    "model": "stn-lstm",
    "data": "moving digits",
    "protocol": "end_to_end",
    "condition": "rotation",
    "digits": "uci",
    "instances": "disjoint",
    "labels": "pair",
    "seed": 0,
    "accuracy": 0.1 + 0.2,
    "cross_entropy": 1.0,
    "num_clips": 2000,
}


def test_rows_come_back_as_they_were(tmp_path):
    rows = [
        ROW | {"steps": 10, "recall_6": 1e-7, "attention_summary": 'maps, "spread"'},
        ROW | {"seed": 1, "accuracy": 1.0, "commit": "1234e56", "digits": "007", "offset_px_rms": None},
    ]
    path = tmp_path / "new" / "results.csv"
    write_rows(path, rows)
    every = dict.fromkeys(name for row in rows for name in row)
    assert read_rows(path) == [every | row for row in rows]
    found = read_rows(path)[0]
    assert {name: type(found[name]) for name in every} == {name: type((every | rows[0])[name]) for name in every}


def test_the_columns_start_as_every_result_file(tmp_path):
    path = tmp_path / "results.csv"
    write_rows(path, [{"steps": 3, **dict(reversed(ROW.items()))}])
    written = path.read_text().splitlines()[0].split(",")
    assert written[: len(COLUMNS)] == list(COLUMNS)
    assert written[len(COLUMNS)] == "steps"
    assert set(written) == {*ROW, "steps"}
    with path.open() as file:
        assert next(csv.DictReader(file))["accuracy"] == "0.30000000000000004"


def test_a_repeated_evaluation_replaces_its_row_and_others_stay(tmp_path):
    path = tmp_path / "results.csv"
    append_rows(path, [ROW, ROW | {"seed": 1}])
    append_rows(path, [ROW | {"accuracy": 0.9, "recall_3": 0.5}])
    found = read_rows(path)
    assert sorted((row["seed"], row["accuracy"]) for row in found) == [(0, 0.9), (1, ROW["accuracy"])]
    append_rows(path, [ROW | {"condition": "normal"}])
    assert len(read_rows(path)) == 3


def test_rows_of_processes_that_add_at_the_same_time_all_stay(tmp_path):
    path = tmp_path / "results.csv"
    write_rows(path, [ROW])
    adding = (
        "import json, sys; from pathlib import Path; from saccade.evaluate import append_rows;"
        "path, first, row = Path(sys.argv[1]), int(sys.argv[2]), json.loads(sys.argv[3]); print(flush=True); input();"
        "[append_rows(path, [row | {'seed': first + index}]) for index in range(30)]"
    )
    command = [sys.executable, "-c", adding, str(path)]
    adders = [
        subprocess.Popen([*command, str(first), json.dumps(ROW)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for first in (100, 200, 300)
    ]
    for adder in adders:
        adder.stdout.readline()  # has loaded everything
    for adder in adders:
        adder.stdin.write(b"go\n")
        adder.stdin.flush()
    for adder in adders:
        adder.communicate(timeout=120)
        assert adder.returncode == 0
    assert len(read_rows(path)) == 1 + 3 * 30


def test_a_row_that_is_measured_again_takes_the_place_of_the_first(tmp_path):
    path = tmp_path / "results.csv"
    facts = {"split": "test", "trained_on": "normal", "clutter": 2, "noise": 10.0}
    append_rows(path, [ROW | facts, ROW | facts | {"seed": 7}])
    append_rows(path, [ROW | facts | {"accuracy": 0.5, "cross_entropy": 0.7}])
    assert [(row["seed"], row["accuracy"]) for row in read_rows(path)] == [(7, ROW["accuracy"]), (ROW["seed"], 0.5)]


@pytest.mark.parametrize(
    "change",
    [
        {"split": "validation"},
        {"trained_on": "normal+rotation"},
        {"trunk": "light"},
        {"clutter": 3},
        {"noise": 11.0},
        {"num_digits": "1 to 5"},
        {"steps": 9},
        {"num_frames": 12},
        {"max_angle_deg": 45.0},
        {"order": "visible"},
        {"clips_seed": 3},
        {"condition": "scaling"},
        {"instances": "shared"},
        {"data": "my clips"},
        {"input": "both"},
        {"split_seed": 1},
        {"group": "_(.*)_"},
    ],
)
def test_a_row_of_anything_else_stands_beside_it(tmp_path, change):
    path = tmp_path / "results.csv"
    facts = {"split": "test", "trained_on": "normal", "clutter": 2, "noise": 10.0, "steps": 3}
    append_rows(path, [ROW | facts])
    append_rows(path, [ROW | facts | change])
    assert len(read_rows(path)) == 2
    if change.keys() & {*CELL}:
        with pytest.raises(UsageError):
            interval([ROW | facts, ROW | facts | change])


OLD = "model,protocol,condition,digits,instances,labels,seed,accuracy,cross_entropy,num_clips"


def test_a_file_of_version_0_1_reads_and_its_rows_are_replaced(tmp_path):
    path = tmp_path / "results.csv"
    path.write_text(f"{OLD}\nstn-lstm,end_to_end,rotation,uci,disjoint,pair,0,0.25,2.5,2000\n")
    (old,) = read_rows(path)
    assert old == ROW | {"accuracy": 0.25, "cross_entropy": 2.5}
    append_rows(path, [ROW | {"seed": 1}])
    append_rows(path, [ROW | {"calibration_error": 0.1}])
    found = read_rows(path)
    assert [(row["seed"], row["accuracy"]) for row in found] == [(1, ROW["accuracy"]), (0, ROW["accuracy"])]
    assert {row["data"] for row in found} == {"moving digits"}


def test_only_what_names_a_condition_is_taken_for_moving_digits(tmp_path):
    path = tmp_path / "results.csv"
    path.write_text("model,seed,accuracy,cross_entropy,num_clips\nm,0,0.5,1.0,10\n")
    with pytest.raises(DataError, match="no column data"):
        read_rows(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"accuracy": 93.1}, "fraction from 0 to 1"),
        ({"accuracy": "high"}, "a number is needed"),
        ({"cross_entropy": float("nan")}, "only finite numbers"),
        ({"seed": None}, "lacks seed"),
    ],
)
def test_a_bad_row_leaves_the_file_as_it_was(tmp_path, change, message):
    path = tmp_path / "results.csv"
    write_rows(path, [ROW])
    before = path.read_bytes()
    for write in (write_rows, append_rows):
        with pytest.raises(DataError, match=message):
            write(path, [ROW | {"seed": 1} | change])
    assert path.read_bytes() == before
    assert {other.name for other in tmp_path.iterdir()} == {"results.csv"}


def test_a_file_cut_short_is_told_with_its_line(tmp_path):
    path = tmp_path / "results.csv"
    write_rows(path, [ROW, ROW | {"seed": 1}])
    path.write_text(path.read_text()[:-20])
    with pytest.raises(DataError, match=r"line 3 has \d+ cells"):
        read_rows(path)


@pytest.mark.parametrize("content", [None, b"", b"a,b\n", b"\xff\xfe\x00", b"model,seed\nm,0\n"])
def test_what_is_no_result_file_is_told(tmp_path, content):
    path = tmp_path / "results.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=r"results\.csv"):
        read_rows(path)


def test_per_cent_in_a_file_by_hand_is_told(tmp_path):
    path = tmp_path / "results.csv"
    write_rows(path, [ROW])
    path.write_text(path.read_text().replace("0.30000000000000004", "30.0"))
    with pytest.raises(DataError, match="line 2 has the accuracy"):
        read_rows(path)
