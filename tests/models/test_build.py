"""Models of every trunk, attention and temporal part: streaming, identities at the start, what is kept of a trunk."""

from functools import cache

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from saccade import checkpoint, models
from saccade.clips import FrameFormat
from saccade.errors import UsageError
from saccade.labels import Labels
from saccade.models import efficientnet, resnet
from saccade.models.encoder import GRID
from saccade.models.picture_encoder import CHANGE_GAIN, MapEncoder, PictureEncoder
from saccade.models.trunks import CLOSER_PX, PICTURE_PX, expected, frame_px
from saccade.nn import TEMPORAL, CloserLook, GridPool, attention_layers

from .looking import looking_around

LABELS = Labels(("wave", "clap", "jump"))
PICTURE_TRUNKS = ("resnet18", "efficientnet-lite0")


def build(trunk="efficientnet-lite0", attention="none", *, seed=0, **arguments):
    torch.manual_seed(seed)
    model = models.build(labels=LABELS, trunk=trunk, attention=attention, **arguments).eval()
    for layer in attention_layers(model).values():
        if isinstance(layer, CloserLook):
            layer.out_px = 40  # as large as the frames of these tests
    return model


def clips_of(model, batch=2, time=3, size=(32, 40), seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(batch, time, model.frame_format.channels, *size, generator=generator)


# --- Every combination


@cache
def attending(trunk, attention):
    """Build a model that looks around, once for all temporal parts."""
    return looking_around(build(trunk, attention, input="both"))


@torch.inference_mode()
@pytest.mark.parametrize("temporal", TEMPORAL)
@pytest.mark.parametrize(("trunk", "attention"), models.COMBINATIONS)
def test_streaming_is_the_whole_clip(trunk, attention, temporal):
    like = attending(trunk, attention)
    num_features = like.temporal.in_features
    model = build("small", temporal=temporal, input="both", frame_format=like.frame_format, num_features=num_features)
    model.encoder = like.encoder
    clips, state, parts = clips_of(model, batch=1), None, []
    for part in clips.split([1, 2], 1):
        logits, state = model.step(part, state)
        parts.append(logits)
    whole = model(clips)
    assert whole.shape == (1, 3, 3)
    assert torch.allclose(torch.cat(parts, 1), whole, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(("trunk", "attention"), [c for c in models.COMBINATIONS if c[0] in PICTURE_TRUNKS])
def test_every_parameter_gets_a_finite_gradient(trunk, attention):
    model = looking_around(build(trunk, attention, input="both")).train()
    logits = model(clips_of(model, size=(64, 80)))
    F.cross_entropy(logits.flatten(0, 1), torch.arange(6) % 3).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


@torch.inference_mode()
@pytest.mark.parametrize("trunk", PICTURE_TRUNKS)
def test_padding_and_batches_change_nothing(trunk):
    model = looking_around(build(trunk, "dcn", input="both"))
    clips, lengths = clips_of(model), torch.tensor([2, 3])
    logits = model(clips, lengths)
    for clip, length, found in zip(clips, lengths, logits, strict=True):
        assert torch.allclose(found[:length], model(clip[None, :length])[0], rtol=1e-3, atol=1e-5)


def test_a_built_model_is_rebuilt_from_its_checkpoint(tmp_path):
    model = looking_around(build("efficientnet-lite0", "dcn", temporal="gru", input="both"))
    parts = {"trunk": "efficientnet-lite0", "attention": "dcn", "temporal": "gru", "input": "both"}
    header = checkpoint.Header(models.BUILT, parts, LABELS, model.frame_format)
    checkpoint.save(tmp_path / checkpoint.NAME, model, header)
    loaded, again = checkpoint.load(tmp_path)
    assert again.arguments == parts
    assert torch.equal(loaded(clips_of(model)), model(clips_of(model)))


def test_the_former_name_of_the_small_trunk_is_accepted(tmp_path):
    small, light = (build(name) for name in ("small", "light"))
    assert all(torch.equal(one, other) for one, other in zip(small.parameters(), light.parameters(), strict=True))
    config = {"trunk": "light", "seed": 3}
    header = checkpoint.Header("lenet-lstm", {"trunk": "light"}, LABELS, training={"config": config})
    checkpoint.save(tmp_path / checkpoint.NAME, models.create("lenet-lstm", labels=LABELS, trunk="light"), header)
    loaded, again = checkpoint.load(tmp_path)
    assert again.arguments == {"trunk": "small"}
    assert again.training["config"] == {"trunk": "small", "seed": 3}
    assert [p.shape for p in loaded.parameters()] == [
        p.shape for p in models.create("lenet-lstm", labels=LABELS).parameters()
    ]


# --- Several glimpses


def test_several_glimpses_are_refused_where_they_do_not_fit():
    with pytest.raises(UsageError, match=r"multi-stn needs a trunk for small crops \(small or wide\); resnet18 reads"):
        build("resnet18", "multi-stn")
    with pytest.raises(UsageError, match="num_glimpses=2 was given; only the attention multi-stn"):
        build("small", "stn", num_glimpses=2)
    for num in (0, 5):
        with pytest.raises(UsageError, match=f"num_glimpses must lie in 1 to 4; got {num}"):
            build("small", "multi-stn", num_glimpses=num)


@pytest.mark.parametrize("attention", ["none", "dcn", "multi-stn"])
def test_a_mode_is_refused_where_it_would_change_nothing(attention):
    with pytest.raises(UsageError, match=f"mode 'similarity' was given beside attention {attention}; only stn has"):
        build("small", attention, mode="similarity")


@pytest.mark.parametrize("trunk", ["small", "wide"])
@pytest.mark.parametrize("num", [1, 3, 4])
def test_a_model_has_as_many_glimpses_as_were_asked_for(num, trunk):
    model = looking_around(build(trunk, "multi-stn", num_glimpses=num))
    clips = clips_of(model, size=(48, 64))
    assert model.encoder.attention(clips[0]).shape == (3, num, 1, 40, 53)
    assert model(clips).isfinite().all()
    assert model.temporal.in_features == 256
    assert sum(p.numel() for p in model.parameters()) < 750_000


def test_a_feature_is_made_of_each_crop_and_of_where_it_lies():
    model = looking_around(build("small", "multi-stn"))
    encoder, frames = model.encoder, clips_of(model, 1, 4, (48, 64))[0]
    crops = encoder.attention(frames)
    maps = encoder.attention.maps(encoder.attention.positions(frames), (48, 64))
    features = []
    for glimpse in range(2):
        found = encoder.trunk(crops[:, glimpse])
        parts = (F.adaptive_avg_pool2d(found, GRID).flatten(1), maps[:, glimpse].flatten(1))
        features.append(encoder.dense(torch.cat(parts, 1)))
    assert torch.allclose(encoder(frames), (features[0] + features[1]) / 2, atol=1e-5)
    assert not torch.allclose(features[0], features[1], atol=1e-3)


@torch.no_grad()
def test_no_crop_outweighs_another():
    model = looking_around(build("small", "multi-stn"))
    encoder, frames = model.encoder, clips_of(model, 1, 4, (48, 64))[0]
    before = encoder(frames)
    for parameter in encoder.dense[2].parameters():
        parameter.mul_(10)
    after = encoder(frames)
    assert (after - before).abs().max() < 0.05 * before.max(), (after - before).abs().max()
    assert before.std() > 0.1


def test_the_places_of_glimpses_learn():
    model = looking_around(build("small", "multi-stn", num_glimpses=3)).train()
    logits = model(clips_of(model, size=(64, 64)))
    F.cross_entropy(logits.flatten(0, 1), torch.arange(6) % 3).backward()
    gradients = [parameter.grad for parameter in model.encoder.attention.positions.parameters()]
    assert all(gradient.abs().max() > 0 for gradient in gradients)


# --- At the start, attention changes nothing


@torch.inference_mode()
@pytest.mark.parametrize("input", ["frames", "both"])
@pytest.mark.parametrize("trunk", PICTURE_TRUNKS)
def test_a_model_with_deformable_layers_starts_as_the_one_without(trunk, input):
    plain, deformable = build(trunk, input=input), build(trunk, "dcn", input=input, seed=1)
    missing, unexpected = deformable.load_state_dict(plain.state_dict(), strict=False)
    assert not unexpected
    own = tuple(f"{layer}." for layer in attention_layers(deformable))
    assert missing
    assert all(name.startswith(own) for name in missing)
    clips = clips_of(plain, size=(64, 80))
    assert torch.allclose(deformable(clips), plain(clips), atol=1e-5)


@torch.inference_mode()
@pytest.mark.parametrize("trunk", PICTURE_TRUNKS)
def test_a_model_that_looks_closer_starts_as_the_one_that_sees_the_frame_small(trunk):
    plain, closer = build(trunk), build(trunk, "stn", seed=1)
    closer.load_state_dict(plain.state_dict(), strict=False)
    clips = clips_of(plain, size=(120, 150))
    small = F.avg_pool2d(clips.flatten(0, 1), 3).unflatten(0, clips.shape[:2])
    assert torch.allclose(closer(clips), plain(small), atol=1e-4)


# --- Pictures of a frame


class Pixels(nn.Module):
    """A trunk whose map is the picture."""

    def __init__(self, channels):
        super().__init__()
        self.channels = self.out_channels = channels

    def forward(self, pictures):
        return pictures

    def path(self):
        return []


def test_frame_and_change_are_pictures_of_their_own():
    encoder = PictureEncoder(
        attention=None, trunk=Pixels(3), end=MapEncoder(6, 4, deformable=False), gains=(1.0, CHANGE_GAIN)
    )
    frames = torch.rand(2, 6, 30, 36)
    maps = encoder.maps(frames)
    assert encoder.channels == 6
    assert torch.allclose(maps, torch.cat((frames[:, :3], CHANGE_GAIN * frames[:, 3:]), 1))
    dense = encoder.end.dense
    assert torch.allclose(encoder(frames), dense(GridPool()(maps)), atol=1e-6)


def test_a_feature_tells_where_things_are():
    end = MapEncoder(2, 4, deformable=False)
    assert end.dense[0].in_features == 2 * 9
    left, right = torch.zeros(1, 2, 5, 7), torch.zeros(1, 2, 5, 7)
    left[..., 0], right[..., -1] = 1, 1
    assert not torch.equal(end.pool(left), end.pool(right))


@pytest.mark.parametrize("shape", [(6, 32, 32), (1, 3, 32, 32), (1, 6, 27, 40)])
def test_frames_of_another_shape_are_told(shape):
    model = build(input="both")
    with pytest.raises(ValueError, match=r"frames have shape .*; \(batch, 6, height, width\) with at least 28x28 px"):
        model.encoder(torch.zeros(shape))


# --- What a trunk has learned


def test_a_kept_trunk_does_not_learn_and_attention_in_it_does():
    model = build("resnet18", "dcn")
    model.encoder.keep_trunk(weights=True)
    before = {name: value.clone() for name, value in model.encoder.trunk.state_dict().items()}
    model.train()
    assert model.encoder.training
    assert not any(isinstance(m, nn.BatchNorm2d) and m.training for m in model.encoder.trunk.modules())
    model(clips_of(model, size=(64, 64))).square().mean().backward()
    learning = {name for name, p in model.encoder.trunk.named_parameters() if p.grad is not None}
    assert learning
    assert all(".positions." in name for name in learning)
    assert all(torch.equal(value, before[name]) for name, value in model.encoder.trunk.state_dict().items())
    assert not model.encoder.maps_are_fixed


def test_maps_are_fixed_if_nothing_before_them_learns():
    model = build("efficientnet-lite0", "dcn")
    assert not model.encoder.maps_are_fixed
    model.encoder.keep_trunk(weights=False)
    assert not model.encoder.maps_are_fixed
    model.encoder.keep_trunk(weights=True)
    assert model.encoder.maps_are_fixed
    closer = build("efficientnet-lite0", "stn")
    closer.encoder.keep_trunk(weights=True)
    assert not closer.encoder.maps_are_fixed


def test_a_trunk_whose_statistics_are_kept_learns_as_in_one_pass():
    # Its activations are computed again, part by part: the gradients are those of the whole.
    gradients = []
    for training in (True, False):
        model = build("efficientnet-lite0", "none")
        model.encoder.keep_trunk(weights=False)
        model.encoder.train(training)
        model(clips_of(model, 1, 34)).square().mean().backward()
        gradients.append({name: p.grad for name, p in model.encoder.trunk.named_parameters()})
    one, other = gradients
    assert all(torch.allclose(one[name], other[name], rtol=1e-3, atol=1e-6) for name in one)


# --- Frames


def test_frames_are_expected_as_a_trunk_has_learned_them():
    assert expected("efficientnet-lite0", FrameFormat(3, (160, 213))) == FrameFormat(
        3, (160, 213), efficientnet.MEAN, efficientnet.STD
    )
    assert expected("resnet18", FrameFormat(3)).mean == resnet.MEAN
    assert expected("resnet18", FrameFormat(1)).std == (sum(resnet.STD) / 3,)
    assert expected("small", FrameFormat(3)) == FrameFormat(3)
    assert build("resnet18").frame_format == expected("resnet18", FrameFormat(3))
    assert models.build(labels=LABELS, frame_format=FrameFormat(1), trunk="resnet18").encoder.channels == 1


def test_frames_are_larger_where_a_model_looks_closer():
    sizes = {(trunk, attention): frame_px(trunk, attention) for trunk in PICTURE_TRUNKS for attention in ("stn", "dcn")}
    assert set(sizes.values()) == {CLOSER_PX, PICTURE_PX}
    assert all((size > PICTURE_PX) == (attention == "stn") for (_, attention), size in sizes.items())


def test_an_unknown_trunk_names_the_nearest():
    with pytest.raises(UsageError, match="no trunk is called 'resnet-18'; did you mean 'resnet18'"):
        models.build(trunk="resnet-18")


@pytest.mark.parametrize(("trunk", "temporal"), [("small", "LSTM"), ("efficientnet-lite0", "Mean")])
def test_the_temporal_part_suits_the_trunk_unless_it_is_named(trunk, temporal):
    assert type(models.build(trunk=trunk).temporal).__name__ == temporal
    assert type(models.build(trunk=trunk, temporal="gru").temporal).__name__ == "GRU"
