"""A folder whose clips are all decoded before a training: what is left out, held out, enlarged."""

import re
import shutil

import pytest
import torch

from saccade.data import Folder, from_json
from saccade.data.frame_choice import FrameChoice
from saccade.errors import DataError, UsageError

from ..own_clips import CLASSES, write_folder

PERSON = r"_(\d+)_"


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("clips"))


@pytest.fixture
def damaged(clips, tmp_path):
    """Copy the clips; two files that cannot be read lie among them."""
    root = shutil.copytree(clips, tmp_path / "damaged")
    (root / CLASSES[0] / "broken_00_9.mp4").write_text("no video")
    (root / CLASSES[1] / "broken_01_9.npz").write_text("no arrays")
    return root


def test_clips_that_cannot_be_read_are_left_out_of_a_scan(clips, damaged):
    folder, whole = Folder(damaged, group=PERSON), Folder(clips, group=PERSON)
    records = folder.scanned(workers=1)
    assert set(folder.left_out) == {f"{CLASSES[0]}/broken_00_9.mp4", f"{CLASSES[1]}/broken_01_9.npz"}
    for name, reason in folder.left_out.items():
        assert str(damaged / name) in reason
    assert [record.entry.path for record in records] == [file.path for file in folder.files]
    assert len(records) == 20
    assert all(record.error is None and record.num_frames >= 12 for record in records)
    assert {record.entry.group for record in records} == {f"{person:02d}" for person in range(5)}
    leave = ("root", "left_out")
    described, of_whole = ({n: v for n, v in f.as_json().items() if n not in leave} for f in (folder, whole))
    assert described == of_whole
    # What goes on from there leaves out the same, without trying to read it.
    again = from_json(folder.as_json())
    assert again.identity() == folder.identity() == whole.identity()
    assert set(again.left_out) == set(folder.left_out)
    assert sum(map(len, again.clips("train").frames)) == sum(map(len, whole.clips("train").frames))


def test_a_clip_that_vanishes_during_a_scan_is_left_out(clips, tmp_path):
    root = shutil.copytree(clips, tmp_path / "vanishing")
    last = Folder(root).files[-1].path
    folder = Folder(root, hold_out=False, progress=lambda done, total: last.unlink(missing_ok=True))
    assert len(folder.scanned(workers=1)) == len(folder.files) == len(folder.clips("train")) == 19
    assert list(folder.left_out) == [last.relative_to(root).as_posix()]


def test_frames_after_a_scan_are_those_without_one_and_progress_is_told_once(clips):
    told = []
    folder = Folder(clips, progress=lambda done, total: told.append((done, total)))
    folder.scanned(workers=1)
    assert told[-1] == (20, 20)
    num_told = len(told)
    for one, other in zip(folder.clips("test").frames, Folder(clips).clips("test").frames, strict=True):
        assert torch.equal(one, other)
    assert len(folder.scanned()) == 20
    assert len(told) == num_told


def test_a_folder_of_files_that_cannot_be_read_names_the_first(tmp_path):
    for label in CLASSES:
        (tmp_path / label).mkdir()
        (tmp_path / label / "broken.mp4").write_text(f"no video of {label}")
    with pytest.raises(DataError, match=r"no clip in .* can be read; the first: .*across take2.broken\.mp4"):
        Folder(tmp_path).scanned(workers=1)


def test_a_class_whose_clips_cannot_be_read_is_no_class(clips, tmp_path):
    root = shutil.copytree(clips, tmp_path / "three")
    (root / "third").mkdir()
    (root / "third" / "broken.mp4").write_text("no video")
    folder = Folder(root, hold_out=False)
    assert "of 3 classes" in folder.summary()
    folder.scanned(workers=1)
    assert folder.labels.names == CLASSES


def test_without_clips_held_out_all_are_for_training(clips):
    folder = Folder(clips, group=PERSON, hold_out=False)
    stored = folder.clips("train")
    assert len(stored) == len(stored.names) == len(stored.groups) == 20
    assert all(re.search(PERSON, name)[1] == group for name, group in zip(stored.names, stored.groups, strict=True))
    assert folder.summary() == "20 clips of 2 classes (10 clips each) in 5 groups"
    again = from_json(folder.as_json())
    assert again.as_json() == folder.as_json()
    for split in ("validation", "test"):
        with pytest.raises(UsageError) as found:
            again.moved(clips).clips(split)
        assert str(found.value) == (
            f"no clip of {clips} was held out for {split}: the model learned from all of them; the figures of its"
            " cross-validation are in run.json and tested.csv of its run; for a test, train without --folds, or give a"
            " CSV file with a column split"
        )


def test_clips_without_a_pattern_have_names_and_no_groups(clips):
    folder = Folder(clips)
    stored = folder.clips("test")
    assert list(stored.names) == folder.as_json()["held_out"]["test"]
    assert stored.groups is None


@pytest.mark.parametrize(("enlarge", "size"), [(False, (48, 64)), (True, (96, 128))])
def test_smaller_frames_are_enlarged_if_asked(clips, enlarge, size):
    folder = Folder(clips, frame_choice=FrameChoice(96, enlarge=enlarge))
    assert folder.frame_format.size == size
    assert folder.clips("test").frames[0].shape[2:] == size
    assert from_json(folder.as_json()).frame_format.size == size
