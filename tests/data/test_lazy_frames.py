"""Frames that are read when they are needed: how many stay in memory, and what files that change meanwhile cost."""

import pytest
import torch

from saccade.data import Folder
from saccade.data.lazy_frames import LazyFrames, RecentFrames
from saccade.data.stored import StoredBatches
from saccade.errors import DataError

from ..own_clips import write_npz


@pytest.fixture(autouse=True)
def no_frames_of_other_tests(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def clips(tmp_path):
    for label in ("a", "b"):
        for number in range(3):
            write_npz(tmp_path / "clips" / label / f"{number}.npz", 20 * number + ord(label), num_frames=2 + number)
    return tmp_path / "clips"


def kilobyte_of(read):
    """A clip is a number; its frames of 1 kB tell it, and `read` notes that they were read."""

    def frames(number):
        read.append(number)
        return torch.full((1, 1, 32, 32), number, dtype=torch.uint8)

    return frames


def test_the_clips_used_last_stay_within_the_bound():
    read = []
    recent = RecentFrames(kilobyte_of(read), max_bytes=3 * 1024)
    for number in (1, 2, 3, 1, 4, 1, 3, 2):
        assert int(recent(number).max()) == number
    assert read == [1, 2, 3, 4, 2]


def test_a_clip_larger_than_the_bound_is_not_kept():
    read = []
    recent = RecentFrames(kilobyte_of(read), max_bytes=1000)
    assert [len(recent(7)), len(recent(7))] == [1, 1]
    assert read == [7, 7]


def test_frames_are_read_when_they_are_asked_for():
    read = []
    frames = LazyFrames([5, 6, 7], kilobyte_of(read))
    assert len(frames) == 3
    assert len(frames[1:]) == 2
    assert read == []
    assert int(frames[1:][0].max()) == 6
    assert [int(one.max()) for one in frames] == [5, 6, 7]
    assert read == [6, 5, 6, 7]


def test_nothing_is_read_before_a_batch(clips):
    folder = Folder(clips)
    stored = folder.clips("train").to("cpu")
    assert not (clips.parent / "cache" / "saccade" / "frames").exists()
    assert stored.batch(torch.arange(2)).frames.shape[2:] == (1, 32, 32)


def test_files_that_vanish_or_change_after_the_scan_cost_nothing(clips):
    folder = Folder(clips)
    folder.scanned(workers=1)
    batches = StoredBatches(folder.clips("train"), 2, 32, 0)
    before = [batches(step, 4).frames for step in range(4)]
    folder = Folder(clips)
    folder.scanned(workers=1)
    batches = StoredBatches(folder.clips("train"), 2, 32, 0)
    first, *_, last = folder.files
    first.path.unlink()
    write_npz(last.path, 255)
    for step, frames in enumerate(before):
        assert torch.equal(batches(step, 4).frames, frames)


def test_without_the_cache_a_file_that_changed_is_told(clips):
    folder = Folder(clips, hold_out=False)
    stored = folder.clips("train")
    write_npz(folder.files[0].path, 255)
    with pytest.raises(DataError, match=r"0\.npz changed while it was in use; put the earlier file back"):
        stored.batch(torch.tensor([0]))
    folder.files[1].path.unlink()
    with pytest.raises(DataError, match=r"no clip at .*1\.npz"):
        stored.batch(torch.tensor([1]))


def test_a_cache_that_cannot_be_written_costs_time_only(clips, tmp_path, monkeypatch):
    wanted = [frames.clone() for frames in Folder(clips).clips("train").frames]
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    folder = Folder(clips)
    assert len(folder.scanned(workers=1)) == 6
    assert all(torch.equal(one, other) for one, other in zip(folder.clips("train").frames, wanted, strict=True))
