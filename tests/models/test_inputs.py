"""What an encoder sees of a clip: frames, differences, both."""

import pytest
import torch

from saccade import models
from saccade.attention import look
from saccade.clips import FrameFormat
from saccade.labels import Labels
from saccade.models import INPUTS

from .test_models import MATCHED, clips_of, looking_around

WITH_CHANGES = ("differences", "both")
RGB = FrameFormat(3, (32, 40), mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3))


def build(name="lenet-lstm", *, input, frame_format=RGB):
    torch.manual_seed(0)
    labels = Labels(("wave", "clap", "jump"))
    model = looking_around(models.create(name, labels=labels, frame_format=frame_format, input=input))
    with torch.no_grad():
        model.train()(rgb_clips(4, 8, seed=9))
    return model.eval()


def rgb_clips(batch=2, time=5, seed=0):
    return clips_of(batch, time, 3, (32, 40), seed)


@pytest.mark.parametrize("input", WITH_CHANGES)
def test_at_the_first_frame_nothing_has_changed(input):
    model, clips = build(input=input), rgb_clips()
    seen, _ = model.encoder_input(clips)
    changes = seen[:, :, -3:]
    assert not changes[:, 0].any()
    # Differences of what is normalised: the mean goes, the deviation stays.
    expected = (clips[:, 1:] - clips[:, :-1]) / torch.tensor(RGB.std).view(3, 1, 1)
    assert torch.allclose(changes[:, 1:], expected, atol=1e-5)
    assert changes[:, 1:].abs().amax() > 1
    if input == "both":
        assert torch.equal(seen[:, :, :3], RGB.normalise(clips))
    assert seen.shape[2] == model.encoder.channels == (6 if input == "both" else 3)


@pytest.mark.parametrize("name", MATCHED)
@pytest.mark.parametrize("input", INPUTS)
@pytest.mark.parametrize("cuts", [[1] * 5, [2, 3]])
@torch.no_grad()
def test_frame_by_frame_is_the_whole_clip(name, input, cuts):
    model, clips = build(name, input=input), rgb_clips()
    parts, state = [], None
    for part in clips.split(cuts, dim=1):
        logits, state = model.step(part, state)
        parts.append(logits)
    assert torch.allclose(torch.cat(parts, 1), model(clips), atol=1e-5)


@pytest.mark.parametrize("input", INPUTS)
@torch.no_grad()
def test_no_earlier_frames_are_a_state_of_the_same_shapes(input):
    model, clips = build(input=input), rgb_clips()
    start = model.initial_state(2, (32, 40))
    from_start, state = model.step(clips, start)
    from_nothing, _ = model.step(clips, None)
    assert torch.equal(from_start, from_nothing)
    assert [part.shape for part in state] == [part.shape for part in start]


@pytest.mark.parametrize("input", WITH_CHANGES)
@torch.no_grad()
def test_a_black_frame_before_is_not_no_frame_before(input):
    model, clips = build(input=input), rgb_clips(1, 2)
    black, after = torch.zeros_like(clips[:, :1]), clips[:, 1:]
    _, state = model.step(black, None)
    seen, _ = model.encoder_input(after, state[:2])
    assert torch.equal(seen, model.encoder_input(torch.cat((black, after), 1))[0][:, 1:])
    assert not torch.allclose(seen, model.encoder_input(after)[0])


@pytest.mark.parametrize("input", INPUTS)
@pytest.mark.parametrize("padding", [torch.nan, 7.0])
@torch.no_grad()
def test_a_padded_batch_gives_each_clip_its_own_logits(input, padding):
    model, clips, lengths = build(input=input), rgb_clips(4), torch.tensor([3, 5, 1, 4])
    padded = clips.clone()
    for clip, length in zip(padded, lengths, strict=True):
        clip[length:] = padding
    logits = model(padded, lengths)
    for index, length in enumerate(lengths.tolist()):
        alone = model(clips[index : index + 1, :length])
        assert torch.allclose(logits[index, :length], alone[0], atol=1e-5)


@pytest.mark.parametrize("input", INPUTS)
@torch.no_grad()
def test_grey_levels_are_fractions_of_255(input):
    model = build(input=input)
    levels = (rgb_clips() * 255).round().to(torch.uint8)
    assert torch.equal(model(levels), model(levels.float() / 255))


@torch.no_grad()
def test_every_channel_has_a_mean_and_a_deviation_of_its_own():
    model, plain = build(input="frames"), build(input="frames", frame_format=FrameFormat(3, (32, 40)))
    plain.load_state_dict(model.state_dict())
    assert torch.allclose(model(rgb_clips()), plain(RGB.normalise(rgb_clips())), atol=1e-5)


@pytest.mark.parametrize("input", INPUTS)
def test_a_crop_is_a_picture_with_the_frames_channels(input):
    found, _ = look(build("stn-lstm", input=input), rgb_clips()[0])
    assert found.crop.shape == (5, 1, 3, 32, 40)
    assert 0 <= found.crop.min() < found.crop.max() <= 1


@pytest.mark.parametrize("input", ["frames", "both"])
def test_a_crop_that_looks_straight_ahead_is_the_frame(input):
    frames = rgb_clips()[0]
    fresh = models.create("stn-lstm", frame_format=RGB, input=input)
    assert torch.allclose(look(fresh, frames)[0].crop[:, 0], frames, atol=1e-5)


def test_a_crop_of_changes_is_grey_where_nothing_changed():
    fresh = models.create("stn-lstm", frame_format=FrameFormat(3), input="differences")
    frames = rgb_clips()[0]
    frames[2] = frames[1]
    crop = look(fresh, frames)[0].crop[:, 0]
    for t in (0, 2):
        assert torch.allclose(crop[t], torch.full_like(crop[t], 0.5), atol=1e-5)
    assert torch.allclose(crop[1], 0.5 + (frames[1] - frames[0]) / 2, atol=1e-5)
