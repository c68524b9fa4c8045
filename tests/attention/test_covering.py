"""Which glimpse covers which object: by hand, and beside counting the pixels of a fine grid."""

import math

import pytest
import torch

from saccade.attention.covering import centre_inside, covering, intersection_over_union


def corners_of(top, left, bottom, right, turn_deg=0.0):
    """Build the corners of a box, turned around its middle."""
    middle = torch.tensor([(top + bottom) / 2, (left + right) / 2])
    corners = torch.tensor([[top, left], [top, right], [bottom, right], [bottom, left]], dtype=torch.float32)
    cos, sin = math.cos(math.radians(turn_deg)), math.sin(math.radians(turn_deg))
    return (corners - middle) @ torch.tensor([[cos, sin], [-sin, cos]]) + middle


def figures(glimpses, boxes, present=None):
    """Return the figures of one frame; the coordinates of glimpses are the edges of pixels, as those of boxes."""
    there = torch.ones(1, len(boxes), dtype=torch.bool) if present is None else torch.tensor([present])
    found = covering(torch.stack(glimpses).unsqueeze(0) - 0.5, torch.tensor([boxes]), there)
    return {name: value.item() for name, value in found._asdict().items()}


LEFT, RIGHT = (0, 0, 10, 10), (0, 20, 10, 30)


def test_each_digit_in_a_glimpse_of_its_own():
    found = figures([corners_of(*RIGHT), corners_of(*LEFT)], [LEFT, RIGHT])
    assert found == pytest.approx({"iou": 1, "covered": 1, "one_each": 1, "alone": 1})


def test_one_glimpse_of_both_digits_is_nobodys_own():
    found = figures([corners_of(0, 0, 10, 30)], [LEFT, RIGHT])
    assert found == pytest.approx({"iou": 1 / 3, "covered": 1, "one_each": 0, "alone": 0})
    # Nor do two glimpses that show the same.
    assert figures([corners_of(0, 0, 10, 30)] * 2, [LEFT, RIGHT])["one_each"] == 0


def test_two_glimpses_on_the_same_digit_leave_the_other_out():
    found = figures([corners_of(*LEFT), corners_of(0, 0, 12, 10)], [LEFT, RIGHT])
    assert found == pytest.approx({"iou": 1 / 2, "covered": 1 / 2, "one_each": 0, "alone": 0})


def test_different_glimpses_may_show_the_other_digit_too():
    wide = corners_of(0, 0, 10, 28)
    found = figures([corners_of(*LEFT), wide], [LEFT, RIGHT])
    assert (found["one_each"], found["alone"]) == (1, 0)
    assert found["iou"] == pytest.approx((1 + 80 / 300) / 2)


def test_a_digit_whose_middle_is_outside_does_not_count_as_covered():
    assert figures([corners_of(0, 5.5, 10, 10)], [LEFT])["covered"] == 0
    assert figures([corners_of(0, 4.5, 10, 10)], [LEFT]) == pytest.approx(
        {"iou": 0.55, "covered": 1, "one_each": 1, "alone": 1}
    )


def test_absent_digits_do_not_count_and_frames_that_lack_a_digit_neither():
    assert figures([corners_of(*LEFT)], [LEFT, RIGHT], [True, False])["one_each"] == 1
    hidden = figures([corners_of(*LEFT)], [LEFT, (0, 0, 0, 0)])
    assert all(math.isnan(value) for value in hidden.values())
    assert all(math.isnan(value) for value in figures([corners_of(*LEFT)], [LEFT], [False]).values())


@pytest.mark.parametrize("turn_deg", [0, 17, 45, 90, 133, 200])
@pytest.mark.parametrize("mirrored", [False, True])
def test_overlap_and_centres_beside_a_fine_grid(turn_deg, mirrored):
    torch.manual_seed(0)
    corners = torch.stack([corners_of(8.0, 3.0, 30.0, 41.0, turn_deg + 40 * i) for i in range(4)]).unsqueeze(0)
    corners = corners + torch.tensor([3.0, 6.0])
    if mirrored:
        corners = corners.flip(2)
    boxes = torch.tensor([[[5, 5, 30, 21], [20, 30, 40, 60], [0, 0, 4, 4], [0, 0, 64, 64]]]).float()
    side = torch.arange(0, 64, 0.125) + 0.0625
    grid = torch.stack(torch.meshgrid(side, side, indexing="ij"), -1).view(1, -1, 1, 2).expand(-1, -1, 2, -1)
    in_glimpse = centre_inside(corners, grid.flatten(2)).squeeze(0)
    y, x = grid[0, :, 0].unbind(-1)
    whole = intersection_over_union(corners, boxes)[0]
    for thing, (top, left, bottom, right) in enumerate(boxes[0].tolist()):
        in_box = ((y >= top) & (y < bottom) & (x >= left) & (x < right)).unsqueeze(-1)
        counted = (in_box & in_glimpse).sum(0) / (in_box | in_glimpse).sum(0)
        assert torch.allclose(whole[thing], counted, atol=0.01)


def test_areas_without_extent_give_zero():
    point = torch.zeros(1, 1, 4, 2)
    assert intersection_over_union(point, torch.zeros(1, 1, 4)).item() == 0
    assert math.isfinite(intersection_over_union(point, torch.tensor([[[0.0, 0, 4, 4]]])).item())
