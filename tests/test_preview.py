import csv
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib import pyplot

from saccade.clips import FrameFormat
from saccade.data import Folder, video
from saccade.data.augment import Augmentation
from saccade.data.video_writing import write_mp4
from saccade.errors import DataError, UsageError
from saccade.models import efficientnet
from saccade.preview import PreviewConfig, preview

from .own_clips import CLASSES, moving_square, write_folder

RGB = FrameFormat(3, (48, 64), fps=10.0)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("own") / "clips", per_class=4)


def picture(config, *given, **options):
    """Return the pixels of the sheet, each as one number."""
    preview(config, *given, **options)
    return (255 * pyplot.imread(config.out)).round().astype(np.uint8).view(np.uint32)[..., 0]


def num_shown(sheet, frame):
    return len(tops(sheet, frame))


def tops(sheet, frame):
    """Return the rows of a sheet where a frame begins, twice as large."""
    opaque = torch.cat((frame, torch.full_like(frame[:1], 255))).permute(1, 2, 0)
    wanted = opaque.repeat_interleave(2, 0).repeat_interleave(2, 1).numpy().view(np.uint32)[..., 0]
    height, width = (edge - size + 1 for edge, size in zip(sheet.shape, wanted.shape, strict=True))
    y, x = np.unravel_index(wanted.argmax(), wanted.shape)  # the background has other colours
    places = np.argwhere(sheet[y : y + height, x : x + width] == wanted[y, x])
    windows = {(y, x): sheet[y : y + len(wanted), x : x + wanted.shape[1]] for y, x in places.tolist()}
    return [y for (y, _), window in windows.items() if np.array_equal(window, wanted)]


def first_frames(folder, **changes):
    paths = sorted(folder.rglob("*.mp4"))
    return {path: video.read_clip(path, num_channels=3, max_frames=1, **changes).frames[0] for path in paths}


def test_frames_are_shown_as_they_are_with_views_below(clips, tmp_path):
    config = PreviewConfig(clips, tmp_path / "all.png", num_clips=99, trunk="small")
    frames = first_frames(clips)
    sheet = picture(config)
    places = [tops(sheet, frame) for frame in frames.values()]
    assert [len(place) for place in places] == [1] * len(frames)
    assert places == sorted(places)
    unchanged = picture(config, RGB, Augmentation.none())
    assert all(num_shown(unchanged, frame) == 3 for frame in frames.values())
    alone = picture(replace(config, num_views=0), RGB)
    assert all(num_shown(alone, frame) == 1 for frame in frames.values())
    assert alone.shape[0] < sheet.shape[0] / 2
    assert sheet.shape == unchanged.shape


def test_clips_are_resized_to_the_format_of_training(tmp_path):
    root = write_folder(tmp_path / "clips", per_class=4, size=(96, 130))
    wanted = Folder(root).frame_format
    assert wanted.size != (96, 130)
    sheet = picture(PreviewConfig(root, tmp_path / "a.png", num_clips=10, trunk="small"))
    frames = first_frames(root, size=wanted.size)
    assert all(num_shown(sheet, frame) == 1 for frame in frames.values())


def headings(monkeypatch, config, *given):
    """Draw a sheet; return its heading and the size of the frames of its first clip."""
    told = []
    monkeypatch.setattr(
        "saccade.preview.command.write_sheet",
        lambda _path, heading, blocks: told.append((heading, tuple(blocks[0].rows[0].shape[-2:]))),
    )
    preview(config, *given)
    return told[0]


def test_frames_are_those_of_the_trunk_that_training_takes(clips, tmp_path, monkeypatch):
    config = PreviewConfig(clips, tmp_path / "a.png", num_clips=1)
    large = "What the trunk efficientnet-lite0 sees: RGB frames of 213x160 px"
    small = "What the trunk small sees: RGB frames of 64x48 px"
    wanted = {None: (small, (48, 64)), "a file": (large, (160, 213))}
    for file, (heading, size) in wanted.items():
        monkeypatch.setattr(efficientnet, "pretrained_file", lambda file=file: file)
        said, drawn = headings(monkeypatch, config)
        assert said.startswith(heading)
        assert drawn == size
    assert headings(monkeypatch, replace(config, trunk="small"))[1] == (48, 64)
    assert headings(monkeypatch, config, RGB)[0].startswith("What a model sees: RGB frames of 64x48 px")
    # Clips of a trunk that does not learn are not changed.
    assert "--finetune" in headings(monkeypatch, replace(config, trunk="resnet18"))[0]
    with pytest.raises(UsageError, match="no trunk is called 'large'"):
        replace(config, trunk="large")


def test_classes_take_turns_by_the_seed(clips, tmp_path):
    frames = first_frames(clips)

    def shown(seed):
        config = PreviewConfig(clips, tmp_path / f"{seed}.png", num_clips=2, num_views=0, seed=seed)
        sheet = picture(config, RGB)
        return [path for path, frame in frames.items() if num_shown(sheet, frame)]

    found = [shown(seed) for seed in range(5)]
    assert all([path.relative_to(clips).parts[0] for path in paths] == list(CLASSES) for paths in found)
    assert len(set(map(tuple, found))) > 1


def test_the_same_call_writes_the_same_file(clips, tmp_path):
    config = PreviewConfig(clips, tmp_path / "a.png", num_clips=99)
    written = []
    for seed in (0, 0, 1):  # all clips are drawn, so that the seed decides the views alone
        preview(replace(config, seed=seed), RGB)
        written.append(config.out.read_bytes())
    assert written[0] == written[1] != written[2]


def test_grey_frames_and_long_clips(tmp_path):
    for label in CLASSES:
        (tmp_path / label).mkdir()
        frames = moving_square(label, 0, num_frames=12)
        write_mp4(tmp_path / label / "a.mp4", frames.repeat(30, 1, 1, 1), 10.0)
    told = []
    config = PreviewConfig(tmp_path, tmp_path / "a.png", num_clips=7)
    sheet = picture(config, FrameFormat(1, (48, 64)), progress=lambda done, total: told.append((done, total)))
    assert told == [(1, 2), (2, 2)]
    red, green, blue, _ = np.moveaxis(sheet[..., None].view(np.uint8), -1, 0).astype(int)
    assert (abs(red - green) + abs(red - blue)).max() < 50  # the text is a bluish grey


def test_unreadable_clips_give_their_turn_to_others(clips, tmp_path):
    root = write_folder(tmp_path / "clips", per_class=2)
    frames = first_frames(root)
    for number in range(6):
        (root / CLASSES[0] / f"broken_{number}.mp4").write_bytes(b"no video")
    failures = []
    config = PreviewConfig(root, tmp_path / "a.png", num_clips=99, num_views=0)
    sheet = picture(config, RGB, unreadable=failures.append)
    assert len(failures) == 6
    assert all("broken_" in str(error) for error in failures)
    assert [num_shown(sheet, frame) for frame in frames.values()] == [1] * 4
    with pytest.raises(DataError, match=r"broken_\d\.mp4 cannot be read"):
        preview(config, RGB)
    (root / CLASSES[0] / "missing.mp4").symlink_to(tmp_path / "nowhere")
    failures.clear()
    picture(config, RGB, unreadable=failures.append)
    assert [error for error in map(str, failures) if "broken_" not in error] == [
        f"{root / CLASSES[0] / 'missing.mp4'} does not exist: the file that it links to is missing"
    ]
    with pytest.raises(DataError, match=r"missing\.mp4 does not exist"):
        preview(config, RGB)
    for path in root.rglob("*.mp4"):
        path.write_bytes(b"no video")
    with pytest.raises(DataError, match=r"none of the 11 clips of .* can be read"):
        preview(config, RGB, unreadable=failures.append)


def test_parts_of_files_from_a_table(clips, tmp_path):
    table = tmp_path / "clips.csv"
    path = sorted(clips.rglob("*.mp4"))[0]
    with table.open("w", newline="") as file:
        csv.writer(file).writerows(
            [
                ("path", "class", "start_s", "end_s"),
                (path, "a", "", "0.5"),
                (path, "a|b", "0.5", ""),
                (path, "", "1", ""),
            ]
        )
    sheet = picture(PreviewConfig(table, tmp_path / "a.png", num_views=0), RGB)
    frames = video.read_clip(path, num_channels=3).frames
    assert [num_shown(sheet, frames[t]) for t in (0, 5, 10)] == [1, 1, 2]


def test_names_are_text_and_nothing_else(tmp_path):
    # Warnings are errors: Matplotlib warns of letters that its font lacks, and fails at formulas.
    for name in ("$\\frac$", "[bold]:smile:\x1b[31m", "\u8dd1\u6b65" * 30, "a" * 200):
        (tmp_path / name).mkdir()
        write_mp4(tmp_path / name / "\U0001f600 $y^.mp4", moving_square("x", 0, num_frames=1), 10.0)
    assert picture(PreviewConfig(tmp_path, tmp_path / "a.png"), RGB).shape[1] > 64


@pytest.mark.parametrize("size", [(28, 300), (300, 28), (1, 1)])
def test_frames_of_any_shape(tmp_path, size):
    for label in CLASSES:
        (tmp_path / label).mkdir()
        frames = torch.zeros(2, 1, *size, dtype=torch.uint8).numpy()
        np.savez(tmp_path / label / "a.npz", frames=frames)
    sheet = picture(PreviewConfig(tmp_path, tmp_path / "a.png"), FrameFormat(3, size))
    assert (sheet == 0xFF000000).sum() >= 2 * 3 * 2 * size[0] * size[1]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"num_clips": 0}, "num_clips must lie in 1 to 100; got 0"),
        ({"num_views": 11}, "num_views must lie in 0 to 10; got 11"),
        ({"seed": -1}, "seed must lie in 0 to"),
        ({"out": Path("a.jpg")}, "a.jpg is to be a PNG file; give it a name that ends in .png"),
    ],
)
def test_wrong_options(wrong, message):
    with pytest.raises(UsageError, match=re.escape(message)):
        PreviewConfig(Path("clips"), **wrong)


def test_what_cannot_be_written_or_read(clips, tmp_path):
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(OSError, match="is not a regular file"):  # before the clips are looked for
        preview(PreviewConfig(tmp_path / "nowhere", tmp_path / "folder.png"))
    with pytest.raises(DataError, match="does not exist"):
        preview(PreviewConfig(tmp_path / "nowhere", tmp_path / "a.png"))
    with pytest.raises(UsageError, match="draw fewer clips or views"):
        preview(PreviewConfig(clips, tmp_path / "a.png", num_clips=10), FrameFormat(3, (2000, 30)))
    assert not (tmp_path / "a.png").exists()
