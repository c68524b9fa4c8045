"""Geometry beside gradients of linear networks, and beside what torch samples."""

import math

import pytest
import torch
from torch import nn

from saccade.attention.geometry import all_positions, grid_of, quadrilateral, read_between, through_map
from saccade.nn import SpatialTransformer

from .stand_ins import Says

STACKS = {
    "conv": [nn.Conv2d(1, 1, 3, padding=1)],
    "no padding": [nn.Conv2d(1, 1, 5), nn.Conv2d(1, 1, 3)],
    "matched": [nn.Conv2d(1, 1, 5, 2, 2), nn.Conv2d(1, 1, 3, padding=1), nn.AvgPool2d(2), nn.AvgPool2d(2)],
    "dilated": [nn.Conv2d(1, 1, 3, padding=4, dilation=4), nn.AvgPool2d(3, stride=2)],
    "oblong": [nn.Conv2d(1, 1, (3, 5), stride=(1, 2), padding=(0, 2), dilation=(2, 1)), nn.AvgPool2d((1, 2))],
    "even": [nn.Conv2d(1, 1, 4, stride=2, padding=1), nn.Conv2d(1, 1, 2)],
}


@pytest.mark.parametrize("stack", STACKS)
def test_positions_lie_at_the_centre_of_what_they_see(stack):
    network = nn.Sequential(*STACKS[stack])
    for layer in network:
        if isinstance(layer, nn.Conv2d):
            nn.init.ones_(layer.weight)
    frame = torch.zeros(1, 1, 60, 76, requires_grad=True)
    map = network(frame)
    grid = grid_of(network, (60, 76))
    middle = torch.tensor([map.shape[2] // 2, map.shape[3] // 2])
    for unit in (middle, middle + torch.tensor([1, -1])):
        seen = torch.autograd.grad(map[0, 0, unit[0], unit[1]], frame, retain_graph=True)[0][0, 0]
        centre = seen.nonzero().float().T @ seen[seen != 0] / seen.sum()
        assert torch.allclose(grid.place(unit.float()), centre, atol=1e-3)


def test_the_identity_samples_the_frame_to_its_border():
    assert quadrilateral(torch.eye(2, 3).unsqueeze(0), (48, 64)).tolist() == [
        [[-0.5, -0.5], [-0.5, 63.5], [47.5, 63.5], [47.5, -0.5]]
    ]


def test_a_known_map_samples_the_known_quadrilateral():
    # Half as large, a quarter turn clockwise, centre a quarter of the width to the right.
    quarter = torch.tensor([[[0.0, -0.5, 0.5], [0.5, 0.0, 0.0]]])
    expected = torch.tensor([[[15.5, 63.5], [47.5, 63.5], [47.5, 31.5], [15.5, 31.5]]])
    assert torch.allclose(quadrilateral(quarter, (64, 64)), expected)


@pytest.mark.parametrize(("size", "crop_size"), [((64, 64), (64, 64)), ((48, 80), (48, 80)), ((64, 48), (32, 24))])
def test_the_crop_shows_what_lies_where_the_geometry_says(size, crop_size):
    # The frame's pixels say where they lie, so the crop's pixels say where they come from.
    place = all_positions(size).T.reshape(1, 2, *size)
    angle = math.radians(25)
    theta = torch.tensor([[[0.5 * math.cos(angle), -0.4, 0.1], [0.4 * math.sin(angle), 0.45, -0.12]]])
    crop = SpatialTransformer(Says(theta.flatten(1)), crop_size)(place)
    points = through_map(theta, all_positions(crop_size).unsqueeze(0), crop_size=crop_size, frame_size=size)
    assert torch.allclose(points[0], crop[0].flatten(1).T, atol=1e-3)
    # The crop's corner pixels lie half a pixel of the crop inside the quadrilateral's corners.
    corners = quadrilateral(theta, size)[0]
    at_corner = crop[0][:, [0, 0, -1, -1], [0, -1, -1, 0]].T
    for corner in range(4):
        along, down = corners[[1, 0, 3, 2][corner]], corners[[3, 2, 1, 0][corner]]
        inwards = (along - corners[corner]) / crop_size[1] + (down - corners[corner]) / crop_size[0]
        assert torch.allclose(corners[corner] + inwards / 2, at_corner[corner], atol=1e-3)


def test_maps_are_read_between_their_pixels():
    map = torch.rand(2, 3, 5, 7, generator=torch.Generator().manual_seed(0))
    pixels = all_positions((5, 7)).view(1, 5, 7, 2).expand(2, -1, -1, -1)
    assert torch.allclose(read_between(map, pixels), map.permute(0, 2, 3, 1), atol=1e-5)
    between = read_between(map, torch.tensor([1.5, 2.0]).expand(2, 1, 1, 2))
    assert torch.allclose(between[:, 0, 0], map[:, :, 1:3, 2].mean(-1), atol=1e-5)
    outside = read_between(map, torch.tensor([-3.0, 20.0]).expand(2, 1, 1, 2))
    assert torch.allclose(outside[:, 0, 0], map[:, :, 0, 6], atol=1e-5)
