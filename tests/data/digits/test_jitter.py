"""Digits that are changed at random in training, as handwriting differs."""

from dataclasses import replace

import pytest
import torch

from saccade.data.digits import DigitsConfig, Motion, MovingDigits, drawing, load
from saccade.errors import UsageError


def test_jitter_changes_every_second_digit_and_leaves_its_motion(uci):
    plain = MovingDigits(uci["train"], Motion("rotation_scaling", num_frames=10, frames_per_setting=5))
    jittered = plain.with_motion(jitter=1.0)
    indices = torch.arange(200)
    one, other = plain.located(indices), jittered.located(indices)
    assert torch.equal(one.targets, other.targets)
    for name in ("centre_px", "angle_deg", "scale", "thing", "instance"):
        assert torch.equal(getattr(one.poses, name), getattr(other.poses, name)), name
    # A clip of two digits is as it was if neither of them is changed.
    changed = (one.frames != other.frames).flatten(1).any(1).float().mean()
    assert 0.65 < changed < 0.85
    assert torch.equal(other.frames[3:5], jittered.batch(torch.tensor([3, 4])).frames)  # whatever the batch


@pytest.mark.parametrize("strength", [0.3, 1.0])
def test_jitter_is_as_strong_as_asked(strength, uci):
    images = uci["train"].images[:200]
    generator = torch.Generator().manual_seed(0)
    draws = 2 * torch.rand(len(images), drawing.NUM_JITTER, generator=generator) - 1
    changed = drawing.jittered(images, strength * draws)
    assert torch.equal(drawing.jittered(images, torch.zeros_like(draws)), images)
    moved = (changed.float() - images.float()).abs().mean((1, 2))
    ink = images.float().mean((1, 2))
    assert (moved > 0).all()
    assert 0.2 * strength < (moved / ink).mean() < 1.2 * strength


def test_jittered_strokes_are_as_sharp_as_before():
    images = load("strokes", "train").images[:200]
    strengths = torch.zeros(len(images), drawing.NUM_JITTER)
    strengths[:, 0] = 0.4  # resampling softens edges: this alone must not
    changed = drawing.jittered(images, strengths)

    def grey(shown):
        return ((shown > 40) & (shown < 180)).sum() / (shown >= 180).sum()

    assert 0.7 < grey(changed) / grey(images) < 1.2


@pytest.mark.parametrize(("strength", "more"), [(1.0, True), (-1.0, False)])
def test_jitter_makes_strokes_thicker_or_thinner(strength, more):
    images = load("strokes", "train").images[:200]
    strengths = torch.zeros(len(images), drawing.NUM_JITTER)
    strengths[:, 6] = strength
    ink, before = drawing.jittered(images, strengths).float().mean((1, 2)), images.float().mean((1, 2))
    assert ((ink > before) == more).float().mean() > 0.95
    assert 0.05 < (ink / before - 1).abs().mean() < 0.6


def test_only_training_has_jitter(uci):
    config = DigitsConfig(digits="uci", condition=("rotation",), num_frames=8, frames_per_setting=4, jitter=1.0)
    plain = replace(config, jitter=0.0)
    for split in ("train", "validation", "test"):
        assert torch.equal(
            config.clips(split).batch(torch.arange(3)).frames, plain.clips(split).batch(torch.arange(3)).frames
        )
    for step in (0, 9):
        assert not torch.equal(config.batches(2, 0)(step, 10).frames, plain.batches(2, 0)(step, 10).frames)
    with pytest.raises(UsageError, match="jitter must lie in 0 to 2; got 3"):
        replace(config, jitter=3.0)
    with pytest.raises(UsageError, match="jitter must lie in 0 to 2; got -1"):
        Motion(jitter=-1.0)
