"""What training sees of moving digits: short clips first, stage by stage, and long ones then."""

import math
from dataclasses import replace

import pytest
import torch

from saccade.clips import ClipBatch
from saccade.data.digits import TRAINING, DigitsConfig, DigitSourceConfig, MovingDigits
from saccade.errors import UsageError

DIGITS = replace(TRAINING, digits="uci", num_frames=6)


@pytest.fixture(autouse=True)
def digits_in_memory(uci, monkeypatch):
    monkeypatch.setattr(DigitSourceConfig, "load", lambda _config, split: uci[split])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_frames": 0}, "at least 1 frame"),
        ({"frames_per_setting": 0}, "1 frame per setting; got 50 and 0"),
        ({"num_clips": 0}, "num_clips must be at least 1"),
        ({"short_fraction": 1.5}, "short_fraction must lie in 0 to 1"),
        ({"short_fraction": math.nan}, "short_fraction must lie in 0 to 1"),
        ({"short_frames": 0}, "short_frames must be at least 1; got 0"),
        ({"angle": 200.0}, "max_angle_deg|angle must lie in"),
        ({"condition": "rotated"}, "did you mean 'rotation'"),
        ({"condition": ("normal", "rotated")}, "did you mean 'rotation'"),
        ({"condition": ()}, "no condition was given; name at least one of normal, rotation"),
        ({"scheme": "pairs"}, "did you mean 'pair'"),
        ({"order": "visibly"}, "did you mean 'visible'"),
        ({"instances": "joint"}, "did you mean 'disjoint'"),
        ({"num_digits": 3}, "name two digits; got 3"),
    ],
)
def test_what_cannot_be_is_refused_at_once(changes, message):
    with pytest.raises(UsageError, match=message):
        DigitsConfig(**changes)


def test_the_frames_of_short_clips_all_differ():
    config = replace(TRAINING, num_frames=20, frames_per_setting=5, short_frames=4)
    (long,), (short,) = config.motions(), config.motions(short=True)
    assert (long.num_frames, long.num_settings) == (20, 4)
    assert (short.num_frames, short.num_settings) == (4, 4)
    assert TRAINING.motions(short=True)[0].num_frames == 2
    assert replace(config, num_frames=3).motions(short=True)[0].num_frames == 3


def test_short_clips_come_from_one_digit_to_all_of_them_with_all_that_disturbs():
    batches = replace(DIGITS, scheme="digits", num_digits=(1, 5), clutter=4, noise=20.0).batches(4, 0)
    parts = [part for mixture in batches.short for part in mixture.parts]
    assert [clips.num_digits_range for clips in parts] == [(1, 1), (1, 2), (1, 3), (1, 4), (1, 5)]
    assert [clips.motion.clutter for clips in parts] == [0, 1, 2, 3, 4]
    assert [clips.motion.noise for clips in parts] == [0.0, 5.0, 10.0, 15.0, 20.0]
    (mixture,) = replace(DIGITS, clutter=4, noise=20.0).batches(4, 0).short
    (only,) = mixture.parts
    assert (only.num_digits_range, only.motion.clutter, only.motion.noise) == ((2, 2), 4, 20.0)


def test_clips_are_of_the_training_digits():
    batches = replace(DIGITS, scheme="ordered", angle=30.0, condition=("rotation",), order="hidden").batches(4, 7)
    for mixture in (batches.long, *batches.short):
        (clips,) = mixture.parts
        assert (clips.split, clips.source, clips.seed, clips.scheme.name) == ("train", "uci", 7, "ordered")
        assert (clips.motion.max_angle_deg, clips.order) == (30.0, "hidden")


def test_a_mixture_is_of_the_conditions_that_are_named_as_often_as_they_are():
    batches = replace(DIGITS, condition=("normal", "rotation", "rotation"), angle=30.0).batches(4, 0)
    for mixture in (batches.long, *batches.short):
        assert mixture.conditions == ("normal", "rotation", "rotation")
        assert {part.motion.max_angle_deg for part in mixture.parts} == {30.0}


@pytest.fixture
def generated(monkeypatch):
    """Collect which clips are generated, and generate none."""
    seen = []
    none = ClipBatch(torch.empty(0), torch.empty(0))
    monkeypatch.setattr(MovingDigits, "batch", lambda clips, indices: seen.append((clips, indices.tolist())) or none)
    return seen


@pytest.mark.parametrize(
    ("changes", "size"),
    [({}, 4), ({"num_frames": 2}, 4), ({"num_frames": 7, "short_frames": 4}, 1), ({"short_fraction": 1.0}, 4)],
)
def test_no_clip_is_seen_twice(changes, size, generated):
    digits = replace(DIGITS, **changes)
    batches = digits.batches(size, 0)
    for step in range(6):
        batches(step, 6)
    indices = [index for _, part in generated for index in part]
    assert len(set(indices)) == len(indices)
    # As many frames in every step, but for the rounding of the number of short clips.
    for clips, part in generated:
        assert size * digits.num_frames - 4 < clips.motion.num_frames * len(part) <= size * digits.num_frames
    if not changes:
        assert [clips.motion.num_frames for clips, _ in generated] == [2, 2, 2, 2, 6, 6]


def test_the_stages_of_short_clips_follow_each_other_and_then_come_the_long_ones(generated):
    batches = replace(DIGITS, scheme="digits", num_digits=(1, 3), num_frames=8, short_fraction=0.5).batches(4, 0)
    for step in range(12):
        batches(step, 12)
    used = [(clips.num_digits, clips.motion.num_frames) for clips, _ in generated]
    assert used == [(1, 2)] * 2 + [(2, 2)] * 2 + [(3, 2)] * 2 + [(3, 8)] * 6
