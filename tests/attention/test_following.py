import math

import pytest
import torch
from torch.nn import functional as F

from saccade.attention.following import circular_mean, following, turn_and_zoom
from saccade.attention.geometry import quadrilateral
from saccade.data.digits.motion import Motion
from saccade.data.digits.moving_digits import MovingDigits
from saccade.nn import SpatialTransformer

from .stand_ins import Says


def turned(angle_deg, zoom, centre_px=(31.5, 31.5), size=(64, 64)):
    """Build the map that samples a square around a centre, turned counter-clockwise as seen on the screen."""
    cos, sin = (zoom * f(math.radians(angle_deg)) for f in (math.cos, math.sin))
    (height, width), (y, x) = size, centre_px
    return torch.tensor(
        [
            [cos, sin * height / width, 2 * (x + 0.5) / width - 1],
            [-sin * width / height, cos, 2 * (y + 0.5) / height - 1],
        ]
    )


@pytest.mark.parametrize("size", [(64, 64), (48, 80)])
@pytest.mark.parametrize("angle_deg", [-150, -30, 0, 45, 90, 170])
def test_turn_and_zoom_of_known_maps(size, angle_deg):
    theta = turned(angle_deg, 0.6, size=size)
    found, zoom = turn_and_zoom(theta, size, size)
    assert found.item() == pytest.approx(angle_deg, abs=1e-3)
    assert zoom.item() == pytest.approx(0.6, abs=1e-5)
    # Counter-clockwise on the screen: the upper edge, followed to the right, rises.
    upper_left, upper_right = quadrilateral(theta.unsqueeze(0), size)[0, :2]
    down, right = (upper_right - upper_left).tolist()
    assert math.degrees(math.atan2(-down, right)) == pytest.approx(angle_deg, abs=1e-3)


def test_turn_counts_in_pixels_whatever_the_shapes():
    # A crop of half the width from a frame of half the width: nothing is sheared, so a turn is a turn.
    theta = turned(30, 1.0, size=(64, 32), centre_px=(31.5, 15.5))
    assert turn_and_zoom(theta, (32, 16), (64, 32))[0].item() == pytest.approx(30, abs=1e-3)
    # The polar decomposition's rotation: a stretch before or after leaves the angle.
    stretched = turned(30, 1.0) @ torch.diag(torch.tensor([2.0, 2.0, 1.0]))
    angle_deg, zoom = turn_and_zoom(stretched, (64, 64), (64, 64))
    assert (angle_deg.item(), zoom.item()) == (pytest.approx(30, abs=1e-3), pytest.approx(2, abs=1e-5))


def test_polar_decomposition_as_scipy_does_it():
    from scipy.linalg import polar

    linear = torch.tensor([[0.7, 0.5], [-0.2, 0.9]])
    rotation, _ = polar(linear.numpy())
    expected = -math.degrees(math.atan2(rotation[1, 0], rotation[0, 0]))
    theta = torch.cat((linear, torch.zeros(2, 1)), 1)
    assert turn_and_zoom(theta, (64, 64), (64, 64))[0].item() == pytest.approx(expected, abs=1e-3)


def test_a_map_with_a_digits_angle_and_scale_shows_it_upright(uci):
    clips = MovingDigits(uci["test"], Motion("rotation_scaling", 40), labels="digits", num_digits=1, num_clips=1)
    still = MovingDigits(uci["test"], Motion("normal", 1), labels="digits", num_digits=1, num_clips=1)
    moving, upright = (some.batch(torch.tensor([3]), poses=True, dtype=torch.float32) for some in (clips, still))

    def crop(batch, frame, sign=1):
        pose = batch.poses
        angle_deg, scale = sign * pose.angle_deg[0, frame, 0].item(), pose.scale[0, frame, 0].item()
        theta = turned(angle_deg, scale * 0.5, pose.centre_px[0, frame, 0].tolist()).flatten()
        return SpatialTransformer(Says(theta.unsqueeze(0)), (32, 32))(batch.frames[0, frame : frame + 1])

    expected = crop(upright, 0)
    turns = [frame for frame in range(0, 40, 5) if moving.poses.angle_deg[0, frame, 0].abs() > 20]
    assert len(turns) > 3
    for frame in turns:
        alike, mirrored = (
            F.cosine_similarity(crop(moving, frame, sign).flatten(), expected.flatten(), 0) for sign in (1, -1)
        )
        assert alike > 0.9
        assert mirrored < alike - 0.1


def test_slopes_and_correlations():
    true = torch.tensor([0.0, 20, -40, 80, -70])
    for said, slope, correlation in [(true, 1, 1), (-0.5 * true, -0.5, -1), (0.25 * true + 100, 0.25, 1)]:
        for angles in (False, True):
            found = following(said, true, angles=angles)
            assert [value.item() for value in found] == pytest.approx([slope, correlation], abs=1e-6)
    noise = torch.tensor([3.0, -8, 5, 9, -2])
    slope, correlation = following(noise, true)
    stacked = torch.stack((true, noise)).double()
    assert correlation.item() == pytest.approx(torch.corrcoef(stacked)[0, 1].item())
    assert slope.item() == pytest.approx((torch.cov(stacked)[0, 1] / true.double().var()).item())


def test_angles_go_round():
    true = torch.tensor([-80.0, -20, 10, 60])
    said = (true + 170 + 180) % 360 - 180  # some on either side of 180
    assert said.max() - said.min() > 300
    assert [value.item() for value in following(said, true, angles=True)] == pytest.approx([1, 1], abs=1e-5)
    assert circular_mean(torch.tensor([[170.0, -150.0], [10.0, 20.0]])).tolist() == pytest.approx([-170, 15], abs=1e-3)


def test_what_is_constant_has_no_correlation():
    true, still = torch.tensor([[0.5, 0.7, 0.9]]), torch.tensor([[0.3, 0.3, 0.3]])
    slope, correlation = following(still, true)
    assert slope.item() == pytest.approx(0, abs=1e-9)
    assert correlation.isnan().all()
    assert all(value.isnan().all() for value in following(true, still))
