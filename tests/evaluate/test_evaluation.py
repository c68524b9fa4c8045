import json

import pytest
import torch
from torch import nn

from saccade import models
from saccade.data import StoredClips
from saccade.errors import NonFiniteError, UsageError
from saccade.evaluate import COLUMNS, AttentionEffect, attention_effect, evaluate, read_rows, write_rows
from saccade.evaluate.forward import Setup, run_clips
from saccade.evaluate.rows import MEASURED
from saccade.labels import Labels
from saccade.models import published
from saccade.nn.attention import attention_layers

from .stand_ins import Canned, Glance, Says

FACTS = {"model": "lenet-lstm", "protocol": "end_to_end", "seed": 3}


def one_hot(classes, num_classes=55, *, height=10.0):
    return height * nn.functional.one_hot(torch.as_tensor(classes), num_classes).float()


def test_figures_of_known_verdicts(make_clips):
    # Clip i shows class i; the last three of eight are called class 0, "00".
    found = evaluate(Canned(one_hot([0, 1, 2, 3, 4, 0, 0, 0])), make_clips(8), batch_size=3)
    assert found.accuracy == 5 / 8
    assert found.verdicts == [0, 1, 2, 3, 4, 0, 0, 0]
    assert found.num_clips == 8
    # "00" to "07" all show a 0, and only "00" asks for two.
    assert found.recall == dict(zip("0123456789", [1.0] * 5 + [0.0] * 3 + [None] * 2, strict=True))
    assert [found.confusion_matrix[i][0] for i in range(8)] == [1, 0, 0, 0, 0, 1, 1, 1]
    right, wrong = -10 + torch.tensor(10.0).exp().add(54).log(), torch.tensor(10.0).exp().add(54).log()
    assert found.cross_entropy == pytest.approx(((5 * right + 3 * wrong) / 8).item(), rel=1e-5)
    assert found.accuracy <= found.top5_accuracy <= 1.0


def test_the_verdict_is_that_of_the_last_frame(make_clips):
    clips = make_clips(6, num_frames=3)
    labels = torch.arange(6)
    by_frame = torch.stack([one_hot((labels + 1) % 55), one_hot(labels * (labels < 3)), one_hot(labels)], 1)
    found = evaluate(Canned(by_frame), clips, batch_size=4)
    assert found.accuracy == 1.0
    assert found.accuracy_by_frame == [0.0, 0.5, 1.0]
    # In the mean, clips 0 to 2 have two right frames of three, and the others one of three with three verdicts.
    assert found.accuracy_of_mean_logits == 0.5


def test_the_mean_of_the_logits_can_be_right_where_the_last_frame_is_not(make_clips):
    labels = torch.arange(4)
    by_frame = torch.stack([one_hot(labels), one_hot(labels), one_hot((labels + 1) % 55, height=15.0)], 1)
    found = evaluate(Canned(by_frame), make_clips(4, num_frames=3), batch_size=3)
    assert (found.accuracy, found.accuracy_of_mean_logits) == (0.0, 1.0)
    assert found.row(model="canned", seed=0)["accuracy_of_mean_logits"] == 1.0


def test_a_model_with_one_prediction_a_clip_has_no_accuracy_by_frame(make_clips):
    model = Canned(one_hot(range(6)).unsqueeze(1))
    model.causal = False
    found = evaluate(model, make_clips(6))
    assert found.accuracy == 1.0
    assert found.accuracy_by_frame is None
    assert found.accuracy_of_mean_logits is None


def test_presence_of_digits(make_clips):
    clips = make_clips(20, labels="digits", num_digits=3)
    said = clips.batch(torch.arange(20)).targets.clone()
    said[0, 0] = 1 - said[0, 0]  # the set of the first clip is not exact
    found = evaluate(Canned(said * 8 - 4), clips)
    assert found.accuracy == 19 / 20
    assert found.top5_accuracy is None
    assert len(found.confusion_matrix) == 10
    assert sum(cells[0][1] + cells[1][0] for cells in found.confusion_matrix) == 1
    assert found.accuracy_by_frame == [19 / 20] * 3


@pytest.mark.parametrize("precision", ["float32", "auto"])
def test_figures_do_not_depend_on_the_batch_size(make_clips, precision):
    model, clips = Glance(), make_clips(20)
    one, three, every = (evaluate(model, clips, batch_size=size, precision=precision) for size in (1, 3, 20))
    # In bfloat16 a product may round otherwise for another batch, and one verdict of twenty tip over.
    tolerance = 1e-6 if precision == "float32" else 0.051
    for other in (three, every):
        assert other.accuracy == pytest.approx(one.accuracy, abs=tolerance)
        assert other.accuracy_by_frame == pytest.approx(one.accuracy_by_frame, abs=tolerance)
        assert other.cross_entropy == pytest.approx(one.cross_entropy, rel=1e-6 if precision == "float32" else 1e-2)
    assert one.verdicts == three.verdicts or precision == "auto"


def test_the_first_clips_of_a_longer_dataset(make_clips):
    model = Glance()
    part = evaluate(model, make_clips(50), num_clips=7, precision="float32")
    assert part == evaluate(model, make_clips(7), precision="float32")
    assert part.num_clips == 7


def test_evaluation_leaves_training_alone(make_clips):
    model = Glance()
    model.train()
    model.trunk[2].eval()  # a frozen part
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    random_state = torch.get_rng_state()
    evaluate(model, make_clips(4))
    assert model.training
    assert model.trunk.training
    assert not model.trunk[2].training
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random_state)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_batch_norm_is_in_evaluation_mode(make_clips):
    # With batch statistics the other clips of a batch would speak too.
    model = Glance()
    model.train()
    clips = make_clips(8)
    assert (
        evaluate(model, clips, batch_size=1, precision="float32").verdicts
        == evaluate(model, clips, batch_size=8, precision="float32").verdicts
    )


def test_progress_counts_clips(make_clips):
    seen = []
    evaluate(Canned(one_hot(range(7))), make_clips(7), batch_size=3, progress=lambda *done: seen.append(done))
    assert seen == [(3, 7), (6, 7), (7, 7)]


@pytest.mark.parametrize(
    ("num_classes", "labels", "message"),
    [
        (100, "pair", r"the clips have 55 classes \(00, 01, 02 \.\.\.\), the model 100: use clips of the model's"),
        (55, "digits", r"the clips have 10 classes \(0, 1, 2 \.\.\.\), the model 55: use clips of the model's"),
    ],
)
def test_labels_of_another_number_of_classes(make_clips, num_classes, labels, message):
    with pytest.raises(UsageError, match=message):
        evaluate(Glance(num_classes), make_clips(labels=labels))


def test_other_classes_of_the_same_number_are_refused(make_clips):
    clips = make_clips(2, labels="digits")
    words = models.create("lenet-lstm", labels=Labels(tuple("abcdefghij"), exclusive=False))
    with pytest.raises(UsageError, match=r"10 classes \(0, 1, 2 \.\.\.\), the model 10 \(a, b, c \.\.\.\)"):
        evaluate(words, clips)
    one_of_ten = models.create("lenet-lstm", labels=Labels.numbered(10))
    with pytest.raises(
        UsageError, match="the clips' classes do not exclude each other, the model's exclude each other"
    ):
        evaluate(one_of_ten, clips)


@pytest.mark.parametrize("option", ["num_clips", "batch_size"])
def test_nothing_to_evaluate(make_clips, option):
    with pytest.raises(UsageError, match=f"{option} of at least 1; got 0"):
        evaluate(Glance(), make_clips(), **{option: 0})


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_logits_that_are_not_finite_are_told_with_their_clip(make_clips, value):
    logits = one_hot(range(6))
    logits[4, 2] = value
    with pytest.raises(NonFiniteError, match="clip 4"):
        evaluate(Canned(logits), make_clips(6), batch_size=2)


def test_logits_without_time_are_refused(make_clips):
    with pytest.raises(ValueError, match=r"\(4, time, classes\) is needed"):
        evaluate(nn.Sequential(nn.Flatten(), Says([0.0] * 55)), make_clips(4))


def test_everything_is_json(make_clips):
    found = evaluate(Glance(), make_clips())
    assert json.loads(json.dumps(found.as_json(), allow_nan=False)) == found.as_json()


def test_a_row_says_what_was_evaluated_and_goes_through_a_file(make_clips, tmp_path):
    found = evaluate(Glance(), make_clips(55))
    effect = AttentionEffect({}, found.accuracy, None, None, 0, 55)
    row = found.row(**FACTS, attention=effect, steps=7)
    assert list(row)[:3] == list(COLUMNS[:3])
    assert (row["data"], row["instances"]) == ("moving digits", "disjoint")
    assert (row["labels"], row["condition"], row["digits"], row["steps"]) == ("pair", "rotation", "uci", 7)
    assert set(row) == {*FACTS, *found.facts, *MEASURED, "num_clips", "steps"} | {f"recall_{d}" for d in range(10)}
    assert {name: row[f"recall_{name}"] for name in found.recall} == found.recall
    write_rows(tmp_path / "results.csv", [row])
    assert read_rows(tmp_path / "results.csv") == [row]
    assert found.row(**FACTS, condition="elastic")["condition"] == "elastic"


def test_a_row_without_its_facts_is_refused(make_clips):
    found = evaluate(Glance(), make_clips(2))
    with pytest.raises(UsageError, match="lacks seed"):
        found.row(model="m")


@pytest.mark.parametrize("name", ["lenet-lstm", "stn-lstm", "dcn-lstm"])
def test_a_fresh_matched_model_attends_to_nothing(make_clips, name):
    torch.manual_seed(0)
    model = models.create(name)
    found = evaluate(model, make_clips(4))
    assert len(found.accuracy_by_frame) == 3
    effect = attention_effect(model, make_clips(4), with_attention=found)
    if name == "lenet-lstm":
        assert effect.layers == {}
        return
    assert effect.changes_nothing
    assert effect.accuracy_without == found.accuracy
    assert effect.cross_entropy_without == found.cross_entropy
    assert (effect.offset_px_rms or 0.0, effect.map_spread or 0.0, effect.map_deviation or 0.0) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize("make", [published.lenet_lstm_published, published.stn_lstm_published])
def test_a_published_model_has_one_verdict_a_clip(make_clips, make):
    torch.manual_seed(0)
    model = make(num_frames=2)
    clips = make_clips(2, num_frames=2, labels="ordered")
    found = evaluate(model, clips)
    assert found.accuracy_by_frame is None
    assert len(found.verdicts) == 2
    with torch.no_grad():
        wanted = model.eval()(clips.batch(torch.arange(2)).frames)[:, -1]
    assert evaluate(model, clips, precision="float32").verdicts == wanted.argmax(-1).tolist()
    effect = attention_effect(model, clips, with_attention=found)
    assert effect.changes_nothing
    assert bool(effect.layers) == ("stn" in make.__name__)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_gpu_gives_the_figures_of_the_cpu(make_clips):
    clips = make_clips(40)
    here = evaluate(Glance(), clips, precision="float32")
    there = evaluate(Glance(), clips, precision="float32", device="cuda")
    assert there.accuracy == pytest.approx(here.accuracy, abs=0.026)
    assert there.cross_entropy == pytest.approx(here.cross_entropy, rel=1e-3)


LABELS = Labels(("take2", "wave", "3 wheels"))
LENGTHS = (4, 1, 6, 3, 6)


def stored(*indices):
    """Return clips of several lengths, or some of them."""
    generator = torch.Generator().manual_seed(0)
    frames = [torch.randint(256, (n, 1, 32, 40), dtype=torch.uint8, generator=generator) for n in LENGTHS]
    chosen = indices or range(len(LENGTHS))
    return StoredClips([frames[i] for i in chosen], torch.tensor([(0, 2, 1, 1, 2)[i] for i in chosen]), LABELS)


@pytest.fixture(scope="module", params=["lenet-lstm", "stn-lstm", "dcn-lstm"])
def loud(request):
    """A model whose verdicts change from frame to frame and whose attention looks elsewhere in each."""
    torch.manual_seed(2)
    model = models.create(request.param, labels=LABELS, input="both").eval()
    with torch.no_grad():
        for parameter in (*model.temporal.parameters(), *model.head.parameters()):
            parameter.mul_(20)
        for layer in attention_layers(model).values():
            for parameter in layer.positions.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def test_padded_clips_are_measured_like_each_alone(loud):
    setup = Setup.choose(stored(), None, len(LENGTHS), "cpu", "float32")
    together = run_clips(loud, stored(), setup)
    with torch.no_grad():
        alone = [loud(clip.unsqueeze(0))[0] for clip in stored().frames]
    assert torch.allclose(together.logits, torch.stack([said[-1] for said in alone]), rtol=1e-4, atol=1e-4)
    targets = stored().targets.tolist()
    right = [(said.argmax(-1) == target).tolist() for said, target in zip(alone, targets, strict=True)]
    wanted = [[clip[t] for clip in right if t < len(clip)] for t in range(max(LENGTHS))]
    assert together.accuracy_by_frame == [sum(some) / len(some) for some in wanted]
    assert len({tuple(clip) for clip in right}) > 2  # the verdicts do change
    of_means = [(said.mean(0).argmax() == target).item() for said, target in zip(alone, targets, strict=True)]
    assert together.accuracy_of_mean_logits == sum(of_means) / len(of_means)
    each = [evaluate(loud, stored(index), precision="float32") for index in range(len(LENGTHS))]
    for size in (1, 2, 5):
        found = evaluate(loud, stored(), batch_size=size, precision="float32")
        assert found.accuracy == pytest.approx(sum(one.accuracy for one in each) / len(each))
        assert found.cross_entropy == pytest.approx(sum(one.cross_entropy for one in each) / len(each), rel=1e-4)
        assert found.verdicts == [one.verdicts[0] for one in each]
        assert found.accuracy_by_frame == together.accuracy_by_frame


def test_attention_in_padding_does_not_count(loud):
    one, all_at_once = (
        attention_effect(loud, stored(), batch_size=size, precision="float32") for size in (1, len(LENGTHS))
    )
    for name, layer in one.layers.items():
        for figure, value in vars(layer).items():
            other = vars(all_at_once.layers[name])[figure]
            assert other == (value if value is None else pytest.approx(value, rel=1e-3)), figure
    assert one.num_changed == all_at_once.num_changed


def test_what_is_said_of_padding_may_be_anything():
    class OfTheirFrames(nn.Module):
        causal = True

        def forward(self, clips, lengths):
            said = torch.full((len(clips), clips.shape[1], 3), float("nan"))
            for row, length in zip(said, lengths.tolist(), strict=True):
                row[:length] = torch.tensor([0.0, 9.0, 0.0])
            return said

    found = evaluate(OfTheirFrames(), stored())
    assert found.verdicts == [1] * len(LENGTHS)
    assert found.accuracy == 2 / 5
