"""The changes of clips: unchanged to the bit, drawn from (seed, clip), in the right direction."""

import pytest
import torch

from saccade.data import StoredClips
from saccade.data.digits import DigitsConfig
from saccade.data.digits.changed import drawn_changed
from saccade.errors import UsageError
from saccade.labels import Labels
from saccade.robustness import CHANGES, scaled, turned
from saccade.robustness.changed_clips import ChangedClips, Sample, changed

DRAWN = ("occlude", "noise", "drop")
STRONG = {name: change.strengths[-1] for name, change in CHANGES.items()}


def clip(num_frames=6, channels=3, height=32, width=48, seed=0):
    """A moving ramp, smooth as videos are."""
    generator = torch.Generator().manual_seed(seed)
    start = torch.randint(0, 60, (channels, 1, 1), generator=generator)
    ramp = torch.arange(height).view(-1, 1) * 2 + torch.arange(width)
    return torch.stack([start + ramp + 5 * t for t in range(num_frames)]).clamp(0, 255).to(torch.uint8)


def stored(num=5):
    """Clips of different lengths."""
    clips = [clip(4 + index % 3, seed=index) for index in range(num)]
    return StoredClips(clips, torch.arange(num) % 2, Labels(("a", "b")))


def dot(y, x, size=33, width=None):
    """A frame with one bright spot."""
    frames = torch.zeros(1, 1, size, width or size, dtype=torch.uint8)
    frames[..., y - 1 : y + 2, x - 1 : x + 2] = 255
    return frames


def place(frames):
    """The centre of brightness, (y, x)."""
    level = frames[0, 0].float()
    y, x = torch.meshgrid(torch.arange(level.shape[0]), torch.arange(level.shape[1]), indexing="ij")
    return tuple(round(float((axis * level).sum() / level.sum())) for axis in (y, x))


@pytest.mark.parametrize("name", CHANGES)
def test_at_its_unchanged_strength_a_clip_is_the_same_to_the_bit(name):
    change, whole = CHANGES[name], stored()
    assert change.unchanged in change.strengths
    indices = torch.arange(len(whole))
    before = whole.batch(indices)
    after = ChangedClips(Sample.of(whole, None, 0), change, change.unchanged).batch(indices)
    assert torch.equal(after.frames, before.frames)
    assert torch.equal(after.lengths, before.lengths)
    assert torch.equal(after.targets, before.targets)


@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_clip_depends_on_seed_clip_and_strength_alone(name):
    sample, change = Sample.of(stored(), None, 0), CHANGES[name]
    together = changed(sample, name, change, STRONG[name], 7).batch(torch.arange(5))
    for index in range(5):
        alone = changed(sample, name, change, STRONG[name], 7).batch(torch.tensor([index]))
        num = alone.frames.shape[1]
        assert torch.equal(alone.frames[0], together.frames[index, :num])
        assert together.lengths is None or together.lengths[index] == num
    other = changed(sample, name, change, STRONG[name], 8).batch(torch.arange(5)).frames
    assert torch.equal(other, together.frames) == (name not in DRAWN)


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize(("channels", "size"), [(1, (32, 32)), (3, (33, 47))])
def test_a_change_keeps_the_layout_and_does_not_write_to_the_clip(name, channels, size):
    frames = clip(5, channels, *size)
    before = frames.clone()
    found = CHANGES[name](frames, STRONG[name], (0, 0))
    assert torch.equal(frames, before)
    assert found.dtype == torch.uint8
    assert found.shape[1:] == frames.shape[1:]
    assert len(found) == 5 or name == "speed"
    assert found.shape != frames.shape or not torch.equal(found, frames)


def test_angles_are_counter_clockwise_as_seen():
    right = dot(16, 28)
    assert place(turned(right, 90)) == (4, 16)  # exactly, without interpolation
    assert place(turned(right, 89)) == (4, 16)
    assert place(turned(right, 30)) == (10, 26)
    wide = dot(16, 36, width=49)
    assert place(turned(wide, 90)) == (4, 24)
    assert torch.equal(turned(turned(wide, 180), 180), wide)


def test_a_clip_is_scaled_about_its_middle():
    assert place(scaled(dot(16, 28, 32), 0.5)) == (16, 22)
    assert place(scaled(dot(16, 20, 33), 2)) == (16, 24)


def test_outside_the_frame_lies_the_colour_of_the_border():
    frames = torch.full((2, 3, 32, 48), 90, dtype=torch.uint8)
    for name, strength in (("turn", 33.0), ("scale", 0.5)):
        assert torch.equal(CHANGES[name](frames, strength), frames)


def test_strengths_mean_what_they_say():
    white, grey = torch.full((20, 1, 40, 40), 255, dtype=torch.uint8), torch.full((20, 1, 40, 40), 128).to(torch.uint8)
    assert float((CHANGES["occlude"](white, 0.25, (0, 3)) == 0).float().mean()) == 0.25
    assert float(CHANGES["noise"](grey, 16, (0, 3)).float().std()) == pytest.approx(16, rel=0.02)
    assert CHANGES["dim"](white, 0.6).unique().tolist() == [102]
    moving = clip(40)
    assert torch.equal(CHANGES["speed"](moving, 2), moving[::2])
    assert torch.equal(CHANGES["speed"](moving, 0.5), moving.repeat_interleave(2, 0))
    few, many = (CHANGES["drop"](moving, share, (0, 1)) for share in (0.2, 0.6))
    assert torch.equal(few[0], moving[0])
    lost = [torch.tensor([not torch.equal(a, b) for a, b in zip(found, moving, strict=True)]) for found in (few, many)]
    assert bool((lost[1] | ~lost[0]).all())  # a stronger change adds to a weaker one
    assert 0 < lost[0].sum() < lost[1].sum() < 40


@pytest.mark.parametrize("channels", [1, 3])
def test_compression_is_of_a_real_codec(channels):
    frames = clip(8, channels, 32, 48)
    errors = [
        float((CHANGES["compress"](frames, crf).float() - frames.float()).abs().mean()) for crf in (1, 29, 41, 51)
    ]
    assert errors[0] < 2.5
    assert errors == sorted(errors)
    assert errors[-1] > 3 * errors[0]


def test_the_generator_draws_angle_scale_and_speed():
    clips = DigitsConfig("uci", condition=("normal",), num_clips=4, num_frames=10).clips("test")
    all_four = torch.arange(4)
    upright = clips.located(all_four)
    for name in ("turn", "scale", "speed"):
        same = drawn_changed(clips, name, CHANGES[name].unchanged)
        assert torch.equal(same.batch(all_four).frames, upright.frames)
    turned_by = drawn_changed(clips, "turn", 200.0).located(all_four)
    assert turned_by.poses.angle_deg.unique().tolist() == [200.0]
    assert torch.equal(turned_by.poses.instance, upright.poses.instance)
    assert torch.equal(turned_by.poses.centre_px, upright.poses.centre_px)
    assert drawn_changed(clips, "scale", 0.4).located(all_four).poses.scale.unique().tolist() == pytest.approx(
        [0.4], abs=1e-4
    )
    moved = [
        float((drawn_changed(clips, "speed", factor).located(all_four).poses.centre_px.diff(dim=1)[:, :2]).abs().mean())
        for factor in (0.5, 1.0)
    ]
    assert moved[0] < 0.7 * moved[1]
    assert drawn_changed(clips, "noise", 8.0) is None
    with pytest.raises(UsageError, match="does not hold a digit"):
        drawn_changed(clips, "scale", 3.0)


def test_a_sample_is_drawn_from_all_clips():
    clips = stored(9)
    few = Sample.of(clips, 4, seed=1)
    assert len(few.chosen) == len(set(few.chosen)) == 4
    assert few == Sample.of(clips, 4, seed=1) != Sample.of(clips, 4, seed=2)
    assert Sample.of(clips, 20, seed=1).chosen == tuple(range(9))
    assert few.described() != Sample.of(clips, 4, seed=2).described()


@pytest.mark.parametrize(
    ("name", "strength", "frames", "message"),
    [
        ("occlude", 1.2, clip(), "share of the frame covered is 1.2; a number from 0 to 1 is needed"),
        ("scale", 0, clip(), "scale"),
        ("noise", 8, clip().float(), "a clip is torch.float32"),
        ("noise", 8, clip()[:, :2], "1 or 3 channels"),
    ],
)
def test_what_has_no_meaning_is_refused(name, strength, frames, message):
    with pytest.raises(UsageError, match=message):
        CHANGES[name](frames, strength)
