import math

import pytest
import torch

from saccade.errors import NonFiniteError, UsageError
from saccade.evaluate import AttentionEffect, LayerAttention, attention_effect, evaluate
from saccade.evaluate.attention_effect import AttentionWatch
from saccade.nn.deform_conv import DeformConv2d
from saccade.nn.offset_resample import OffsetResample2d
from saccade.nn.spatial_transformer import Identity, SpatialTransformer

from .stand_ins import Glance, Indispensable, Roll, Says

QUARTER_TURN = [0.0, -1.0, 0.0, 1.0, 0.0, 0.0]


def effect(layers, *, accuracy=0.931, accuracy_without=0.41, num_changed=900):
    return AttentionEffect(layers, accuracy, accuracy_without, 1.0, num_changed, 2000)


def test_without_attention_there_is_nothing_to_tell(make_clips):
    found = attention_effect(Glance(), make_clips(4))
    assert found.layers == {}
    assert found.accuracy_without is None
    assert found.summary == "no attention"
    assert found.columns()["verdicts_changed_by_attention"] is None


@pytest.mark.parametrize("layer", [SpatialTransformer(Identity()), Roll(0, 0)], ids=["identity", "zero offsets"])
def test_attention_that_looks_straight_ahead_changes_nothing(make_clips, layer):
    model, clips = Glance(attention=layer), make_clips(20)
    plain = evaluate(Glance(), clips)
    found = attention_effect(model, clips)
    assert found.changes_nothing
    assert found.num_changed == 0
    assert found.accuracy == found.accuracy_without == plain.accuracy
    # Processors without AVX-512 interpolate the identity up to rounding.
    assert found.cross_entropy_without == pytest.approx(plain.cross_entropy, rel=1e-6)
    assert found.summary.startswith("changes nothing: ")
    assert "all 20 verdicts are the same" in found.summary


def test_switching_off_a_layer_gives_the_model_without_it(make_clips):
    clips = make_clips(55)
    found = attention_effect(Glance(attention=SpatialTransformer(Says(QUARTER_TURN))), clips)
    plain = evaluate(Glance(), clips)
    assert found.accuracy_without == plain.accuracy
    # Processors without AVX-512 interpolate the identity up to rounding.
    assert found.cross_entropy_without == pytest.approx(plain.cross_entropy, rel=1e-6)
    assert found.num_changed > 0


def test_attention_that_matters(make_clips):
    found = attention_effect(Indispensable(), make_clips(55))
    assert (found.accuracy, found.accuracy_without, found.num_changed) == (1.0, 0.0, 55)
    assert found.offset_px_rms == pytest.approx(5.0)  # 3 px down, 4 px to the right
    assert found.summary == "offsets of 5.00 px rms; without them accuracy falls from 100.0 % to 0.0 %"


def test_an_evaluation_at_hand_saves_a_pass(make_clips):
    model, clips, passes = Glance(attention=Roll(3, 4)), make_clips(6), []
    found = evaluate(model, clips)
    model.register_forward_hook(lambda *_: passes.append(1))
    again = attention_effect(model, clips, with_attention=found)
    assert len(passes) == 1
    assert again == attention_effect(model, clips)
    assert len(passes) == 3


def test_an_evaluation_of_other_clips_is_refused(make_clips):
    model = Glance(attention=Roll(3, 4))
    found = evaluate(model, make_clips(6))
    with pytest.raises(UsageError, match="condition=rotation, now it is normal"):
        attention_effect(model, make_clips(6, condition="normal"), with_attention=found)
    with pytest.raises(UsageError, match="num_clips=6, now it is 5"):
        attention_effect(model, make_clips(6), num_clips=5, with_attention=found)


def test_the_model_attends_again_afterwards(make_clips):
    model, clips = Glance(attention=Roll(3, 4)), make_clips(55)
    before = evaluate(model, clips)
    attention_effect(model, clips, with_attention=before)
    assert evaluate(model, clips) == before


def watched(model, *batches):
    watch = AttentionWatch(model)
    for batch in batches:
        watch.add(batch)
    return watch.layers()


def test_spread_and_deviation_of_known_maps():
    model = Glance(attention=SpatialTransformer(Identity()))
    # One entry alternates between 0.5 and 1.5: standard deviation 0.5, mean distance from 1 also 0.5; five stay.
    wide, narrow = torch.tensor([[1.5, 0, 0, 0, 1, 0]]), torch.tensor([[0.5, 0, 0, 0, 1, 0]])
    found = watched(model, {"attention": wide}, {"attention": narrow})["attention"]
    assert found.map_spread == pytest.approx(0.5 / math.sqrt(6))
    assert found.map_deviation == pytest.approx(0.5 / 6)
    assert found.offset_px_rms is None


def test_a_map_that_never_changes_has_no_spread():
    model = Glance(attention=SpatialTransformer(Identity()))
    found = watched(model, {"attention": torch.tensor(QUARTER_TURN).expand(7, 6)})["attention"]
    assert found.map_spread == 0.0
    assert found.map_deviation == pytest.approx(4 / 6)


def test_similarity_maps_are_compared_as_affine_ones():
    model = Glance(attention=SpatialTransformer(Identity(), mode="similarity"))
    turn = torch.tensor([[1.0, math.pi / 2, 0.0, 0.0]])
    assert watched(model, {"attention": turn})["attention"].map_deviation == pytest.approx(4 / 6)


def test_batches_and_layers_count_by_their_offsets():
    model = torch.nn.Sequential(Roll(0, 0), Roll(0, 0))
    zeros, fives = torch.zeros(3, 2, 1, 1), torch.tensor([3.0, 4.0]).view(1, 2, 1, 1)
    layers = watched(model, {"0": zeros, "1": fives}, {"0": fives, "1": fives})
    assert layers["0"].offset_px_rms == pytest.approx(5 / 2)  # one of four vectors is 5 long
    assert layers["1"].offset_px_rms == pytest.approx(5.0)
    assert (layers["0"].num_offsets, layers["1"].num_offsets) == (4, 2)
    assert effect(layers).offset_px_rms == pytest.approx(5 * math.sqrt(3 / 6))


def test_factors_of_taps_are_no_offsets(make_clips):
    layer = DeformConv2d(1, 1, 3, padding=1, modulated=True)
    with torch.no_grad():
        layer.positions.bias[:18:2] = 3.0
        layer.positions.bias[1:18:2] = 4.0
        layer.positions.bias[18:] = 100.0
    model, clips = Glance(attention=layer), make_clips(2, num_frames=2)
    found = evaluate(model, clips).looks["attention"]
    assert found.offset_px_rms == pytest.approx(5.0)
    assert found.num_offsets == 4 * 9 * 64 * 64


def test_factors_alone_are_not_called_nothing(make_clips):
    layer = DeformConv2d(1, 1, 3, padding=1, modulated=True)
    with torch.no_grad():
        layer.weight.zero_()[:, :, 1, 1] = 50.0  # the frame as it is, in high contrast
        layer.positions.bias[18:] = -100.0  # nothing of it
    found = attention_effect(Glance(attention=layer), make_clips(40, num_frames=1), precision="float32")
    assert found.offset_px_rms == 0.0
    assert found.num_changed > 0
    assert not found.changes_nothing


def test_the_published_layer_counts_an_offset_a_channel(make_clips):
    layer = OffsetResample2d(1)
    torch.nn.init.zeros_(layer.positions.weight)
    found = attention_effect(Glance(attention=layer), make_clips(3, num_frames=2))
    assert found.layers["attention"].num_offsets == 6 * 64 * 64
    assert found.changes_nothing


def test_offsets_that_are_not_finite_are_told(make_clips):
    with pytest.raises(NonFiniteError, match="attention"):
        evaluate(Glance(attention=Roll(float("nan"), 0.0)), make_clips(2))


OFFSETS = {"conv": LayerAttention(10, offset_px_rms=0.834)}
MAPS = {"attention": LayerAttention(map_spread=0.12, map_deviation=0.2)}


@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        (effect(OFFSETS), "offsets of 0.83 px rms; without them accuracy falls from 93.1 % to 41.0 %"),
        (
            effect(OFFSETS, accuracy_without=0.95),
            "offsets of 0.83 px rms; without them accuracy rises from 93.1 % to 95.0 %",
        ),
        (
            effect(OFFSETS, accuracy_without=0.931, num_changed=4),
            "offsets of 0.83 px rms; without them accuracy stays at 93.1 %, though 4 of 2000 verdicts change",
        ),
        (
            effect(MAPS),
            "affine maps with spread 0.12 and deviation 0.20; without them accuracy falls from 93.1 % to 41.0 %",
        ),
        (
            effect({"conv": LayerAttention(10, offset_px_rms=2e-4)}, accuracy_without=0.931, num_changed=0),
            "changes nothing: offsets of 0.0002 px rms, and all 2000 verdicts are the same without them",
        ),
    ],
)
def test_the_sentence(found, sentence):
    assert found.summary == sentence
