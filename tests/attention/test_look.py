import base64
import json
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from saccade import models
from saccade.attention import look
from saccade.clips import FrameFormat
from saccade.labels import Labels
from saccade.models import VideoClassifier
from saccade.models.matched import GLIMPSE_PX
from saccade.nn import Glimpses

from .stand_ins import MATCHED, Says, looking, random_frames, wandering

PARTS = {
    "lenet": set(),
    "stn": {"quadrilateral_px", "theta", "crop"},
    "multi": {"quadrilateral_px", "theta", "crop"},
    "dcn": {"points_px", "point_weight", "unit_px", "arrows_px"},
}


def parts_of(found):
    return {name for name, value in vars(found).items() if value is not None} - {"logits", "frame_size", "saliency"}


@pytest.fixture(scope="module")
def published():
    """The published models for clips of two frames, which look elsewhere in each."""
    torch.manual_seed(0)
    made = {name: models.create(name, num_frames=2).eval() for name in models.names() if name.endswith("published")}
    nn.init.normal_(made["stn-lstm-published"].encoder[1].positions[-1].weight, std=0.02)
    return made


def crop_size(size):
    """Return the size of a glimpse's crop of frames of a size."""
    return tuple(round(edge * GLIMPSE_PX / min(size)) for edge in size)


@pytest.mark.parametrize("name", [*MATCHED, "multi-stn-lstm"])
@pytest.mark.parametrize("size", [(64, 64), (48, 80)])
def test_every_matched_model(name, size):
    model, frames = wandering(name), random_frames(3, size)
    found, state = look(model, frames, saliency=True, num_units=4)
    with torch.no_grad():
        assert torch.allclose(found.logits, model(frames.unsqueeze(0))[0], atol=1e-5)
    assert state is not None
    assert found.frame_size == size
    assert parts_of(found) == PARTS[name.partition("-")[0]]
    assert found.saliency.shape == (3, *size)
    assert torch.allclose(found.saliency.sum((1, 2)), torch.ones(3), atol=1e-5)
    if found.crop is not None:
        num = 2 if name == "multi-stn-lstm" else 1
        assert found.crop.shape == (3, num, 1, *(size if num == 1 else crop_size(size)))
        assert 0 <= found.crop.min() <= found.crop.max() <= 1
    if found.points_px is not None:
        assert found.points_px.shape == (3, 4, 81, 2)
        assert torch.allclose(found.point_weight.sum((1, 2)), torch.ones(3), atol=1e-5)
        assert found.arrows_px.shape == (3, size[0] // 4, size[1] // 4, 2, 2)


@pytest.mark.parametrize("name", ["lenet-lstm-published", "stn-lstm-published", "dcn-lstm-published"])
def test_every_published_model(published, name):
    model, frames = published[name], random_frames(2)
    found, state = look(model, frames, saliency=True)
    assert state is None
    with torch.no_grad():
        assert torch.allclose(found.logits, model(frames.unsqueeze(0))[0], atol=1e-5)
    assert found.logits.shape == (1, 100)
    assert parts_of(found) == PARTS[name.partition("-")[0]]
    if found.points_px is not None:
        assert found.points_px.shape == (2, 3, 20, 2)
        assert torch.allclose(found.point_weight.sum((1, 2)), torch.ones(2), atol=1e-5)
    with pytest.raises(ValueError, match="cannot continue from a state"):
        look(model, frames, torch.zeros(1))


def test_an_untrained_transformer_draws_the_frames_border():
    frames = random_frames(2, (48, 80))
    found, _ = look(models.create("stn-lstm"), frames)
    border = torch.tensor([[-0.5, -0.5], [-0.5, 79.5], [47.5, 79.5], [47.5, -0.5]])
    assert torch.allclose(found.quadrilateral_px, border.expand(2, 1, 4, 2), atol=1e-4)
    assert torch.allclose(found.crop[:, 0], frames / 255, atol=1e-5)


def test_a_published_crop_is_in_grey_levels():
    # Between four pixels each, the identity takes 64x64 to their means.
    frames = random_frames(2)
    found, _ = look(models.create("stn-lstm-published", num_frames=2), frames)
    assert torch.allclose(found.crop[:, 0], F.avg_pool2d(frames / 255, 2), atol=1e-5)


def test_a_known_map_draws_its_quadrilateral():
    class Whole(nn.Module):
        encoder = looking(torch.tensor([[[0.5, 0.0, 0.5], [0.0, 0.5, -0.5]]]), (8, 8))

        def forward(self, clips):
            return self.encoder(clips[0]).mean((1, 2, 3)).view(1, -1, 1)

    frames = random_frames(2)
    found, _ = look(Whole(), frames)
    assert torch.allclose(
        found.quadrilateral_px[1, 0], torch.tensor([[-0.5, 31.5], [-0.5, 63.5], [31.5, 63.5], [31.5, 31.5]])
    )
    assert found.crop.shape == (2, 1, 1, 8, 8)
    assert torch.allclose(
        found.crop[:, 0], F.interpolate(frames[..., :32, 32:] / 255, (8, 8), mode="bilinear"), atol=1e-5
    )


class Glimpsing(nn.Module):
    """A model that has a left, a right and a middle glimpse of each frame, and nothing else."""

    def __init__(self):
        super().__init__()
        numbers = [0.5, 0.0, -0.5, 0.0, 0.5, 0.0, 0.5, 0.0, 0.5, 0.0, 0.0, 0.0]
        glimpses = Glimpses(Says([numbers]), num_glimpses=3, out_px=16)
        self.encoder = nn.Sequential(glimpses, Glued(), nn.Conv2d(1, 1, 1, bias=False))

    def forward(self, clips):
        return self.encoder(clips[0]).mean((1, 2, 3)).view(1, -1, 3).sum(-1, keepdim=True)


class Glued(nn.Module):
    pointwise = True

    def forward(self, crops):
        return crops.flatten(0, 1)


def test_several_glimpses_have_a_quadrilateral_and_a_crop_each():
    frames = random_frames(2, (32, 32)).float() / 255
    found, _ = look(Glimpsing(), frames, receptive_field=True)
    y, left, right, middle = (7.5, 23.5), (-0.5, 15.5), (15.5, 31.5), (7.5, 23.5)
    for glimpse, x in enumerate((left, right, middle)):
        corners = [[y[0], x[0]], [y[0], x[1]], [y[1], x[1]], [y[1], x[0]]]
        assert torch.allclose(found.quadrilateral_px[1, glimpse], torch.tensor(corners), atol=1e-4)
    for glimpse, start in enumerate((0, 16, 8)):
        part = frames[:, :, 8:24, start : start + 16]
        # Each pixel of a crop is the mean of four samples within half a pixel around it.
        assert (found.crop[:, glimpse] - part).abs().mean() < 0.6 * part.std()
        assert found.crop[:, glimpse].mean().item() == pytest.approx(part.mean().item(), abs=0.02)
    told = found.frame_json(1)
    assert torch.allclose(torch.tensor(told["quad"]), found.quadrilateral_px[1].flatten(0, 1), atol=0.006)
    # Two in a row with a white line between, the third below, and white where the fourth would be.
    assert told["crop"]["size"] == [33, 33]
    picture = torch.frombuffer(bytearray(base64.b64decode(told["crop"]["pixels"])), dtype=torch.uint8).view(33, 33)
    crops = (255 * found.crop[1, :, 0]).round()
    assert torch.equal(picture[:16, :16].float(), crops[0])
    assert torch.equal(picture[:16, 17:].float(), crops[1])
    assert torch.equal(picture[17:, :16].float(), crops[2])
    assert bool((picture[:, 16] == 255).all())
    assert bool((picture[16:, 16:] == 255).all())


def test_the_receptive_field_is_that_of_the_strongest_unit_of_all_glimpses():
    dark, bright = torch.zeros(2, 1, 32, 32), (5, 25)
    for frame, x in zip(dark, bright, strict=True):
        frame[0, 14:18, x : x + 2] = 1
    found, _ = look(Glimpsing(), dark, receptive_field=True)
    for field, x in zip(found.receptive_field, bright, strict=True):
        assert field.sum().item() == pytest.approx(1)
        columns = field.sum(0)
        assert columns[x - 2 : x + 4].sum().item() == pytest.approx(1)


@pytest.mark.parametrize("name", [*MATCHED, "multi-stn-lstm"])
def test_frame_by_frame_is_as_the_whole_clip(name):
    model, frames = wandering(name), random_frames(4)
    whole, last = look(model, frames)
    parts, state = [], None
    for frame in frames:
        part, state = look(model, frame.unsqueeze(0), state)
        parts.append(part)
    for field in ("logits", *PARTS[name.partition("-")[0]]):
        streamed = torch.cat([getattr(part, field) for part in parts])
        assert torch.allclose(streamed, getattr(whole, field), atol=1e-4), field
    assert all(torch.allclose(one, other, atol=1e-5) for one, other in zip(state, last, strict=True))


class Remembers(nn.Module):
    """A temporal part whose state is three tensors: the feature before, the sum of all, and their number."""

    num_units = 8

    def initial_state(self, batch):
        return torch.zeros(batch, 8), torch.zeros(batch, 8), torch.zeros(batch, 1)

    def forward(self, features, state):
        before, total, number = state
        states = []
        for feature in features.unbind(1):
            total, number = total + feature, number + 1
            states.append(feature - before + total / number)
            before = feature
        return torch.stack(states, 1), (before, total, number)


@pytest.mark.parametrize("input", ["frames", "both"])
@pytest.mark.parametrize("saliency", [False, True])
def test_frame_by_frame_is_as_the_whole_clip_whatever_the_state(input, saliency):
    torch.manual_seed(0)
    given = models.build(labels=Labels(("a", "b", "c")), attention="stn", input=input, num_features=8)
    parts = {name: getattr(given, name) for name in ("input", "encoder", "labels", "frame_format")}
    model, frames = VideoClassifier(**parts, temporal=Remembers(), head=nn.Linear(8, 3)).eval(), random_frames(4)
    whole, last = look(model, frames)
    logits, state = [], None
    for frame in frames:
        found, state = look(model, frame.unsqueeze(0), state, saliency=saliency)
        logits.append(found.logits)
    assert torch.allclose(torch.cat(logits), whole.logits, atol=1e-5)
    assert len(state) == len(last) == (3 if input == "frames" else 5)
    assert state[-1].item() == 4
    assert all(torch.allclose(one, other, atol=1e-4) for one, other in zip(state, last, strict=True))


def test_going_on_after_saliency_needs_no_graph():
    model, frames = wandering("dcn-lstm"), random_frames(2)
    _, state = look(model, frames[:1], saliency=True)
    assert not any(part.requires_grad for part in state)
    _, plain = look(model, frames[:1])
    found, _ = look(model, frames[1:], state, saliency=True)
    expected, _ = look(model, frames[1:], plain, saliency=True)
    assert torch.allclose(found.saliency, expected.saliency, atol=1e-6)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_saliency_where_gradients_are_switched_off(mode):
    model, frames = wandering("dcn-lstm"), random_frames(2).float() / 255
    expected, _ = look(model, frames, saliency=True)
    with mode():
        state = None
        found, state = look(model, frames * 1, state, saliency=True)
        assert torch.equal(found.saliency, expected.saliency)
        look(model, frames * 1, state, saliency=True)
        _, without = look(model, frames * 1)
        found, _ = look(model, frames * 1, without, saliency=True)
    expected, _ = look(model, frames, state, saliency=True)
    assert torch.allclose(found.saliency, expected.saliency, atol=1e-6)


@pytest.mark.parametrize("name", MATCHED)
@pytest.mark.parametrize("training", [False, True])
def test_the_model_is_left_as_it_was(name, training):
    model = wandering(name).train(training)
    model.encoder.trunk.eval()
    modes = [module.training for module in model.modules()]
    before = {key: value.clone() for key, value in model.state_dict().items()}
    frames = random_frames(2).float() / 255
    grown, _ = look(model, frames, saliency=True)
    assert not frames.requires_grad
    assert not any(value.requires_grad for value in vars(grown).values() if isinstance(value, torch.Tensor))
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_hooks or module._backward_hooks for module in model.modules())
    # Batch statistics are those of training, whatever the mode.
    assert torch.allclose(look(model.eval(), frames)[0].logits, grown.logits, atol=1e-6)


def test_a_failure_leaves_no_hooks():
    model = wandering("dcn-lstm").train()
    with pytest.raises(ValueError, match="at least 28x28"):
        look(model, random_frames(1, (20, 20)))
    assert model.training
    assert not any(module._forward_hooks for module in model.modules())


def test_threads_share_a_model():
    model = wandering("dcn-lstm")
    clips = [random_frames(3, seed=seed) for seed in range(6)]
    alone = [look(model, clip)[0] for clip in clips]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda clip: look(model, clip)[0], clips * 3))
    for found, expected in zip(together, alone * 3, strict=True):
        assert torch.allclose(found.points_px, expected.points_px, atol=1e-4)


def test_stronger_units_weigh_more_and_gradients_change_only_the_weights():
    model, frames = wandering("dcn-lstm"), random_frames(2)
    plain, _ = look(model, frames)
    graded, _ = look(model, frames, saliency=True)
    of_units = plain.point_weight.sum(-1)
    assert bool((of_units[:, :-1] >= of_units[:, 1:]).all())
    assert torch.allclose(plain.point_weight, (of_units / 81).unsqueeze(-1).expand(-1, -1, 81), atol=1e-7)
    assert torch.allclose(plain.points_px, graded.points_px, atol=1e-4)
    assert not torch.allclose(plain.point_weight, graded.point_weight, atol=1e-4)


def grey(picture):
    return torch.frombuffer(bytearray(base64.b64decode(picture["grey"])), dtype=torch.uint8).view(picture["size"])


def test_a_frame_as_json():
    model, frames = wandering("stn-lstm"), random_frames(2, (48, 64))
    found, _ = look(model, frames, saliency=True, receptive_field=True)
    told = json.loads(json.dumps(found.frame_json(1), allow_nan=False))
    assert (told["points"], told["units"], told["arrows"]) == (None, None, None)
    assert torch.allclose(torch.tensor(told["quad"]), found.quadrilateral_px[1, 0], atol=0.006)
    levels = (found.crop[1, 0, 0] * 255).round().to(torch.uint8)
    assert base64.b64decode(told["crop"]["pixels"]) == levels.numpy().tobytes()
    for name, maps in (("saliency", found.saliency), ("field", found.receptive_field)):
        levels = grey(told[name])
        assert levels.shape == (48, 64)
        assert levels.max() == 255
        assert (levels / 255 - maps[1] / maps[1].max()).abs().max() <= 0.5 / 255 + 1e-6
        assert look(model, frames)[0].frame_json(0)[name] is None


def test_points_and_arrows_as_json(published):
    found, _ = look(wandering("dcn-lstm"), random_frames(2), num_units=2)
    told = json.loads(json.dumps(found.frame_json(0), allow_nan=False))
    assert (told["quad"], told["crop"]) == (None, None)
    points = torch.tensor(told["points"])
    assert torch.allclose(points[:, :2], found.points_px[0].flatten(0, 1), atol=0.006)
    assert points[:, 2].sum().item() == pytest.approx(1, abs=1e-3)
    assert torch.allclose(torch.tensor(told["units"]), found.unit_px[0], atol=0.006)
    assert torch.allclose(torch.tensor(told["arrows"]), found.arrows_px[0].view(256, 4), atol=0.006)
    many, _ = look(published["dcn-lstm-published"], random_frames(2))
    assert many.arrows_px.shape == (2, 64, 64, 2, 2)
    arrows = torch.tensor(many.frame_json(0)["arrows"])
    assert torch.allclose(arrows, many.arrows_px[0, 2::4, 2::4].reshape(256, 4), atol=0.006)


def test_a_black_frame_has_no_saliency_to_scale():
    dark = models.create("lenet-lstm").eval()
    nn.init.zeros_(dark.head.evidence.weight)
    found, _ = look(dark, torch.zeros(1, 1, 64, 64), saliency=True)
    assert not found.saliency.any()
    assert not grey(found.frame_json(0)["saliency"]).any()


@pytest.mark.parametrize(
    ("frames", "options", "message"),
    [
        (torch.zeros(1, 64, 64), {}, r"\(time, channels, height, width\) is needed"),
        (torch.zeros(1, 3, 64, 64), {}, "3 channels"),
        (torch.zeros(1, 1, 64, 64), {"num_units": 0}, "num_units is 0"),
    ],
)
def test_wrong_calls(frames, options, message):
    with pytest.raises(ValueError, match=message):
        look(models.create("dcn-lstm"), frames, **options)


def test_a_crop_in_colour_stays_so():
    model = models.create("stn-lstm", frame_format=FrameFormat(3), input="both").eval()
    frames = random_frames(2, channels=3)
    with torch.no_grad():
        found, _ = look(model, frames)
    told = found.frame_json(1)["crop"]
    assert told["size"] == [64, 64]
    # Training starts with the whole frame.
    assert base64.b64decode(told["pixels"]) == frames[1].permute(1, 2, 0).contiguous().numpy().tobytes()
