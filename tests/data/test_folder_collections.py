"""Collections other than class folders, as a training takes them: CSV files, splits, label sets, parts of files."""

import csv
import shutil

import pytest
import torch

from saccade.data import Folder, from_json
from saccade.data.split import SPLITS
from saccade.errors import DataError, UsageError
from saccade.labels import Labels

from ..own_clips import CLASSES, write_folder, write_npz

LETTERS = "abcdefghijkl"


def table(root, rows, header="path,class", *, write=True, name="clips.csv"):
    """Write a CSV file, and a clip for each path in it."""
    root.mkdir(parents=True, exist_ok=True)
    lines = [header.split(","), *(row.split(",") for row in rows)]
    if write:
        for number, path in enumerate(dict.fromkeys(line[0] for line in lines[1:])):
            write_npz(root / path, 7 * number, num_frames=2 + number % 2)
    with (root / name).open("w", newline="") as file:
        csv.writer(file).writerows(lines)
    return root / name


def names(folder, split):
    return list(folder.clips(split).names)


def letters(labels, per_class=4):
    """Return rows of clips named by letters, some for each class."""
    return [f"{LETTERS[i]}.npz,{labels[i // per_class]}" for i in range(per_class * len(labels))]


# --- CSV files


def test_a_csv_file_is_split_as_a_folder_is(tmp_path):
    folder = Folder(table(tmp_path, letters(("run", "jump"))))
    assert folder.labels == Labels(("jump", "run"))
    assert [len(folder.clips(split)) for split in SPLITS] == [4, 2, 2]
    for split in SPLITS:
        stored = folder.clips(split)
        wanted = ["run" if name < "e" else "jump" for name in stored.names]
        assert [folder.labels.names[target] for target in stored.targets] == wanted
        assert stored.groups is None
    assert folder.summary() == "8 clips of 2 classes (4 clips each), split: 4 train, 2 validation, 2 test"


def test_groups_of_a_csv_file_are_never_split(tmp_path):
    rows = [f"{row},{'xyz'[i % 3]}" for i, row in enumerate(letters(("run", "jump"), 6))]
    path = table(tmp_path, rows, "path,class,group")
    folder = Folder(path)
    groups = [set(folder.clips(split).groups) for split in SPLITS]
    assert sorted(group for some in groups for group in some) == ["x", "y", "z"]
    assert "split by 3 groups" in folder.summary()
    with pytest.raises(UsageError, match="has a column 'group'"):
        Folder(path, group="(.)").clips("train")


def test_parts_of_a_file_are_clips_and_stay_together(tmp_path):
    video = write_folder(tmp_path / "own", per_class=4) / "down"
    rows = [f"own/down/{path.name},down,0,0.5" for path in sorted(video.glob("*.mp4"))]
    rows += [row.replace(",down,0,0.5", ",up,0.5,") for row in rows]
    rows += [row.replace(",down,0,0.5", ",down,0.25,0.75") for row in rows[:1]]
    rows += [f"own/across take2/{path.name},up,," for path in sorted((tmp_path / "own" / "across take2").glob("*.mp4"))]
    folder = Folder(table(tmp_path, rows, "path,class,start_s,end_s", write=False), hold_out=False)
    stored = folder.clips("train")
    lengths = {name: len(frames) for name, frames in zip(stored.names, stored.frames, strict=True)}
    first = rows[0].split(",")[0]
    assert {name: lengths[name] for name in lengths if first in name} == {
        f"{first}#t=0,0.5": 5,
        f"{first}#t=0.5": 7,
        f"{first}#t=0.25,0.75": 5,
    }
    assert {group for name, group in zip(stored.names, stored.groups, strict=True) if first in name} == {first}
    assert len(folder.scanned(workers=1)) == len(rows)


def copied_parts(root, splits=("train", "train"), group=""):
    """Write a table with parts of a file, other parts of a copy of it, and a whole copy."""
    rows = [f"{row},train,," for row in letters(("run", "jump"), 4)]
    rows += [f"x.npz,run,{splits[0]},0,0.04,{group}", f"y.npz,jump,{splits[1]},0.04,,", f"z.npz,run,{splits[1]},,,"]
    rows = [row if row.count(",") == 5 else f"{row}," for row in rows]
    path = table(root, rows, "path,class,split,start_s,end_s,group")
    for name in ("y.npz", "z.npz"):
        shutil.copy(root / "x.npz", root / name)
    return path


@pytest.mark.parametrize(("group", "wanted"), [("", "x.npz"), ("ann", "ann")])
def test_parts_of_copies_stay_together(tmp_path, group, wanted):
    folder = Folder(copied_parts(tmp_path, group=group), hold_out=False)
    stored = folder.clips("train")
    found = {name: of for name, of in zip(stored.names, stored.groups, strict=True) if name[0] in "xyz"}
    assert found == dict.fromkeys(("x.npz#t=0,0.04", "y.npz#t=0.04", "z.npz"), wanted)
    assert all(clip.entry.group == clip.group for clip in folder.files if clip.name in found)


def test_parts_of_copies_in_two_splits_are_refused(tmp_path):
    path = copied_parts(tmp_path, ("test", "train"))
    with path.open("a", newline="") as file:
        file.write("l.npz,jump,test,,,\n")
    write_npz(tmp_path / "l.npz", 200)
    with pytest.raises(
        DataError, match=r"the group 'x\.npz' of .* is in the splits test and train; move all its clips"
    ):
        Folder(path).clips("train")


def test_the_order_of_rows_changes_nothing(tmp_path):
    rows = letters(("run", "jump"))
    one = Folder(table(tmp_path, rows))
    other = Folder(table(tmp_path, rows[::-1], write=False, name="other.csv"))
    for split in SPLITS:
        assert names(one, split) == names(other, split) == sorted(names(one, split))
    assert one.identity() == other.identity()


def test_a_part_that_the_file_does_not_have_is_left_out_alone(tmp_path):
    root = write_folder(tmp_path / "own", per_class=4)
    paths = [path.relative_to(tmp_path).as_posix() for path in sorted(root.rglob("*.mp4"))]
    rows = [f"{path},{path.split('/')[1]},0,1" for path in paths] + [f"{paths[0]},down,500,501"]
    folder = Folder(table(tmp_path, rows, "path,class,start_s,end_s", write=False))
    assert len(folder.scanned(workers=1)) == len(paths)
    ((name, reason),) = folder.left_out.items()
    assert name == f"{paths[0]}#t=500,501"
    assert paths[0] in reason


def test_files_of_a_csv_file_that_are_missing_are_left_out(tmp_path):
    path = table(tmp_path, letters(("run", "jump")))
    (tmp_path / "a.npz").unlink()
    folder = Folder(path)
    assert len(folder.files) == 7
    assert folder.left_out == {"a.npz": f"{tmp_path / 'a.npz'} does not exist (line 2)"}
    assert from_json(folder.as_json()).identity() == folder.identity()


# --- Given splits


SPLIT = ("train", "train", "train", "train", "test", "validation")


def split_rows(parts=SPLIT, labels=("run", "jump")):
    return [f"{row},{parts[i % len(parts)]}" for i, row in enumerate(letters(labels, len(parts)))]


def test_given_splits_are_used_as_they_are(tmp_path):
    folder = Folder(table(tmp_path, split_rows(), "path,class,split"))
    assert names(folder, "test") == ["e.npz", "k.npz"]
    assert names(folder, "validation") == ["f.npz", "l.npz"]
    assert len(folder.clips("train")) == 8
    assert folder.summary().endswith(", split as given: 8 train, 2 validation, 2 test")
    assert Folder(folder.root, seed=5).as_json()["held_out"] == folder.as_json()["held_out"]


def test_folders_named_after_splits_are_given_splits(tmp_path):
    for i, row in enumerate(split_rows()):
        name, label, split = row.split(",")
        write_npz(tmp_path / split.capitalize() / label / name, 10 * i)
    folder = Folder(tmp_path)
    assert folder.labels.names == ("jump", "run")
    assert names(folder, "test") == ["Test/jump/k.npz", "Test/run/e.npz"]


@pytest.mark.parametrize(("missing", "sizes"), [("validation", [8, 2, 2]), ("test", [8, 2, 2])])
def test_a_split_that_is_not_given_is_drawn_from_training(tmp_path, missing, sizes):
    parts = ["train" if part == missing else part for part in SPLIT]
    folder = Folder(table(tmp_path, split_rows(parts), "path,class,split"))
    assert [len(folder.clips(split)) for split in SPLITS] == sizes
    assert f"no clip is given for {missing}: a fifth of the training groups is held out for it" in folder.summary()
    other = "test" if missing == "validation" else "validation"
    assert names(folder, other) == [f"{LETTERS[i]}.npz" for i, part in enumerate(parts * 2) if part == other]
    assert set(folder.clips(missing).targets.tolist()) == {0, 1}


def test_without_holding_out_a_given_test_is_kept_and_validation_is_learned(tmp_path):
    folder = Folder(table(tmp_path, split_rows(), "path,class,split"), hold_out=False)
    assert len(folder.clips("train")) == 10
    assert names(folder, "test") == ["e.npz", "k.npz"]
    assert "the given test has 2 clips: they are in no fold, and never trained on" in folder.summary()
    with pytest.raises(UsageError, match="was held out for validation"):
        folder.clips("validation")


def test_a_copy_in_another_split_is_dropped_from_training(tmp_path):
    path = table(tmp_path, split_rows(), "path,class,split")
    shutil.copy(tmp_path / "e.npz", tmp_path / "a.npz")  # test, training
    shutil.copy(tmp_path / "l.npz", tmp_path / "g.npz")  # validation, training
    folder = Folder(path)
    assert names(folder, "train") == [f"{letter}.npz" for letter in "bcdhij"]
    assert [len(folder.clips(split)) for split in ("validation", "test")] == [2, 2]
    assert "2 duplicates left out" in folder.summary()
    assert "2 clips are copies of clips in another split" in folder.summary()
    assert "such as 'a.npz' of 'e.npz'" in folder.summary()


def test_a_class_that_is_no_longer_in_training_is_told(tmp_path):
    path = table(tmp_path, split_rows(("train", "test", "validation")), "path,class,split")
    shutil.copy(tmp_path / "b.npz", tmp_path / "a.npz")
    with pytest.raises(DataError, match="no clip of the class 'run' is left for training"):
        Folder(path).clips("train")


def test_clips_added_to_a_given_test_later_are_neither_tested_on_nor_learned_from(tmp_path):
    path = table(tmp_path, split_rows(), "path,class,split")
    remembered = Folder(path).as_json()
    write_npz(tmp_path / "new.npz", 250)
    path.write_text(path.read_text() + "new.npz,run,test\n")
    again = from_json(remembered)
    assert len(again.files) == 13
    assert [len(again.clips(split)) for split in SPLITS] == [8, 2, 2]


# --- Label sets


SETS = ("run", "jump", "run|jump", "", "run|fall", "fall")


def label_sets(num=3):
    return [f"{'ABC'[i // len(SETS)]}{i % len(SETS)}.npz,{SETS[i % len(SETS)]}" for i in range(num * len(SETS))]


def test_classes_that_are_present_together_have_targets_by_class(tmp_path):
    folder = Folder(table(tmp_path, label_sets()))
    assert folder.labels == Labels(("fall", "jump", "run"), exclusive=False)
    assert "of 3 classes that may be present together (6 to 9 clips each)" in folder.summary()
    for split in SPLITS:
        stored = folder.clips(split)
        assert stored.targets.dtype == torch.float32
        assert stored.targets.any(0).all()
        for name, row in zip(stored.names, stored.targets, strict=True):
            assert row.tolist() == [float(label in SETS[int(name[1])].split("|")) for label in folder.labels.names]


def test_a_class_with_three_clips_among_many_is_in_every_split(tmp_path):
    rows = [f"{i}.npz,{'run|' if i % 2 else 'jump|'}{'ab'[i % 3 % 2]}{'|rare' * (i % 10 == 7)}" for i in range(30)]
    for seed in range(10):
        folder = Folder(table(tmp_path, rows, write=not seed), seed=seed)
        rare = folder.labels.names.index("rare")
        assert [int(folder.clips(split).targets[:, rare].sum()) for split in SPLITS] == [1, 1, 1]
        assert 4 <= len(folder.clips("test")) <= 8


def test_a_model_of_single_classes_refuses_label_sets(tmp_path):
    remembered = Folder(table(tmp_path, letters(("run", "jump")))).as_json()
    table(tmp_path, [row.replace("run", "run|jump") for row in letters(("run", "jump"))])
    with pytest.raises(DataError, match=r"a\.npz has the classes 'jump\|run'; the model names exactly one class"):
        from_json(remembered | {"held_out": {"test": [], "validation": []}, "clips": {}}).clips("train")


# --- What is remembered


@pytest.mark.parametrize("rows", [letters(("run", "jump")), label_sets(), split_rows()], ids=["one", "sets", "splits"])
def test_a_csv_file_that_moved_with_its_clips_is_the_same(tmp_path, rows):
    header = "path,class,split" if rows[0].count(",") == 2 else "path,class"
    folder = Folder(table(tmp_path / "here", rows, header))
    remembered, identity = folder.as_json(), folder.identity()
    (tmp_path / "here").rename(tmp_path / "there")
    with pytest.raises(
        DataError, match=r"learned from clips in .*clips\.csv, which does not exist; name their current"
    ):
        from_json(remembered).clips("test")
    moved = from_json(remembered).moved(tmp_path / "there" / "clips.csv")
    assert moved.identity() == identity
    assert moved.labels == folder.labels
    assert [moved.clips(split).names for split in SPLITS] == [
        tuple(remembered["clips"].get(split, names(moved, split))) for split in SPLITS
    ]


def test_names_do_not_depend_on_where_the_command_was_given(tmp_path, monkeypatch):
    rows = [*letters(("run", "jump"))[:-1], f"{tmp_path / 'lists' / 'h.npz'},jump"]
    rows[0] = "../a.npz,run"
    path = table(tmp_path / "lists", rows)
    monkeypatch.chdir(tmp_path / "lists")
    here, there = Folder("clips.csv", hold_out=False), Folder(path, hold_out=False)
    assert names(here, "train") == names(there, "train")
    assert {"../a.npz", "h.npz"} < set(names(here, "train"))


def test_a_configuration_of_before_is_read(tmp_path):
    folder = Folder(write_folder(tmp_path, per_class=4))
    written = {
        "kind": "folder",
        "root": str(tmp_path),
        "group": None,
        "seed": 0,
        "short_side": 64,
        "num_frames": 32,
        "frame_format": {"channels": 3, "size": [48, 64], "mean": [0.0], "std": [1.0], "fps": 10.0},
        "classes": list(CLASSES),
        "held_out": folder.as_json()["held_out"],
    }
    again = from_json(written)
    assert again.as_json() == folder.as_json()
    assert again.identity() == folder.identity()


# --- What a user may get wrong


def test_columns_that_are_not_used_are_told(tmp_path):
    path = table(tmp_path, [f"{row},x" for row in letters(("run", "jump"))], "path,class,groups")
    assert "warning: columns that are not used: groups" in Folder(path).summary()


def test_a_large_collection_is_described_by_a_sample(tmp_path):
    rows = [f"{i}.npz,{'run' if i % 2 else 'jump'}" for i in range(520)]
    path = table(tmp_path, rows, write=False)
    for i in range(520):
        (tmp_path / f"{i}.npz").write_text(f"no clip {i}")
    good = write_npz(tmp_path / "good.npz", 0).read_bytes()
    for i in range(40):
        (tmp_path / f"{i}.npz").write_bytes(good + bytes([i % 256, i // 256]))  # behind the archive
    folder = Folder(path)
    assert len(folder.scanned(workers=1)) == 40
    assert len(folder.left_out) == 480
    assert folder.frame_format.size == (32, 32)


def test_clips_of_one_frame_have_motion_of_none(tmp_path):
    for label, grey in (("a", 10), ("b", 200)):
        for number in range(4):
            write_npz(tmp_path / label / f"{number}.npz", grey + number, num_frames=1)
    stored = Folder(tmp_path).clips("train")
    assert [len(frames) for frames in stored.frames] == [1] * len(stored)
