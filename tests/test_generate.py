import csv
import json
import os
import resource
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from saccade.data.digits import DigitsConfig, DigitSourceConfig
from saccade.data.video import read_clip
from saccade.errors import DataError, Interrupted, UsageError
from saccade.generate import LABELS, MANIFEST, POSES, SHEET, GenerateConfig, generate
from saccade.generate.config import FORMATS


def digits(**changes):
    return DigitsConfig(**{"digits": "uci", "num_clips": 5, "num_frames": 12} | changes)


def make(out, progress=None, **changes):
    """Generate into a folder; options are told apart by their names."""
    own = {name: value for name, value in changes.items() if name in ("format", "split", "fps")}
    others = {name: value for name, value in changes.items() if name not in own}
    return generate(GenerateConfig(out, **{"format": "npz"} | own), digits(**others), progress)


def rows(folder):
    with (folder / LABELS).open(newline="") as file:
        return list(csv.DictReader(file))


def poses(folder):
    return [json.loads(line) for line in (folder / POSES).read_text().splitlines()]


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


# What is written is what `MovingDigits` gives.


@pytest.mark.parametrize(
    "changes",
    [
        {"condition": "normal"},
        {"condition": "rotation", "scheme": "ordered", "angle": 180.0},
        {"condition": "scaling", "continuous": True, "scale": (0.6, 0.9)},
        {"scheme": "digits", "num_digits": 4, "canvas": 80},
        {"condition": "elastic", "split": "test", "instances": "shared", "clips_seed": 3},
    ],
)
def test_files_hold_the_clips_and_their_truth(tmp_path, changes):
    folder = make(tmp_path / "out", **changes)
    split = changes.pop("split", "train")
    batch = digits(**changes).clips(split).located(torch.arange(5))
    listed, told = rows(folder), poses(folder)
    assert len(listed) == len(told) == 5
    for index, (row, line) in enumerate(zip(listed, told, strict=True)):
        assert torch.equal(read_clip(folder / row["file"]).frames, batch.frames[index])
        assert (row["index"], line["file"]) == (str(index), row["file"])
        assert Path(row["file"]).parent.name == row["label"] == line["label"]
        assert line["digits"] == [int(d) for d in row["digits"].split()] == batch.poses.thing[index].tolist()
        assert [int(i) for i in row["instances"].split()] == batch.poses.instance[index].tolist()
        for name in ("centre_px", "angle_deg", "scale", "box_px"):
            truth = getattr(batch.poses, name)[index]
            assert torch.equal(torch.tensor(line[name], dtype=truth.dtype), truth)


def test_folders_are_named_by_class(tmp_path):
    pairs = make(tmp_path / "pairs")
    assert [row["file"] for row in rows(pairs)] == [f"0{i}/{i:06d}.npz" for i in range(5)]
    ordered = make(tmp_path / "ordered", scheme="ordered", num_clips=12)
    assert [row["label"] for row in rows(ordered)][-2:] == ["10", "11"]
    sets = make(tmp_path / "sets", scheme="digits", num_digits=3, num_clips=12)
    for row in rows(sets):
        assert row["label"] == "-".join(sorted(set(row["digits"].split())))


def test_shared_instances_show_the_training_digits(tmp_path):
    train = rows(make(tmp_path / "train", split="train"))
    shared = rows(make(tmp_path / "shared", split="test", instances="shared"))
    assert [row["instances"] for row in train] == [row["instances"] for row in shared]
    assert contents(tmp_path / "train")["00/000000.npz"] != contents(tmp_path / "shared")["00/000000.npz"]


@pytest.mark.parametrize(("form", "tolerance"), [("mp4", 4), ("gif", 0)])
def test_players_formats_show_every_frame(tmp_path, form, tolerance):
    folder = make(tmp_path / "out", format=form, fps=20.0)
    batch = digits().clips("train").batch(torch.arange(5))
    for row, frames in zip(rows(folder), batch.frames, strict=True):
        clip = read_clip(folder / row["file"])
        assert clip.frames.shape == frames.shape
        assert (clip.frames.int() - frames.int()).abs().max() <= tolerance
        assert clip.fps == 20


def test_the_manifest_holds_the_whole_configuration(tmp_path):
    described = json.loads((make(tmp_path, clips_seed=4) / MANIFEST).read_text())
    assert described["config"]["clips_seed"] == 4
    assert described["config"]["digits_source"] == "uci"
    assert described["motion"]["canvas_px"] == 64
    assert set(described["versions"]) == {"saccade", "torch"}


def test_the_contact_sheet_shows_the_digits(tmp_path):
    sheet = read_clip(make(tmp_path, num_clips=9) / SHEET, num_channels=3).frames[0]
    clips = digits(num_clips=9).clips("train")
    indices = torch.linspace(0, 8, 8).round().long()
    last = clips.batch(indices).frames[-1, -1, 0].repeat_interleave(2, 0).repeat_interleave(2, 1)
    bottom, right = sheet.shape[1] - 22, sheet.shape[2] - 6  # a caption and a gap below, a gap to the right
    shown = sheet[:, bottom - 128 : bottom, right - 128 : right]
    grey = (shown == shown[0]).all(0)
    assert torch.equal(shown[0][grey], last[grey])
    assert 0.8 < grey.float().mean() < 1  # the boxes are coloured


def test_progress_counts_to_the_end(tmp_path):
    seen = []
    make(tmp_path, lambda done, total: seen.append((done, total)))
    assert seen == [(done, 5) for done in range(1, 6)]


# Going on.


@pytest.mark.parametrize("form", ["npz", "mp4", "gif"])
def test_missing_files_come_back_the_same(tmp_path, form):
    out = tmp_path / "out"
    before = contents(make(out, format=form))
    for name in (f"02/000002.{form}", f"04/000004.{form}", LABELS, SHEET):
        (out / name).unlink()
    assert contents(make(out, format=form)) == before


def test_clips_that_are_there_are_left_alone(tmp_path):
    make(tmp_path)
    (tmp_path / "02/000002.npz").unlink()
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.npz")}
    make(tmp_path)
    assert len(list(tmp_path.rglob("*.npz"))) == 5
    assert {path: path.stat().st_mtime_ns for path in times} == times


def test_a_whole_dataset_is_left_alone(tmp_path):
    make(tmp_path)
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    make(tmp_path, lambda done, total: pytest.fail("nothing was to do"))
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == times


def test_ctrl_c_leaves_whole_files_and_the_next_call_goes_on(tmp_path):
    def interrupt(done, total):
        if done == 3:
            raise KeyboardInterrupt

    out = tmp_path / "out"
    with pytest.raises(Interrupted, match=r"3 of 5 clips are in .*out"):
        make(out, interrupt)
    left = contents(out)
    assert sorted(left) == ["00/000000.npz", "01/000001.npz", "02/000002.npz", SHEET, MANIFEST]
    expected = contents(make(tmp_path / "whole"))
    assert all(expected[name] == content for name, content in left.items())
    assert contents(make(out)) == expected


def test_kill_leaves_whole_files_and_the_next_call_clears_up(tmp_path):
    out = tmp_path / "out"
    script = (
        "import sys; from pathlib import Path; from saccade.generate import *; from saccade.data.digits import *;"
        "generate(GenerateConfig(Path(sys.argv[1]), format='npz'), DigitsConfig('uci', num_clips=400, num_frames=12))"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(out)]) as process:
        deadline = time.monotonic() + 60
        while len(list(out.glob("*/[0-9]*.npz"))) < 20 and time.monotonic() < deadline:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
    there = list(out.glob("*/[0-9]*.npz"))
    assert 20 <= len(there) < 400
    assert not (out / LABELS).exists()
    for path in there:
        assert read_clip(path).frames.shape == (12, 1, 64, 64)
    make(out, num_clips=400)
    assert len(rows(out)) == 400
    assert not list(out.rglob(".*"))
    assert contents(out) == contents(make(tmp_path / "whole", num_clips=400))


# Refusals.


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"clips_seed": 1}, "made with clips_seed=0, now clips_seed=1"),
        ({"num_clips": 6}, "made with num_clips=5, now num_clips=6"),
        ({"format": "gif"}, "made with format=npz, now format=gif"),
        ({"split": "test"}, "made with split=train, now split=test"),
        (
            {"condition": "normal", "angle": 20.0},
            r"made with condition=\['rotation_scaling'\], now condition=\['normal'\]",
        ),
        ({"scale": (0.5, 0.9)}, r"made with scale=\[0\.5, 1\.0\], now scale=\[0\.5, 0\.9\]"),
    ],
)
def test_another_configuration_is_refused_by_its_first_difference(tmp_path, changes, message):
    before = contents(make(tmp_path / "out"))
    with pytest.raises(UsageError, match=message):
        make(tmp_path / "out", **changes)
    assert contents(tmp_path / "out") == before


@pytest.mark.parametrize("canvas", [30, 65, 71, 72])
def test_a_contact_sheet_of_any_tile(tmp_path, canvas):
    small = {"digit_size": 20} if canvas < 56 else {}
    make(tmp_path / "out", canvas=canvas, **small)
    assert (tmp_path / "out" / "contact_sheet.png").is_file()


def test_a_call_that_made_no_clip_holds_no_place(tmp_path, monkeypatch):
    def full(*_given):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setitem(FORMATS, "npz", full)
        with pytest.raises(OSError, match="No space"):
            make(tmp_path / "out")
    make(tmp_path / "out", clips_seed=3)


def test_a_call_that_was_killed_at_its_first_clip_goes_on(tmp_path):
    whole = contents(make(tmp_path / "whole"))
    killed = tmp_path / "out"
    (killed / "00").mkdir(parents=True)
    for name in (MANIFEST, SHEET):
        (killed / name).write_bytes((tmp_path / "whole" / name).read_bytes())
    assert contents(make(killed)) == whole


def test_a_foreign_picture_is_left_alone(tmp_path):
    (tmp_path / SHEET).write_text("somebody's")
    with pytest.raises(UsageError, match=r"contact_sheet\.png, but no dataset\.json"):
        make(tmp_path)
    assert (tmp_path / SHEET).read_text() == "somebody's"


def test_other_digits_are_refused(tmp_path, monkeypatch):
    make(tmp_path / "out")
    images = digits().load("train")
    darker = replace(images, images=images.images // 2)
    monkeypatch.setattr(DigitSourceConfig, "load", lambda _config, _split: darker)
    with pytest.raises(UsageError, match=r"made with digits_sha256=\w+, now digits_sha256="):
        make(tmp_path / "out")


def test_a_folder_of_version_01_is_gone_on_with(tmp_path):
    make(tmp_path)
    manifest = json.loads((tmp_path / MANIFEST).read_text())
    told = manifest["config"]
    old = {"seed": told.pop("clips_seed"), "labels": told.pop("scheme"), "condition": told["condition"][0]}
    (tmp_path / MANIFEST).write_text(json.dumps(manifest | {"format": 1, "config": told | old}))
    (tmp_path / "02/000002.npz").unlink()
    make(tmp_path)
    assert (tmp_path / "02/000002.npz").is_file()
    with pytest.raises(UsageError, match="made with clips_seed=0, now clips_seed=1"):
        make(tmp_path, clips_seed=1)


def test_a_folder_of_other_things_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UsageError, match=r"holds thesis\.tex, but no dataset\.json"):
        make(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"format": 1}', '{"config": 7}'])
def test_a_damaged_manifest_is_refused(tmp_path, damage):
    make(tmp_path / "out")
    (tmp_path / "out" / MANIFEST).write_text(damage)
    with pytest.raises(DataError, match=r"dataset\.json is damaged"):
        make(tmp_path / "out")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_clips": 0}, "num_clips must be at least 1"),
        ({"condition": "rotatoin"}, "did you mean 'rotation'"),
        ({"format": "mp5"}, "did you mean 'mp4'"),
        ({"split": "testing"}, "did you mean 'test'"),
        ({"instances": "joint"}, "did you mean 'disjoint'"),
        ({"scheme": "pairs"}, "did you mean 'pair'"),
        ({"num_digits": 3}, "3"),
        ({"scheme": "digits", "num_digits": 6}, "1 to 5 digits"),
        ({"canvas": 20}, "canvas of 20 px does not hold"),
        ({"num_frames": 0}, "at least 1 frame"),
        ({"fps": 0.0}, "fps must lie in"),
        ({"fps": float("nan")}, "fps must lie in"),
        ({"fps": 60.0, "format": "gif"}, "0.1 to 50 for gif"),
        ({"scale": (1.0, 0.5)}, "scale_range"),
        ({"order": "visibly", "scheme": "ordered"}, "did you mean 'visible'"),
    ],
)
def test_a_wrong_call_says_what_is_wrong(tmp_path, changes, message):
    with pytest.raises(UsageError, match=message):
        make(tmp_path / "out", **changes)
    assert not (tmp_path / "out").exists()


def test_a_place_that_cannot_hold_a_folder_is_an_os_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        make(tmp_path / "file" / "out")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_an_os_error(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError):
        make(tmp_path / "out")


def test_a_full_disk_keeps_what_was_written(tmp_path):
    out = tmp_path / "out"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(done, total):
        if done == 2:
            resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))

    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        with pytest.raises(OSError, match="too large"):
            make(out, fill)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert sorted(contents(out)) == ["00/000000.npz", "01/000001.npz", SHEET, MANIFEST]
    assert contents(make(out)) == contents(make(tmp_path / "whole"))


def test_clips_of_several_numbers_of_digits_tell_only_of_those_that_are_there(tmp_path):
    told = {"num_clips": 12, "scheme": "digits", "num_digits": (1, 5), "num_frames": 3, "clutter": 2, "noise": 8.0}
    folder = make(tmp_path, **told)
    with (folder / "labels.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    poses = [json.loads(line) for line in (folder / "poses.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len({len(pose["digits"]) for pose in poses}) > 2
    for row, pose in zip(rows, poses, strict=True):
        digits = pose["digits"]
        assert row["label"] == "-".join(map(str, sorted(set(digits))))
        assert row["digits"] == " ".join(map(str, digits))
        assert "-1" not in row["instances"]
        for name in ("centre_px", "angle_deg", "scale", "box_px"):
            assert [len(frame) for frame in pose[name]] == [len(digits)] * 3
    assert make(tmp_path, **told) == folder  # and the same call again finds all of it there
