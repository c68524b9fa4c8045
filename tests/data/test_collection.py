import os
import stat
import tempfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from saccade.data.collection import Collection, Entry, read
from saccade.data.finding import find_clips
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


@pytest.mark.parametrize("odd", ["tset/run/2.mp4", "extra/2.mp4"])
def test_a_split_that_is_misspelt_is_no_class(tmp_path, odd):
    for name in ("train/run/1.mp4", "train/jump/1.mp4", odd):
        put(tmp_path / name)
    with pytest.raises(
        DataError, match=rf"'train' in .* but '{odd.split('/')[0]}' beside it is none of the splits train,"
    ):
        read(tmp_path)


@pytest.mark.parametrize("names", [("trian", "tets"), ("Training", "Testing"), ("trainn", "vall", "dev")])
def test_if_all_splits_are_misspelt_that_is_told(tmp_path, names):
    for name in names:
        for label in ("run", "jump"):
            put(tmp_path / name / label / "1.mp4")
    (told,) = (line for line in read(tmp_path).problems if "splits" in line)
    assert all(repr(name) in told for name in names)
    assert "name them train, validation and test" in told


@pytest.mark.parametrize("odd", ["rain/1.mp4", "bus/deep/1.mp4"])
def test_classes_that_cannot_be_splits_are_not_told(tmp_path, odd):
    for name in ("trian/run/1.mp4", "tets/run/1.mp4", odd):
        put(tmp_path / name)
    assert not [line for line in read(tmp_path).problems if "splits" in line]


def test_a_class_may_be_called_as_a_split(tmp_path):
    for name in ("train/1.mp4", "bus/1.mp4", "bus/deep/2.mp4"):
        put(tmp_path / name)
    assert read(tmp_path).classes == ("bus", "train")


def test_links_to_files_that_are_missing_are_told(tmp_path):
    for name in ("run/1.mp4", "jump/2.mp4"):
        put(tmp_path / name)
    (tmp_path / "run" / "gone.mp4").symlink_to("../objects/gone")
    found = read(tmp_path)
    assert found.unreadable == (
        (tmp_path / "run" / "gone.mp4", "does not exist: the file that it links to is missing"),
    )
    assert len(found.entries) == 2


def test_the_name_of_a_class_folder_joins_no_classes(tmp_path):
    for name in ("run/1.mp4", "run|jump/2.mp4"):
        put(tmp_path / name)
    with pytest.raises(
        DataError, match=r"the class 'run\|jump' of .*2\.mp4 contains '\|'.*give its folder another name"
    ):
        read(tmp_path)


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


def groups(found: Collection):
    return [(found.name_of_entry(entry), entry.group) for entry in found.entries]


def test_the_parts_of_a_file_are_one_group_beside_groups_that_are_given(tmp_path):
    rows = ("a.mp4,run,,0,1", "a.mp4,jump,,1,2", "b.mp4,run,ann,0,1", "b.mp4,run,,1,2", "c.mp4,jump,,,")
    found = read(table(tmp_path, "path,class,group,start_s,end_s", *rows))
    assert groups(found) == [
        ("a.mp4#t=0,1", "a.mp4"),
        ("a.mp4#t=1,2", "a.mp4"),
        ("b.mp4#t=0,1", "ann"),
        ("b.mp4#t=1,2", "ann"),
        ("c.mp4", None),
    ]


def test_a_file_may_show_two_groups_if_each_part_names_one(tmp_path):
    header = "path,class,group,start_s,end_s"
    rows = ["a.mp4,run,ann,0,1", "a.mp4,jump,bob,1,2", "b.mp4,run,,,"]
    assert [group for _, group in groups(read(table(tmp_path, header, *rows)))] == ["ann", "bob", None]
    with pytest.raises(
        DataError, match=r"'a\.mp4#t=2,3' has no group.* to the groups 'ann' and 'bob'; write the group"
    ):
        read(table(tmp_path, header, *rows, "a.mp4,run,,2,3"))


def test_a_file_is_one_group_under_every_spelling_and_link(tmp_path):
    (tmp_path / "link.mp4").symlink_to("a.mp4")
    again = f"../{tmp_path.name}/a.mp4"
    rows = ("a.mp4,run,0,1", f"{again},jump,1,2", "link.mp4,run,2,3", f"../{tmp_path.name}/b.mp4,jump,,")
    found = read(table(tmp_path, "path,class,start_s,end_s", *rows))
    assert [entry.group for entry in found.entries if entry.path.name != "b.mp4"] == [again] * 3
    assert [entry.group for entry in found.entries if entry.path.name == "b.mp4"] == [None]


def test_the_order_of_rows_does_not_count(tmp_path):
    rows = ["d.mp4,run,,", "a.mp4,jump,10,11", "a.mp4,jump,2,", "a.mp4,jump,2,3", "b.mp4,run,,"]
    one, other = (read(table(tmp_path, "path,class,start_s,end_s", *some)) for some in (rows, rows[::-1]))
    assert one == other
    assert [entry.start_s for entry in one.entries] == [2.0, 2.0, 10.0, None, None]


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


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="no users as in POSIX")
def test_folders_without_permission_are_left_out_alone():
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        root.chmod(0o755)
        for name in ("run/1.mp4", "jump/3.mp4", "swim/5.mp4"):
            put(root / name)
        (root / "swim").chmod(0)
        try:
            with another_user():
                found = read(root)
                left_out = found.unreadable
            assert found.classes == ("jump", "run")
            assert left_out == ((root / "swim", "cannot be opened: Permission denied"),)
            (root / "run").chmod(0)
            with (
                another_user(),
                pytest.raises(
                    DataError,
                    match=r"only one class, 'jump'; .*; left out: .*(run|swim) cannot be opened: Permission denied",
                ),
            ):
                read(root)
            (root / "jump").chmod(0)
            with another_user(), pytest.raises(DataError, match=r"(run|jump|swim) cannot be opened: Permission denied"):
                read(root)
            root.chmod(0)
            with another_user(), pytest.raises(DataError, match=rf"{root} cannot be opened"):
                find_clips(root)
        finally:
            for place in (root, *root.iterdir()):
                place.chmod(0o755)


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
        (("path,class", "a.mp4,run", 'b.mp4,"jump', "c.mp4,run"), "line 3 cannot be read as cells"),
        (("path,class", "a.mp4,run", 'b.mp4,"jump', 'c.mp4,"run"'), "line 3 cannot be read as cells"),
        (("path,class", "a.mp4,run", f"b.mp4,{'j' * 201}"), "line 3 has a class of 201 letters, 'j{20}'"),
        (("path,class", f"{'a' * 9999},run", "b.mp4,jump"), "line 2 has a path of 9999 letters"),
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
            "the split 'test' of .* has no clip of the class 'jump'; move clips of it there",
        ),
        (
            (HEADER, "a.mp4,run,train,,,", "b.mp4,jump,train,,,", "c.mp4,hop,train,,,", "d.mp4,run,test,,,"),
            "has no clip of the classes 'hop' and 'jump'; move clips of each there, or leave the classes out",
        ),
        (
            (HEADER, f"a.mp4,{'|'.join(f'c{n}' for n in range(12))},train,,,", "b.mp4,c0,test,,,"),
            "of the classes 'c1', 'c10', 'c11', 'c2', 'c3', 'c4', 'c5', 'c6' and 3 more;",
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
