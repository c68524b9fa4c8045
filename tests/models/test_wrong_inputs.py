"""Every listed model: empty batches, and what it says of clips that no model can read."""

import re

import pytest
import torch

from saccade import models
from saccade.clips import FrameFormat
from saccade.labels import Labels
from saccade.models.encoder import FrameEncoder
from saccade.models.inputs import Differences
from saccade.models.published import GreyInput, recurrent_part
from saccade.models.small_trunks import light

TIME = 3


@pytest.fixture(scope="module", params=models.names())
def model(request):
    torch.manual_seed(0)
    own = {"num_frames": TIME, "frame_format": FrameFormat(channels=1)}
    taken = {name: value for name, value in own.items() if name in models.arguments_of(request.param)}
    return models.create(request.param, labels=Labels.numbered(7), **taken)


def clips_of(*shape, dtype=torch.float32):
    return torch.zeros(shape, dtype=dtype)


@pytest.mark.parametrize("lengths", [None, torch.zeros(0, dtype=torch.long)])
def test_an_empty_batch_gives_no_logits_and_zero_gradients(model, lengths):
    model.train().zero_grad()
    clips = clips_of(0, TIME, 1, 64, 64).requires_grad_()
    logits = model(clips, lengths)
    assert logits.shape == (0, TIME if model.causal else 1, 7)
    assert models.verdict(logits).shape == (0, 7)
    logits.sum().backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert not parameter.grad.any(), name
    # Statistics of nothing would be NaN.
    assert all(value.isfinite().all() for value in model.state_dict().values())


@pytest.mark.parametrize("batch", [0, 2])
def test_clips_without_frames_are_told(model, batch):
    with pytest.raises(ValueError, match=r"^clips have no frames; at least 1 is needed$"):
        model(clips_of(batch, 0, 1, 64, 64))


@pytest.mark.parametrize("shape", [(), (2,), (TIME, 64, 64), (TIME, 1, 64, 64), (1, 2, TIME, 1, 64, 64)])
def test_another_number_of_dimensions_is_told(model, shape):
    message = f"clips have shape {shape}; (batch, time, channels, height, width) is needed"
    with pytest.raises(ValueError, match=re.escape(message)):
        model(clips_of(*shape))


@pytest.mark.parametrize(
    "shape", [(2, TIME, 2, 64, 64), (2, TIME, 0, 64, 64), (2, TIME, 1, 0, 64), (0, TIME, 2, 64, 64)]
)
def test_frames_of_another_shape_are_told(model, shape):
    with pytest.raises(ValueError, match=r"^(frames|clips) (are|have) ") as caught:
        model(clips_of(*shape))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.complex64])
def test_pixels_that_are_no_levels_are_told(model, dtype):
    with pytest.raises(ValueError, match=rf"{dtype}; uint8 in \[0, 255\] or float in \[0, 1\] is needed"):
        model(clips_of(2, TIME, 1, 64, 64, dtype=dtype))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_frames_of_any_float_precision_are_read(model, dtype):
    clips = torch.rand(2, TIME, 1, 64, 64).to(dtype)
    with torch.no_grad():
        assert torch.equal(model.eval()(clips), model(clips.float()))


def test_lengths_that_are_no_whole_numbers_are_told(model):
    with pytest.raises(ValueError, match=r"lengths are torch.float32; whole numbers of frames are needed"):
        model(clips_of(2, TIME, 1, 64, 64), torch.tensor([2.5, 3.0]))


@pytest.mark.parametrize("input", models.INPUTS)
def test_a_state_of_other_clips_is_told(input):
    model = models.build(input=input).eval()
    clips = clips_of(2, 1, 1, 32, 40)
    for state in (model.initial_state(3, (32, 40)), (), model.initial_state(2, (32, 40))[1:]):
        with pytest.raises(ValueError, match=r"state has shapes \[.*\]; clips of shape \(2, 1, 1, 32, 40\) need \["):
            model.step(clips, state)


def test_a_state_of_frames_of_another_size_is_told():
    model = models.build(input="both").eval()
    with pytest.raises(ValueError, match=r"state has shapes \[\(2, 1, 64, 64\), "):
        model.step(clips_of(2, 1, 1, 32, 40), model.initial_state(2, (64, 64)))


@pytest.mark.parametrize("shape", [(2, 1, 8, 8), (2, 0, 1, 8, 8), (2, 3, 2, 8, 8), (2, 3, 1, 8, 0)])
def test_changes_of_other_clips_are_told(shape):
    changes = Differences(1, frames=True)
    with pytest.raises(
        ValueError, match=rf"clips have shape {re.escape(str(shape))}; \(batch, time, 1, height, width\)"
    ):
        changes(clips_of(*shape), changes.initial_state(2, (8, 8)))


def test_clips_that_are_none_have_no_encoder_input():
    with pytest.raises(ValueError, match=r"clips have shape \(2, 3, 1\); \(batch, time"):
        models.build().encoder_input(clips_of(2, 3, 1))


@pytest.mark.parametrize("shape", [(), (64,), (64, 64), (1, 64, 64), (1, 2, 1, 64, 64)])
def test_an_encoder_tells_the_shape_of_what_are_no_frames(shape):
    encoder = FrameEncoder(attention=None, trunk=light(1, deformable=False), channels=1, num_features=8)
    with pytest.raises(
        ValueError, match=rf"frames have shape {re.escape(str(shape))}; \(batch, channels, height, width\)"
    ):
        encoder(clips_of(*shape))


@pytest.mark.parametrize("dtype", [torch.int64, torch.float64])
def test_an_encoder_tells_the_dtype_that_it_lacks_weights_for(dtype):
    encoder = FrameEncoder(attention=None, trunk=light(1, deformable=False), channels=1, num_features=8)
    with pytest.raises(ValueError, match=f"frames are {dtype}, the weights torch.float32; cast one"):
        encoder(clips_of(1, 1, 64, 64, dtype=dtype))
    with pytest.raises(ValueError, match=r"frames are torch.int64; uint8"):
        GreyInput()(clips_of(1, 1, 64, 64, dtype=torch.int64))


@pytest.mark.parametrize("shape", [(3, 500), (500,), (2, 0, 500)])
def test_a_recurrent_part_tells_the_shape_of_what_are_no_features(shape):
    with pytest.raises(ValueError, match=rf"features have shape {re.escape(str(shape))}; \(batch, time, features\)"):
        recurrent_part(num_frames=3)(clips_of(*shape))


@pytest.mark.parametrize("num_frames", [0, -1, 2.0])
def test_a_number_of_frames_that_cannot_be_is_told(num_frames):
    with pytest.raises(ValueError, match=f"num_frames is {num_frames}; it must be an int of at least 1"):
        recurrent_part(num_frames=num_frames)


@pytest.mark.parametrize("shape", [(), (3,), (2, 5), (2, 0, 5)])
def test_logits_without_a_verdict_are_told(shape):
    with pytest.raises(ValueError, match=rf"logits have shape {re.escape(str(shape))}; \(batch, time, classes\)"):
        models.verdict(clips_of(*shape))


@pytest.mark.parametrize("lengths", [[0, 3], [4, 1], [-1, 2], [1], [1, 2, 3]])
def test_lengths_without_a_last_frame_are_told(lengths):
    with pytest.raises(ValueError, match=rf"lengths are {re.escape(str(lengths))}; one in 1 to 3 for each of 2 clips"):
        models.verdict(clips_of(2, 3, 5), torch.tensor(lengths))
