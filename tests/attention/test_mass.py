import pytest
import torch
from torch import nn

from saccade.attention.attribution import verdict_gradients
from saccade.attention.forward import run
from saccade.attention.mass import Mass, mass_ratio, of_pixels, of_sampled_area, of_sampling_points
from saccade.attention.route import route_of
from saccade.labels import Labels
from saccade.nn import DeformConv2d, OffsetResample2d

from .stand_ins import Sums, constant_offsets

SIZE = (40, 64)
BOXES = torch.tensor([[[4, 8, 14, 24], [20, 30, 40, 64]]])


def box_mask(box):
    mask = torch.zeros(1, *SIZE)
    top, left, bottom, right = box.tolist()
    mask[0, top:bottom, left:right] = 1
    return mask


def test_even_mass_is_chance():
    assert mass_ratio(of_pixels(torch.full((1, *SIZE), 0.3)), BOXES, SIZE)[0].tolist() == pytest.approx([1, 1])


def test_mass_off_the_digits_is_none_and_all_on_one_is_its_areas_inverse():
    first, second = (box_mask(box) for box in BOXES[0])
    assert mass_ratio(of_pixels(1 - (first + second).clamp(max=1)), BOXES, SIZE)[0].tolist() == [0, 0]
    share = 10 * 16 / (40 * 64)
    assert mass_ratio(of_pixels(first), BOXES, SIZE)[0].tolist() == pytest.approx([1 / share, 0])


def test_half_the_mass_on_each():
    first, second = (box_mask(box) for box in BOXES[0])
    mass = of_pixels(first / first.sum() + second / second.sum())
    assert mass_ratio(mass, BOXES, SIZE)[0].tolist() == pytest.approx([0.5 * 2560 / 160, 0.5 * 2560 / 680])


def test_where_nothing_can_be_said():
    boxes = torch.tensor([[[4, 8, 14, 24], [0, 0, 0, 0]]])
    found = mass_ratio(of_pixels(torch.ones(1, *SIZE)), boxes, SIZE)[0]
    assert found[0] == pytest.approx(1)
    assert found[1].isnan()
    assert mass_ratio(of_pixels(torch.zeros(1, *SIZE)), BOXES, SIZE).isnan().all()


def test_points_count_by_their_pixel_and_only_in_the_frame():
    points = torch.tensor([[[3.5, 7.5], [13.49, 23.49], [13.5, 10.0], [-0.6, 3.0], [39.6, 3.0], [5.0, 64.0]]])
    found = mass_ratio(Mass(points, torch.ones(1, 6)), BOXES[:, :1], SIZE)
    assert found.item() == pytest.approx(2 / 3 * 2560 / 160)


def test_the_whole_frame_sampled_is_chance():
    mass = of_sampled_area(torch.eye(2, 3).view(1, 1, 2, 3), SIZE, SIZE)
    assert mass_ratio(mass, BOXES, SIZE)[0].tolist() == pytest.approx([1, 1])


def sampling_box(box, size=SIZE):
    """Build the map that samples just a box."""
    (top, left, bottom, right), (height, width) = box, size
    return torch.tensor(
        [
            [
                [(right - left) / width, 0.0, (left + right) / width - 1],
                [0.0, (bottom - top) / height, (top + bottom) / height - 1],
            ]
        ]
    )


def test_a_box_alone_sampled_is_its_areas_inverse():
    mass = of_sampled_area(sampling_box((4, 8, 14, 24)).unsqueeze(1), (32, 32), SIZE)
    assert mass_ratio(mass, BOXES, SIZE)[0].tolist() == pytest.approx([2560 / 160, 0])


def test_only_what_is_sampled_within_the_frame_counts():
    # Twice as wide and high as the frame, whatever lies outside: within it, even.
    theta = torch.tensor([[[[2.0, 0.0, 0.0], [0.0, 2.0, 0.0]]]])
    mass = of_sampled_area(theta, (80, 128), SIZE)
    assert mass_ratio(mass, BOXES, SIZE)[0].tolist() == pytest.approx([1, 1])
    beside = torch.tensor([[[[1.0, 0.0, 5.0], [0.0, 1.0, 0.0]]]])
    assert mass_ratio(of_sampled_area(beside, SIZE, SIZE), BOXES, SIZE).isnan().all()


def sampled(encoder, weight, channels=1):
    clips = torch.rand(1, 1, channels, *SIZE, generator=torch.Generator().manual_seed(0))
    model = Sums(encoder, weight)
    seen, logits, _ = run(model, route_of(model), clips, gradients=True)
    with torch.no_grad():
        return of_sampling_points(seen, verdict_gradients(logits, seen, Labels.numbered(2), seen.pixels)[1])


def test_sampling_points_stand_where_the_taps_look_and_weigh_what_hangs_on_them():
    layer = constant_offsets(DeformConv2d(1, 2, 3, padding=1, bias=False), (2.0, -3.0))
    weight = torch.zeros(2, *SIZE)
    weight[0, 10, 20], weight[1, 10, 20] = 1.0, -4.0
    mass = sampled(nn.Sequential(layer), weight)
    found = mass.weight[0].nonzero().flatten()
    expected = (layer.weight[0, 0] - 4 * layer.weight[1, 0]).abs().flatten()
    assert torch.allclose(mass.weight[0, found], expected, atol=1e-5)
    offsets = torch.tensor([[dy, dx] for dy in (-1.0, 0, 1) for dx in (-1.0, 0, 1)])
    assert torch.allclose(mass.points_px[0, found], torch.tensor([12.0, 17.0]) + offsets, atol=1e-4)


def test_sampling_points_of_one_layer_carry_the_offsets_of_those_above():
    # Both layers pass on what they sample; the deeper looks 8 px down, so what counts lies there, 2 px to the right.
    shallow = constant_offsets(DeformConv2d(1, 1, 1, bias=False), (0.0, 2.0))
    deep = constant_offsets(DeformConv2d(1, 1, 1, bias=False), (8.0, 0.0))
    nn.init.ones_(shallow.weight)
    nn.init.ones_(deep.weight)
    weight = torch.zeros(1, *SIZE)
    weight[0, 10, 20] = 1
    mass = sampled(nn.Sequential(shallow, deep), weight)
    found = mass.weight[0].nonzero().flatten()
    assert mass.points_px[0, found].tolist() == [pytest.approx([18, 22])]


def test_sampling_points_of_resampling():
    layer = constant_offsets(OffsetResample2d(2), [[1.0, 0.0], [0.0, 5.0]])
    weight = torch.zeros(2, *SIZE)
    weight[0, 10, 20], weight[1, 11, 21] = 3.0, -2.0
    mass = sampled(nn.Sequential(layer), weight, channels=2)
    found = mass.weight[0].nonzero().flatten()
    assert mass.weight[0, found].tolist() == pytest.approx([3, 2])
    assert torch.allclose(mass.points_px[0, found], torch.tensor([[11.0, 20.0], [11.0, 26.0]]), atol=1e-4)
