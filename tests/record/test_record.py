"""Clips recorded from a source: their names and groups, times and sizes, and that nothing is lost or left half."""

import re
import resource
import shlex
import signal
import subprocess
import sys
import time
from contextlib import suppress

import pytest
import torch

from saccade.cli import main
from saccade.data import collection, video
from saccade.data.grouping import RECORDED
from saccade.data.video_writing import write_mp4
from saccade.errors import DataError, UsageError
from saccade.record import RecordConfig, record
from saccade.record.session import Session
from saccade.record.takes import Takes
from saccade.stream.live_frame import LiveFrame

from ..stream.sources import encoded

QUICK = {"num_clips": 2, "seconds": 0.4, "pause_s": 0.2}
COMMAND = (sys.executable, "-m", "saccade.cli", "record", "wave")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Write a video of two seconds whose grey level tells the frame."""
    path = tmp_path_factory.mktemp("source") / "a.mp4"
    return write_video(path, num_frames=40, fps=20, size=(48, 80))


def write_video(path, *, num_frames, fps, size):
    grey = torch.tensor([level(number) for number in range(num_frames)], dtype=torch.uint8)
    write_mp4(path, grey.view(-1, 1, 1, 1).expand(-1, 3, *size), fps)
    return path


def recorded(name, source, out, **changes):
    lines = []
    clips = record(RecordConfig(name, str(source), out, **{**QUICK, **changes}), say=lines.append)
    return clips, lines


def levels(path):
    return video.read_clip(path, size=None, num_channels=1).frames.float().mean((1, 2, 3))


def files_in(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def level(number):
    return 20 + 5 * number


@pytest.mark.parametrize("realtime", [False, True])
def test_clips_show_what_came_after_each_pause(source, tmp_path, realtime):
    clips, lines = recorded("wave", source, tmp_path, realtime=realtime)
    assert len(clips) == 2
    assert any("this class has 1 session;" in line for line in lines)
    assert {path.parent for path in clips} == {tmp_path / "wave"}
    for path, first in zip(clips, (4, 16), strict=True):  # a pause of 4 frames, a clip of 8, a pause of 4
        came = video.read_clip(path, size=None, num_channels=3)
        assert came.source.fps == pytest.approx(20, rel=0.01)
        assert (came.source.size, came.source.codec) == ((48, 80), "h264")
        if not any("missing" in line for line in lines):  # a busy machine may have lost some
            expected = [level(number) for number in range(first, first + 8)]
            assert levels(path).tolist() == pytest.approx(expected, abs=2)
    told = [line.partition(",")[0] for line in lines]
    assert told[:3] == ["1 s until clip 1 of 2", "recording 1 of 2 ...", f"wrote {clips[0].name}"]
    assert told[3:6] == ["1 s until clip 2 of 2", "recording 2 of 2 ...", f"wrote {clips[1].name}"]


def test_a_session_is_a_group_by_the_command_that_is_told(source, tmp_path, capsys):
    for name in ("wave", "clap_r1_2.mp4"):
        for number in range(1, 4):
            _, lines = recorded(name, source, tmp_path)
            is_new = name != "wave" and number == 1
            assert ("clap_r1_2.mp4 is a new class beside wave" in lines) == is_new
            told = any("training needs 2 of each class with --folds, 3 without" in line for line in lines)
            assert told == (number < 3)
            assert lines[-1].endswith(" --folds 2") == (number < 3)  # the fewest sessions of all classes count
    words = shlex.split(lines[-1].partition(": ")[2])
    assert words[:4] == ["saccade", "train", "--data", str(tmp_path)]
    assert words[4] == "--group"
    found = collection.read(tmp_path, group=words[5])
    assert found.left_out == ()
    groups = {(entry.classes, entry.group) for entry in found.entries}
    assert len({group for _, group in groups}) == len(groups) == 6
    assert all(re.fullmatch(r"\d{8}-\d{6}(-\d+)?", group) for _, group in groups)
    with suppress(SystemExit):
        main(["check", str(tmp_path)])
    assert f"--group PATTERN, such as '{words[5]}'" in " ".join(capsys.readouterr().out.split())
    with suppress(SystemExit):  # clips of one source look alike
        main(["check", str(tmp_path), "--group", words[5]])
    assert "12 clips of 2 classes, 6 groups" in capsys.readouterr().out


def test_a_fast_source_is_thinned_and_a_large_one_reduced(tmp_path):
    source = write_video(tmp_path / "fast.mp4", num_frames=30, fps=60, size=(96, 128))
    clips, _ = recorded("wave", source, tmp_path, num_clips=1, pause_s=0, short_side=50)
    came = video.read_clip(clips[0], size=None, num_channels=1)
    assert came.source.fps == pytest.approx(30, rel=0.01)
    assert came.source.size == (50, 66)
    assert levels(clips[0]).tolist() == pytest.approx([level(number) for number in range(0, 24, 2)], abs=2)


def test_an_unsteady_source_keeps_its_times(tmp_path):
    times_s = [0.0, 0.04, 0.05, 0.3, 0.34, 0.38, 0.38]
    config = RecordConfig("wave", "-", tmp_path, num_clips=1, seconds=0.4, pause_s=0)
    frames = [frame(time_s, begins=not time_s) for time_s in [*times_s, 0.5]]
    (clip,) = Takes(config, print).clips(frames)
    (tmp_path / "a.mp4").write_bytes(clip.content())
    with video.frames(tmp_path / "a.mp4", size=None, num_channels=3) as parts:
        found = [float(moment) for part in parts for moment in (parts.part_seconds or [])[: len(part)]]
    assert found == pytest.approx([0.0, 0.04, 0.3, 0.34, 0.38], abs=0.001)


def frame(time_s, *, begins=False, edge=32):
    return LiveFrame(torch.full((3, edge, edge), 90, dtype=torch.uint8), time_s, 0.0, begins)


def test_a_gap_discards_the_clip_that_it_is_in(tmp_path):
    config = RecordConfig("wave", "-", tmp_path, num_clips=2, seconds=1, pause_s=0)
    before = [frame(number / 10, begins=not number) for number in range(15)]
    behind = [frame(5 + number / 10, begins=not number, edge=48) for number in range(12)]
    lines = []
    clips = list(Takes(config, lines.append).clips([*before, *behind]))
    assert [clip.num_frames for clip in clips] == [10, 10]
    assert "the source was interrupted: clip 2 begins again" in lines
    (tmp_path / "second.mp4").write_bytes(clips[1].content())
    assert video.read_clip(tmp_path / "second.mp4", size=None).source.size == (48, 48)


@pytest.mark.parametrize(("num_frames", "num_clips"), [(10, 1), (9, 0), (19, 1), (20, 2), (40, 2)])
def test_a_clip_that_ends_with_the_source_is_kept_if_it_is_whole(tmp_path, num_frames, num_clips):
    config = RecordConfig("wave", "-", tmp_path, num_clips=2, seconds=1, pause_s=0)
    frames = [frame(number / 10, begins=not number) for number in range(num_frames)]
    assert len(list(Takes(config, print).clips(frames))) == num_clips


def test_a_source_that_ends_early_is_told_and_leaves_nothing(source, tmp_path):
    with pytest.raises(DataError, match="ended before the first clip"):
        recorded("wave", source, tmp_path / "clips", seconds=3)
    with pytest.raises(DataError):
        recorded("wave", tmp_path / "missing.mp4", tmp_path / "clips")
    assert files_in(tmp_path) == []
    assert not (tmp_path / "clips" / "wave").exists()


def test_sessions_of_the_same_second_replace_nothing(tmp_path):
    session = Session.begin(tmp_path, "wave")
    twin = Session(session.folder, session.name)
    paths = [one.keep(content) for one, content in ((session, b"1"), (twin, b"2"), (session, b"3"), (twin, b"4"))]
    assert [path.read_bytes() for path in paths] == [b"1", b"2", b"3", b"4"]
    names = {Session.begin(tmp_path, "clap").name, session.name}
    assert len(names) == 2  # another class, probably in the same second
    assert {re.search(RECORDED, path.name)[1] for path in paths} == {session.name}


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("a/b", "contains"), ("a\\b", "contains"), ("a|b", "contains"), ("a\nb", "contains"), ("\x1b[2J", "contains"),
        (".hidden", "hidden"), ("..", "hidden"), ("  ", "blank"), ("wave ", "blank"), ("a" * 201, "200 bytes"),
        ("Wave", "'wave'"), ("w ave", "'wave'"),
    ],
)  # fmt: skip
def test_a_class_that_names_no_folder_is_refused(source, tmp_path, name, why):
    (tmp_path / "wave").mkdir()
    with pytest.raises(UsageError, match=why):
        recorded(name, source, tmp_path)
    assert files_in(tmp_path) == []


def test_clips_go_into_a_split_and_not_beside_it(source, tmp_path):
    (tmp_path / "train" / "wave").mkdir(parents=True)
    with pytest.raises(UsageError, match=r"--out .*train"):
        recorded("wave", source, tmp_path)
    assert len(recorded("wave", source, tmp_path / "train")[0]) == 2


@pytest.mark.parametrize(
    "wrong",
    [{"num_clips": 0}, {"seconds": 0}, {"seconds": float("nan")}, {"pause_s": -1}, {"short_side": 8}, {"fps": 0}],
)
def test_numbers_out_of_range_are_refused(tmp_path, wrong):
    with pytest.raises(UsageError, match=next(iter(wrong))):
        RecordConfig("wave", "0", tmp_path, **wrong)


def test_a_full_disk_loses_no_clip_that_was_written(source, tmp_path):
    lines, before = [], resource.getrlimit(resource.RLIMIT_FSIZE)

    def say(line):
        lines.append(line)
        if line.startswith("recording 2"):
            resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))

    try:
        with pytest.raises(OSError, match=r"wave_r.*_02\.mp4"):
            record(RecordConfig("wave", str(source), tmp_path, **QUICK), say=say)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert len(files_in(tmp_path)) == 1
    assert len(levels(next((tmp_path / "wave").iterdir()))) == 8
    assert any(line.startswith("1 of 2 clips recorded in") for line in lines)


def test_a_folder_that_cannot_be_written_is_told_before_anything_is_recorded(source, tmp_path):
    (tmp_path / "clips").write_text("a file")
    lines = []
    with pytest.raises(OSError, match="clips"):
        record(RecordConfig("wave", str(source), tmp_path / "clips"), say=lines.append)
    assert lines == []


def test_standard_input_is_recorded_from_the_terminal(tmp_path):
    options = ["--source", "-", "--out", str(tmp_path), "--num-clips", "2", "--seconds", "0.4", "--pause-s", "0.1"]
    content = encoded("matroska", num_frames=40, fps=20)
    done = subprocess.run([*COMMAND, *options], input=content, capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert [len(levels(path)) >= 6 for path in sorted((tmp_path / "wave").iterdir())] == [True, True]
    assert done.stdout == b""
    assert b"recording 2 of 2 ...\n" in done.stderr


@pytest.mark.parametrize(("number", "status"), [(signal.SIGKILL, -9), (signal.SIGINT, 130)])
def test_whatever_ends_it_no_half_clip_has_the_name_of_a_clip(tmp_path, number, status):
    (tmp_path / "long.mp4").write_bytes(encoded("mp4", num_frames=400, fps=20))
    options = ["--source", str(tmp_path / "long.mp4"), "--realtime", "--out", str(tmp_path / "clips")]
    started = subprocess.Popen(
        [*COMMAND, *options, "--seconds", "0.4", "--pause-s", "0.1"], stderr=subprocess.PIPE, text=True
    )
    with started:
        lines = []
        for line in started.stderr:
            lines.append(line)
            if line.startswith("recording 2"):
                time.sleep(0.2)
                started.send_signal(number)
    assert started.returncode == status
    whole = [path for path in (tmp_path / "clips" / "wave").iterdir() if not path.name.startswith(".")]
    assert whole
    assert all(len(levels(path)) >= 6 for path in whole)
    if number == signal.SIGINT:
        assert any(re.match(r"\d of 8 clips recorded in", line) for line in lines)
        assert lines[-1] == "interrupted\n"
        assert files_in(tmp_path / "clips") == sorted(path.name for path in whole)
