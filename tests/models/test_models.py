import copy

import pytest
import torch
from torch import nn

from saccade import checkpoint, models
from saccade.clips import FrameFormat
from saccade.errors import UsageError
from saccade.labels import Labels
from saccade.models import verdict
from saccade.nn import attention_layers, num_attention_parameters, recorded, switched_off

from .looking import looking_around

MATCHED = ("lenet-lstm", "stn-lstm", "dcn-lstm")
NAMES = (*MATCHED, "multi-stn-lstm")
TRUNKS = ("small", "wide")


def create(name, **arguments):
    torch.manual_seed(0)
    return models.create(name, **arguments)


def clips_of(batch=2, time=3, channels=1, size=(28, 28), seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(batch, time, channels, *size, generator=generator)


def num_parameters(module):
    return sum(p.numel() for p in module.parameters())


@pytest.fixture(params=NAMES)
def name(request):
    return request.param


@pytest.fixture
def model(name):
    """A model in evaluation mode whose attention looks around and whose normalisation has seen some frames."""
    model = looking_around(create(name, labels=Labels.numbered(7)))
    with torch.no_grad():
        model.train()(clips_of(4, 8, seed=9))
    return model.eval()


# --- What there is


def test_the_matched_three_come_first():
    assert models.names()[:3] == MATCHED


@pytest.mark.parametrize("name", models.names())
def test_every_listed_model_has_a_function_with_a_docstring(name):
    assert models.MODELS[name].__doc__


def test_unknown_names_and_arguments_name_the_nearest():
    with pytest.raises(UsageError, match="no model is called 'dcn-lst'; did you mean 'dcn-lstm'"):
        models.create("dcn-lst")
    with pytest.raises(UsageError, match="argument of lenet-lstm is called 'label'; did you mean 'labels'"):
        models.create("lenet-lstm", label=3)
    with pytest.raises(UsageError, match="no trunk is called 'smal'; did you mean 'small'"):
        models.create("lenet-lstm", trunk="smal")
    with pytest.raises(UsageError, match="no temporal part is called 'lsmt'; did you mean 'lstm'"):
        models.create("lenet-lstm", temporal="lsmt")
    with pytest.raises(UsageError, match="no input is called 'difference'; did you mean 'differences'"):
        models.create("lenet-lstm", input="difference")
    with pytest.raises(UsageError, match="no attention is called 'dnc'; did you mean 'dcn'"):
        models.build(attention="dnc")
    with pytest.raises(UsageError, match="transformer mode is called 'similar'; did you mean 'similarity'"):
        models.create("stn-lstm", mode="similar")


# --- Shapes and gradients


@pytest.mark.parametrize("size", [(28, 28), (64, 64), (37, 53)])
@pytest.mark.parametrize("channels", [1, 3])
def test_any_frame_size_goes_through_one_set_of_weights(name, size, channels):
    model = create(name, labels=Labels.numbered(7), frame_format=FrameFormat(channels)).eval()
    logits = model(clips_of(2, 3, channels, size))
    assert logits.shape == (2, 3, 7)
    assert logits.dtype == torch.float32
    assert logits.isfinite().all()


@pytest.mark.parametrize("time", [1, 50])
def test_any_number_of_frames_goes_through(model, time):
    assert model(clips_of(1, time)).shape == (1, time, 7)


@pytest.mark.parametrize("temporal", ["lstm", "gru"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_every_parameter_gets_a_finite_gradient(name, temporal, precision):
    model = looking_around(create(name, temporal=temporal)).train()
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
        logits = model(clips_of(4, 3, size=(37, 53)))
    nn.functional.cross_entropy(logits.flatten(0, 1), torch.arange(12)).backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.isfinite().all(), parameter_name
        assert parameter.grad.abs().max() > 0, parameter_name


def test_positions_are_float32_under_autocast(model):
    with recorded(model) as seen, torch.autocast("cpu", torch.bfloat16):
        model(clips_of())
    # A map is float32 whatever says it; offsets too. What comes of them may be rounded, they may not.
    assert all(positions.dtype == torch.float32 for positions in seen.values())


@pytest.mark.parametrize("num_classes", [1, 10, 100])
def test_there_are_as_many_logits_as_classes(name, num_classes):
    assert create(name, labels=Labels.numbered(num_classes)).eval()(clips_of(1, 1)).shape == (1, 1, num_classes)


def test_a_similarity_transformer_goes_into_the_model():
    model = create("stn-lstm", mode="similarity").eval()
    with recorded(model) as seen:
        model(clips_of())
    assert [tuple(positions.shape) for positions in seen.values()] == [(6, 4)]


@pytest.mark.parametrize("name", MATCHED)
def test_a_feature_is_made_of_the_largest_and_the_mean_of_the_trunks_map(model):
    encoder, frames = model.encoder, clips_of(1, 4, size=(40, 56))[0]
    found = encoder.trunk(frames if encoder.attention is None else encoder.attention(frames))
    pooled = torch.cat((found.amax((-2, -1)), found.mean((-2, -1))), -1)
    assert torch.allclose(encoder(frames), encoder.dense(pooled), atol=1e-5)


# --- Budgets


@pytest.mark.parametrize("trunk", TRUNKS)
def test_budgets_are_equal(trunk):
    sizes = {name: num_parameters(create(name, trunk=trunk)) for name in MATCHED}
    assert max(sizes.values()) <= 750_000
    assert max(sizes.values()) <= 1.05 * min(sizes.values())


@pytest.mark.parametrize("trunk", TRUNKS)
def test_no_layer_has_more_than_half_of_the_parameters(name, trunk):
    model = create(name, trunk=trunk)
    total = num_parameters(model)
    for layer_name, layer in model.named_modules():
        if not list(layer.children()):
            assert num_parameters(layer) <= total / 2, layer_name


@pytest.mark.parametrize("trunk", TRUNKS)
def test_the_trunks_are_identical(trunk):
    trunks = []
    for name in MATCHED:
        model = create(name, trunk=trunk)
        attending = {id(p) for layer in attention_layers(model).values() for p in layer.positions.parameters()}
        trunks.append([tuple(p.shape) for p in model.encoder.trunk.parameters() if id(p) not in attending])
    assert len(trunks[0]) > 8
    assert trunks[0] == trunks[1] == trunks[2]


def test_attention_is_counted_apart():
    counts = {name: num_attention_parameters(create(name)) for name in MATCHED}
    assert counts["lenet-lstm"] == 0
    assert 0 < counts["stn-lstm"] < 50_000
    assert 0 < counts["dcn-lstm"] < 50_000
    with_arguments = {name: len(attention_layers(create(name))) for name in MATCHED}
    assert with_arguments == {"lenet-lstm": 0, "stn-lstm": 1, "dcn-lstm": 2}


# --- Time


def test_later_frames_do_not_change_earlier_logits(model):
    clips = clips_of(2, 6)
    logits = model(clips)
    clips[:, 4:] = 1 - clips[:, 4:]
    changed = model(clips)
    assert torch.equal(changed[:, :4], logits[:, :4])
    assert (changed[:, 4:] != logits[:, 4:]).any(-1).all()


def test_earlier_frames_change_later_logits(model):
    clips = clips_of(2, 6)
    logits = model(clips)
    clips[:, 0] = 1 - clips[:, 0]
    assert (model(clips) != logits).any(-1).all()


@pytest.mark.parametrize("temporal", ["lstm", "gru"])
@pytest.mark.parametrize("cuts", [[1] * 6, [2, 4]])
def test_frame_by_frame_is_the_whole_clip(name, temporal, cuts):
    model = looking_around(create(name, temporal=temporal)).eval()
    clips = clips_of(2, 6)
    parts, state = [], None
    for part in clips.split(cuts, dim=1):
        logits, state = model.step(part, state)
        parts.append(logits)
    assert torch.allclose(torch.cat(parts, 1), model(clips), atol=1e-5)


# --- Batches and padding


def test_a_batch_of_two_is_two_batches_of_one(model):
    clips = clips_of(2, 4, size=(37, 53))
    assert torch.allclose(model(clips), torch.cat([model(clip) for clip in clips.split(1)]), atol=1e-5)


@pytest.mark.parametrize("padding", [torch.nan, torch.inf, 7.0])
def test_a_padded_batch_gives_each_clip_its_own_logits(model, padding):
    clips = clips_of(4, 5)
    lengths = torch.tensor([3, 5, 1, 4])
    padded = clips.clone()
    for clip, length in zip(padded, lengths, strict=True):
        clip[length:] = padding
    logits = model(padded, lengths)
    for index, length in enumerate(lengths.tolist()):
        alone = model(clips[index : index + 1, :length])
        assert torch.allclose(logits[index, :length], alone[0], atol=1e-5)
    assert torch.allclose(verdict(logits, lengths), torch.stack([logits[i, n - 1] for i, n in enumerate(lengths)]))


def test_padding_does_not_touch_training(model):
    clips, lengths = clips_of(2, 5), torch.tensor([2, 5])
    results = []
    for padding in (0.0, torch.nan):
        trained = copy.deepcopy(model).train()
        padded = clips.clone()
        padded[0, 2:] = padding
        logits = trained(padded, lengths)
        nn.functional.cross_entropy(verdict(logits, lengths), torch.tensor([1, 2])).backward()
        results.append((trained.state_dict(), {n: p.grad for n, p in trained.named_parameters()}))
    for first, second in zip(*results, strict=True):
        for key in first:
            assert torch.equal(first[key], second[key]), key
            assert first[key].isfinite().all(), key
    # The statistics are those of the seven frames that count, as they would be in one clip of seven.
    together = copy.deepcopy(model).train()
    together(torch.cat((clips[0, :2], clips[1]))[None])
    for key, tensor in together.state_dict().items():
        if "running" in key:
            assert torch.allclose(tensor, results[0][0][key], atol=1e-5), key


def test_full_lengths_are_no_lengths(model):
    clips = clips_of(2, 4)
    assert torch.allclose(model(clips, torch.tensor([4, 4])), model(clips), atol=1e-6)


def test_the_verdict_is_the_last_valid_frame():
    logits = torch.arange(24.0).view(2, 4, 3)
    assert torch.equal(verdict(logits), logits[:, 3])
    assert torch.equal(verdict(logits, torch.tensor([1, 3])), torch.stack((logits[0, 0], logits[1, 2])))


def test_grey_levels_are_fractions_of_255(model):
    grey = (clips_of(2, 3) * 255).round().to(torch.uint8)
    assert torch.equal(model(grey), model(grey.float() / 255))
    assert torch.equal(model(grey, torch.tensor([2, 3])), model(grey.float() / 255, torch.tensor([2, 3])))


def test_memory_layout_changes_nothing(model):
    clips = clips_of(2, 3, size=(64, 64))
    expected = model(clips)
    transposed = clips.transpose(-1, -2).contiguous().transpose(-1, -2)
    assert torch.allclose(model(transposed), expected, atol=1e-5)
    last = model.to(memory_format=torch.channels_last)
    assert torch.allclose(last(clips), expected, atol=1e-5)


# --- Attention


@pytest.mark.parametrize("name", MATCHED[1:])
def test_a_fresh_model_looks_straight_ahead(name):
    model = create(name).eval()
    clips = clips_of(2, 3, size=(64, 64))
    with switched_off(model):
        off = model(clips)
    assert torch.equal(model(clips), off)


def test_a_fresh_model_of_glimpses_looks_at_different_places():
    model = create("multi-stn-lstm").eval()
    first, second = model.encoder.attention(clips_of(2, 1, size=(64, 64))[0]).unbind(1)
    assert not torch.allclose(first, second, atol=0.1)
    with switched_off(model):
        first, second = model.encoder.attention(clips_of(2, 1, size=(64, 64))[0]).unbind(1)
    assert torch.equal(first, second)


@pytest.mark.parametrize("name", NAMES[1:])
def test_switching_off_changes_a_model_that_looks_around(name, model):
    clips = clips_of()
    on = model(clips)
    with switched_off(model):
        off = model(clips)
    assert (on - off).abs().max() > 1e-4
    assert torch.equal(model(clips), on)


# --- Saving


@pytest.mark.parametrize("name", NAMES)
def test_a_saved_model_loads_with_equal_logits(name, model, tmp_path):
    path = tmp_path / checkpoint.NAME
    checkpoint.save(path, model, checkpoint.Header(name, labels=Labels.numbered(7)))
    loaded, header = checkpoint.load(path)
    assert header.model == name
    assert not loaded.training
    assert torch.equal(loaded(clips_of()), model(clips_of()))


# --- What is refused


def test_wrong_shapes_are_refused(model):
    with pytest.raises(
        ValueError, match=r"clips have shape \(2, 1, 28, 28\); \(batch, time, channels, height, width\)"
    ):
        model(clips_of()[:, 0])
    with pytest.raises(ValueError, match="frames are 27x40 px; at least 28x28 is needed"):
        model(clips_of(size=(27, 40)))
    with pytest.raises(ValueError, match=r"3 channels.*1"):
        model(clips_of(channels=3))


@pytest.mark.parametrize("lengths", [[0, 3], [1, 4], [-1, 2]])
def test_lengths_that_cannot_be_are_refused(model, lengths):
    with pytest.raises(ValueError, match=r"lengths must lie in 1 to 3; got \["):
        model(clips_of(), torch.tensor(lengths))


def test_a_wrong_number_of_lengths_is_refused(model):
    with pytest.raises(ValueError, match="lengths"):
        model(clips_of(), torch.tensor([1, 2, 3]))


def test_clips_without_frames_are_refused(model):
    with pytest.raises(ValueError, match="frame"):
        model(clips_of(2, 0))
