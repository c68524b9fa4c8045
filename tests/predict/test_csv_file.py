"""The CSV file of predictions."""

import csv
import os
import resource
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from saccade import checkpoint
from saccade.checkpoint import Header
from saccade.data.video_writing import write_mp4
from saccade.errors import DataError, UsageError
from saccade.labels import Labels
from saccade.predict import PredictConfig, each, predict, unfinished

LABELS = Labels(("wave", "error", 'cl"a,p'))


@pytest.fixture
def run(tmp_path):
    """Save an untrained model and four files, one of which is no clip."""
    torch.manual_seed(0)
    header = Header("lenet-lstm", labels=LABELS)
    checkpoint.save(tmp_path / "run" / checkpoint.NAME, header.create_model(), header)
    (tmp_path / "clips").mkdir()
    for number in (1, 3, 4):
        frames = torch.randint(0, 256, (6, 1, 32, 32), dtype=torch.uint8)
        write_mp4(tmp_path / "clips" / f"{number}.mp4", frames, 10)
    (tmp_path / "clips" / "2.mp4").write_text("no video")
    return tmp_path


def config(run, **options):
    return PredictConfig((run / "clips",), run / "run", device="cpu", csv=run / "found.csv", **options)


def rows(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_there_is_a_row_for_each_clip(run):
    errors = []
    before = each(replace(config(run), csv=None), unreadable=lambda error: None)
    least = sorted(said.probability for said in before)[1]
    found = list(each(config(run, min_confidence=least), unreadable=errors.append))
    assert {said.sure for said in found} == {True, False}
    read = rows(run / "found.csv")
    names = [f"probability_{name}" for name in LABELS.names]
    before, after = (
        ["path", "verdict", "sure", "probability"],
        ["decided_at_s", "num_frames", "fps", "warning", "error"],
    )
    assert list(read[0]) == [*before, *names, *after]
    assert [Path(row["path"]).name for row in read] == ["1.mp4", "2.mp4", "3.mp4", "4.mp4"]
    assert read[1]["error"] == str(errors[0])
    assert {read[1][name] for name in (*before[1:], *names, *after[:-1])} == {""}
    for row, said in zip((read[0], *read[2:]), found, strict=True):
        assert (row["path"], row["verdict"], row["error"]) == (str(said.clip), said.verdict, "")
        assert [float(row[name]) for name in names] == pytest.approx(list(said.probabilities.values()), abs=1e-6)
        assert (row["sure"], row["probability"]) == (str(said.sure).lower(), f"{said.probability:.6f}")
        decided = "" if said.decided_at_s is None else f"{said.decided_at_s:.3f}"
        assert (row["decided_at_s"], row["num_frames"], row["fps"]) == (decided, "6", "10")
    assert not unfinished(run / "found.csv").exists()


def test_sets_are_joined_as_in_a_file_of_clips(tmp_path):
    labels = Labels(("wave", "jump"), exclusive=False)
    header = Header("lenet-lstm", labels=labels)
    model = header.create_model()
    write_mp4(tmp_path / "a.mp4", torch.zeros(3, 1, 32, 32, dtype=torch.uint8), 10)
    for bias, cell in ((9.0, "wave|jump"), (-9.0, "")):
        torch.nn.init.zeros_(model.head.weight)
        torch.nn.init.constant_(model.head.bias, bias)
        checkpoint.save(tmp_path / checkpoint.NAME, model, header)
        predict(PredictConfig((tmp_path / "a.mp4",), tmp_path, device="cpu", csv=tmp_path / "found.csv"))
        (row,) = rows(tmp_path / "found.csv")
        assert (row["verdict"], row["sure"], row["decided_at_s"]) == (cell, "true", "0.000")


def test_rows_are_there_as_soon_as_the_results(run):
    (run / "found.csv").write_text("of an earlier run")
    seen = each(config(run), unreadable=lambda error: None)
    for num in (1, 3, 4):
        next(seen)
        assert len(rows(unfinished(run / "found.csv"))) == num
    assert (run / "found.csv").read_text() == "of an earlier run"
    assert list(seen) == []
    assert len(rows(run / "found.csv")) == 4


def test_what_is_done_is_kept_if_the_rest_is_not(run):
    seen = each(config(run), unreadable=lambda error: None)
    next(seen)
    seen.close()
    assert [Path(row["path"]).name for row in rows(unfinished(run / "found.csv"))] == ["1.mp4"]
    with pytest.raises(DataError, match=r"2\.mp4"):
        predict(config(run))
    assert [row["error"] == "" for row in rows(unfinished(run / "found.csv"))] == [True, False]
    assert not (run / "found.csv").exists()


def test_a_disk_that_fills_up_leaves_whole_rows(run):
    seen = each(config(run), unreadable=lambda error: None)
    next(seen)
    part = unfinished(run / "found.csv")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (part.stat().st_size + 20, limits[1]))
    try:
        with pytest.raises(OSError, match=r"found\.csv\.part"):
            next(seen)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [Path(row["path"]).name for row in rows(part)] == ["1.mp4"]
    assert part.read_text().endswith("\n")


def test_a_file_that_cannot_be_written_is_told_before_the_work(run):
    (run / "found.csv").mkdir()
    with pytest.raises(OSError, match=r"found\.csv"):
        next(each(config(run)))
    assert not unfinished(run / "found.csv").exists()


def test_several_processes_find_the_same_and_keep_the_order(run):
    errors = []
    (run / "clips" / "0.mp4").symlink_to(run / "clips" / "4.mp4")
    alone = list(each(config(run, workers=1, over_time=True), unreadable=errors.append))
    before = (run / "found.csv").read_bytes()
    together = list(each(config(run, workers=2, over_time=True), unreadable=errors.append))
    assert [one.as_json() for one in together] == [one.as_json() for one in alone]
    assert (run / "found.csv").read_bytes() == before
    assert str(errors[0]) == str(errors[1])


def test_progress_counts_all_clips(run):
    seen = []
    list(each(config(run), unreadable=lambda error: None, progress=lambda *counts: seen.append(counts)))
    assert seen == [(done, 4) for done in range(5)]


# An interrupted call is continued.

KILLED = """
import os, signal, sys
from pathlib import Path
from saccade.predict import PredictConfig, each

run, num = Path(sys.argv[1]), int(sys.argv[2])
config = PredictConfig((run / "clips",), run / "run", device="cpu", csv=run / "found.csv")
for _ in each(config, unreadable=lambda error: None):
    num -= 1
    if not num:
        os.kill(os.getpid(), signal.SIGKILL)
"""


def finished(run, **options):
    """Finish the call; return the clips that were left, the number of those that were done, and the file."""
    told = []
    found = each(config(run, **options), unreadable=lambda error: None, continued=told.append)
    names = [said.clip.name for said in found]
    assert not [path for path in run.iterdir() if "found.csv." in path.name]
    return names, told, (run / "found.csv").read_bytes()


def killed(run, num):
    ended = subprocess.run([sys.executable, "-c", KILLED, str(run), str(num)], check=False)
    assert ended.returncode == -signal.SIGKILL


def test_a_call_that_is_killed_twice_is_continued_to_the_same_file(run):
    *_, whole = finished(run)
    (run / "found.csv").unlink()
    killed(run, 1)
    killed(run, 1)
    assert not (run / "found.csv").exists()
    assert finished(run) == (["4.mp4"], [2], whole)
    assert finished(run) == (["1.mp4", "3.mp4", "4.mp4"], [], whole)


def interrupt(run, num=2, **options):
    seen = each(config(run, **options), unreadable=lambda error: None)
    for _ in range(num):
        next(seen)
    seen.close()


@pytest.mark.parametrize("num_bytes", [1, 15, 40])
def test_a_row_that_was_cut_off_is_made_again(run, num_bytes):
    (run / "clips" / "2.mp4").unlink()
    *_, whole = finished(run)
    interrupt(run)
    part = unfinished(run / "found.csv")
    part.write_bytes(part.read_bytes()[:-num_bytes])
    assert finished(run) == (["3.mp4", "4.mp4"], [1], whole)


def test_names_may_hold_quotes_line_breaks_and_bytes_that_are_not_utf_8(run):
    for name in ('0"\n\n".mp4', "0,\r\n.mp4", os.fsdecode(b"0\xff.mp4")):
        (run / "clips" / name).write_bytes((run / "clips" / "1.mp4").read_bytes())
    *_, whole = finished(run)
    interrupt(run, 4)
    names, told, continued = finished(run)
    assert (names, told) == (["3.mp4", "4.mp4"], [4])
    assert continued == whole


def test_what_failed_is_tried_again(run):
    interrupt(run)
    (run / "clips" / "2.mp4").write_bytes((run / "clips" / "1.mp4").read_bytes())
    names, told, continued = finished(run)
    assert (names, told) == (["2.mp4", "4.mp4"], [2])
    assert continued == finished(run)[2]
    assert [row["error"] for row in rows(run / "found.csv")] == [""] * 4


def test_a_clip_that_came_later_is_in_its_place_and_one_that_went_is_kept(run):
    interrupt(run)
    (run / "clips" / "2b.mp4").write_bytes((run / "clips" / "1.mp4").read_bytes())
    (run / "clips" / "1.mp4").unlink()
    assert finished(run)[:2] == (["2b.mp4", "4.mp4"], [1])
    assert [Path(row["path"]).stem for row in rows(run / "found.csv")] == ["1", "2", "2b", "3", "4"]


def test_a_call_with_another_model_or_other_options_is_refused(run):
    interrupt(run)
    part = unfinished(run / "found.csv")
    before = part.read_bytes()
    for options, message in (({"max_frames": 3}, "max-frames None, now --max-frames 3"), ({"min_confidence": 0.9}, "")):
        with pytest.raises(UsageError, match=rf"found\.csv\.part was made with --.*{message}; give the same"):
            next(each(config(run, **options)))
    header = Header("lenet-lstm", labels=LABELS)
    checkpoint.save(run / "run" / checkpoint.NAME, header.create_model(), header)
    with pytest.raises(UsageError, match=r"found\.csv\.part was made with --model .*run \(SHA-256"):
        next(each(config(run)))
    assert part.read_bytes() == before


def test_a_call_for_other_clips_is_refused(run):
    interrupt(run)
    other = replace(config(run), clips=(run / "clips" / "4.mp4",))
    with pytest.raises(UsageError, match=r"has a row of .*1\.mp4, which is not among the clips"):
        next(each(other))


def test_rows_of_unknown_origin_are_left_alone(run):
    interrupt(run)
    (run / "found.csv.part.json").write_text("{")
    with pytest.raises(DataError, match=r"found\.csv\.part\.json, which says how they were made, cannot be read"):
        next(each(config(run)))
    (run / "found.csv.part.json").unlink()
    with pytest.raises(DataError, match="cannot be read"):
        next(each(config(run)))
    assert len(rows(unfinished(run / "found.csv"))) == 3


def test_two_calls_do_not_write_one_file(run):
    seen = each(config(run), unreadable=lambda error: None)
    next(seen)
    with pytest.raises(UsageError, match=r"another process is writing .*found\.csv"):
        next(each(config(run)))
    assert len(list(seen)) == 2


def test_progress_begins_with_what_is_done(run):
    interrupt(run)
    seen = []
    list(each(config(run), unreadable=lambda error: None, progress=lambda *counts: seen.append(counts)))
    assert seen == [(2, 4), (3, 4), (4, 4)]
