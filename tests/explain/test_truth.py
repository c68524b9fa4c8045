import csv
import json
import shutil

import pytest
import torch

from saccade.data import digits
from saccade.data.digits import DigitsConfig, schemes
from saccade.data.digits.motion import Motion
from saccade.data.digits.moving_digits import MovingDigits
from saccade.explain.truth import Truth, truth_of
from saccade.generate import GenerateConfig, generate


def test_a_generated_clip_has_its_generators_truth(generated):
    truth = truth_of(generated)
    clips = MovingDigits(digits.load("uci", "train"), Motion(num_frames=8), num_clips=4)
    poses = clips.located(torch.tensor([3])).poses
    assert truth.digits == (0, 3)
    assert truth.scheme == "pair"
    for name in ("centre_px", "angle_deg", "scale", "box_px", "thing"):
        assert torch.equal(getattr(truth.poses, name).float(), getattr(poses, name).float()), name


def test_other_files_have_none(clip, generated, tmp_path):
    assert truth_of(clip) is None
    shutil.copy(generated, generated.parent / "a_copy.npz")  # not in the tables
    assert truth_of(generated.parent / "a_copy.npz") is None
    assert truth_of(tmp_path / "nothing.npz") is None


def copy_of(generated, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(generated.parents[1], folder)
    return folder, folder / generated.relative_to(generated.parents[1])


@pytest.mark.parametrize("name", ["labels.csv", "poses.jsonl", "dataset.json"])
@pytest.mark.parametrize(
    "content",
    [None, b"", b"\xff\xfe\x00", b"{}\n", b"file,label\n03/000003.npz,03\n", b'{"file":"03/000003.npz"}\n', b"[[[[[["],
)
def test_tables_that_mean_something_else_are_left_aside(generated, tmp_path, name, content):
    folder, clip = copy_of(generated, tmp_path)
    assert truth_of(clip) is not None
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_bytes(content)
    if name == "labels.csv" and content and content.startswith(b"file,label"):
        assert truth_of(clip) is not None  # its columns are all that is read
    else:
        assert truth_of(clip) is None


@pytest.mark.parametrize(
    "change",
    [
        {"digits": [0, 3, 5]},
        {"digits": []},
        {"digits": 3},
        {"digits": ["a", "b"]},
        {"box_px": [[0, 0, 1, 1]]},
        {"angle_deg": "much"},
        {"scale": None},
        {"scale": [[1.0, 1.0]]},
    ],
)
def test_poses_that_do_not_fit_are_left_aside(generated, tmp_path, change):
    folder, clip = copy_of(generated, tmp_path)
    lines = [json.loads(line) for line in (folder / "poses.jsonl").read_text().splitlines()]
    lines = [line | change if line["file"] == "03/000003.npz" else line for line in lines]
    (folder / "poses.jsonl").write_text("".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines))
    assert truth_of(clip) is None


def test_sets_of_digits_are_named_as_in_their_folder(tmp_path):
    some = DigitsConfig("uci", scheme="digits", num_digits=(1, 4), num_clips=12, num_frames=2)
    generate(GenerateConfig(tmp_path, format="npz"), some)
    with (tmp_path / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    truths = [truth_of(tmp_path / row["file"]) for row in rows]
    assert [truth.named_by(schemes.create("digits").labels) for truth in truths] == [row["label"] for row in rows]
    assert {len(truth.digits) for truth in truths} == {1, 2, 3, 4}
    assert all(truth.poses.box_px.shape == (1, 2, len(truth.digits), 4) for truth in truths)


@pytest.mark.parametrize(
    ("shown", "made_for", "scheme", "named"),
    [
        ((7, 2), "pair", "pair", "27"),
        ((7, 2), "ordered", "ordered", "72"),
        ((7, 2), "ordered", "pair", "27"),
        ((7, 2), "pair", "ordered", None),
        ((7, 2), "pair", "digits", "2-7"),
        ((7, 7), "digits", "digits", "7"),
        ((7, 2, 5), "digits", "pair", None),
    ],
)
def test_a_truth_is_named_as_verdicts_are(shown, made_for, scheme, named):
    assert Truth(made_for, shown, None).named_by(schemes.create(scheme).labels) == named


def test_poses_follow_the_frames_size(generated):
    truth = truth_of(generated)
    same, larger = truth.poses_in(5, (64, 64), (64, 64)), truth.poses_in(5, (64, 64), (128, 64))
    assert torch.equal(same.box_px, truth.poses.box_px[:, :5])
    assert torch.equal(larger.box_px, same.box_px * torch.tensor([2, 1, 2, 1]))
    assert torch.equal(larger.scale, same.scale * 2)
    assert torch.equal(larger.angle_deg, same.angle_deg)
    # The centre of the first pixel, at 0, becomes the middle of two pixels.
    assert torch.allclose(larger.centre_px[..., 0], same.centre_px[..., 0] * 2 + 0.5)
    assert torch.equal(larger.centre_px[..., 1], same.centre_px[..., 1])
