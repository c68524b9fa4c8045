import pytest
import torch

from saccade.baselines import mean_frame, motion, shrunk, summarise


def moving_square(*steps, time=12, size=(72, 96), channels=3):
    """Return a clip of a bright square that starts in the middle and moves by (y, x) px a frame."""
    clip = torch.full((time, channels, *size), 40, dtype=torch.uint8)
    dy, dx = steps
    for moment in range(time):
        top, left = (
            round(side / 2 - 8 + step * (moment - time / 2)) for side, step in zip(size, (dy, dx), strict=True)
        )
        clip[moment, :, top : top + 16, left : left + 16] = 220
    return clip


def features(clip):
    return motion(shrunk(clip))


@pytest.mark.parametrize("shape", [(1, 1, 28, 28), (2, 3, 28, 496), (9, 3, 160, 91), (70, 1, 64, 64)])
def test_clips_of_any_shape_have_features_of_one_length(shape):
    small = shrunk(torch.randint(0, 256, shape, dtype=torch.uint8))
    assert small.shape == (shape[0], 3, 64, 64)
    assert mean_frame(small).shape == (768,)
    assert motion(small).shape == (1360,)
    assert motion(small).isfinite().all()


def test_the_mean_frame_does_not_know_the_order_of_frames():
    small = shrunk(torch.randint(0, 256, (8, 3, 40, 40), dtype=torch.uint8))
    torch.testing.assert_close(mean_frame(small), mean_frame(small.flip(0)))
    torch.testing.assert_close(mean_frame(torch.full((4, 3, 64, 64), 0.25)), torch.full((768,), 0.25))


def test_what_stands_still_does_not_move():
    still = torch.randint(0, 256, (1, 3, 50, 50), dtype=torch.uint8).expand(6, -1, -1, -1)
    found = features(still)
    assert found[:256].abs().max() == 0
    assert found[256:768].abs().max() > 0  # orientations
    assert found[768:].abs().max() == 0


@pytest.mark.parametrize(("one", "other"), [((0, 3), (0, -3)), ((2, 0), (-2, 0)), ((2, 0), (0, 3))])
def test_the_direction_of_motion_is_seen(one, other):
    a, b = features(moving_square(*one)), features(moving_square(*other))
    assert (a - b).norm() > 0.3 * a.norm()
    torch.testing.assert_close(a, features(moving_square(*one, channels=1)))


def test_a_mirrored_clip_moves_the_other_way():
    """The centroid's displacement over the clip, the last number of each axis, changes its sign in x only."""
    right = features(moving_square(1, 3))[-48:].tolist()
    left = features(moving_square(1, 3).flip(3))[-48:].tolist()
    assert right[23] == pytest.approx(left[23], abs=1e-4)
    assert right[47] == pytest.approx(-left[47], abs=1e-4)
    assert right[23] > 0.05
    assert right[47] > 0.1


def test_a_summary_tells_what_is_there_from_how_it_changes():
    generator = torch.Generator().manual_seed(0)
    over_time = torch.randn(7, 5, generator=generator)
    mean, deviation, step, _ = summarise(over_time)
    torch.testing.assert_close(mean, over_time.mean(0))
    torch.testing.assert_close(deviation, over_time.std(0, correction=0))
    torch.testing.assert_close(step, (over_time[-1] - over_time[0]) / 6)
    shifted = summarise(over_time + 3)
    torch.testing.assert_close(shifted[1:], summarise(over_time)[1:])
    torch.testing.assert_close(summarise(over_time[:1])[1:], torch.zeros(3, 5))
