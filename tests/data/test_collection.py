import os
import stat
import tempfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from saccade.data.collection import Collection, Entry, read
from saccade.errors import DataError, UsageError

PERSON = r"_(\d+)_"


def put(path, content=b"x"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def table(root, *lines, encoding="utf-8", name="clips.csv"):
    """Write a CSV file, and the files a.mp4 to d.mp4 beside it."""
    for letter in "abcd":
        put(root / f"{letter}.mp4")
    (root / name).write_bytes("\n".join(lines).encode(encoding))
    return root / name


def short(found: Collection):
    return [(entry.path.name, *entry.classes) for entry in found.entries]


# --- A folder


def test_the_first_folder_below_is_the_class(tmp_path):
    for name in ("run/1.mp4", "run/deep/er/2.avi", "jump/3.mp4", "jump/4.webm", ".hidden/5.mp4", "run/.6.mp4"):
        put(tmp_path / name)
    found = read(tmp_path)
    assert short(found) == [("3.mp4", "jump"), ("4.webm", "jump"), ("1.mp4", "run"), ("2.avi", "run")]
    assert (found.source, found.classes, found.exclusive) == (tmp_path, ("jump", "run"), True)
    assert (found.left_out, found.problems, found.splits) == ((), (), ())


def test_what_is_no_video_is_left_out_by_its_ending(tmp_path):
    for name in ("run/1.mp4", "jump/2.mp4", "jump/notes.txt", "list.json"):
        put(tmp_path / name)
    left_out = dict(read(tmp_path).left_out)
    assert {path.name for path in left_out} == {"notes.txt", "list.json"}
    assert "'.txt'" in left_out[tmp_path / "jump" / "notes.txt"]


def test_links_are_followed_and_no_folder_is_read_twice(tmp_path):
    put(tmp_path / "clips" / "run" / "1.mp4")
    put(tmp_path / "elsewhere" / "2.mp4")
    (tmp_path / "clips" / "jump").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "clips" / "run" / "again").symlink_to(tmp_path / "clips")
    assert short(read(tmp_path / "clips")) == [("2.mp4", "jump"), ("1.mp4", "run")]


def test_folders_that_are_called_as_splits_are_splits(tmp_path):
    for split in ("train", "val", "test"):
        for label in ("run", "jump"):
            put(tmp_path / split / label / "deep" / "1.mp4")
    found = read(tmp_path)
    assert found.classes == ("jump", "run")
    assert found.splits == ("train", "validation", "test")
    assert {(e.path.parts[len(tmp_path.parts)], e.split) for e in found.entries} >= {("val", "validation")}


def test_a_pattern_makes_groups(tmp_path):
    for name in ("run/a_1_x.mp4", "run/b_2_x.mp4", "jump/c_1_x.mp4"):
        put(tmp_path / name)
    assert [entry.group for entry in read(tmp_path, group=PERSON).entries] == ["1", "1", "2"]
    assert {entry.group for entry in read(tmp_path).entries} == {None}


# --- A CSV file


def test_a_table_says_everything(tmp_path):
    found = read(
        table(
            tmp_path,
            "path,class,split,group,start_s,end_s",
            "a.mp4,run,train,ann,,",
            "./b.mp4,jump,Train,ann,1.5,",
            "c.mp4,jump,val,bob,,2",
            f"{tmp_path / 'd.mp4'},run,validation,bob,0,1e1",
        )
    )
    assert found.entries == (
        Entry(tmp_path / "a.mp4", ("run",), "ann", "train"),
        Entry(tmp_path / "b.mp4", ("jump",), "ann", "train", 1.5, None),
        Entry(tmp_path / "c.mp4", ("jump",), "bob", "validation", None, 2.0),
        Entry(tmp_path / "d.mp4", ("run",), "bob", "validation", 0.0, 10.0),
    )
    assert found.splits == ("train", "validation")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_as_spreadsheets_write_it(tmp_path, encoding, delimiter, line_end):
    lines = ['Path,"class "', '"a.mp4", lancé ', "", "b.mp4,assis;debout" if delimiter == "," else "b.mp4,assis", ","]
    text = line_end.join(line.replace(",", delimiter) for line in lines)
    found = read(table(tmp_path, text, encoding=encoding))
    assert [entry.path.name for entry in found.entries] == ["a.mp4", "b.mp4"]
    assert found.entries[0].classes == ("lancé",)


def test_joined_classes_do_not_exclude_each_other(tmp_path):
    found = read(table(tmp_path, "path,class", "a.mp4,run", "b.mp4,run | jump", "c.mp4,", "d.mp4,jump|jump"))
    assert not found.exclusive
    assert [entry.classes for entry in found.entries] == [("run",), ("jump", "run"), (), ("jump",)]


def test_the_parts_of_a_file_are_one_group(tmp_path):
    found = read(
        table(tmp_path, "path,class,start_s,end_s", "a.mp4,run,0,1", "a.mp4,jump,1,2", "b.mp4,run,,", "c.mp4,jump,,")
    )
    assert [entry.group for entry in found.entries] == ["a.mp4", "a.mp4", None, None]


def test_names_of_classes_move_no_cursor(tmp_path):
    assert read(table(tmp_path, "path,class", "a.mp4,ru\x1bn", "b.mp4,jump")).classes == ("jump", "ru\\x1bn")


def test_missing_files_are_left_out_with_a_reason(tmp_path):
    found = read(table(tmp_path, "path,class", "a.mp4,run", "gone.mp4,run", "b.mp4,jump", "c.mp4,run", "c.mp4,run"))
    assert short(found) == [("a.mp4", "run"), ("b.mp4", "jump"), ("c.mp4", "run")]
    reasons = {path.name: why for path, why in found.left_out}
    assert reasons["gone.mp4"] == "does not exist (line 3)"
    assert reasons["c.mp4"] == "line 6 names it again, after line 5"


def test_columns_that_are_not_used_are_told(tmp_path):
    found = read(table(tmp_path, "path,class,groups", "a.mp4,run,1", "b.mp4,jump,1", "c.mp4,run,2", "d.mp4,jump,2"))
    assert found.problems == ("columns that are not used: groups; known: path, class, split, group, start_s, end_s",)


@contextmanager
def another_user():
    """Give up the rights of root, who may read everything."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="no users as in POSIX")
def test_files_without_permission_are_left_out():
    with tempfile.TemporaryDirectory() as folder:  # in which another user may read
        root = Path(folder)
        root.chmod(0o755)
        for name in ("run/1.mp4", "run/2.mp4", "jump/3.mp4", "jump/4.mp4"):
            put(root / name)
        (root / "run" / "1.mp4").chmod(stat.S_IWUSR)
        with another_user():
            found = read(root)
        assert found.left_out == ((root / "run" / "1.mp4", "cannot be opened: Permission denied"),)
        assert len(found.entries) == 3
        (root / "run").chmod(0)
        with another_user(), pytest.raises(DataError, match=r"run cannot be opened: Permission denied"):
            read(root)


# --- What a user may get wrong


def test_no_collection(tmp_path):
    with pytest.raises(DataError, match=r"nowhere does not exist; give a folder"):
        read(tmp_path / "nowhere")
    with pytest.raises(DataError, match="holds no clip"):
        read(tmp_path)
    put(tmp_path / "lost.mp4")
    with pytest.raises(DataError, match=r"lost\.mp4 is not in a class folder"):
        read(tmp_path)


def test_a_single_class(tmp_path):
    put(tmp_path / "run" / "1.mp4")
    with pytest.raises(DataError, match="only one class, 'run'"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("one", "other"), [("Run", "run"), ("high jump", "highjump"), ("\u00e9t\u00e9", "e\u0301te\u0301")]
)
def test_labels_that_differ_in_case_or_blanks(tmp_path, one, other):
    with pytest.raises(DataError, match="differ only in case or blanks") as caught:
        read(table(tmp_path, "path,class", f"a.mp4,{one}", f"b.mp4,{other}"))
    assert repr(one) in str(caught.value)
    assert repr(other) in str(caught.value)


def test_a_class_with_a_single_clip_is_a_problem_and_no_error(tmp_path):
    found = read(table(tmp_path, "path,class", "a.mp4,run", "b.mp4,jump", "c.mp4,run"))
    assert found.problems == (
        "1 class has a single clip: 'jump'; a class needs at least 3, to learn from, to validate and to test",
    )


HEADER = "path,class,split,group,start_s,end_s"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ((), r"clips\.csv line 1 is empty; a header with the columns path and class is needed"),
        (("a.mp4,run", "b.mp4,jump"), r"line 1 is 'a\.mp4,run'; a header with the columns path and class"),
        (("path,class,class", "a.mp4,run,jump"), "line 1 names the column 'class' twice"),
        (("path,class",), "it names no clip"),
        (("path,class", "a.mp4,run,jump"), "line 2 has 3 cells; the header has 2"),
        (("path,class", "a.mp4,run", ",jump"), "line 3 has no path"),
        (("path,class", "a.mp4,run", "", "b.mp4,"), "line 4 has no class"),
        (("path,class", "a.mp4,run|", "b.mp4,jump"), "line 2 has the class 'run|', with an empty name"),
        (("path,class", "a.mp4,run", "a.mp4,jump"), "line 3 names 'a.mp4' again with other cells than line 2"),
        (("path,class", "x.mp4,run", "y.mp4,jump"), r"none of its 2 clips can be read, such as .*x\.mp4"),
        ((HEADER, "a.mp4,run,dev,,,"), "line 2 has the split 'dev'; one of train, validation, val, test"),
        ((HEADER, "a.mp4,run,,,,"), "line 2 has the split ''"),
        ((HEADER, "a.mp4,run,train,,3,3"), "line 2 starts at 3 s and ends at 3 s"),
        ((HEADER, "a.mp4,run,train,,,0"), "line 2 starts at 0 s and ends at 0 s"),
        ((HEADER, "a.mp4,run,train,,1:30,"), "line 2 has the start_s '1:30'; a number of seconds"),
        ((HEADER, "a.mp4,run,train,,,nan"), "line 2 has the end_s 'nan'"),
        ((HEADER, "a.mp4,run,train,,-1,"), "line 2 has the start_s '-1'"),
        ((HEADER, "a.mp4,run,test,,,", "b.mp4,jump,test,,,"), "has no clip of the split 'train', only of test"),
        (
            (HEADER, "a.mp4,run,train,,,", "b.mp4,jump,train,,,", "c.mp4,run,test,,,"),
            "the split 'test' of .* has no clip of the class 'jump'",
        ),
        (
            (HEADER, "a.mp4,run,train,ann,,", "b.mp4,jump,train,,,", "c.mp4,run,test,ann,,", "d.mp4,jump,test,,,"),
            "the group 'ann' of .* is in the splits test and train",
        ),
    ],
)
def test_a_table_with_a_mistake(tmp_path, lines, message):
    with pytest.raises(DataError, match=message) as caught:
        read(table(tmp_path, *lines))
    assert "clips.csv" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content", [b"\0" * 100_000, np.arange(999, dtype=np.uint8).tobytes(), b'path,class\na.mp4,"r']
)
def test_a_file_that_is_no_table(tmp_path, content):
    with pytest.raises(DataError, match=r"film\.mp4 "):
        read(put(tmp_path / "film.mp4", content))


def test_a_table_of_another_encoding(tmp_path):
    with pytest.raises(DataError, match="cannot be read as a CSV file of UTF-8 text"):
        read(table(tmp_path, "path,class", "a.mp4,lanc\u00e9", "b.mp4,run", encoding="latin-1"))


def test_a_group_pattern_with_a_mistake(tmp_path):
    clips = table(tmp_path, "path,class,group", "a.mp4,run,1", "b.mp4,jump,2")
    with pytest.raises(UsageError, match="captures nothing; put the group's part in parentheses"):
        read(clips, group="[0-9]")
    with pytest.raises(UsageError, match="has a column 'group'"):
        read(clips, group="(.)")
    with pytest.raises(DataError, match=r"captures nothing in a\.mp4"):
        read(table(tmp_path, "path,class", "a.mp4,run", "b.mp4,jump"), group=PERSON)
