import io
import math
import pickle

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from scipy import ndimage

from saccade.data import digits
from saccade.data.digits import CONDITIONS, Digits, Motion, MovingDigits
from saccade.data.digits.counter_random import INDEX_BITS
from saccade.data.digits.drawing import draw_patches
from saccade.errors import UsageError

MOVING = [(condition, continuous) for condition in CONDITIONS for continuous in (False, True)]


@pytest.fixture(scope="module")
def glyphs():
    """Ten digits of which no two of the eight quarter turns and mirror images are alike; they fill their frame."""
    images = torch.zeros(10, 28, 28, dtype=torch.uint8)
    images[:, :, :3] = 200
    images[:, :3, :] = 255
    for digit in range(10):
        images[digit, 4 + 2 * digit, 3:26] = 90
    images[:, 25:, :8] = 150
    return Digits(images, torch.arange(10), "glyphs", "train")


def clips_of(uci, condition="rotation_scaling", *, split="train", num_frames=12, **arguments):
    names = {"labels", "order", "num_digits", "num_clips", "seed"} & arguments.keys()
    dataset = {name: arguments.pop(name) for name in names}
    return MovingDigits(uci[split], Motion(condition, num_frames, **arguments), **dataset)


# --- A clip is a function of (split, seed, index)


@pytest.mark.parametrize(("condition", "continuous"), MOVING)
def test_pixels_are_the_same_bits_for_any_batch(uci, condition, continuous):
    clips = clips_of(uci, condition, continuous=continuous, frames_per_setting=3)
    indices = torch.randperm(1000, generator=torch.Generator().manual_seed(1))[:100]
    whole = clips.batch(indices).frames  # more than a round of rendering
    for size in (1, 2, 7, 33):
        parts = [clips.batch(part).frames for part in indices[:33].split(size)]
        assert torch.equal(torch.cat(parts), whole[:33]), size


@pytest.mark.parametrize("condition", ["normal", "rotation_scaling", "elastic"])
def test_pixels_are_the_same_bits_on_two_threads(uci, condition):
    clips = clips_of(uci, condition)
    expected = clips.batch(torch.arange(30)).frames
    torch.set_num_threads(2)
    try:
        assert torch.equal(clips.batch(torch.arange(30)).frames, expected)
        assert torch.equal(clips.batch(torch.tensor([29])).frames, expected[29:])
    finally:
        torch.set_num_threads(1)


@pytest.mark.parametrize(("condition", "continuous"), MOVING)
def test_poses_are_the_same_for_any_batch(uci, condition, continuous):
    clips = clips_of(uci, condition, continuous=continuous)
    together = clips.batch(torch.arange(100), poses=True).poses
    alone = clips.batch(torch.tensor([99]), poses=True).poses
    for name in ("centre_px", "angle_deg", "scale", "box_px", "thing", "instance"):
        assert torch.equal(getattr(together, name)[99:], getattr(alone, name)), name


@pytest.mark.parametrize("condition", CONDITIONS)
def test_a_longer_clip_begins_with_the_shorter_one(uci, condition):
    short, long = (clips_of(uci, condition, num_frames=n).batch(torch.arange(20)).frames for n in (7, 21))
    assert torch.equal(long[:, :7], short)


def test_the_length_of_the_dataset_changes_nothing_and_takes_no_memory(uci):
    few, many = clips_of(uci, num_clips=5), clips_of(uci, num_clips=1 << INDEX_BITS)
    assert torch.equal(few.batch(torch.arange(5)).frames, many.batch(torch.arange(5)).frames)
    assert len(many) == 2**38
    frames, label = many[2**38 - 1]
    assert frames.shape == (12, 1, 64, 64)
    assert label == (2**38 - 1) % 55
    held = io.BytesIO()
    pickle.dump(many, held)
    assert held.tell() < 3 * uci["train"].images.numel()


def test_every_seed_and_every_index_is_another_clip(uci):
    frames = torch.cat([clips_of(uci, seed=seed).batch(torch.arange(50)).frames for seed in (0, 1, -1, 2**40)])
    assert len(frames.flatten(1).unique(dim=0)) == 200


def test_int32_indices_are_the_same_clips(uci):
    clips = clips_of(uci)
    indices = torch.tensor([0, 127, 128, 3000])
    assert (clips.batch(indices.int()).frames == clips.batch(indices).frames).all()


def test_float_clips_are_the_uint8_ones_over_255(uci):
    clips = clips_of(uci)
    grey = clips.batch(torch.arange(8)).frames
    assert grey.dtype == torch.uint8
    light = clips.batch(torch.arange(8), dtype=torch.float32).frames
    assert light.dtype == torch.float32
    assert torch.equal(light, grey.float() / 255)
    assert light.max() > 0.9


def test_clips_are_generated_into_fresh_memory(uci):
    clips = clips_of(uci)
    first = clips.batch(torch.arange(4)).frames
    kept = first.clone()
    clips.batch(torch.arange(4, 8))
    assert torch.equal(first, kept)


def test_clips_pass_through_a_data_loader(uci):
    clips = clips_of(uci, num_clips=11)
    batches = list(torch.utils.data.DataLoader(clips, batch_size=4))
    assert torch.equal(torch.cat([frames for frames, _ in batches]), clips.batch(torch.arange(11)).frames)
    assert torch.cat([labels for _, labels in batches]).tolist() == list(range(11))


def test_poses_never_change(uci):
    # Golden: whoever changes these changes every dataset that was ever generated.
    poses = clips_of(uci, num_frames=7).batch(torch.tensor([41]), poses=True).poses
    assert poses.thing.tolist() == [[5, 6]]
    assert poses.instance.tolist() == [[281, 745]]
    assert poses.centre_px[0, [0, 4, 6]].tolist() == [
        [[35.5, 25.5], [37.5, 42.5]],
        [[40.5, 19.5], [39.5, 31.5]],
        [[27.5, 39.5], [26.5, 36.5]],
    ]
    assert (poses.scale[0, [0, 6], 0] * 65536).tolist() == [44157, 43326]
    assert poses.angle_deg[0, [0, 6], 0].tolist() == pytest.approx([-16.826, -24.765], abs=1e-3)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize(("condition", "continuous"), MOVING)
def test_a_gpu_gives_the_same_poses_and_pixels_within_one_grey_level(uci, condition, continuous):
    clips = clips_of(uci, condition, continuous=continuous)
    here, there = (clips.to(device).batch(torch.arange(300, device=device), poses=True) for device in ("cpu", "cuda"))
    for name in ("centre_px", "angle_deg", "scale", "thing", "instance"):
        assert torch.equal(getattr(here.poses, name), getattr(there.poses, name).cpu()), name
    assert (here.frames.int() - there.frames.cpu().int()).abs().max() <= 1


# --- Splits and instances


def test_the_splits_never_meet(uci):
    frames, poses, images = [], [], []
    for split in digits.SPLITS:
        batch = clips_of(uci, split=split).batch(torch.arange(300), poses=True)
        frames.append(batch.frames.flatten(1))
        poses.append(torch.cat((batch.poses.angle_deg[:, :, 0], batch.poses.scale[:, :, 0]), 1))
        images.append(uci[split].images.flatten(1))
    for several in (frames, images):
        assert len(torch.cat(several).unique(dim=0)) == sum(len(part.unique(dim=0)) for part in several)
    assert len(torch.cat(poses).unique(dim=0)) == 900


def test_the_splits_draw_other_poses_for_the_same_digits(uci):
    batches = [
        MovingDigits(uci["train"], Motion("rotation_scaling", 5), split=split).batch(torch.arange(300), poses=True)
        for split in digits.SPLITS
    ]
    angles = torch.cat([batch.poses.angle_deg[:, 0, 0] for batch in batches])
    assert len(angles.unique()) == 900


@pytest.mark.parametrize(("labels", "num_digits"), [("pair", 2), ("ordered", 2), ("digits", 3)])
def test_shared_instances_are_the_training_images_on_other_ways(uci, labels, num_digits):
    train, shared = (
        MovingDigits(uci["train"], Motion("elastic", 10), split=split, labels=labels, num_digits=num_digits).batch(
            torch.arange(200), poses=True
        )
        for split in ("train", "test")
    )
    assert torch.equal(train.poses.instance, shared.poses.instance)
    assert torch.equal(train.poses.thing, shared.poses.thing)
    assert torch.equal(train.targets, shared.targets)
    assert not (train.poses.angle_deg == shared.poses.angle_deg).any()
    assert not (train.poses.scale == shared.poses.scale).all(1).any()
    assert (train.poses.centre_px == shared.poses.centre_px).all(-1).float().mean() < 0.02


def test_disjoint_instances_are_of_the_test_digits(uci):
    batch = clips_of(uci, "normal", split="test", num_frames=1).batch(torch.arange(2000), poses=True)
    instance, digit = batch.poses.instance, batch.poses.thing
    assert torch.equal(uci["test"].labels[instance], digit)
    assert len(instance.unique()) == len(uci["test"].labels)


def test_every_image_of_a_class_comes_equally_often(uci):
    batch = clips_of(uci, "normal", num_frames=1, labels="digits", num_digits=5).batch(torch.arange(4000), poses=True)
    counts = torch.bincount(batch.poses.instance.flatten(), minlength=len(uci["train"].labels)).double()
    expected = 4000 * 5 / 10 / torch.bincount(uci["train"].labels)[uci["train"].labels]
    assert_chi_square(counts, expected)


# --- Labels


@pytest.mark.parametrize("labels", ["pair", "ordered"])
def test_clip_i_shows_class_i_modulo_the_number_of_classes(uci, labels):
    clips = clips_of(uci, labels=labels, num_frames=1)
    indices = torch.tensor([0, 3, 54, 55, 99, 100, 255, 2**37])
    batch = clips.batch(indices, poses=True)
    assert batch.targets.tolist() == [i % len(clips.labels.names) for i in indices.tolist()]
    shown = [f"{a}{b}" for a, b in batch.poses.thing.tolist()]
    assert shown == [clips.labels.names[target] for target in batch.targets.tolist()]


@pytest.mark.parametrize("num_digits", [1, 2, 3, 4, 5])
def test_presence_labels_are_those_of_one_to_five_digits(uci, num_digits):
    batch = clips_of(uci, labels="digits", num_digits=num_digits, num_frames=2).batch(torch.arange(600), poses=True)
    assert batch.poses.thing.shape == (600, num_digits)
    for row, shown in zip(batch.targets, batch.poses.thing, strict=True):
        assert row.nonzero().flatten().tolist() == sorted(set(shown.tolist()))
    counts = torch.bincount(batch.poses.thing.flatten(), minlength=10).double()
    assert_chi_square(counts, torch.full((10,), 60.0 * num_digits, dtype=torch.double))


def test_an_item_is_a_clip_with_its_label(uci):
    clips = clips_of(uci, num_clips=60)
    frames, label = clips[58]
    assert torch.equal(frames, clips.batch(torch.tensor([58])).frames[0])
    assert label == 3
    for index in (60, -1):
        with pytest.raises(IndexError):
            clips[index]


# --- The order of a pair


@pytest.mark.parametrize(("condition", "continuous"), MOVING)
def test_a_visible_order_starts_every_setting_with_the_first_digit_left(uci, condition, continuous):
    clips = clips_of(uci, condition, continuous=continuous, labels="ordered", num_frames=11)
    first, second = clips.batch(torch.arange(500), poses=True).poses.centre_px[..., 1].unbind(-1)
    starts = [0] if continuous else range(0, 11, 5)
    assert (second - first)[:, starts].min() >= 8


def test_a_visible_order_holds_at_the_smallest_scale(uci):
    clips = clips_of(uci, "scaling", labels="ordered", scale_range=(0.5, 0.5), num_frames=50)
    x = clips.batch(torch.arange(500), poses=True).poses.centre_px[:, ::5, :, 1]
    gap = x[..., 1] - x[..., 0]
    assert gap.min() >= 8
    assert gap.max() > 14  # of the 18 that there are
    assert x.min() == 22.5 or x.min() == 23.5
    assert x.max() >= 39.5


def test_the_vertical_start_knows_no_order(uci):
    y = clips_of(uci, labels="ordered").batch(torch.arange(500), poses=True).poses.centre_px[:, 0, :, 0]
    assert 0.4 < (y[:, 0] < y[:, 1]).float().mean() < 0.6


def test_a_hidden_order_does_not_show(uci):
    clips = clips_of(uci, labels="ordered", order="hidden")
    first, second = clips.batch(torch.arange(1000), poses=True).poses.centre_px[:, 0, :, 1].unbind(-1)
    assert 0.45 < (first < second).float().mean() < 0.55


# --- What is drawn


def assert_chi_square(counts, expected):
    """Hold the counts to five standard deviations of what is expected."""
    degrees = len(counts) - 1
    chi_square = ((counts - expected) ** 2 / expected).sum()
    assert abs(chi_square - degrees) < 5 * math.sqrt(2 * degrees)


def assert_uniform(values, low, high, num_bins=20):
    values = values.flatten().double()
    assert values.min() >= low
    assert values.max() <= high
    bins = ((values - low) / (high - low) * num_bins).long().clamp(max=num_bins - 1)
    expected = torch.full((num_bins,), len(values) / num_bins, dtype=torch.double)
    assert_chi_square(torch.bincount(bins, minlength=num_bins).double(), expected)


@pytest.mark.parametrize("max_angle_deg", [90.0, 180.0, 10.0])
def test_angles_are_uniform(uci, max_angle_deg):
    clips = clips_of(uci, "rotation", num_frames=10, frames_per_setting=1, max_angle_deg=max_angle_deg)
    poses = clips.batch(torch.arange(400), poses=True).poses
    assert_uniform(poses.angle_deg[:, :, 0], -max_angle_deg, max_angle_deg)
    assert torch.equal(poses.angle_deg[..., 0], poses.angle_deg[..., 1])


@pytest.mark.parametrize("scale_range", [(0.5, 1.0), (0.9, 0.95)])
def test_scales_are_uniform(uci, scale_range):
    clips = clips_of(uci, "scaling", num_frames=10, frames_per_setting=1, scale_range=scale_range)
    poses = clips.batch(torch.arange(400), poses=True).poses
    assert_uniform(poses.scale[:, :, 0], *(round(s * 65536) / 65536 for s in scale_range))
    assert torch.equal(poses.scale[..., 0], poses.scale[..., 1])


def test_each_digit_can_have_its_own_angle(uci):
    poses = clips_of(uci, "rotation", angle_per_digit=True).batch(torch.arange(200), poses=True).poses
    angles = poses.angle_deg[:, 0]
    assert abs(np.corrcoef(angles[:, 0], angles[:, 1])[0, 1]) < 0.3
    assert_uniform(angles, -90, 90, num_bins=10)


@pytest.mark.parametrize(
    ("condition", "turns", "scales"),
    [("normal", 0, 0), ("rotation", 1, 0), ("scaling", 0, 1), ("rotation_scaling", 1, 1), ("elastic", 1, 1)],
)
def test_the_condition_says_what_changes(uci, condition, turns, scales):
    poses = clips_of(uci, condition, num_frames=20).batch(torch.arange(20), poses=True).poses
    for values, neutral, changes in ((poses.angle_deg, 0.0, turns), (poses.scale, 1.0, scales)):
        settings_of = values.unflatten(1, (4, 5))
        assert (settings_of == settings_of[:, :, :1]).all()
        if changes:
            assert (values[:, ::5].diff(dim=1) != 0).all()
        else:
            assert (values == neutral).all()


@pytest.mark.parametrize("scale", [1.0, 0.7, 0.5])
def test_speed_lies_in_its_range_times_the_scale(uci, scale):
    clips = clips_of(uci, "scaling", scale_range=(scale, scale), frames_per_setting=2, num_frames=20, canvas_px=256)
    at = clips.batch(torch.arange(60), poses=True).poses.centre_px
    step = at[:, 1::2] - at[:, ::2]
    # On a canvas this large nearly all meet no wall; rounding moves each end by up to half a pixel in y and x.
    wall = (256 - 28) / 2 * scale - 8
    free = ((at[:, ::2] - 127.5).abs() < wall).all(-1)
    assert free.float().mean() > 0.7
    speed = step[free].norm(dim=-1)
    assert speed.min() >= 3.0 * scale - 1.5
    assert speed.max() <= 6.5 * scale + 1.5
    assert abs(speed.mean() - 4.75 * scale) < 0.2


def test_speed_and_heading_are_uniform(uci):
    motion = {"frames_per_setting": 6, "num_frames": 6, "canvas_px": 256}
    clips = clips_of(uci, "normal", labels="digits", num_digits=5, **motion)
    at = torch.cat([clips.batch(part, poses=True).poses.centre_px - 127.5 for part in torch.arange(800).split(50)])
    # Whole pixels over 5 frames: known to a fifth of a pixel a frame.
    way = ((at[:, 5] - at[:, 0]) / 5)[(at[:, 0].abs() < 114 - 34).all(-1)].double()
    speed = way.norm(dim=-1)
    assert len(speed) > 1800
    assert speed.min() > 3.0 - 0.2
    assert speed.max() < 6.5 + 0.2
    assert_uniform(speed.clamp(3.0, 6.5), 3.0, 6.5, num_bins=7)
    assert_uniform(torch.atan2(way[:, 0], way[:, 1]), -math.pi, math.pi, num_bins=8)


def test_a_digit_that_does_not_move_stays(uci):
    at = clips_of(uci, speed_range_px=(0, 0), frames_per_setting=4).batch(torch.arange(20), poses=True).poses.centre_px
    assert (at.unflatten(1, (3, 4)).diff(dim=2) == 0).all()
    assert (at[:, ::4].diff(dim=1) != 0).any()


@pytest.mark.parametrize("condition", CONDITIONS)
def test_motion_within_a_setting_is_straight_between_walls_that_shrink_with_scale(uci, condition):
    clips = clips_of(uci, condition, num_frames=40, frames_per_setting=8)
    poses = clips.batch(torch.arange(200), poses=True).poses
    room = (64 - 28) / 2 * poses.scale.unsqueeze(-1)
    from_middle = poses.centre_px - 31.5
    assert (from_middle.abs() <= room + 0.5).all()
    assert (from_middle.abs() > room - 1).any(0).any(0).all()  # the walls are reached
    turns = from_middle.unflatten(1, (5, 8)).diff(n=2, dim=2)
    nearest = (room - from_middle.abs()).unflatten(1, (5, 8))
    # A second difference of whole pixels is at most 2 by rounding; a bounce needs a wall within reach.
    bounced = turns.abs() > 2
    reach = nearest.unfold(2, 3, 1).amin(-1)
    assert bounced.any()
    assert (reach[bounced] <= 6.5 + 1).all()


def test_a_new_setting_draws_new_places(uci):
    poses = clips_of(uci, "normal", num_frames=10).batch(torch.arange(500), poses=True).poses
    first, second = poses.centre_px[:, 4], poses.centre_px[:, 5]
    jump = (second - first).norm(dim=-1)
    assert jump.max() > 20
    assert abs(np.corrcoef(first.flatten(), second.flatten())[0, 1]) < 0.1


def test_places_are_uniform(uci):
    at = clips_of(uci, "normal", num_frames=1).batch(torch.arange(3000), poses=True).poses.centre_px
    assert at.min() == 13.5
    assert at.max() == 49.5
    # Whole pixels: the two at the walls stand for half as long a stretch as those between.
    expected = torch.full((37,), at.numel() / 36, dtype=torch.double)
    expected[[0, 36]] /= 2
    assert_chi_square(torch.bincount((at.flatten() - 13.5).long(), minlength=37).double(), expected)


# --- Continuous motion


@pytest.mark.parametrize("condition", ["rotation", "scaling", "rotation_scaling", "elastic"])
def test_continuous_angle_and_scale_glide(uci, condition):
    clips = clips_of(uci, condition, continuous=True, num_frames=41, frames_per_setting=10)
    poses = clips.batch(torch.arange(100), poses=True).poses
    # From one end of the range to the other takes a setting.
    assert poses.angle_deg.diff(dim=1).abs().max() <= 180 / 10 + 1e-3
    assert poses.scale.diff(dim=1).abs().max() <= 0.5 / 10 + 1e-3
    for values in (poses.angle_deg, poses.scale):
        bend = values.diff(n=2, dim=1).abs().amax((0, 2))
        knots = torch.arange(len(bend)) % 10 == 9
        assert (bend[~knots] < 1e-3).all()
        if values.unique().numel() > 1:
            assert (bend[knots] > 0.01).all()


def test_a_continuous_trajectory_never_jumps(uci):
    clips = clips_of(uci, "normal", continuous=True, num_frames=60)
    at = clips.batch(torch.arange(100), poses=True).poses.centre_px
    assert at.diff(dim=1).norm(dim=-1).max() <= 6.5 + math.sqrt(2)


def test_continuous_motion_starts_as_settings_do(uci):
    settled, continuous = (
        clips_of(uci, continuous=c, num_frames=6).batch(torch.arange(50), poses=True).poses for c in (False, True)
    )
    for first in (0, 5):
        assert torch.allclose(settled.angle_deg[:, first], continuous.angle_deg[:, first])
        assert torch.allclose(settled.scale[:, first], continuous.scale[:, first])
    assert torch.equal(settled.centre_px[:, 0], continuous.centre_px[:, 0])


def test_continuous_elastic_shapes_change_gradually(uci):
    clips = clips_of(
        uci,
        "elastic",
        continuous=True,
        num_frames=21,
        frames_per_setting=10,
        max_angle_deg=0,
        scale_range=(1.0, 1.0),
        speed_range_px=(0, 0),
        labels="digits",
        num_digits=1,
    )
    frames = clips.batch(torch.arange(30), dtype=torch.float32).frames
    neighbours = frames.diff(dim=1).abs().mean()
    far = (frames[:, 10:] - frames[:, :-10]).abs().mean()
    assert 0 < neighbours < 0.4 * far


# --- Truth against pixels


@pytest.mark.parametrize(("condition", "continuous"), MOVING)
@pytest.mark.parametrize("split", ["train", "test"])
def test_the_box_encloses_the_ink_of_a_single_digit(uci, condition, continuous, split):
    clips = clips_of(uci, condition, split=split, continuous=continuous, labels="digits", num_digits=1, num_frames=7)
    batch = clips.batch(torch.arange(80), poses=True)
    for ink, box in zip(batch.frames.flatten(0, 1).squeeze(1) > 0, batch.poses.box_px.flatten(0, 2), strict=True):
        y, x = ink.nonzero().unbind(-1)
        found = torch.stack((y.min(), x.min(), y.max() + 1, x.max() + 1))
        if box.min() > 0 and box.max() < 64:
            assert box.tolist() == found.tolist()
        else:  # a digit turned over the border: what is cut off may have been the outermost ink
            assert ((box - found) * torch.tensor([1, 1, -1, -1])).max() <= 0
            assert (box - found).abs().max() <= 2


@pytest.mark.parametrize("canvas_px", [28, 29, 63, 64])
def test_a_normal_clip_shows_the_exact_image_at_its_centre(uci, canvas_px):
    clips = clips_of(uci, "normal", labels="digits", num_digits=1, canvas_px=canvas_px)
    batch = clips.batch(torch.arange(40), poses=True)
    corner = (batch.poses.centre_px[:, :, 0] - 13.5).long()
    assert (corner + 13.5 == batch.poses.centre_px[:, :, 0]).all()
    for frames, corners, instance in zip(batch.frames, corner, batch.poses.instance, strict=True):
        for frame, (y, x) in zip(frames[:, 0], corners.tolist(), strict=True):
            assert torch.equal(frame[y : y + 28, x : x + 28], uci["train"].images[instance.item()])
            assert frame.sum() == uci["train"].images[instance.item()].sum()


def test_mnist_moves_as_uci_does(mnist_folder):
    source = digits.load("mnist", "test", digits_dir=mnist_folder)
    clips = MovingDigits(source, Motion("normal", 2), labels="digits", num_digits=1)
    batch = clips.batch(torch.arange(20), poses=True)
    assert torch.equal(source.labels[batch.poses.instance], batch.poses.thing)
    for frames, corners, instance in zip(
        batch.frames, (batch.poses.centre_px[:, :, 0] - 13.5).long().tolist(), batch.poses.instance[:, 0], strict=True
    ):
        for frame, (y, x) in zip(frames[:, 0], corners, strict=True):
            assert torch.equal(frame[y : y + 28, x : x + 28], source.images[instance])


def test_where_digits_meet_the_brighter_pixel_wins(uci):
    batch = clips_of(uci, "normal", num_frames=3).batch(torch.arange(30), poses=True)
    for frames, centres, instances in zip(batch.frames, batch.poses.centre_px, batch.poses.instance, strict=True):
        for frame, centre in zip(frames[:, 0], centres, strict=True):
            expected = torch.zeros_like(frame)
            for (y, x), instance in zip((centre - 13.5).long().tolist(), instances.tolist(), strict=True):
                patch = expected[y : y + 28, x : x + 28]
                patch.copy_(torch.maximum(patch, uci["train"].images[instance]))
            assert torch.equal(frame, expected)


@pytest.mark.parametrize("turns", [-1, 0, 1])
def test_a_quarter_turn_is_exact_and_counter_clockwise(glyphs, turns):
    angle_deg, scale = torch.full((10,), 90.0 * turns), torch.ones(10)
    patches = draw_patches(glyphs.images, angle_deg.double(), scale.double(), digit_px=28, patch_px=40)
    assert torch.equal(patches[:, 6:34, 6:34], glyphs.images.rot90(turns, (1, 2)))
    assert patches.sum() == glyphs.images.sum()


@pytest.mark.parametrize("condition", ["rotation", "scaling", "rotation_scaling"])
def test_pixels_are_what_scipy_makes_of_the_truth(glyphs, uci, condition):
    for source in (glyphs, uci["train"]):
        clips = MovingDigits(source, Motion(condition, 3, 1, max_angle_deg=180), labels="digits", num_digits=1)
        batch = clips.batch(torch.arange(25), poses=True)
        poses = batch.poses
        for clip, time in np.ndindex(25, 3):
            angle = math.radians(poses.angle_deg[clip, time, 0])
            # Source from target, both (y, x) with y down: a counter-clockwise turn on the screen.
            turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
            matrix = turn / poses.scale[clip, time, 0].item()
            offset = 13.5 - matrix @ poses.centre_px[clip, time, 0].double().numpy()
            image = source.images[poses.instance[clip, 0]].double().numpy()
            expected = ndimage.affine_transform(
                np.pad(image, 2), matrix, offset + 2, output_shape=(64, 64), order=1, mode="constant"
            )
            found = batch.frames[clip, time, 0].double().numpy()
            assert np.abs(found - expected).max() <= 1


def test_half_the_scale_is_half_the_size(glyphs):
    boxes = [
        MovingDigits(glyphs, Motion("scaling", 1, scale_range=(s, s)), labels="digits", num_digits=1)
        .batch(torch.arange(20), poses=True)
        .poses.box_px[:, 0, 0]
        for s in (0.5, 1.0)
    ]
    half, whole = (box[:, 2:] - box[:, :2] for box in boxes)
    assert (whole == 28).all()
    assert (half == 14).all()


def test_ink_shrinks_with_the_square_of_scale(uci):
    ink = []
    for scale in (0.5, 1.0):
        motion = Motion("scaling", 1, scale_range=(scale, scale))
        clips = MovingDigits(uci["train"], motion, labels="digits", num_digits=1)
        ink.append(clips.batch(torch.arange(100), dtype=torch.float32).frames.sum())
    assert abs(ink[0] / ink[1] - 0.25) < 0.01


def test_a_larger_digit_is_drawn_larger(glyphs):
    clips = MovingDigits(glyphs, Motion("normal", 2, digit_px=56, canvas_px=80), labels="digits", num_digits=1)
    box = clips.batch(torch.arange(20), poses=True).poses.box_px
    assert (box[..., 2:] - box[..., :2] == 56).all()


def test_elastic_bends_every_setting_anew(uci):
    still = {
        "max_angle_deg": 0,
        "scale_range": (1.0, 1.0),
        "speed_range_px": (0, 0),
        "labels": "digits",
        "num_digits": 1,
    }
    batch = clips_of(uci, "elastic", num_frames=10, frames_per_setting=5, **still).batch(torch.arange(30), poses=True)
    # A patch of the elastic condition is wider than the image: compare it around the same centre.
    corner = (batch.poses.centre_px[:, :, 0] - 13.5).long()
    patches = torch.stack(
        [
            torch.stack([frame[0, y : y + 28, x : x + 28] for frame, (y, x) in zip(*pair, strict=True)])
            for pair in zip(batch.frames, corner.tolist(), strict=True)
        ]
    ).float()
    assert torch.equal(patches[:, :5], patches[:, :1].expand(-1, 5, -1, -1))
    images = uci["train"].images[batch.poses.instance[:, 0]].float()
    ink = images.sum((-2, -1))
    for one, other in ((patches[:, 0], patches[:, 5]), (patches[:, 0], images), (patches[:, 5], images)):
        assert ((one - other).abs().sum((-2, -1)) > 0.05 * ink).all()
    # It is bent, not replaced: nearly every digit is closer to its image than to the next clip's.
    own, other = ((patches[:, 0] - image).abs().mean((-2, -1)) for image in (images, images.roll(1, 0)))
    assert (own < other).float().mean() > 0.8


def test_without_elastic_reach_elastic_is_rotation_and_scaling(uci):
    bent, plain = (
        clips_of(uci, condition, elastic_px=0.0).batch(torch.arange(30)).frames.int()
        for condition in ("elastic", "rotation_scaling")
    )
    assert (bent - plain).abs().max() <= 1


# --- Changing a dataset


def test_with_motion_changes_the_motion_alone(uci):
    clips = clips_of(uci, "normal", seed=5, labels="ordered")
    changed = clips.with_motion(condition="scaling", num_frames=3)
    expected = clips_of(uci, "scaling", seed=5, labels="ordered", num_frames=3)
    assert torch.equal(changed.batch(torch.arange(9)).frames, expected.batch(torch.arange(9)).frames)
    assert clips.motion.condition == "normal"


def test_with_motion_refuses_what_the_constructor_refuses(uci):
    clips = clips_of(uci, "scaling", labels="ordered")
    with pytest.raises(UsageError, match="visible order"):
        clips.with_motion(scale_range=(0.1, 1.0))


def test_to_a_device_is_the_same_dataset(uci):
    clips = clips_of(uci)
    assert torch.equal(clips.to("cpu").batch(torch.arange(5)).frames, clips.batch(torch.arange(5)).frames)


# --- What is refused


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"condition": "rotating"}, "no condition is called 'rotating'; did you mean 'rotation'"),
        ({"num_frames": 0}, "at least 1 frame"),
        ({"frames_per_setting": 0}, "at least 1 frame"),
        ({"scale_range": (0.0, 1.0)}, "scale_range must rise"),
        ({"scale_range": (1.0, 0.5)}, "scale_range must rise"),
        ({"scale_range": (math.nan, 1.0)}, "scale_range must rise"),
        ({"scale_range": (0.5, 5.0)}, "scale_range must rise"),
        ({"speed_range_px": (-1.0, 1.0)}, "speed_range_px must rise"),
        ({"speed_range_px": (3.0, math.inf)}, "speed_range_px must rise"),
        ({"max_angle_deg": 181.0}, "max_angle_deg must lie in"),
        ({"max_angle_deg": math.nan}, "max_angle_deg must lie in"),
        ({"canvas_px": 27}, "a canvas of 27 px does not hold a digit of 28 px"),
        ({"digit_px": 65}, "a canvas of 64 px does not hold a digit of 65 px"),
        ({"scale_range": (1.0, 3.0)}, "does not hold a digit of 28 px at scale 3.0"),
        ({"elastic_px": math.nan}, "elastic_px"),
        ({"elastic_px": -1.0}, "elastic_px"),
        ({"num_frames": 1 << 20, "frames_per_setting": 1}, "settings|frames"),
    ],
)
def test_an_impossible_motion_is_refused(changes, message):
    with pytest.raises(UsageError, match=message):
        Motion(**changes)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_clips": 0}, "num_clips must lie in 1 to"),
        ({"num_clips": -3}, "got -3"),
        ({"num_clips": 2**38 + 1}, "num_clips must lie in 1 to"),
        ({"split": "tests"}, "no split is called 'tests'; did you mean 'test'"),
        ({"labels": "ordred"}, "no label scheme is called 'ordred'; did you mean 'ordered'"),
        ({"order": "visibel"}, "no order is called 'visibel'; did you mean 'visible'"),
        ({"num_digits": 3}, "'pair' name two digits; got 3"),
        ({"labels": "digits", "num_digits": 6}, "1 to 5 digits; got 6"),
        ({"labels": "digits", "num_digits": 0}, "1 to 5 digits; got 0"),
        ({"labels": "ordered", "motion": Motion("scaling", canvas_px=40)}, "a visible order needs 10 px"),
    ],
)
def test_an_impossible_dataset_is_refused(uci, arguments, message):
    with pytest.raises(UsageError, match=message):
        MovingDigits(uci["train"], **arguments)


def test_a_visible_order_asks_for_room_at_scale_1_where_nothing_scales(uci):
    clips = MovingDigits(uci["train"], Motion("normal", 5, canvas_px=40), labels="ordered")
    x = clips.batch(torch.arange(100), poses=True).poses.centre_px[:, 0, :, 1]
    assert (x[:, 1] - x[:, 0]).min() >= 8


def test_ten_classes_are_needed(glyphs):
    nine = Digits(glyphs.images[:9], glyphs.labels[:9], "nine", "train")
    with pytest.raises(UsageError, match=r"ten digit classes are needed; .*\[1, 1, 1, 1, 1, 1, 1, 1, 1, 0\]"):
        MovingDigits(nine)


@pytest.mark.parametrize("indices", [[-1], [1 << INDEX_BITS]])
def test_indices_that_are_no_clips_are_refused(uci, indices):
    with pytest.raises((UsageError, IndexError)):
        clips_of(uci).batch(torch.tensor(indices))


# --- Anything that a person might ask for


@st.composite
def motions(draw):
    pixels, frames = st.integers(1, 72), st.integers(0, 12)
    pair = st.tuples(st.floats(0, 2), st.floats(0, 2))
    return {
        "condition": draw(st.sampled_from(CONDITIONS)),
        "num_frames": draw(frames),
        "frames_per_setting": draw(frames),
        "continuous": draw(st.booleans()),
        "canvas_px": draw(pixels),
        "digit_px": draw(st.integers(1, 40)),
        "max_angle_deg": draw(st.floats(0, 180)),
        "angle_per_digit": draw(st.booleans()),
        "scale_range": tuple(sorted(draw(pair))),
        "speed_range_px": tuple(sorted(v * 20 for v in draw(pair))),
        "elastic_px": draw(st.floats(0, 6)),
    }


@settings(max_examples=120, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None)
@given(motion=motions(), labels=st.sampled_from(["pair", "ordered", "digits"]), seed=st.integers())
@example({"digit_px": 64, "canvas_px": 64, "num_frames": 2}, "pair", 0)
@example({"digit_px": 27, "canvas_px": 28, "num_frames": 4, "condition": "elastic"}, "digits", 3)
def test_any_motion_is_refused_or_stays_within_its_walls(uci, motion, labels, seed):
    try:
        clips = MovingDigits(uci["train"], Motion(**motion), labels=labels, seed=seed)
    except UsageError:
        assume(False)
    m = clips.motion
    batch = clips.batch(torch.arange(3), poses=True)
    assert batch.frames.shape == (3, m.num_frames, 1, m.canvas_px, m.canvas_px)
    poses = batch.poses
    from_middle = (poses.centre_px - (m.canvas_px - 1) / 2).abs()
    room = (m.canvas_px - m.digit_px) / 2 * poses.scale.unsqueeze(-1)
    assert (from_middle <= room + 1).all()
    assert (poses.angle_deg.abs() <= m.max_angle_deg).all()
    low, high = m.scale_range if m.scales else (1, 1)
    assert (poses.scale >= low - 1e-4).all()
    assert (poses.scale <= high + 1e-4).all()
    top, left, bottom, right = poses.box_px.unbind(-1)
    assert (poses.box_px >= 0).all()
    assert (poses.box_px <= m.canvas_px).all()
    assert ((top < bottom) == (left < right)).all()
