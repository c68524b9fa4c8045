"""The page of an evaluation, and where the model looked in the most wrong clips."""

import io
from dataclasses import replace

import numpy as np
import pytest
import torch

from saccade import checkpoint, evaluate
from saccade.attention import look
from saccade.checkpoint import Header
from saccade.clips import FrameFormat
from saccade.data import Folder, StoredClips, StoredData
from saccade.data.digits import DigitsConfig
from saccade.data.video_writing import write_mp4
from saccade.errors import UsageError
from saccade.evaluate import EvaluateConfig, read_rows
from saccade.explain.most_wrong import each_with_page, wrong_clips
from saccade.labels import Labels
from saccade.nn import attention_layers

MODELS = ("lenet-lstm", "stn-lstm", "dcn-lstm")
CLASSES = ("wave", "<b>clap</b>", "a class with a name that is so long that it fits nowhere on a small screen")
LENGTHS = (2, 3, 5)


def save(folder, name, frame_format, labels, data=None):
    """Save an untrained model whose attention is not where it starts."""
    torch.manual_seed(2)
    header = Header(name, {}, labels, frame_format, data or {"facts": {"data": "memory"}}, {"config": {"seed": 0}})
    model = header.create_model()
    with torch.no_grad():
        for layer in attention_layers(model).values():
            for parameter in layer.positions.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
    checkpoint.save(folder / checkpoint.NAME, model, header)
    return folder


def stored(labels=None, **named):
    generator = torch.Generator().manual_seed(0)
    frames = [torch.randint(256, (n, 3, 32, 48), dtype=torch.uint8, generator=generator) for n in LENGTHS * 4]
    exclusive = labels is None or labels.exclusive
    targets = torch.arange(12) % 3 if exclusive else (torch.rand(12, 3, generator=generator) < 0.5).float()
    clips = StoredClips(frames, targets, labels or Labels(CLASSES), **named)
    return StoredData(clips, clips, clips, name="my clips")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return {name: save(folder / name, name, FrameFormat(3, (32, 48), fps=10.0), Labels(CLASSES)) for name in MODELS}


def found(model, data, **options):
    config = EvaluateConfig(model, device="cpu", precision="float32")
    result = evaluate.run(config, data)
    return result, wrong_clips(result, config, data.clips("test"), **options)


@pytest.fixture(scope="module")
def written(models, tmp_path_factory):
    """Write a page with everything on it, and the other files of an evaluation."""
    folder = tmp_path_factory.mktemp("written")
    config = EvaluateConfig(models["dcn-lstm"], out=folder / "a.csv", confusion=folder / "a.svg", camera=True)
    groups = [f"person {index % 4}" for index in range(12)]
    (result,) = each_with_page(config, stored(groups=groups), folder / "new" / "page.html")
    return folder, result


def pixels(png):
    pyplot = pytest.importorskip("matplotlib.pyplot")
    return np.asarray(pyplot.imread(io.BytesIO(png), format="png"))


@pytest.mark.parametrize("name", MODELS)
def test_the_most_wrong_clips_come_with_their_verdicts(models, name):
    result, clips = found(models[name], stored(), num=5)
    verdicts = result.evaluation.clips
    order = evaluate.most_wrong(verdicts, 5)
    for index, clip in zip(order, clips, strict=True):
        assert clip.name == f"clip {index}"
        assert (clip.shown, clip.said) == (CLASSES[verdicts[index].target], CLASSES[verdicts[index].verdict])
        assert clip.num_frames == LENGTHS[index % 3]
        assert len(clip.said_over_time) == clip.num_frames
        # The evaluation and the look at a single clip agree on the last frame.
        assert clip.said_over_time[-1] == pytest.approx(verdicts[index].probability, abs=1e-4)
        assert clip.shown_over_time[-1] == pytest.approx(verdicts[index].target_probability, abs=1e-4)


def test_the_picture_shows_the_frames_and_what_the_attention_did(models):
    three = stored().clips("test")
    three = replace(three, frames=three.frames[:3], targets=three.targets[:3])
    data = StoredData(three, three)
    plain, stn, dcn = (found(models[name], data)[1] for name in MODELS)
    of_clip = {"stn-lstm": {clip.name: clip for clip in stn}, "dcn-lstm": {clip.name: clip for clip in dcn}}
    for clip in (of_clip[kind]["clip 0"] for kind in ("stn-lstm", "dcn-lstm")):
        drawn = pixels(clip.picture)
        width, height = clip.picture_size
        assert drawn.shape[1] / drawn.shape[0] == pytest.approx(width / height, rel=0.02)
    one, other = (pixels(of_clip[kind]["clip 0"].picture) for kind in ("stn-lstm", "dcn-lstm"))
    half = one.shape[0] // 2
    assert not np.array_equal(one[half:], other[half:])  # a crop, and points on the frames
    assert {name for name, _ in stn[0].did} >= {"Sampled area, share of the frame", "Rotation of the sampled area"}
    assert any("offsets" in name for name, _ in dcn[0].did)
    assert not any("area" in name or "offsets" in name for name, _ in plain[0].did)
    assert len({clips[0].legend for clips in (plain, stn, dcn)}) == 3


def test_the_figures_are_those_of_the_look(models):
    data = stored()
    result, clips = found(models["stn-lstm"], data, num=1)
    index = evaluate.most_wrong(result.evaluation.clips)[0]
    model, _ = checkpoint.load(models["stn-lstm"])
    frames = data.clips("test").frames[index]
    corners = look(model.eval(), frames)[0].quadrilateral_px[:, 0].double()
    diagonals = corners[:, 2] - corners[:, 0], corners[:, 3] - corners[:, 1]
    area = (diagonals[0][:, 0] * diagonals[1][:, 1] - diagonals[0][:, 1] * diagonals[1][:, 0]).abs() / 2
    share = (100 * area / (32 * 48)).quantile(0.5).item()
    told = dict(clips[0].did)["Sampled area, share of the frame"]
    assert abs(float(told.split(" %")[0]) - share) <= 1.5


def test_sets_of_classes_are_named_as_sets(tmp_path):
    labels = Labels(("a", "b", "c"), exclusive=False)
    model = save(tmp_path, "lenet-lstm", FrameFormat(3, (32, 48)), labels)
    result, clips = found(model, stored(labels), num=4)
    for index, clip in zip(evaluate.most_wrong(result.evaluation.clips, 4), clips, strict=True):
        verdict = result.evaluation.clips[index]
        present = [name for name, there in zip(labels.names, verdict.target, strict=True) if there]
        assert clip.shown == (" + ".join(present) or "none of them")
        assert clip.shown_over_time[-1] == pytest.approx(verdict.target_probability, abs=1e-4)


def test_a_clip_has_one_probability(models):
    """The evaluation may be in bfloat16, whose probabilities differ from those of the look at a clip."""
    data, config = stored(), EvaluateConfig(models["stn-lstm"], device="cpu", precision="bfloat16")
    result = evaluate.run(config, data)
    clips = wrong_clips(result, config, data.clips("test"))
    exact = wrong_clips(result, replace(config, precision="float32"), data.clips("test"))
    for clip, other in zip(clips, exact, strict=True):
        assert clip.probability == clip.said_over_time[-1] == other.probability
        assert clip.target_probability == clip.shown_over_time[-1]
        assert dict(clip.did)["Most probable"].startswith(f"{clip.said}\u00a0{100 * clip.probability:.1f}\u00a0%")


def test_an_unsure_verdict_is_called_so(models):
    data = stored()
    config = EvaluateConfig(models["lenet-lstm"], device="cpu", precision="float32")
    clips = wrong_clips(evaluate.run(config, data), config, data.clips("test"))
    assert [clip.sure for clip in clips] == [clip.probability >= 0.5 for clip in clips]
    assert [dict(clip.did)["Decided at"] == "not decided" for clip in clips] == [not clip.sure for clip in clips]


def test_fewer_clips_than_ten_are_all_shown(models):
    data = stored()
    few = replace(data.clips("test"), frames=data.clips("test").frames[:4], targets=torch.arange(4) % 3)
    assert len(found(models["lenet-lstm"], StoredData(few, few))[1]) == 4


def test_the_page_comes_with_all_that_was_asked_for(written):
    folder, result = written
    text = (folder / "new" / "page.html").read_text(encoding="utf-8")
    assert text.count('<article class="clip"') == 10
    assert "every 2nd frame (5 frames/s)" in text
    assert "person 3" in text
    assert "<b>" not in text
    assert read_rows(folder / "a.csv")[0]["accuracy"] == result.evaluation.accuracy
    assert (folder / "a.svg").read_text(encoding="utf-8").startswith("<svg")


def test_the_command_for_a_clip_names_its_file(tmp_path):
    root = tmp_path / "my clips"
    for place, name in enumerate(("left", "right")):
        (root / name).mkdir(parents=True)
        for number in range(4):
            frames = torch.randint(
                256, (4, 3, 32, 40), dtype=torch.uint8, generator=torch.manual_seed(9 * place + number)
            )
            write_mp4(root / name / f"{number}.mp4", frames, 10)
    folder = Folder(root)
    data = {"config": folder.as_json(), "facts": folder.facts}
    model = save(tmp_path / "run", "lenet-lstm", folder.frame_format, folder.labels, data)
    list(each_with_page(EvaluateConfig(model), folder, tmp_path / "a.html"))
    text = (tmp_path / "a.html").read_text(encoding="utf-8")
    names = folder.clips("test").names
    for name in names:
        assert f"saccade explain &#x27;{root / name}&#x27; --model {model}" in text


def test_a_file_that_cannot_be_written_is_noticed_before_the_work(models, tmp_path):
    class Untouched:
        def parts(self):
            return [self]

    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        next(each_with_page(EvaluateConfig(models["lenet-lstm"]), Untouched(), tmp_path / "file" / "page.html"))


def test_several_conditions_need_several_pages(models, tmp_path):
    both = DigitsConfig("uci", condition=("normal", "rotation"))
    with pytest.raises(UsageError, match="--report writes a file for one condition, and 2 are measured"):
        next(each_with_page(EvaluateConfig(models["lenet-lstm"]), both, tmp_path / "page.html"))
    assert not (tmp_path / "page.html").exists()


@pytest.mark.parametrize(("width", "scheme"), [(1440, "light"), (390, "dark")])
def test_the_page_in_a_browser(chromium, written, width, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed")
    faults = []
    context = chromium.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    tab = context.new_page()
    tab.on("console", lambda message: faults.append(message.text))
    tab.on("request", lambda request: request.url.startswith(("file:", "data:")) or faults.append(request.url))
    tab.goto((written[0] / "new" / "page.html").as_uri())
    assert tab.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    assert tab.locator("img").evaluate_all("all => all.every(img => img.complete && img.naturalWidth > 0)")
    found = axe.Axe().run(tab)
    assert found.violations_count == 0, found.generate_report()
    context.close()
    assert faults == []
