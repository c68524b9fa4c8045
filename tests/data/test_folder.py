import math
import shutil

import pytest
import torch

from saccade.data import Folder, from_json
from saccade.data.frame_choice import FrameChoice
from saccade.data.video_writing import write_mp4
from saccade.errors import DataError, UsageError

from ..own_clips import CLASSES, moving_square, write_folder, write_npz

PERSON = r"_(\d+)_"


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("clips"))


def test_the_first_folder_below_is_the_class(clips):
    folder = Folder(clips)
    assert folder.labels.names == CLASSES
    assert {file.label for file in folder.files if file.path.parent.name == "more"} == set(CLASSES)
    for split in ("train", "validation", "test"):
        stored = folder.clips(split)
        wanted = [file.label for file in folder.files if file.group in groups_of(folder)[split]]
        assert [stored.labels.names[target] for target in stored.targets] == wanted


def groups_of(folder):
    held_out = {split: set(groups) for split, groups in folder.as_json()["held_out"].items()}
    everything = {file.group for file in folder.files}
    return {"train": everything - held_out["test"] - held_out["validation"], **held_out}


def test_a_fifth_is_held_out_and_a_fifth_of_the_rest_validates(clips):
    folder = Folder(clips)
    assert [len(folder.clips(split)) for split in ("train", "validation", "test")] == [12, 4, 4]
    for split in ("validation", "test"):
        assert folder.clips(split).targets.bincount().tolist() == [2, 2]


def test_groups_are_never_split(clips):
    groups = groups_of(Folder(clips, group=PERSON))
    assert sorted(map(len, groups.values())) == [1, 1, 3]
    assert not groups["train"] & groups["test"]
    assert not groups["train"] & groups["validation"]
    assert not groups["test"] & groups["validation"]


def test_the_split_is_a_function_of_the_seed(clips):
    first, again, other = (groups_of(Folder(clips, seed=seed))["test"] for seed in (3, 3, 4))
    assert first == again != other


def test_every_class_is_in_every_part_where_that_can_be(tmp_path):
    # Only two of six people do both; a split by chance would mostly miss a class.
    for label, people in (("a", (0, 1, 2, 3)), ("b", (2, 3, 4, 5))):
        (tmp_path / label).mkdir()
        for person in people:
            write_npz(tmp_path / label / f"x_{person}_.npz", 10 * person + ord(label))
    for seed in range(20):
        folder = Folder(tmp_path, group=PERSON, seed=seed)
        for split in ("train", "validation", "test"):
            assert set(folder.clips(split).targets.tolist()) == {0, 1}


def test_the_split_stays_when_clips_are_added(clips, tmp_path):
    root = shutil.copytree(clips, tmp_path / "grown")
    before = Folder(root)
    remembered, held_out = before.as_json(), groups_of(before)
    write_mp4(root / CLASSES[0] / "new.mp4", moving_square(CLASSES[0], 77), 10.0)
    after = from_json(remembered)
    assert groups_of(after)["test"] == held_out["test"]
    assert len(after.clips("test")) == len(before.clips("test"))
    assert groups_of(Folder(root)) != held_out


def test_a_copy_that_was_added_later_does_not_take_the_place_of_a_tested_clip(clips, tmp_path):
    root = shutil.copytree(clips, tmp_path / "copies")
    remembered = Folder(root).as_json()
    for number, name in enumerate(remembered["clips"]["test"]):
        shutil.copy(root / name, (root / name).with_name(f"!{number}.mp4"))
    again = from_json(remembered)
    assert list(again.clips("test").names) == remembered["clips"]["test"]
    assert len(again.clips("train")) == 12


def test_what_is_gone_from_the_test_part_is_told(clips, tmp_path):
    root = shutil.copytree(clips, tmp_path / "shrunk")
    remembered = Folder(root).as_json()
    gone = sorted(remembered["held_out"]["test"])[0]
    (root / gone).unlink()
    with pytest.raises(DataError, match="1 clips of the test part of this model's split are missing, such as"):
        from_json(remembered).clips("test")


def test_exact_duplicates_are_kept_once(clips, tmp_path):
    root = shutil.copytree(clips, tmp_path / "copied")
    original = min((root / CLASSES[1]).glob("*.mp4"))
    shutil.copy(original, root / CLASSES[1] / "zz copy.mp4")
    folder = Folder(root)
    assert len(folder.files) == 20
    assert [(one.path, kept.path) for one, kept in folder.duplicates] == [(root / CLASSES[1] / "zz copy.mp4", original)]
    assert "1 duplicate left out" in folder.summary()


def test_frames_are_resized_and_coloured_as_training_needs_them(clips):
    wanted = Folder(clips).frame_format
    assert (wanted.channels, wanted.size, wanted.fps) == (3, (48, 64), 10.0)
    assert Folder(clips, frame_choice=FrameChoice(32)).frame_format.size == (32, 43)
    stored = Folder(clips).clips("test")
    assert stored.frames[0].shape[1:] == (3, 48, 64)


def test_grey_clips_stay_grey(tmp_path):
    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        for number in range(5):
            grey = moving_square(label, number)[:, :1] + (label == "b")
            write_mp4(tmp_path / label / f"{number}.mp4", grey, 10.0)
    assert Folder(tmp_path).frame_format.channels == 1


@pytest.mark.parametrize(("fps", "kept"), [(10.0, 10.0), (16.0, 16.0), (25.0, 12.5), (60.0, 15.0)])
def test_the_rate_is_about_fifteen_by_whole_steps(tmp_path, fps, kept):
    folder = Folder(write_folder(tmp_path, per_class=4, fps=fps))
    assert folder.frame_format.fps == pytest.approx(kept)
    lengths = {len(clip) for split in ("train", "validation", "test") for clip in folder.clips(split).frames}
    assert lengths == {math.ceil(num_frames * kept / fps) for num_frames in (12, 13, 14)}


def test_colour_follows_the_clips_to_learn_from_only(clips):
    remembered = Folder(clips).as_json()
    remembered["frame_format"]["size"] = [32, 40]
    assert from_json(remembered).clips("validation").frames[0].shape[1:] == (3, 32, 40)


# --- What a user may get wrong


def test_no_folder(tmp_path):
    with pytest.raises(DataError, match=r"nowhere does not exist; give a folder with one folder per class"):
        Folder(tmp_path / "nowhere").clips("train")


def test_a_clip_in_no_class(tmp_path):
    write_mp4(tmp_path / "lost.mp4", moving_square("x", 0), 10.0)
    with pytest.raises(DataError, match=r"lost\.mp4 is not in a class folder"):
        Folder(tmp_path).clips("train")


def test_one_class_is_not_enough(clips, tmp_path):
    shutil.copytree(clips / CLASSES[1], tmp_path / "down")
    with pytest.raises(DataError, match="only one class, 'down'"):
        Folder(tmp_path).clips("train")


def test_a_class_with_two_clips(tmp_path):
    write_folder(tmp_path, per_class=3)
    next((tmp_path / CLASSES[0]).glob("*.mp4")).unlink()
    said = (
        "the class 'across take2' has 2 clips, or groups of clips; at least 3 are needed, for training, validation and"
    )
    with pytest.raises(
        DataError, match=f"{said} test: add clips, or leave out this class; two are enough with --folds 2"
    ):
        Folder(tmp_path).clips("train")


def test_several_classes_with_too_few_clips(tmp_path):
    for number in range(5):
        write_npz(tmp_path / f"word {number}" / "0.npz", number)
    said = (
        r"5 classes have too few clips, or groups of clips: 'word 0' \(1\), 'word 1' \(1\), 'word 2' \(1\), \.\.\.; at"
    )
    with pytest.raises(DataError, match=rf"{said} least 3 are needed, .* or leave out these classes$"):
        Folder(tmp_path).clips("train")


@pytest.mark.parametrize(
    ("pattern", "said"), [("(", "not a regular expression"), (r"_\d+_", "captures nothing; put"), (r"_(x+)_", "in ")]
)
def test_a_pattern_that_captures_nothing(clips, pattern, said):
    with pytest.raises((UsageError, DataError), match=said):
        Folder(clips, group=pattern).clips("train")


def test_a_class_that_the_model_does_not_know(clips, tmp_path):
    remembered = Folder(clips).as_json() | {"classes": [CLASSES[0], "other"]}
    with pytest.raises(DataError, match=f"a class {CLASSES[1]!r} that the model does not know"):
        from_json(remembered).clips("train")


def test_an_unknown_split(clips):
    with pytest.raises(UsageError, match="no split is called 'dev'"):
        Folder(clips).clips("dev")


def test_targets_are_those_of_the_classes_by_name(clips):
    stored = Folder(clips).clips("train")
    assert stored.targets.dtype == torch.int64
    assert stored.labels.names == tuple(sorted(CLASSES))


def test_links_to_folders_are_followed_and_hidden_files_are_not(clips, tmp_path):
    for label in CLASSES:
        (tmp_path / label).symlink_to(clips / label)
    (tmp_path / "round").symlink_to(tmp_path)
    write_mp4(tmp_path / ".cache" / "a.mp4", moving_square("x", 0), 10.0)
    folder = Folder(tmp_path)
    assert len(folder.files) == 20
    assert folder.labels.names == CLASSES


def test_the_same_clip_in_two_classes_is_an_error(clips, tmp_path):
    root = shutil.copytree(clips, tmp_path / "torn")
    original = min((root / CLASSES[0]).glob("*.mp4"))
    shutil.copy(original, root / CLASSES[1] / "zz.mp4")
    with pytest.raises(DataError, match=r"zz\.mp4 and .* are the same clip in two classes"):
        Folder(root).clips("train")


def test_clips_that_cannot_be_read_are_told_before_any_work(clips, tmp_path):
    root = shutil.copytree(clips, tmp_path / "bad")
    for number in range(3):
        (root / CLASSES[1] / f"{number}.mp4").write_text(f"no video {number}")
    for seed in range(3):
        with pytest.raises(DataError, match=r"0\.mp4 .*, or take it out of .*; and 2 more clips cannot be read"):
            Folder(root, seed=seed).batches(2, 0)


def test_files_of_other_kinds_are_mentioned(clips, tmp_path):
    root = shutil.copytree(clips, tmp_path / "more")
    (root / "notes.txt").write_text("taken in May")
    assert Folder(root).summary().endswith("files left out by their endings: '.txt'")


def test_a_folder_that_moved_is_asked_for(clips, tmp_path):
    remembered = Folder(clips).as_json() | {"root": str(tmp_path / "gone")}
    with pytest.raises(
        DataError, match=r"learned from clips in .*gone, which does not exist; name their current folder"
    ):
        from_json(remembered).clips("test")


def test_a_new_clip_of_a_held_out_group_is_neither_tested_on_nor_learned_from(clips, tmp_path):
    root = shutil.copytree(clips, tmp_path / "later")
    before = Folder(root, group=PERSON)
    remembered, sizes = before.as_json(), [len(before.clips(split)) for split in ("train", "test")]
    (person,) = remembered["held_out"]["test"]
    write_mp4(root / CLASSES[0] / f"new_{person}_9.mp4", moving_square(CLASSES[0], 77), 10.0)
    after = from_json(remembered)
    assert [len(after.clips(split)) for split in ("train", "test")] == sizes


def test_what_was_learned_from_is_told_by_names_and_contents(clips, tmp_path):
    root = shutil.copytree(clips, tmp_path / "same")
    before = Folder(root)
    assert Folder(clips).identity() == before.identity()
    assert before.identity() != Folder(root, seed=1).identity()
    learned = next(file.path for file in before.files if file.group in groups_of(before)["train"])
    write_mp4(learned, moving_square(CLASSES[0], 78), 10.0)
    assert Folder(root).identity() != before.identity()


def test_a_seed_below_zero():
    with pytest.raises(UsageError, match="seed must be at least 0; got -1"):
        Folder("clips", seed=-1)


def test_one_clip_in_colour_makes_all_of_them_so(tmp_path):
    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        for number in range(5):
            frames = moving_square(label, number)
            write_mp4(tmp_path / label / f"{number}.mp4", frames[:, :1] + (label == "b"), 10.0)
    learned = next(iter(groups_of(Folder(tmp_path))["train"]))
    colour = moving_square("a", 5)
    colour[:, 0] = 200
    write_mp4(tmp_path / learned, colour, 10.0)
    assert learned in groups_of(Folder(tmp_path))["train"]
    assert Folder(tmp_path).frame_format.channels == 3


# --- The class that means that nothing happens


def test_a_class_named_none_means_that_nothing_happens(tmp_path):
    for number, name in enumerate(("none", "wave")):
        for grey in range(4):
            write_npz(tmp_path / name / f"{grey}.npz", 50 * grey + number + 1)
    folder = Folder(tmp_path)
    assert folder.labels.none == "none"
    assert from_json(folder.as_json()).labels == folder.labels
    assert Folder(tmp_path, none="wave").labels.none == "wave"
    assert Folder(tmp_path, none="wave").moved(tmp_path).labels.none == "wave"
    with pytest.raises(DataError, match="has no class 'rest'; it has 'none', 'wave'"):
        _ = Folder(tmp_path, none="rest").labels


def test_without_such_a_class_none_means_it(clips):
    folder = Folder(clips)
    assert folder.labels.none is None
    assert "none" not in folder.as_json()
