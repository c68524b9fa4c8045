"""Where models of all trunks look, in pixels of the original frame."""

import pytest
import torch
from torch import nn

from saccade import models
from saccade.attention import effective_receptive_field, look, measure, sampling_points
from saccade.attention.look import MAX_POINTS
from saccade.clips import FrameFormat, Poses
from saccade.labels import Labels
from saccade.nn import attention_layers

from .stand_ins import Says, constant_offsets, random_frames

LABELS = Labels(("wave", "clap"))
TRUNKS = ("small", "wide", "resnet18", "efficientnet-lite0")


def built(trunk, attention, *, input="both", channels=3, size=None):
    torch.manual_seed(0)
    own = FrameFormat(channels, size)
    return models.build(labels=LABELS, frame_format=own, trunk=trunk, attention=attention, input=input).eval()


def frames_of(size=(96, 128), num=2):
    return random_frames(num, size, channels=3)


@pytest.mark.parametrize(("trunk", "attention"), [c for c in models.COMBINATIONS if c[0] in TRUNKS[2:]])
def test_a_look_of_every_trunk(trunk, attention):
    model, frames = built(trunk, attention), frames_of()
    found, state = look(model, frames, saliency=True, receptive_field=True)
    with torch.no_grad():
        assert torch.allclose(found.logits, model(frames.unsqueeze(0))[0], atol=1e-5)
    assert state is not None
    for gradient in (found.saliency, found.receptive_field):
        assert gradient.shape == (2, 96, 128)
        assert torch.allclose(gradient.sum((1, 2)), torch.ones(2), atol=1e-4)
    assert (found.quadrilateral_px is not None) == (attention == "stn")
    assert (found.points_px is not None) == (attention == "dcn")
    if attention == "stn":
        border = torch.tensor([[-0.5, -0.5], [-0.5, 127.5], [95.5, 127.5], [95.5, -0.5]])
        assert torch.allclose(found.quadrilateral_px, border.expand(2, 1, 4, 2), atol=1e-3)
        assert found.crop.shape == (2, 1, 3, 160, 213)
    if attention == "dcn":
        assert found.points_px.shape[0] == 2
        assert torch.allclose(found.point_weight.sum((1, 2)), torch.ones(2), atol=1e-5)


@pytest.mark.parametrize(("size", "start_px"), [((160, 192), (31.0, 31.0)), ((150, 213), (21.0, 20.0))])
def test_an_offset_of_one_position_of_the_last_map_is_32_pixels(size, start_px):
    # Above even sizes a map starts at 1, above odd ones at 0: 150, 75, 38, 19, 10 make 1 + 2*0 + 4*1 + 8*0 + 16*1,
    # and 213, 107, 54, 27, 14 make 0 + 2*0 + 4*1 + 8*0 + 16*1.
    model, frame = built("efficientnet-lite0", "dcn"), frames_of(size, 1)[0]
    plain = sampling_points(model, frame, (2, 3))
    assert torch.allclose(plain.mean(0), torch.tensor(start_px) + 32 * torch.tensor([2.0, 3.0]), atol=1e-3)
    constant_offsets(model.encoder.end.attention, (0.0, 1.0))
    moved = sampling_points(model, frame, (2, 3))
    assert torch.allclose(moved - plain, torch.tensor([0.0, 32.0]).expand(9, 2), atol=1e-3)
    arrows = look(model, frame.unsqueeze(0))[0].arrows_px[0]
    assert torch.allclose(arrows[..., 1, :] - arrows[..., 0, :], torch.tensor([0.0, 32.0]), atol=1e-3)


def test_an_offset_in_the_last_stage_moves_points_without_the_branches():
    model, frame = built("resnet18", "dcn"), frames_of((96, 128), 1)[0]
    *_, deepest = attention_layers(model).values()
    plain = sampling_points(model, frame, (1, 2))
    assert torch.allclose(plain.mean(0), torch.tensor([32.0, 64.0]), atol=1e-3)
    constant_offsets(deepest, (0.0, 1.0))
    moved = sampling_points(model, frame, (1, 2))
    assert torch.allclose(moved - plain, torch.tensor([0.0, 32.0]).expand_as(plain), atol=1e-3)


def test_a_drawing_has_the_points_of_the_largest_weights_of_each_unit():
    model, frames = built("resnet18", "dcn", input="frames"), frames_of((64, 64), 1)
    with torch.no_grad():
        for layer in attention_layers(model).values():
            nn.init.normal_(layer.positions.weight, std=0.02)
    found, _ = look(model, frames, saliency=True, num_units=2)
    assert found.points_px.shape == (1, 2, 9**4, 2)
    drawn = found.frame_json(0)["points"]
    assert len(drawn) == 2 * MAX_POINTS
    for unit, points in enumerate((drawn[:MAX_POINTS], drawn[MAX_POINTS:])):
        least = found.point_weight[0, unit].topk(MAX_POINTS).values[-1].item()
        assert min(weight for *_, weight in points) == pytest.approx(least, abs=1e-6)


def test_the_points_of_a_trunk_are_those_of_the_frame_and_not_of_its_change():
    model, frames = built("resnet18", "dcn"), frames_of(num=3)
    with torch.no_grad():
        for layer in attention_layers(model).values():
            nn.init.normal_(layer.positions.weight, std=0.02)
    found, _ = look(model, frames, saliency=True)
    # Frame by frame, as a clip of its own: the points follow from the frame alone.
    for t, frame in enumerate(frames):
        alone, _ = look(model, frame.unsqueeze(0))
        assert torch.allclose(found.arrows_px[t], alone.arrows_px[0], atol=1e-3)
    assert found.points_px.shape[0] == found.point_weight.shape[0] == 3


@pytest.mark.parametrize("trunk", TRUNKS)
def test_a_zoom_of_a_half_is_the_middle_of_the_original_frame(trunk):
    model = built(trunk, "stn")
    model.encoder.attention.positions = Says([[0.5, 0.0, 0.0, 0.0, 0.5, 0.0]])
    found, _ = look(model, frames_of((240, 320), 1))
    expected = torch.tensor([[59.5, 79.5], [59.5, 239.5], [179.5, 239.5], [179.5, 79.5]])
    assert torch.allclose(found.quadrilateral_px[0, 0], expected, atol=1e-3)


def test_the_crop_of_a_closer_look_shows_the_pixels_of_the_original_frame():
    model = built("efficientnet-lite0", "stn", input="frames")
    model.encoder.attention.positions = Says([[0.5, 0.0, 0.0, 0.0, 0.5, 0.0]])
    frames = frames_of((320, 384), 1)
    found, _ = look(model, frames)
    # Half of 320 px in 160: each pixel of the crop is the mean of four places within one pixel of the frame.
    middle = frames[:, :, 80:240, 96:288].float() / 255
    assert found.crop[:, 0].shape == middle.shape
    assert (found.crop[:, 0] - middle).abs().mean() < 0.5 * middle.std()
    flat = torch.full_like(frames, 100)
    assert torch.allclose(look(model, flat)[0].crop, torch.tensor(100 / 255), atol=1e-4)


@pytest.mark.parametrize("trunk", TRUNKS[2:])
def test_the_receptive_field_lies_around_the_unit(trunk):
    model, frame = built(trunk, "dcn", input="frames"), frames_of((160, 192), 1)[0].float() / 255
    field = effective_receptive_field(model, frame, (2, 3))
    place = torch.stack(torch.meshgrid(torch.arange(160.0), torch.arange(192.0), indexing="ij"))
    centre = (field * place).sum((1, 2))
    expected = sampling_points(model, frame, (2, 3)).mean(0)
    assert (centre - expected).abs().max() < 32


def test_attention_on_known_things_is_measured():
    model, clips = built("resnet18", "dcn"), frames_of((64, 64), 4).unflatten(0, (2, 2))
    box = torch.tensor([0, 0, 32, 32]).expand(2, 2, 1, 4)
    ones = torch.ones(2, 2, 1)
    poses = Poses(torch.zeros(2, 2, 1, 2), ones, ones, box, torch.zeros(2, 1).long(), torch.zeros(2, 1).long())
    found, _ = measure(model, clips, poses, box)
    assert found["sampling_points"].ratio.isfinite().all()
