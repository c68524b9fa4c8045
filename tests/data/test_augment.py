import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from saccade.data.augment import MIN_FRAMES, Augmentation, view_generator
from saccade.errors import UsageError

NONE, ALL = Augmentation.none(), Augmentation(erase_probability=1.0, flip=True)
STILL_TIME = replace(ALL, rate=(1.0, 1.0), drop_probability=0.0)
ALONE = {
    "angle": replace(NONE, max_angle_deg=10.0),
    "scale": replace(NONE, scale=(0.85, 1.15)),
    "crop": replace(NONE, crop=0.1),
    "shift": replace(NONE, shift=0.05),
    "brightness": replace(NONE, brightness=0.2),
    "contrast": replace(NONE, contrast=0.2),
    "saturation": replace(NONE, saturation=0.3),
    "hue": replace(NONE, max_hue_deg=10.0),
    "erase": replace(NONE, erase_probability=1.0, erase_share=0.1),
    "rate": replace(NONE, rate=(0.8, 1.25)),
    "drop": replace(NONE, drop_probability=0.05),
    "flip": replace(NONE, flip=True),
}


def noise(num_frames=6, num_channels=3, height=20, width=32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (num_frames, num_channels, height, width), generator=generator, dtype=torch.uint8)


def counted(num_frames):
    """Return a clip whose frames are their numbers."""
    return torch.arange(num_frames, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 3, 5)


def with_dots(places, height=61, width=101):
    """Return one frame with a bright dot at each (y, x), which is 3 px wide."""
    frame = torch.zeros(1, 1, height, width, dtype=torch.uint8)
    for y, x in places:
        frame[..., y - 1 : y + 2, x - 1 : x + 2] = 255
    return frame


def dot(augmentation, place, view):
    """Return where a dot goes, as offset (y, x) from the centre of the frame."""
    weights = augmentation.augmented(with_dots([place]), view_generator(0, 0, view))[0, 0].double().numpy()
    grid = np.meshgrid(np.arange(-30, 31), np.arange(-50, 51), indexing="ij")
    return np.array([(axis * weights).sum() for axis in grid]) / weights.sum()


def outcomes(augmentation, clip, num=40):
    return [augmentation.augmented(clip, view_generator(0, 0, view)) for view in range(num)]


@given(st.integers(1, 9), st.sampled_from([1, 3]), st.integers(1, 24), st.integers(1, 24), st.integers(0, 2**63 - 1))
@settings(max_examples=60, deadline=None)
def test_at_zero_nothing_changes(num_frames, num_channels, height, width, seed):
    clip = noise(num_frames, num_channels, height, width, seed % 1000)
    assert torch.equal(NONE.augmented(clip, view_generator(seed, 3, 1)), clip)


@given(st.integers(1, 9), st.sampled_from([1, 3]), st.integers(1, 24), st.integers(1, 24), st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_all_frames_change_alike(num_frames, num_channels, height, width, seed):
    frame = noise(1, num_channels, height, width, seed)
    still = frame.expand(num_frames, -1, -1, -1)
    found = ALL.augmented(still, view_generator(seed, 0, 0))
    assert (found == found[0]).all()
    first = torch.cat((frame, noise(num_frames, num_channels, height, width, seed + 1), frame))
    found = STILL_TIME.augmented(first, view_generator(seed, 0, 0))
    assert found.shape == first.shape
    assert torch.equal(found[0], found[-1])


def test_a_view_is_a_function_of_seed_clip_and_view():
    clip = noise()
    views = {
        key: ALL.augmented(clip, view_generator(*key))
        for key in ((0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0), (0, 1, 1))
    }
    for key, view in views.items():
        assert torch.equal(view, ALL.augmented(clip, view_generator(*key)))
        assert sum(torch.equal(view, other) for other in views.values()) == 1


@pytest.mark.parametrize("name", ALONE)
def test_each_strength_changes_something(name):
    clip = noise(num_frames=30)
    assert not all(torch.equal(found, clip) for found in outcomes(ALONE[name], clip, num=10))


def test_the_clip_itself_is_kept():
    clip = noise()
    before = clip.clone()
    ALL.augmented(clip, view_generator(0, 0, 0))
    assert torch.equal(clip, before)


def test_one_strength_leaves_the_draws_of_others():
    # Hue and saturation do not change grey, so that all other changes must come out the same.
    grey = noise(num_channels=1).expand(-1, 3, -1, -1)
    for view in range(10):
        plain, coloured = (
            replace(ALL, saturation=strength, max_hue_deg=100 * strength).augmented(grey, view_generator(0, 0, view))
            for strength in (0.0, 0.9)
        )
        assert len(plain) == len(coloured)
        assert (plain.int() - coloured.int()).abs().max() <= 1


@pytest.mark.parametrize("view", range(8))
def test_rotation_keeps_lengths_and_stays_small(view):
    (y, x), (other_y, other_x) = (dot(ALONE["angle"], place, view) for place in ((30, 80), (10, 50)))
    assert np.hypot(y, x) == pytest.approx(30, abs=0.1)
    assert np.hypot(other_y, other_x) == pytest.approx(20, abs=0.1)
    angle = np.degrees(np.arctan2(y, x))
    assert 0 < abs(angle) <= 10
    assert np.degrees(np.arctan2(other_x, -other_y)) == pytest.approx(angle, abs=0.5)


def test_scale_shift_and_crop_keep_to_their_ranges():
    scales = [dot(ALONE["scale"], (30, 80), view) for view in range(30)]
    assert np.allclose([y for y, _ in scales], 0, atol=0.05)
    assert 30 * 0.85 - 0.1 <= min(x for _, x in scales) < 28 < 32 < max(x for _, x in scales) <= 30 * 1.15 + 0.1
    shifts = np.array([dot(ALONE["shift"], (30, 50), view) / (61, 101) for view in range(30)])
    assert (abs(shifts) <= 0.0505).all()
    assert (shifts.min(0) < -0.02).all()
    assert (shifts.max(0) > 0.02).all()
    assert abs(np.corrcoef(shifts.T)[0, 1]) < 0.5
    cut = np.array(
        [dot(ALONE["crop"], (30, 80), view)[1] - dot(ALONE["crop"], (30, 20), view)[1] for view in range(30)]
    )
    assert (cut >= 59.9).all()
    assert (cut <= 60 / 0.9 + 0.1).all()
    assert cut.max() > 63


def test_a_crop_may_lie_anywhere_in_the_frame_and_not_outside():
    ramp = (4 * torch.arange(60, dtype=torch.uint8)).expand(1, 1, 60, 60)
    found = [view[0, 0, 0].int() for view in outcomes(replace(NONE, crop=0.5), ramp)]
    assert all((row.diff() >= 1).all() for row in found)  # outside, the border would be repeated
    assert min(row[0] for row in found) < 20
    assert max(row[0] for row in found) > 60
    assert max(row[-1] for row in found) > 216
    upright = outcomes(replace(NONE, crop=0.5), ramp.mT)
    assert all((view[0, 0, :, 0].int().diff() >= 1).all() for view in upright)


def test_the_border_goes_on_outside():
    white = torch.full((2, 3, 20, 32), 255, dtype=torch.uint8)
    away = replace(NONE, max_angle_deg=45.0, scale=(0.5, 1.0), shift=0.5)
    assert all(torch.equal(found, white) for found in outcomes(away, white, num=10))


def test_flips_only_where_wanted():
    clip = noise()
    found = outcomes(ALONE["flip"], clip)
    mirrored = [torch.equal(view, clip.flip(-1)) for view in found]
    assert all(m or torch.equal(view, clip) for m, view in zip(mirrored, found, strict=True))
    assert 8 < sum(mirrored) < 32
    sides = [dot(replace(Augmentation(), erase_probability=0.0), (30, 80), view)[1] for view in range(30)]
    assert min(sides) > 0


def test_colours_keep_to_their_ranges():
    clip = noise(num_frames=2) // 2 + 64
    mean = clip.double().mean()
    bright = [float(found.double().mean() / mean) for found in outcomes(ALONE["brightness"], clip)]
    assert 0.79 < min(bright) < 0.9 < 1.1 < max(bright) < 1.21
    hard = [found.double() for found in outcomes(ALONE["contrast"], clip)]
    spread = [float(found.std() / clip.double().std()) for found in hard]
    assert 0.79 < min(spread) < 0.9 < 1.1 < max(spread) < 1.21
    assert all(found.mean() == pytest.approx(float(mean), abs=0.5) for found in hard)
    luma = torch.tensor((0.299, 0.587, 0.114), dtype=torch.float64).view(3, 1, 1)
    for name in ("saturation", "hue"):
        for found in outcomes(ALONE[name], clip, num=10):
            assert ((found - clip.double()) * luma).sum(1).abs().max() < 1.0


def test_levels_end_at_black_and_white():
    clip = noise()
    for name in ("brightness", "contrast"):
        for found in outcomes(replace(NONE, **{name: 1.0}), clip, num=10):
            levels = [found[clip == level].unique().tolist() for level in range(256)]
            assert sorted(map(max, levels)) == list(map(max, levels))


def test_hue_turns_red_to_green():
    red = torch.tensor((160, 40, 40), dtype=torch.uint8).view(1, 3, 1, 1).expand(1, 3, 4, 4)
    found = [view[0, :, 0, 0].tolist() for view in outcomes(replace(NONE, max_hue_deg=180.0), red)]
    assert any(green > r for r, green, _ in found)
    assert any(blue > r for r, _, blue in found)


def test_a_small_rectangle_is_erased_in_all_frames():
    clip = noise(num_frames=3, height=40, width=60)
    shares = []
    for found in outcomes(ALONE["erase"], clip):
        changed = (found != clip).any(1)
        rows, columns = np.nonzero(changed.any(0).numpy())
        area = (rows.max() + 1 - rows.min()) * (columns.max() + 1 - columns.min())
        shares.append(area / (40 * 60))
        inside = found[..., rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        assert (inside == inside[:1, :, :1, :1]).all()
    assert max(shares) < 0.11
    assert len(set(shares)) > 20
    often = [bool((found != clip).any()) for found in outcomes(replace(ALONE["erase"], erase_probability=0.3), clip)]
    assert 4 < sum(often) < 20


def test_the_whole_frame_may_be_erased():
    clip = noise(height=1, width=1)
    for found in outcomes(replace(NONE, erase_probability=1.0, erase_share=1.0), clip, num=10):
        assert (found == found[0]).all()


@pytest.mark.parametrize("num_frames", [1, 2, 5, 40])
def test_time_is_resampled_in_order(num_frames):
    clip = counted(num_frames)
    found = [view[:, 0, 0, 0].tolist() for view in outcomes(ALONE["rate"], clip)]
    assert all(moments == sorted(moments) for moments in found)
    assert all(round(num_frames / 1.25) <= len(m) <= round(num_frames / 0.8) for m in found)
    assert all(np.diff([*m]).max(initial=0) <= 2 for m in found)
    if num_frames == 40:
        assert len({len(moments) for moments in found}) > 8


@given(st.integers(1, 30), st.floats(0, 1), st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_a_few_frames_are_always_left(num_frames, probability, view):
    dropping = replace(NONE, rate=(0.1, 10.0), drop_probability=probability)
    left = dropping.augmented(counted(num_frames), view_generator(0, 0, view))[:, 0, 0, 0].tolist()
    assert left == sorted(left)
    assert len(left) >= min(MIN_FRAMES, num_frames)
    if probability == 1:
        assert len(left) == min(MIN_FRAMES, num_frames)


def test_dropping_is_as_often_as_told():
    lengths = [len(view) for view in outcomes(replace(NONE, drop_probability=0.2), counted(50))]
    assert np.mean(lengths) == pytest.approx(40, abs=2)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"max_angle_deg": 181.0}, "max_angle_deg must lie in 0 to 180; got 181.0"),
        ({"crop": 0.95}, "crop must lie in 0 to 0.9; got 0.95"),
        ({"brightness": -0.1}, "brightness must lie in 0 to 1; got -0.1"),
        ({"drop_probability": float("nan")}, "drop_probability must lie in 0 to 1; got nan"),
        ({"rate": (2.0, 0.5)}, "rate is 2.0 to 0.5; a range within 0.1 to 10 is needed"),
        ({"scale": (0.0, 1.0)}, "scale is 0.0 to 1.0; a range within 0.1 to 10 is needed"),
    ],
)
def test_wrong_strengths(wrong, message):
    with pytest.raises(UsageError, match=re.escape(message)):
        Augmentation(**wrong)


@pytest.mark.parametrize(
    "frames", [noise().float(), noise()[:, :2], noise()[0], noise()[:0]], ids=["float", "channels", "3d", "empty"]
)
def test_wrong_frames(frames):
    with pytest.raises(ValueError, match=r"uint8 \(time, channels, height, width\) with 1 or 3 channels is needed"):
        ALL.augmented(frames, view_generator(0, 0, 0))
