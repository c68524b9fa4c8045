"""Clips with a number of digits of their own, with clutter and with noise."""

import pytest
import torch

from saccade.data.digits import Motion, MovingDigits
from saccade.errors import UsageError

CLIPS = torch.arange(300)


def clips_of(uci, num_digits=2, **motion):
    motion = {"num_frames": 6, "frames_per_setting": 2} | motion
    return MovingDigits(uci["train"], Motion(**motion), labels="digits", num_digits=num_digits)


def test_every_number_of_digits_comes_equally_often(uci):
    batch = clips_of(uci, (1, 5)).batch(CLIPS.repeat(1), poses=True)
    counts = torch.bincount(batch.poses.present.sum(1), minlength=6)
    assert counts[0] == 0
    assert counts.sum() == 300
    assert counts[1:].min() > 30  # 60 are expected, with a deviation of 7


def test_labels_and_poses_are_those_of_the_digits_that_are_there(uci):
    batch = clips_of(uci, (1, 5)).batch(CLIPS, poses=True)
    for digits, target, boxes, instance in zip(
        batch.poses.thing.tolist(), batch.targets, batch.poses.box_px, batch.poses.instance.tolist(), strict=True
    ):
        shown = [digit for digit in digits if digit >= 0]
        assert target.nonzero().flatten().tolist() == sorted(set(shown))
        assert digits == shown + [-1] * (5 - len(shown))
        assert [i == -1 for i in instance] == [d == -1 for d in digits]
        assert not boxes[:, len(shown) :].any()


def test_a_clip_shows_no_more_than_its_digits(uci):
    clips = clips_of(uci, (1, 5), condition="normal", num_frames=1)
    batch = clips.batch(CLIPS, poses=True)
    alone = (batch.poses.present.sum(1) == 1).nonzero().flatten()
    assert len(alone)
    for index in alone.tolist():
        top, left, bottom, right = batch.poses.box_px[index, 0, 0].tolist()
        outside = batch.frames[index, 0, 0].clone()
        outside[top:bottom, left:right] = 0
        assert not outside.any()


def test_a_range_of_one_number_is_that_number(uci):
    fixed, ranged = clips_of(uci, 3), clips_of(uci, (3, 3))
    assert torch.equal(fixed.batch(CLIPS[:20]).frames, ranged.batch(CLIPS[:20]).frames)
    assert ranged.num_digits == 3


@pytest.mark.parametrize(
    ("num_digits", "message"),
    [
        ((0, 3), "1 to 5 digits; got 0"),
        ((2, 6), "1 to 5 digits; got 6"),
        ((4, 2), "num_digits must not decrease; got 4 to 2"),
    ],
)
def test_an_impossible_range_is_refused(uci, num_digits, message):
    with pytest.raises(UsageError, match=message):
        clips_of(uci, num_digits)


def test_clutter_only_adds_ink_and_leaves_the_truth_alone(uci):
    plain, cluttered = clips_of(uci), clips_of(uci, clutter=5)
    without, with_it = plain.batch(CLIPS, poses=True), cluttered.batch(CLIPS, poses=True)
    assert bool((with_it.frames >= without.frames).all())
    added = (with_it.frames > without.frames).flatten(1).any(1)
    assert 0.6 < added.float().mean() < 0.95  # one clip in six draws no piece
    assert torch.equal(with_it.targets, without.targets)
    assert torch.equal(with_it.poses.box_px, without.poses.box_px)


def test_pieces_are_smaller_than_digits(uci):
    frames = clips_of(uci, condition="normal", clutter=1, num_frames=1)
    without = clips_of(uci, condition="normal", num_frames=1)
    added = frames.batch(CLIPS).frames.int() - without.batch(CLIPS).frames.int()
    rows, columns = ((added > 0).any(dim).squeeze(1).squeeze(1) for dim in (-1, -2))
    for seen in (rows, columns):
        extents = [int(s.nonzero().amax() - s.nonzero().amin()) + 1 for s in seen if bool(s.any())]
        assert 3 < max(extents) <= 10


def test_noise_is_as_strong_as_it_says_and_each_clip_has_its_own(uci):
    plain, noisy = (clips_of(uci, noise=noise) for noise in (0.0, 20.0))
    difference = noisy.batch(CLIPS).frames.double() - plain.batch(CLIPS).frames.double()
    # On black, half of the noise is cut off: what is left of a normal one has a mean of deviation / sqrt(2 pi).
    black = plain.batch(CLIPS).frames == 0
    mean = torch.tensor([d[b].mean() for d, b in zip(difference, black, strict=True)])
    assert mean.amax() == pytest.approx(20 / 2.5066, rel=0.1)
    assert mean.amin() < 0.5
    assert mean.mean() == pytest.approx(10 / 2.5066, rel=0.15)


def test_noise_changes_from_frame_to_frame_and_from_pixel_to_pixel(uci):
    motion = {"condition": "normal", "num_frames": 2, "speed_range_px": (0.0, 0.0)}
    frames = clips_of(uci, noise=40.0, **motion).batch(CLIPS[:40]).frames.double().flatten(2)
    for first, second in ((frames[:, 0], frames[:, 1]), (frames[:, 0, :-1], frames[:, 0, 1:])):
        dark = (first < 60) & (second < 60)
        correlation = torch.corrcoef(torch.stack((first[dark], second[dark])))[0, 1]
        assert abs(correlation) < 0.2  # clips differ in strength, which correlates a little


@pytest.mark.parametrize("size", [1, 3])
def test_pixels_are_the_same_bits_for_any_batch(uci, size):
    clips = clips_of(uci, (1, 5), clutter=4, noise=25.0)
    whole = clips.batch(CLIPS[:12]).frames
    assert torch.equal(torch.cat([clips.batch(part).frames for part in CLIPS[:12].split(size)]), whole)


def test_an_elastic_continuous_clip_can_be_cluttered(uci):
    clips = clips_of(uci, condition="elastic", continuous=True, clutter=3, noise=5.0)
    assert clips.batch(CLIPS[:3]).frames.shape == (3, 6, 1, 64, 64)


@pytest.mark.parametrize(
    ("motion", "message"),
    [
        ({"clutter": 9}, "clutter must be a number of pieces from 0 to 8; got 9"),
        ({"clutter": -1}, "clutter must be"),
        ({"noise": -0.5}, "noise must lie in 0 to 64 grey levels; got -0.5"),
        ({"noise": 1.0, "canvas_px": 1024, "num_frames": 50}, "noise is drawn for at most 16777216 pixels"),
    ],
)
def test_impossible_clutter_or_noise_is_refused(uci, motion, message):
    with pytest.raises(UsageError, match=message):
        clips_of(uci, **motion)
