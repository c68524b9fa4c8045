"""The CSV file of predictions."""

import csv
import resource
from pathlib import Path

import pytest
import torch

from saccade import checkpoint
from saccade.checkpoint import Header
from saccade.data.video_writing import write_mp4
from saccade.errors import DataError
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
    found = list(each(config(run), unreadable=errors.append))
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
        assert (float(row["decided_at_s"]), row["num_frames"], row["fps"]) == (
            pytest.approx(said.decided_at_s),
            "6",
            "10",
        )
    assert not unfinished(run / "found.csv").exists()


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
