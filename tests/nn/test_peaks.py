"""Glimpses on the peaks of a map: one after the other, at the right place, with a gradient."""

import math

import pytest
import torch
from torch import nn

from saccade.nn import Glimpses
from saccade.nn.peaks import LARGEST_FACTOR, MAX_ANGLE_DEG, START_ZOOM, PeakLocalisation


def peaks(num=2, channels=1):
    torch.manual_seed(0)
    trunk = nn.Conv2d(channels, 4, 5, stride=2, padding=2)
    trunk.out_channels = 4
    return PeakLocalisation(trunk, num_glimpses=num)


def blobs(*middles, size=(64, 64), radius=5.0, value=1.0):
    """Return a black frame with round blobs around (y, x) in pixels."""
    y, x = torch.arange(size[0]).view(-1, 1), torch.arange(size[1]).view(1, -1)
    frame = torch.zeros(size)
    for row, column in middles:
        frame[((y - row) ** 2 + (x - column) ** 2) < radius**2] = value
    return frame.view(1, 1, *size)


def middles_of(found, size=(64, 64)):
    """Return the (y, x) of each glimpse in pixels."""
    shift = found.view(-1, 4)[:, 2:].flip(-1)
    return (shift + 1) / 2 * torch.tensor(size) - 0.5


def numbers(row, num=2):
    return row.view(num, 4)


@pytest.mark.parametrize("size", [(64, 64), (48, 80), (41, 47)])
@pytest.mark.parametrize("places", [[(0.3, 0.25), (0.7, 0.8)], [(0.75, 0.2), (0.25, 0.6)]])
def test_at_the_start_each_blob_has_a_glimpse(size, places):
    wanted = torch.tensor([(y * size[0], x * size[1]) for y, x in places])
    found = middles_of(peaks()(blobs(*wanted.tolist(), size=size, radius=0.07 * size[0])), size)
    apart = torch.cdist(wanted, found)
    assert apart.min(1).values.max() < 2.5
    assert set(apart.argmin(1).tolist()) == {0, 1}


def test_the_place_is_exact_to_less_than_a_position_of_the_map():
    layer = peaks(1)
    errors = []
    for shift in range(8):
        found = middles_of(layer(blobs((30, 24 + shift), radius=6.0)))[0]
        errors.append(found - torch.tensor([30.0, 24.0 + shift]))
    assert torch.stack(errors).abs().max() < 1.5  # positions are 4 pixels apart


def test_the_brightest_comes_first_and_the_next_glimpse_leaves_it():
    frames = torch.maximum(blobs((20, 20), value=0.5), blobs((44, 44)))
    found = middles_of(peaks()(frames))
    assert (found[0] - 44).abs().max() < 2.5
    assert (found[1] - 20).abs().max() < 2.5


def test_dark_things_on_a_bright_ground_are_found_too():
    found = middles_of(peaks(1)(1 - blobs((20, 40))))
    assert (found[0] - torch.tensor([20.0, 40.0])).abs().max() < 2.5


def test_a_larger_glimpse_takes_more_room():
    layer, frames = peaks(), torch.maximum(blobs((32, 24)), blobs((32, 37), value=0.9))
    near = middles_of(layer(frames))
    assert (near[1] - torch.tensor([32.0, 37.0])).abs().max() < 2.5
    layer.to_map.bias.data[1] = 5.0  # the largest zoom
    far = middles_of(layer(frames))
    assert (far[1] - far[0]).square().sum().sqrt() > 15


def test_zoom_and_angle_are_read_at_the_peak_and_have_limits():
    layer, frames = peaks(1), blobs((20, 40))
    found = numbers(layer(frames), 1)[0]
    assert found[:2].tolist() == [pytest.approx(START_ZOOM), 0.0]
    for sign in (-1, 1):
        layer.to_map.bias.data[1:] = sign * 50.0
        zoom, angle = numbers(layer(frames), 1)[0, :2].tolist()
        assert zoom == pytest.approx(START_ZOOM * LARGEST_FACTOR**sign)
        assert math.degrees(angle) == pytest.approx(sign * MAX_ANGLE_DEG)


def test_every_number_learns_and_the_loss_of_a_bad_place_falls():
    layer = Glimpses(peaks(), num_glimpses=2, out_px=20)
    nn.init.normal_(layer.positions.to_map.weight, std=0.1)
    frames = torch.maximum(blobs((22, 20)), blobs((45, 42), value=0.8))
    layer(frames).square().mean().backward()
    for name, parameter in layer.named_parameters():
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name
    optimizer = torch.optim.Adam([layer.positions.to_map.weight], lr=0.02)
    losses = []
    for _ in range(20):
        loss = -layer(frames).mean()  # look at more light
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 1e-3


@pytest.mark.parametrize("frames", [torch.zeros(2, 1, 40, 52), torch.full((2, 1, 40, 52), 0.3)])
def test_a_frame_without_anything_is_looked_at_in_the_middle(frames):
    assert middles_of(peaks(1)(frames), (40, 52))[0].sub(torch.tensor([19.5, 25.5])).abs().max() < 2.0


def test_four_glimpses_have_four_places_even_where_there_is_one_thing():
    found = middles_of(peaks(4)(blobs((32, 32))))
    assert torch.pdist(found).min() > 6


def test_frames_of_a_batch_do_not_know_each_other():
    layer, frames = peaks(3, channels=2), torch.rand(5, 2, 40, 60)
    alone = torch.cat([layer(frame.unsqueeze(0)) for frame in frames])
    assert torch.allclose(layer(frames), alone, atol=1e-5)
    assert layer(frames[:0]).shape == (0, 12)


def test_numbers_are_float32_under_autocast():
    with torch.autocast("cpu", torch.bfloat16):
        assert peaks()(torch.rand(1, 1, 40, 40)).dtype == torch.float32


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="num_glimpses is 0; it must be an int of at least 1"):
        peaks(0)
    with pytest.raises(ValueError, match=r"frames of 8x40 px give a map of \(2, 10\).* at least 3 along each axis"):
        peaks()(torch.rand(1, 1, 8, 40))
    same = nn.Conv2d(1, 4, 3, padding=1)
    same.out_channels = 4
    with pytest.raises(ValueError, match=r"give a map of \(20, 20\); \(10, 10\) is needed"):
        PeakLocalisation(same, num_glimpses=1)(torch.rand(1, 1, 40, 40))
