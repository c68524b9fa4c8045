import csv
import os
import shutil
from pathlib import Path

import pytest
from rich.console import Console

from saccade.check import CheckConfig, check, render
from saccade.data import Folder
from saccade.data.video_writing import write_mp4
from saccade.errors import DataError, UsageError

from .own_clips import CLASSES, moving_square


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Write clips that need no attention: six of each class, which differ in nothing but their names."""
    root = tmp_path_factory.mktemp("clips")
    for place, label in enumerate(CLASSES):
        (root / label).mkdir()
        for number in range(6):
            frames = moving_square("either", 2 * number + place)
            write_mp4(root / label / f"{label}_{number % 5:02d}_{number}.mp4", frames, 10.0)
    return root


def printed(report, width=120):
    console = Console(width=width, highlight=False, markup=False, emoji=False)
    with console.capture() as captured:
        console.print(render(report))
    return captured.get()


@pytest.fixture(scope="module")
def troubled(clips, tmp_path_factory):
    """Copy the clips, and add what needs attention."""
    root = shutil.copytree(clips, tmp_path_factory.mktemp("troubled") / "clips")
    original = root / CLASSES[1] / f"{CLASSES[1]}_00_0.mp4"
    shutil.copy(original, root / CLASSES[0] / "copy_01_.mp4")
    whole = root / CLASSES[1] / f"{CLASSES[1]}_02_2.mp4"
    whole.write_bytes(whole.read_bytes()[:-1])
    (root / CLASSES[1] / "[bold]\x1b[31mbroken_02_:smile:.mp4").write_bytes(b"no video")
    (root / CLASSES[1] / "notes.txt").write_text("other")
    return root


@pytest.fixture(scope="module")
def report(troubled, tmp_path_factory):
    table = tmp_path_factory.mktemp("out") / "new" / "clips.csv"
    return check(CheckConfig(troubled, group=r"_(\d+)_", csv=table, workers=1)), table


def test_clips_that_need_no_attention(clips):
    told = []
    config = CheckConfig(clips, group=r"_(\d+)_", workers=1)
    found = check(config, progress=lambda done, total: told.append((done, total)))
    assert (found.attention, found.exit_status) == ((), 0)
    assert (found.unreadable, found.damaged, found.others, found.duplicates) == ((), (), (), ())
    assert told[-1] == (12, 12)
    text = printed(found)
    assert "12 clips of 2 classes, 5 groups" in text
    assert text.splitlines()[-1] == "Nothing needs attention"


def test_what_needs_attention_is_told_and_fails(report):
    found, _ = report
    assert found.exit_status == 1
    assert found.attention == ("1 clip cannot be read", "1 set of duplicates across classes")
    assert [path.name for path, _ in found.damaged] == [f"{CLASSES[1]}_02_2.mp4"]
    text = printed(found)
    assert "copy_01_.mp4" in text
    assert f"{CLASSES[1]}_02_2.mp4" in text
    assert ".txt (1)" in text
    assert text.splitlines()[-1].startswith(
        "Needs attention: 1 clip cannot be read; 1 set of duplicates across classes"
    )


def test_names_are_text_and_nothing_else(report):
    text = printed(report[0])
    assert "\x1b" not in text
    assert "[bold]\\x1b[31mbroken_02_:smile:.mp4" in text


@pytest.mark.parametrize("width", [60, 250])
def test_lines_keep_to_the_terminal(report, width):
    assert max(map(len, printed(report[0], width).splitlines())) <= width


def test_the_table_has_a_row_for_each_clip(report, troubled):
    found, path = report
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    clips = [row for row in rows if row["class"]]
    assert len(clips) == len(found.records) == 14
    by_name = {Path(row["path"]).name: row for row in rows}
    copy, original = by_name["copy_01_.mp4"], by_name[f"{CLASSES[1]}_00_0.mp4"]
    assert copy["digest"] == original["digest"]
    assert copy["equal_set"] == original["equal_set"] != ""
    assert (original["class"], original["group"], original["codec"]) == (CLASSES[1], "00", "h264")
    assert (original["height"], original["width"], original["num_frames"]) == ("48", "64", "12")
    assert "its end is missing" in by_name[f"{CLASSES[1]}_02_2.mp4"]["warning"]
    assert "cannot be read as a video" in by_name["[bold]\x1b[31mbroken_02_:smile:.mp4"]["error"]
    assert "ending" in by_name["notes.txt"]["error"]


def test_without_groups_the_risk_is_told(clips, tmp_path):
    root = shutil.copytree(clips, tmp_path / "clips")
    original = root / CLASSES[1] / f"{CLASSES[1]}_00_0.mp4"
    shutil.copy(original, original.with_name("again.mp4"))
    found = check(CheckConfig(root, workers=1))
    assert found.attention == ("1 set of duplicates that a split can part",)
    assert "no groups: clips of one person or scene" in printed(found)


def test_duplicates_across_splits_and_missing_files(clips, tmp_path):
    table = tmp_path / "clips.csv"
    rows = []
    for path in sorted(clips.rglob("*.mp4")):
        number = int(path.stem[-1])
        rows.append((os.path.relpath(path, tmp_path), path.parent.name, "train" if number < 3 else "test"))
    shutil.copy(tmp_path / rows[0][0], tmp_path / "copy.mp4")
    rows += [("copy.mp4", CLASSES[0], "test"), ("gone.mp4", CLASSES[0], "test")]
    with table.open("w", newline="") as file:
        csv.writer(file).writerows([("path", "class", "split"), *rows])
    found = check(CheckConfig(table, workers=1))
    assert found.attention == ("1 clip cannot be read", "1 set of duplicates across splits")
    assert "does not exist (line 15)" in printed(found)


def test_what_a_training_refuses_needs_attention(clips, tmp_path):
    root = shutil.copytree(clips, tmp_path / "clips")
    (root / "alone").mkdir()
    shutil.move(root / CLASSES[1] / f"{CLASSES[1]}_00_0.mp4", root / "alone" / "only.mp4")
    found = check(CheckConfig(root, workers=1))
    assert found.exit_status == 1
    (said,) = found.attention
    assert said.startswith(
        "a training is refused: the class 'alone' has 1 clip, or groups of clips; at least 3 are needed"
    )
    with pytest.raises(DataError) as caught:
        Folder(root).clips("train")
    assert said.endswith(str(caught.value))


def test_metadata_that_tells_the_class_is_named(tmp_path):
    for number in range(20):
        label = CLASSES[number % 2]
        (tmp_path / label).mkdir(exist_ok=True)
        fps = 10.0 if number % 2 else 12.0
        write_mp4(tmp_path / label / f"{number}.mp4", moving_square(label, number), fps)
    found = check(CheckConfig(tmp_path, workers=1))
    assert found.attention == ("metadata tells the class",)
    assert "frame rate" in printed(found, 1000) or "duration" in printed(found, 1000)


def test_many_classes_stay_few_lines(tmp_path):
    for number in range(40):
        (tmp_path / f"class {number:02d}").mkdir()
        write_mp4(tmp_path / f"class {number:02d}" / "a.mp4", moving_square("x", number, num_frames=2), 10.0)
    text = printed(check(CheckConfig(tmp_path, workers=1)))
    assert "... 20 more" in text
    assert "note: 40 classes have a single clip each: 'class 00'" in text
    assert len(text.splitlines()) < 60


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"workers": 0}, "workers"), ({"time_limit_s": -1.0}, "time_limit_s"), ({"seed": -1}, "seed")],
)
def test_wrong_options(wrong, message):
    with pytest.raises(UsageError, match=f"{message} must be"):
        CheckConfig(Path("clips"), **wrong)


def test_what_cannot_be_checked_or_written(clips, tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        check(CheckConfig(tmp_path / "nowhere"))
    with pytest.raises(UsageError, match="names the clips"):
        CheckConfig(tmp_path / "a.csv", csv=tmp_path / "." / "a.csv")
    with pytest.raises(OSError, match="is not a regular file"):
        check(CheckConfig(clips, csv=tmp_path))


def test_label_sets_are_called_sets(clips, tmp_path):
    table = tmp_path / "clips.csv"
    rows = [f"{path},{'|'.join(('moves', path.parent.name))}" for path in sorted(clips.rglob("*.mp4"))]
    table.write_text("\n".join(("path,class", *rows)))
    text = " ".join(printed(check(CheckConfig(table, workers=1))).split())
    assert "alone tell the classes of" in text
    assert "the most frequent set of classes has" in text
    assert "largest class" not in text
