"""The clips that paths and patterns name."""

from pathlib import Path

import pytest

from saccade.predict.config import find_all


@pytest.fixture
def clips(tmp_path, monkeypatch):
    for name in (
        "b/2.mp4",
        "b/10.mp4",
        "b/notes.txt",
        "a/deep/1.gif",
        "a/.hidden.mp4",
        "c.npz",
        "[x].mp4",
        "empty/x.txt",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names(*given):
    found, missing = find_all([Path(one) for one in given])
    return [str(path) for path in found], [str(error) for _, error in missing]


def test_files_folders_and_patterns_are_clips_in_order(clips):
    assert names("c.npz", "b", "a") == (["c.npz", "b/10.mp4", "b/2.mp4", "a/deep/1.gif"], [])
    assert names("b/*.mp4") == (["b/10.mp4", "b/2.mp4"], [])
    assert names("**/*.gif") == (["a/deep/1.gif"], [])
    assert names(clips / "b" / "*") == ([str(clips / "b/10.mp4"), str(clips / "b/2.mp4")], [])  # no notes
    assert names("*") == (["[x].mp4", "a/deep/1.gif", "b/10.mp4", "b/2.mp4", "c.npz"], [])


def test_a_clip_that_is_named_twice_counts_once(clips):
    (clips / "b" / "9.mp4").symlink_to(clips / "b" / "2.mp4")
    found, _ = names("b/2.mp4", "b", "./b/2.mp4", clips / "b", "b/*", "**/*.mp4")
    assert found == ["b/2.mp4", "b/10.mp4", "[x].mp4"]


def test_a_file_that_exists_is_no_pattern(clips):
    assert names("[x].mp4") == (["[x].mp4"], [])
    (clips / "[x].mp4").unlink()
    _, (error,) = names("[x].mp4")
    assert error.startswith("no file matches [x].mp4")


def test_what_names_no_clip_is_told_and_costs_nothing_else(clips):
    found, errors = names("none.mp4", "b/*.avi", "c.npz", "empty/*", "empty", f"{'x' * 300}.mp4")
    assert found == ["c.npz"]
    for error, told in zip(
        errors,
        (
            "there is nothing at none.mp4",
            "no file matches b/*.avi",
            "empty/* matches 1 files or folders, but no clip is among them",
            "empty holds no clip",
            "File name too long",
        ),
        strict=True,
    ):
        assert told in error
