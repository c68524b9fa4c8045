import pytest
import torch
from torch import nn

from saccade.attention.measure import MEASURES, measure
from saccade.clips import Poses
from saccade.data.digits.motion import Motion
from saccade.data.digits.moving_digits import MovingDigits
from saccade.nn import Glimpses, SpatialTransformer
from saccade.nn.attention import switched_off

from .stand_ins import MATCHED, Says, Sums, wandering
from .test_following import turned
from .test_mass import sampling_box


@pytest.fixture(scope="module")
def batch(uci):
    """Three clips of twelve frames, whose truth is that of two and the boxes of the two after each."""
    clips = MovingDigits(uci["test"], Motion("rotation_scaling", 12, frames_per_setting=2), num_clips=3)
    return clips.batch(torch.arange(3), poses=True)


def first(poses, num=2):
    return Poses(**{name: getattr(poses, name)[:num].clone() for name in Poses.__dataclass_fields__})


def measured(model, batch):
    return measure(model, batch.frames[:2], first(batch.poses), batch.poses.box_px[1:])


@pytest.mark.parametrize("name", MATCHED)
def test_every_model_has_its_measures(name, batch):
    model = wandering(name)
    found, logits = measured(model, batch)
    own = {"lenet-lstm": set(), "stn-lstm": {"sampled_area"}, "dcn-lstm": {"sampling_points"}}[name]
    assert set(found) == {"gradient", "ink"} | own
    assert set(found) <= set(MEASURES)
    with torch.no_grad():
        assert torch.allclose(logits, model(batch.frames[:2])[:, -1], atol=1e-5)
    for attended in found.values():
        assert attended.ratio.shape == (2, 2)
        assert bool((attended.ratio > 0).all())
        assert bool((attended.ratio_min <= attended.ratio.amin(1) + 1e-5).all())
        assert bool(((attended.all_above >= 0) & (attended.all_above <= 1)).all())


@pytest.mark.parametrize("name", MATCHED)
def test_a_batch_of_two_is_two_of_one(name, batch):
    model = wandering(name)
    together, _ = measured(model, batch)
    for clip in range(2):
        one = Poses(**{field: getattr(batch.poses, field)[clip : clip + 1] for field in Poses.__dataclass_fields__})
        alone, _ = measure(model, batch.frames[clip : clip + 1], one, batch.poses.box_px[clip + 1 : clip + 2])
        for measure_name, attended in alone.items():
            for field in ("ratio", "ratio_min", "ratio_min_elsewhere", "all_above"):
                expected = getattr(together[measure_name], field)[clip]
                assert torch.allclose(getattr(attended, field)[0], expected, rtol=1e-3, atol=1e-3)


def test_all_pixels_alike_are_chance(batch):
    found, _ = measured(Sums(nn.Identity()), batch)
    for field in ("ratio", "ratio_min", "ratio_min_elsewhere"):
        value = getattr(found["gradient"], field)
        assert torch.allclose(value, torch.ones_like(value), atol=1e-5)
    assert bool((found["ink"].ratio_min > 2).all())
    assert bool((found["ink"].all_above == 1).all())


def test_attention_that_knows_the_digits(batch):
    # Weights on the boxes of both digits of every frame, and then on those of the first alone.
    boxes = batch.poses.box_px[:2].flatten(0, 1)
    masks = torch.zeros(2, len(boxes), 1, 64, 64)
    for frame, (one, other) in enumerate(boxes.tolist()):
        for digit, (top, left, bottom, right) in ((0, one), (1, other)):
            masks[digit, frame, 0, top:bottom, left:right] = 1
    both, _ = measured(Sums(nn.Identity(), masks.amax(0)), batch)
    area = masks.amax(0).sum((1, 2, 3)).view(2, 12)
    assert torch.allclose(both["gradient"].ratio, (4096 / area).mean(1, keepdim=True).expand(2, 2), rtol=1e-4)
    assert bool((both["gradient"].all_above == 1).all())
    assert bool((both["gradient"].ratio_min > both["gradient"].ratio_min_elsewhere).all())
    one, _ = measured(Sums(nn.Identity(), masks[0]), batch)
    assert torch.allclose(one["gradient"].ratio[:, 0], (4096 / masks[0].sum((1, 2, 3)).view(2, 12)).mean(1), rtol=1e-4)
    # The boxes overlap in some frames, and only there has the second digit a share.
    overlap = (masks[0] * masks[1]).sum((1, 2, 3)).view(2, 12) > 0
    assert torch.allclose(one["gradient"].all_above, (overlap & (one_share(masks) > 1)).float().mean(1))


def one_share(masks):
    inside, size = (masks[0] * masks[1]).sum((1, 2, 3)), masks.sum((2, 3, 4))
    return (inside / size[0] / (size[1] / 4096)).view(2, 12)


def test_frames_without_a_digit_are_left_out_for_it(batch):
    poses = first(batch.poses)
    poses.box_px[0, :6, 1] = 0
    weight = torch.ones(24, 1, 1, 1)
    weight[:6] = 0  # no mass at all in these frames
    model = Sums(nn.Identity(), torch.ones(1, 64, 64) * weight)
    found, _ = measure(model, batch.frames[:2], poses, batch.poses.box_px[1:])
    assert torch.allclose(found["gradient"].ratio, torch.ones(2, 2), atol=1e-5)
    assert found["gradient"].ratio_min.tolist() == pytest.approx([1, 1])
    poses.box_px[0, :, 1] = 0
    found, _ = measure(model, batch.frames[:2], poses, batch.poses.box_px[1:])
    assert found["gradient"].ratio_min.isnan().tolist() == [True, False]
    assert found["gradient"].all_above.isnan().tolist() == [True, False]


def test_a_transformer_that_follows(batch):
    poses = batch.poses
    angle_deg, scale = poses.angle_deg[:2, :, 0].flatten(), poses.scale[:2, :, 0].flatten()
    maps = [turned(-0.5 * a, 0.8 * s) for a, s in zip(angle_deg.tolist(), scale.tolist(), strict=True)]
    model = Sums(nn.Sequential(SpatialTransformer(Says(torch.stack(maps).flatten(1)))))
    found, _ = measured(model, batch)
    names = ("angle_slope", "angle_correlation", "scale_slope", "scale_correlation")
    for name, expected in zip(names, (-0.5, -1, 0.8, 1), strict=True):
        assert found["sampled_area"].following[name].tolist() == pytest.approx([expected] * 2, abs=1e-4)


def test_a_transformer_on_one_digit(batch):
    boxes = batch.poses.box_px[:2, :, 0].flatten(0, 1)
    maps = torch.cat([sampling_box(box, (64, 64)) for box in boxes.tolist()])
    model = Sums(nn.Sequential(SpatialTransformer(Says(maps.flatten(1)), (28, 28))))
    found, _ = measured(model, batch)
    area = ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).view(2, 12)
    assert torch.allclose(found["sampled_area"].ratio[:, 0], (4096 / area).mean(1), rtol=1e-3)


def test_glimpses_that_follow_a_digit_each(batch):
    maps = [
        torch.cat([sampling_box(box, (64, 64)) for box in batch.poses.box_px[:2, :, digit].flatten(0, 1).tolist()])
        for digit in (1, 0)
    ]
    numbers = torch.stack(maps, 1).flatten(1)
    glimpses = Glimpses(Says(numbers), num_glimpses=2, out_px=28, mode="affine")
    found, _ = measured(Sums(nn.Sequential(glimpses)), batch)
    area = found["sampled_area"]
    assert area.following["iou"].tolist() == pytest.approx([1, 1], abs=1e-4)
    assert area.following["covered"].tolist() == [1, 1]
    assert area.following["one_each"].tolist() == [1, 1]
    for name in ("iou", "one_each"):
        assert bool((area.following[f"{name}_elsewhere"] < area.following[name] - 0.2).all())
    # The mean of the slopes of both glimpses, against the mean of the digits, which have the same scale.
    assert bool((area.following["scale_slope"] > 0).all())
    one, _ = measured(Sums(nn.Sequential(SpatialTransformer(Says(maps[0].flatten(1)), (28, 28)))), batch)
    assert one["sampled_area"].following["one_each"].max() < 1
    # Half of the sampled pixels lie on each digit; one glimpse has them all on its own.
    assert torch.allclose(area.ratio[:, 1], one["sampled_area"].ratio[:, 1] / 2, rtol=0.5)


def test_the_model_is_left_as_it_was(batch):
    model = wandering("dcn-lstm").train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    measured(model, batch)
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_what_the_offsets_alone_do(batch):
    model = wandering("dcn-lstm")
    with switched_off(model):
        still, _ = measured(model, batch)
    assert still["sampling_points"].following["ratio_min_gain"].abs().max() == 0
    moved, _ = measured(model, batch)
    assert moved["sampling_points"].following["ratio_min_gain"].abs().min() > 0
    assert "ratio_min_gain" not in moved["gradient"].following


def test_digits_that_a_clip_lacks_do_not_count(uci):
    clips = MovingDigits(uci["test"], Motion("normal", 6), labels="digits", num_digits=(1, 3), num_clips=12)
    batch = clips.batch(torch.arange(12), poses=True)
    assert set(batch.poses.present.sum(1).tolist()) == {1, 2, 3}
    found, _ = measure(wandering("lenet-lstm"), batch.frames, batch.poses, batch.poses.box_px.roll(1, 0))
    attended = found["gradient"]
    assert torch.equal(attended.ratio.isnan(), ~batch.poses.present)
    assert not attended.ratio_min.isnan().any()
    assert not attended.ratio_min_elsewhere.isnan().any()
    alone = batch.poses.present.sum(1) == 1
    assert torch.allclose(attended.ratio_min[alone], attended.ratio[alone, 0])
