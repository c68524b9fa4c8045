import shutil

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from saccade.data.collection import Entry
from saccade.data.duplicates import find, fingerprint
from saccade.data.scan import read_small, record_of
from saccade.data.video_writing import write_gif, write_mp4


def scene(seed, *, num_frames=40, size=(64, 80), take=0):
    """A picture in front of which two bright spots move smoothly; another take moves them a little otherwise."""
    random, other = (torch.Generator().manual_seed(number) for number in (seed, 1000 + take))
    height, width = size
    picture = F.interpolate(120 * torch.rand(1, 1, 5, 6, generator=random), size, mode="bilinear")[0]
    centres = 0.5 + 0.35 * torch.sin(
        torch.rand(2, 2, 1, generator=random) * 6
        + 0.3 * torch.rand(2, 2, 1, generator=other)
        + torch.linspace(0, 1, num_frames) * (2 + 4 * torch.rand(2, 2, 1, generator=random))
    )
    y, x = torch.meshgrid(torch.arange(height) / height, torch.arange(width) / width, indexing="ij")
    away = (y - centres[:, 0, :, None, None]) ** 2 + (x - centres[:, 1, :, None, None]) ** 2
    frames = picture + 130 * torch.exp(-away / 0.02).sum(0)[:, None]
    return frames.clamp(0, 255).round().to(torch.uint8)


def smaller(frames):
    return F.interpolate(frames.float(), scale_factor=0.5, mode="bilinear", antialias=True).round().to(torch.uint8)


def record(path, label="a", **changes):
    found = record_of(Entry(path, (label,), **changes), read_small)
    assert found.error is None
    return found


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """Write six clips, and three takes of one of them."""
    root = tmp_path_factory.mktemp("originals")
    for seed in range(6):
        write_mp4(root / f"{seed}.mp4", scene(seed), 20.0)
    for take in range(1, 4):
        write_mp4(root / f"0 take {take}.mp4", scene(0, take=take), 20.0)
    return [record(path) for path in sorted(root.glob("*.mp4"))]


def names(found):
    return [sorted(entry.path.name for entry in one.entries) for one in found]


def test_takes_of_an_action_are_no_duplicates(originals):
    assert find(originals) == []


def test_equal_files_are_found_whatever_their_names(originals, tmp_path):
    copies = [record(shutil.copy(originals[number].entry.path, tmp_path / f"copy {number}.gif")) for number in (4, 5)]
    found = find([*copies, *originals])
    assert names(found) == [["1.mp4", "copy 4.gif"], ["2.mp4", "copy 5.gif"]]
    assert all(one.exact for one in found)


@pytest.mark.parametrize(
    "altered",
    [
        lambda frames: smaller(frames),
        lambda frames: (frames * 0.75 + 40).round().to(torch.uint8),
        lambda frames: frames.expand(-1, 3, -1, -1),
        lambda frames: (frames.float() + 3 * torch.randn(frames.shape)).clamp(0, 255).to(torch.uint8),
        lambda frames: frames[:32],
        lambda frames: frames[8:],
        lambda frames: frames[4:36],
    ],
    ids=["smaller", "brighter", "colour", "noise", "end", "start", "both"],
)
def test_altered_copies_look_alike(originals, tmp_path, altered):
    write_mp4(tmp_path / "copy.mp4", altered(scene(2)), 20.0)
    (found,) = find([*originals, record(tmp_path / "copy.mp4")])
    assert names([found]) == [["2.mp4", "copy.mp4"]]
    assert not found.exact


def test_another_codec_and_rate_look_alike(originals, tmp_path):
    write_gif(tmp_path / "copy.gif", scene(2)[::2], 10.0)
    assert names(find([*originals, record(tmp_path / "copy.gif")])) == [["2.mp4", "copy.gif"]]


def test_a_mirrored_or_reversed_clip_is_another(originals, tmp_path):
    write_mp4(tmp_path / "mirrored.mp4", scene(2).flip(-1), 20.0)
    write_mp4(tmp_path / "reversed.mp4", scene(2).flip(0), 20.0)
    assert find([*originals, *map(record, sorted(tmp_path.glob("*.mp4")))]) == []


def test_a_set_says_what_it_crosses(originals, tmp_path):
    path = originals[-1].entry.path
    shutil.copy(path, tmp_path / "copy.mp4")
    given = [
        (record(path, "run", split="train", group="x"), record(tmp_path / "copy.mp4", "run", split="test", group="x")),
        (record(path, "run", group="x"), record(tmp_path / "copy.mp4", "jump", group="y")),
        (record(path, "run"), record(tmp_path / "copy.mp4", "run")),
    ]
    crossed = []
    for pair in given:
        (one,) = find(pair)
        crossed.append((one.across_classes, one.across_splits, one.across_groups))
    assert crossed == [(False, True, False), (True, False, True), (False, False, True)]


def test_copies_of_both_kinds_are_in_a_set_of_each(originals, tmp_path):
    shutil.copy(originals[-1].entry.path, tmp_path / "equal.mp4")
    write_mp4(tmp_path / "smaller.mp4", smaller(scene(5)), 20.0)
    exact, near = find([*originals, *map(record, sorted(tmp_path.glob("*.mp4")))])
    assert (exact.exact, near.exact) == (True, False)
    assert names([exact, near]) == [["5.mp4", "equal.mp4"], ["5.mp4", "equal.mp4", "smaller.mp4"]]


def test_parts_of_a_file_are_no_copies_of_each_other(tmp_path):
    write_mp4(tmp_path / "long.mp4", torch.cat([scene(1), scene(2)]), 20.0)
    parts = [record(tmp_path / "long.mp4", start_s=start_s, end_s=start_s + 2.0) for start_s in (0.0, 2.0)]
    assert find(parts) == []
    assert len(find([*parts, parts[0]])) == 1


def test_unreadable_clips_are_in_no_set(originals, tmp_path):
    for name in "ab":
        (tmp_path / f"{name}.mp4").write_bytes(b"the same")
    broken = [record_of(Entry(tmp_path / f"{name}.mp4", ("a",)), read_small) for name in "ab"]
    assert find([*originals, *broken]) == []
    assert find([]) == find(originals[:1]) == []


def test_blank_clips_look_like_no_other(tmp_path):
    for grey in (0, 128, 255):
        write_mp4(tmp_path / f"{grey}.mp4", torch.full((5, 1, 32, 32), grey, dtype=torch.uint8), 10.0)
    assert find([record(path) for path in sorted(tmp_path.glob("*.mp4"))]) == []


@pytest.mark.parametrize(("num_frames", "channels", "size"), [(1, 1, (1, 1)), (3, 3, (5, 300)), (500, 1, (32, 32))])
def test_clips_of_any_size_have_a_fingerprint(num_frames, channels, size):
    frames = torch.randint(0, 256, (num_frames, channels, *size), dtype=torch.uint8)
    marks = fingerprint(frames)
    assert marks.dtype == np.uint8
    assert marks.shape == (48, 12, 12)
