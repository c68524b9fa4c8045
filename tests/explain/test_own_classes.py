"""Models whose classes are no digits: what they are shown, what stands in their reports, and what does not."""

import json
from dataclasses import replace

import pytest
import torch

from saccade.clips import FrameFormat
from saccade.data.video import read_clip
from saccade.data.video_writing import write_mp4
from saccade.errors import UsageError
from saccade.explain import ExplainConfig, explain, explain_clip, page
from saccade.labels import Labels

from .stand_ins import MATCHED, WORDS, noise, save_model
from .test_page import Reader, data_of

SEEN = FrameFormat(3, (64, 96), fps=12.5)
LEARNED = {"data": "my clips", "split_seed": 0, "group": None, "protocol": "end_to_end"}
MARKUP = ('"><b>x</b>', "[red]", "</script><script>alert(1)</script>", "$\\nope$ ${x} $style", "&amp;")


def explained(clip, *models, **options):
    return explain_clip(ExplainConfig(clip, models, device="cpu", **options))


def rendered(explanation):
    return page.render(explanation, command="saccade explain", provenance="Made by a test.")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Save an untrained model of each kind with classes of its own, in colour, at its own rate."""
    folder = tmp_path_factory.mktemp("own")
    return tuple(save_model(folder / name, name, WORDS, LEARNED, SEEN, input="both") for name in MATCHED)


@pytest.fixture(scope="module")
def fast(tmp_path_factory):
    """Write a clip of 25 frames a second."""
    path = tmp_path_factory.mktemp("fast") / "clip.mp4"
    write_mp4(path, noise(16, 48, 72, channels=3), 25)
    return path


def test_they_get_colour_in_their_size_at_their_rate(fast, models):
    explanation = explained(fast, *models)
    assert (explanation.num_frames, explanation.fps, explanation.cut) == (8, 12.5, False)
    wanted = read_clip(fast, size=(64, 96), num_channels=3).frames[::2]
    for column in explanation.columns:
        assert torch.equal(column.clip.frames, wanted)
        assert column.frame_size == (64, 96)
        assert column.look.saliency.shape == (8, 64, 96)
        assert {said.name for said in column.verdicts} <= set(WORDS.names)
        assert column.prediction.verdict == column.verdicts[-1].name
        assert torch.allclose(column.probabilities.sum(1), torch.ones(8), atol=1e-5)
    cut = explained(fast, models[0], max_frames=7)
    assert (cut.num_frames, cut.cut) == (7, True)


@pytest.mark.parametrize("of", ["fast", "generated"])
def test_nothing_speaks_of_digits(of, models, request):
    explanation = explained(request.getfixturevalue(of), *models)
    assert explanation.truth is None
    text = rendered(explanation)
    data = data_of(text)
    assert data["truth"] is None
    assert data["columns"][0]["names"] == list(WORDS.names)
    carried = {name: value for name, value in data.items() if name != "strips"}
    packed = text.partition('<script id="data"')[2].partition("</script>")[0]
    for part in (text.replace(packed, ""), json.dumps(carried)):
        assert "digit" not in part.lower().replace("data-digit", "")
    shown = Reader(text).text
    assert "know the classes of their training only" in shown
    assert "Trained on my clips" in shown
    assert "Classes 3: take2, wave, 3 wheels" in shown
    assert "colour, 12.5 frames/s" in shown
    assert "Condition" not in shown


def test_beside_one_that_names_digits_only_that_one_is_judged(generated, tmp_path):
    own, pairs = save_model(tmp_path / "own", "stn-lstm", WORDS, LEARNED), save_model(tmp_path / "pairs", "stn-lstm")
    explanation = explained(generated, own, pairs)
    assert not explanation.knows_digits
    first, second = explanation.columns
    assert (first.boxes_px, first.attended) == (None, {})
    assert second.boxes_px is not None
    shown = Reader(rendered(explanation)).text
    assert "know the classes of their training only" in shown
    assert shown.count("(right)") + shown.count("(wrong)") == 1
    assert "shows 0 and 3" in shown


@pytest.mark.parametrize("exclusive", [True, False])
def test_names_of_classes_are_never_markup(tmp_path, fast, exclusive):
    labels = Labels(MARKUP, exclusive=exclusive, nothing="<i>none</i>")
    data = dict.fromkeys(LEARNED, MARKUP[2])
    explanation = explained(fast, save_model(tmp_path, "lenet-lstm", labels, data))
    text = rendered(explanation)
    read = Reader(text)
    assert not {"b", "i"} & {tag for tag, _ in read.elements}
    assert [tag for tag, _ in read.elements].count("script") == 2
    for name in MARKUP:
        assert name in read.text
    said = explanation.columns[0].prediction.verdict
    assert f"{said}{100 * explanation.columns[0].prediction.probability:.1f} %" in read.text
    assert data_of(text)["columns"][0]["names"] == list(MARKUP)


@pytest.mark.parametrize("suffix", ["png", "gif"])
def test_names_of_classes_are_no_formulas_in_pictures(tmp_path, fast, suffix):
    pytest.importorskip("matplotlib")
    labels = Labels(("$\\nope$", "a $x_ b$", "$"))
    model = save_model(tmp_path / "run $\\nope$ $", "stn-lstm", labels)
    other = save_model(tmp_path / "$x_$", "stn-lstm", labels)
    out = explain(ExplainConfig(fast, (model, other), tmp_path / f"out.{suffix}", device="cpu"))
    assert out.stat().st_size > 1000


@pytest.mark.parametrize("name", ["PlayingGuitar", "walking the dog in the WWW"])
def test_names_of_classes_have_room_in_pictures(tmp_path, fast, name):
    pyplot = pytest.importorskip("matplotlib.pyplot")
    model = save_model(tmp_path / "run", "lenet-lstm", Labels((name, "wave")))
    picture = pyplot.imread(explain(ExplainConfig(fast, (model,), tmp_path / "out.png", device="cpu")))
    assert picture[:, -3:, :3].min() == 1
    moving = read_clip(explain(ExplainConfig(fast, (model,), tmp_path / "out.gif", device="cpu"))).frames
    assert moving[..., -3:].min() > 250


@pytest.mark.parametrize("max_frames", [300, 4])
def test_models_of_different_rates_do_not_stand_side_by_side(tmp_path, fast, max_frames):
    slow, every = (
        save_model(tmp_path / str(seen.fps), "lenet-lstm", WORDS, LEARNED, seen)
        for seen in (SEEN, replace(SEEN, fps=None))
    )
    with pytest.raises(UsageError, match=r"different rates \(12.5 and 25.0 frames/s\)"):
        explained(fast, slow, every, max_frames=max_frames)
    half = tmp_path / "half.mp4"
    write_mp4(half, noise(4, 48, 72, channels=3), 12.5)
    assert explained(half, slow, every).num_frames == 4
