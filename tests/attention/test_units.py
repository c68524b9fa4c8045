"""Sampling points and receptive fields beside gradients of linear networks."""

import pytest
import torch
from torch import nn

from saccade import models
from saccade.attention import effective_receptive_field, look, sampling_points, strongest_units
from saccade.nn import DeformConv2d, OffsetResample2d

from .stand_ins import Sums, constant_offsets, random_frames, wandering


def ones(layer):
    nn.init.ones_(layer.weight)
    return layer


@pytest.mark.parametrize("groups", [1, 2])
def test_every_point_is_where_a_linear_network_hangs_on_the_frame(groups):
    # With one tap of each layer left, all that a unit hangs on are the pixels around that pair's point.
    torch.manual_seed(3)
    shallow = DeformConv2d(groups, 1, 3, padding=2, dilation=2, bias=False, offset_groups=groups)
    deep = DeformConv2d(1, 1, (3, 2), padding=(1, 0), stride=(2, 1), bias=False)
    stem = ones(nn.Conv2d(groups, groups, 3, stride=2, padding=1, groups=groups))
    network = nn.Sequential(stem, shallow, nn.AvgPool2d(2), deep)
    for layer in (shallow, deep):
        constant_offsets(layer, 1.7 * torch.randn(len(layer.positions.weight) // 2, 2))
    frame = torch.rand(groups, 60, 72, requires_grad=True)
    points = sampling_points(network, frame.detach(), (3, 8)).view(6, groups * 9, 2)
    for of_deep in range(6):
        for of_shallow in range(groups * 9):
            for layer, tap in ((deep, of_deep), (shallow, of_shallow)):
                layer.weight.data = torch.eye(layer.weight.numel())[tap].view_as(layer.weight)
            unit = network(frame.unsqueeze(0))[0, 0, 3, 8]
            gradient = torch.autograd.grad(unit, frame)[0].sum(0)
            centre = gradient.nonzero().float().T @ gradient[gradient != 0] / gradient.sum()
            assert torch.allclose(points[of_deep, of_shallow], centre, atol=1e-3)


def test_without_gradients_units_weigh_as_their_activation():
    frame = torch.zeros(1, 1, 6, 9)
    frame[..., 4, 7], frame[..., 1, 2], frame[..., 5, 0] = 0.9, 0.5, 0.7
    layer = ones(DeformConv2d(1, 2, (1, 1), bias=False, offset_groups=1))
    found, _ = look(Sums(nn.Sequential(layer)), frame)
    assert found.unit_px[0].tolist() == [[4, 7], [5, 0], [1, 2]]
    assert found.point_weight[0, :, 0].tolist() == pytest.approx([0.9 / 2.1, 0.7 / 2.1, 0.5 / 2.1])


def test_points_weigh_what_the_verdict_hangs_on():
    torch.manual_seed(0)
    shallow, deep = DeformConv2d(1, 1, 3, padding=1, bias=False), DeformConv2d(1, 1, 3, padding=1, bias=False)
    constant_offsets(shallow, torch.randint(-3, 4, (9, 2)))
    constant_offsets(deep, torch.randint(-3, 4, (9, 2)))
    weight = torch.zeros(1, 40, 40)
    weight[0, 20, 15], weight[0, 12, 22] = 2.0, -1.0
    model, frame = Sums(nn.Sequential(shallow, deep), weight), torch.rand(1, 1, 40, 40)
    # Every tap's value goes on by the tap's weight, through both layers.
    by_tap = (deep.weight.flatten().abs().unsqueeze(1) * shallow.weight.flatten().abs()).flatten()
    found, _ = look(model, frame, saliency=True, num_units=1600)
    units = {tuple(unit.round().int().tolist()): at for at, unit in enumerate(found.unit_px[0])}
    expected = torch.zeros(1600, 81)
    expected[units[20, 15]], expected[units[12, 22]] = 2 * by_tap, by_tap
    assert torch.allclose(found.point_weight[0], expected / expected.sum(), atol=1e-6)


# Where the first position of the shallow deformable layer lies in the frame: pooling puts it between pixels.
ORIGIN_PX = {"small": 0.0, "wide": 1.0}


@pytest.mark.parametrize(
    ("name", "arguments"),
    [*(("dcn-lstm", {"trunk": trunk}) for trunk in ORIGIN_PX), ("dcn-lstm-published", {"num_frames": 2})],
)
def test_without_offsets_the_points_are_the_regular_grid(name, arguments):
    model = models.create(name, **arguments)
    for layer in model.modules():
        if isinstance(layer, DeformConv2d | OffsetResample2d):
            nn.init.zeros_(layer.positions.weight)
    frame = random_frames(1)[0]
    if name == "dcn-lstm":
        # A step in the deep map is 8 px and in the shallow one 4.
        points = sampling_points(model, frame, (4, 3))
        steps = torch.tensor([[8.0 * i + 4 * j for j in (-1, 0, 1)] for i in (-1, 0, 1)]).flatten()
        y, x = torch.meshgrid(steps, steps, indexing="ij")
        origin = ORIGIN_PX[arguments["trunk"]]
        expected = torch.stack((origin + 34 + y, origin + 26 + x), -1).flatten(0, 1)
    else:
        points = sampling_points(model, frame, (7, 20, 33))
        expected = torch.tensor([20.0, 33.0]).expand(20, 2)
    assert torch.allclose(sorted_rows(points), sorted_rows(expected), atol=1e-4)


def sorted_rows(points):
    return torch.tensor(sorted([[round(y, 3), round(x, 3)] for y, x in points.tolist()]))


@pytest.mark.parametrize("trunk", ORIGIN_PX)
def test_constant_offsets_shift_the_grid(trunk):
    model, frame = models.create("dcn-lstm", trunk=trunk).eval(), random_frames(1)[0]
    before = sampling_points(model, frame, (2, 5))
    deformable = [layer for layer in model.modules() if isinstance(layer, DeformConv2d)]
    constant_offsets(deformable[0], (0.5, -1.0))
    shifted = sampling_points(model, frame, (2, 5))
    assert torch.allclose(shifted - before, torch.tensor([2.0, -4.0]).expand(81, 2), atol=1e-4)
    constant_offsets(deformable[1], (1.0, 0.25))
    both = sampling_points(model, frame, (2, 5))
    assert torch.allclose(both - shifted, torch.tensor([8.0, 2.0]).expand(81, 2), atol=1e-4)
    found, _ = look(model, frame.unsqueeze(0))
    start, end = found.arrows_px[0].unbind(2)
    assert torch.allclose(end - start, torch.tensor([2.0, -4.0]).expand(16, 16, 2), atol=1e-4)
    assert torch.allclose(start[0, 0], torch.tensor([0.0, 0.0]) + ORIGIN_PX[trunk])
    assert torch.allclose(start[3, 5], torch.tensor([12.0, 20.0]) + ORIGIN_PX[trunk])


def test_channels_that_move_by_themselves_and_stop_at_the_border():
    resample = OffsetResample2d(2)
    constant_offsets(resample, [[1.0, 2.0], [-9.0, 0.0]])
    network, frame = nn.Sequential(resample), random_frames(1, (12, 10), channels=2)[0]
    assert sampling_points(network, frame, (0, 4, 5)).tolist() == [[5.0, 7.0]]
    assert sampling_points(network, frame, (1, 4, 5)).tolist() == [[0.0, 5.0]]
    assert sampling_points(network, frame, (4, 5)).tolist() == [[5.0, 7.0], [0.0, 5.0]]


def test_the_strongest_units_are_those_of_the_largest_activation():
    layer = ones(DeformConv2d(1, 2, 1, bias=False))
    frame = torch.zeros(1, 6, 9)
    frame[0, 4, 7], frame[0, 1, 2], frame[0, 5, 0] = 0.9, 0.5, 0.7
    assert strongest_units(nn.Sequential(layer), frame, 3) == [(4, 7), (5, 0), (1, 2)]
    # Behind normalisation and rectification what was largest may be nothing.
    norm = nn.BatchNorm2d(2)
    nn.init.constant_(norm.weight, -1)
    nn.init.constant_(norm.bias, 0.6)
    frame[0] += 0.55
    frame[0, 2, 2] = 0.0
    assert strongest_units(nn.Sequential(layer, norm, nn.ReLU()), frame, 1) == [(2, 2)]
    resample = constant_offsets(OffsetResample2d(2), (0.0, 0.0))
    two = torch.stack((frame[0], 2 * frame[0].flip(0)))
    assert strongest_units(nn.Sequential(resample), two, 1) == [(1, 1, 7)]


def test_the_receptive_field_is_the_gradient_of_the_unit():
    model = wandering("lenet-lstm")
    frame = torch.rand(1, 48, 64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    trunk = model.encoder.trunk(frame.unsqueeze(0))[0]
    expected = torch.autograd.grad(trunk[:, 2, 5].sum(), frame, retain_graph=True)[0][0].abs()
    found = effective_receptive_field(model, frame.detach(), (2, 5))
    assert torch.allclose(found, expected / expected.sum(), atol=1e-6)
    of_channel = torch.autograd.grad(trunk[9, 2, 5], frame)[0][0].abs()
    found = effective_receptive_field(model, frame.detach(), (9, 2, 5))
    assert torch.allclose(found, of_channel / of_channel.sum().clamp(min=1e-9), atol=1e-6)


def test_receptive_fields_follow_the_offsets():
    model, frame = models.create("dcn-lstm").eval(), torch.rand(1, 128, 128, generator=torch.Generator().manual_seed(0))
    before = effective_receptive_field(model, frame, (8, 8))
    assert before.sum().item() == pytest.approx(1, abs=1e-5)
    constant_offsets(next(layer for layer in model.modules() if isinstance(layer, DeformConv2d)), (3.0, -5.0))
    after = effective_receptive_field(model, frame, (8, 8))
    for axis, shift in ((1, 12), (0, -20)):
        reached = [field.sum(axis).nonzero() for field in (before, after)]
        middle_before, middle_after = ((reach.min() + reach.max()).item() / 2 for reach in reached)
        assert middle_after - middle_before == pytest.approx(shift, abs=3)


@pytest.mark.parametrize("name", ["stn-lstm", "dcn-lstm"])
def test_a_look_has_the_receptive_field_of_each_frames_strongest_unit(name):
    model, frames = wandering(name), random_frames(3)
    with torch.inference_mode():
        found, _ = look(model, frames, receptive_field=True)
        both, _ = look(model, frames, saliency=True, receptive_field=True)
    assert found.saliency is None
    assert torch.equal(both.receptive_field, found.receptive_field)
    alone, _ = look(model, frames, saliency=True)
    assert alone.receptive_field is None
    assert torch.equal(both.saliency, alone.saliency)
    for frame, field in zip(frames, found.receptive_field, strict=True):
        if name == "dcn-lstm":
            (unit,) = strongest_units(model, frame, 1)
        else:
            last = model.encoder.trunk(model.encoder.attention(frame.unsqueeze(0) / 255))[0].norm(dim=0)
            unit = divmod(int(last.argmax()), last.shape[1])
        assert torch.allclose(field, effective_receptive_field(model, frame, unit), atol=1e-6)


def test_where_channels_move_by_themselves_the_receptive_field_is_one_channels():
    resample = constant_offsets(OffsetResample2d(2), (2.0, -1.0))
    frame = torch.zeros(1, 2, 9, 9)
    frame[0, 0, 4, 4], frame[0, 1, 6, 3] = 0.5, 0.9
    with torch.inference_mode():
        found, _ = look(Sums(nn.Sequential(resample)), frame, receptive_field=True)
    assert found.receptive_field[0].nonzero().tolist() == [[6, 3]]


def test_a_model_without_feature_maps_has_no_receptive_field():
    found, _ = look(Sums(nn.Sequential(nn.Flatten())), random_frames(1), receptive_field=True)
    assert found.receptive_field is None


def test_parameters_get_no_gradient():
    model = wandering("dcn-lstm")
    effective_receptive_field(model, random_frames(1)[0], (1, 1))
    look(model, random_frames(1), receptive_field=True)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_wrong_calls():
    frame = random_frames(1)[0]
    with pytest.raises(ValueError, match="no layer with offsets"):
        sampling_points(models.create("lenet-lstm"), frame, (1, 1))
    with pytest.raises(ValueError, match=r"unit \(8, 0\) is not in the map of 128 channels of 8x8"):
        sampling_points(models.create("dcn-lstm"), frame, (8, 0))
    with pytest.raises(ValueError, match=r"give \(row, column\)"):
        effective_receptive_field(models.create("dcn-lstm"), frame, (1,))
    with pytest.raises(ValueError, match="no feature map"):
        effective_receptive_field(nn.Sequential(nn.Flatten()), frame, (1, 1))
    behind = nn.Sequential(nn.Upsample(scale_factor=2), DeformConv2d(1, 1, 3))
    with pytest.raises(ValueError, match="1 attention layers were not reached, because positions after Upsample"):
        sampling_points(behind, frame, (1, 1))
