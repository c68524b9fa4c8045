"""The report as text: what stands in it, and what cannot get into it."""

import base64
import dataclasses
import gzip
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from saccade.clips import FrameFormat
from saccade.errors import UsageError
from saccade.explain import ExplainConfig, explain_clip, page, prose
from saccade.explain.explanation import Explanation
from saccade.predict import PredictConfig, predict

from .stand_ins import noise, save_model, save_npz

HOSTILE = "<script>alert(1)</script>&\"'$style ${x} `"


def explained(clip, models, **options):
    return explain_clip(ExplainConfig(clip, tuple(models), device="cpu", **options))


def rendered(explanation, command="saccade explain", provenance="Made by a test."):
    return page.render(explanation, command=command, provenance=provenance)


def data_of(text):
    packed = re.search(r'<script id="data" type="application/octet-stream">([^<]*)</script>', text)[1]
    return json.loads(gzip.decompress(base64.b64decode(packed)))


class Reader(HTMLParser):
    """Collects elements and the text outside scripts and styles."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.open, self.words = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self.open.append(tag)

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self.words.append(" ")
        if tag in self.open:
            while self.open.pop() != tag:
                pass

    def handle_data(self, data):
        if not {"script", "style"} & set(self.open):
            self.words.append(data)

    @property
    def text(self):
        return " ".join("".join(self.words).replace("\u00a0", " ").split())


@pytest.fixture(scope="module")
def of_generated(generated, three_models):
    explanation = explained(generated, three_models)
    return explanation, rendered(explanation)


def test_it_refers_to_nothing_outside(of_generated):
    for tag, attributes in Reader(of_generated[1]).elements:
        for name in ("src", "href", "action", "srcset", "poster"):
            assert attributes.get(name, "data:,") == "data:,", (tag, attributes)
    markup = re.sub(r"<script.*?</script>", "", of_generated[1], flags=re.S)
    assert not re.search(r"https?://|@import|url\(", markup)


def test_only_its_own_script_and_style_may_run(of_generated):
    (policy,) = (a["content"] for _, a in Reader(of_generated[1]).elements if "http-equiv" in a)
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy


def test_figures_stand_in_it_without_any_script(of_generated):
    explanation, text = of_generated
    shown = Reader(text).text
    for column in explanation.columns:
        said = column.prediction
        assert f"{'' if said.sure else 'unsure: '}{said.verdict}{100 * said.probability:.1f} %" in shown
        decided = "not decided" if said.decided_at is None else f"decided at frame {said.decided_at + 1}"
        assert decided in shown
    assert {column.prediction.sure for column in explanation.columns} == {True, False}
    wanted = [
        "8 frames · 64x64 px · shown at 10 frames/s · shows 0 and 3",
        "Made by a test.",
        "Trained on moving digits",
        "Digits mnist",
    ]
    wanted += [
        "Condition rotation",
        "Classes 55: 00, 01, 02, 03, ...",
        "On the digits",
        "Verdict at each frame",
        "How to read this",
    ]
    for part in wanted:
        assert part in shown, part


def test_every_frame_has_its_row(of_generated):
    explanation, text = of_generated
    shown = Reader(text).text
    for t in range(8):
        row = " ".join(
            f"{'' if said.probability >= 0.5 else 'unsure: '}{said.name} {100 * said.probability:.1f} %"
            for said in (column.verdicts[t] for column in explanation.columns)
        )
        assert f"{t + 1} {row}".replace(" ", "") in shown.replace(" ", "")


def test_every_verdict_is_judged_by_the_minimum_that_was_asked_for(clip, three_models):
    (said,) = predict(PredictConfig((clip,), three_models[0], device="cpu"))
    between = (said.probability - 0.01, said.probability + 0.01)
    sure, unsure = (explained(clip, three_models[:1], min_confidence=least) for least in between)
    for explanation, before in ((sure, ""), (unsure, "unsure: ")):
        shown = Reader(rendered(explanation)).text
        told = f"{before}{said.verdict} {100 * said.probability:.1f} %"
        assert f"8 {told}" in shown  # in the table of every frame
        assert f"{before}{said.verdict}{100 * said.probability:.1f} %" in shown
        (column,) = explanation.columns
        assert data_of(rendered(explanation))["columns"][0]["sure"] == column.sure
        assert column.sure[-1] == column.prediction.sure == (before == "")
    assert f"a class is sure from {100 * between[0]:.3g} %" in Reader(rendered(sure)).text


@pytest.mark.parametrize(
    ("labels", "least", "told"),
    [
        ("pair", 0.8, "a class is sure from 80 %"),
        ("digits", 0.8, "while no class has a probability between 10 and 90 %"),
        ("digits", 0.0, "with --min-confidence 0 every verdict is sure"),
    ],
)
def test_when_a_verdict_is_sure_is_told(tmp_path, clip, labels, least, told):
    model = save_model(tmp_path, labels=labels)
    assert told in Reader(rendered(explained(clip, [model], min_confidence=least))).text


def test_a_minimum_that_is_no_fraction_is_refused(clip):
    with pytest.raises(UsageError, match="min_confidence must lie in 0 to 1; got 50"):
        ExplainConfig(clip, min_confidence=50)


def test_pixels_and_positions_are_those_that_the_models_gave(of_generated):
    explanation, text = of_generated
    data = data_of(text)
    (strip,) = data["strips"]  # three models that got the same frames
    frames = explanation.columns[0].clip.frames
    assert base64.b64decode(strip) == frames.numpy().tobytes()
    assert data["truth"] == ["0", "3"]
    for column, carried in zip(explanation.columns, data["columns"], strict=True):
        assert np.allclose(carried["probabilities"], column.probabilities.tolist(), atol=1e-4)
        assert carried["verdicts"] == [said.name for said in column.verdicts]
        drawn = [column.look.frame_json(t) for t in range(8)]
        for name in ("quad", "points", "units", "arrows", "crop"):
            assert [look[name] for look in carried["looks"]] == [look[name] for look in drawn]
        assert carried["boxes"] == column.boxes_px.tolist()
        for name in ("saliency", "field"):
            levels = [[np.frombuffer(base64.b64decode(look[name]["grey"]), np.uint8).astype(int) for look in looks]
                      for looks in (carried["looks"], drawn)]  # fmt: skip
            assert np.abs(np.subtract(*levels)).max() <= 3
            assert [level.max() for level in levels[0]] == [255] * 8


def test_it_tells_its_size(of_generated):
    size = len(of_generated[1].encode())
    told = re.search(r"This page: (\d+) kB, no network", of_generated[1])[1]
    assert abs(int(told) * 1000 - size) <= 1000


def test_the_same_explanation_gives_the_same_bytes(of_generated):
    assert rendered(of_generated[0]) == of_generated[1]


def test_only_what_a_model_has_can_be_shown(clip, generated, three_models):
    plain, transformer, deformable = three_models

    def layers(path, *models):
        boxes = [a for tag, a in Reader(rendered(explained(path, models))).elements if a.get("type") == "checkbox"]
        return {box["name"]: "checked" in box for box in boxes}

    assert layers(clip, plain) == {"saliency": True, "field": False}
    assert layers(clip, transformer) == {"quad": True, "saliency": False, "field": False}
    assert layers(clip, deformable) == {"points": True, "arrows": False, "saliency": False, "field": False}
    assert layers(generated, plain) == {"saliency": True, "field": False, "boxes": False}
    every = {"quad": True, "points": True, "arrows": False, "saliency": False, "field": False, "boxes": False}
    assert layers(generated, *three_models) == every


def test_what_a_reader_must_know_stands_on_top(tmp_path, three_models):
    path = save_npz(tmp_path / "clip.npz", noise(5, 30, 40))
    shown = Reader(rendered(explained(path, three_models[:1], max_frames=4))).text
    assert "the first 4 frames · 40x30 px · shown at 10 frames/s" in shown
    assert "The clip continues after 4 frames" in shown
    assert "The clip continues" not in Reader(rendered(explained(path, three_models[:1]))).text


def test_a_model_that_speaks_at_the_end(tmp_path):
    model = save_model(tmp_path, "lenet-lstm-published", labels="ordered", num_frames=2)
    path = save_npz(tmp_path / "clip.npz", noise(2, 64, 64))
    explanation = explained(path, [model])
    text = rendered(with_column(explanation, 0, prediction={"sure": True}))
    assert "decided at the end, its only prediction" in Reader(text).text
    assert len(data_of(text)["columns"][0]["probabilities"]) == 1


def with_column(explanation, index=0, **changes):
    """Put known values in the place of what one model said, or what is known of its checkpoint and clip."""
    columns = list(explanation.columns)
    parts = {name: dataclasses.replace(getattr(columns[index], name), **values) for name, values in changes.items()}
    columns[index] = dataclasses.replace(columns[index], **parts)
    return dataclasses.replace(explanation, columns=tuple(columns))


def test_a_model_that_speaks_at_the_end_has_one_row_there(tmp_path):
    model = save_model(tmp_path, "lenet-lstm-published", labels="ordered", num_frames=2)
    explanation = explained(save_npz(tmp_path / "clip.npz", noise(2, 64, 64)), [model])
    (said,) = explanation.columns[0].verdicts
    assert f"1 none 2 unsure: {said.name} {100 * said.probability:.1f} %" in Reader(rendered(explanation)).text


def test_right_and_wrong_are_told(of_generated):
    explanation = with_column(of_generated[0], 0, prediction={"verdict": "03", "sure": True})
    text = rendered(with_column(explanation, 1, prediction={"verdict": "17", "sure": True}))
    shown = Reader(text).text
    assert "03 (right) 17 (wrong)" in shown
    assert re.findall(r'<span class="(right|wrong)">(\w+)<', text)[:2] == [("right", "right"), ("wrong", "wrong")]


def test_a_checkpoint_tells_of_its_training(of_generated):
    before = {"before_steps": 300, "before_condition": "normal"}
    explanation = with_column(of_generated[0], 0, header={"training": {"step": 1200, "before": before}})
    shown = Reader(rendered(explanation)).text
    assert "Training steps 1200" in shown
    assert "Started from 300 steps on normal" in shown
    assert "Started from" not in Reader(of_generated[1]).text


def test_where_the_package_lies_is_not_told(generated):
    explanation = explain_clip(ExplainConfig(generated, device="cpu"))
    text = rendered(explanation)
    assert text.count("comes with saccade") == len(explanation.columns)
    assert str(explanation.columns[0].path) not in text


@pytest.mark.parametrize(
    ("fps", "shown", "told"),
    [(None, 10, "shown at 10 frames/s"), (12.5, 12.5, "12.5 frames/s"), (1000.0, 240, ""), (0.01, 0.1, "")],
)
def test_a_clip_plays_at_its_rate_within_bounds(of_generated, fps, shown, told):
    text = rendered(with_column(of_generated[0], clip={"fps": fps}))
    data = data_of(text)
    assert (data["fps"], data["shownFps"]) == (fps, shown)
    assert told in Reader(text).text


def test_models_that_got_other_frames_carry_their_own(tmp_path):
    path = save_npz(tmp_path / "clip.npz", noise(3, 32, 40, channels=3))
    paths = [save_model(tmp_path / "grey"), save_model(tmp_path / "colour", frame_format=FrameFormat(3))]
    explanation = explained(path, paths)
    data = data_of(rendered(explanation))
    for column, carried in zip(explanation.columns, data["columns"], strict=True):
        assert (
            base64.b64decode(data["strips"][carried["strip"]])
            == column.clip.frames.permute(0, 2, 3, 1).numpy().tobytes()
        )
        assert carried["size"] == [32, 40]
        assert carried["decidedAt"] == column.prediction.decided_at
        assert np.allclose(carried["verdictProbabilities"], [said.probability for said in column.verdicts], atol=1e-4)


def test_digits_are_listed_with_commas_and_an_and(of_generated):
    explanation = of_generated[0]
    for digits, told in (((4,), "shows 4"), ((1, 2), "shows 1 and 2"), ((1, 2, 3), "shows 1, 2 and 3")):
        truth = dataclasses.replace(explanation.truth, digits=digits)
        assert prose.facts(dataclasses.replace(explanation, truth=truth)).endswith(f" · {told}")


def test_the_scrubber_ends_at_the_last_frame(of_generated):
    (scrubber,) = (
        attributes for _, attributes in Reader(of_generated[1]).elements if attributes.get("id") == "scrubber"
    )
    assert (scrubber["min"], scrubber["max"]) == ("0", "7")


def test_a_large_page_tells_its_size_in_megabytes(of_generated):
    text = rendered(of_generated[0], command="x" * 1_500_000)
    told = float(re.search(r"This page: ([\d.]+) MB, no network", text)[1])
    assert told == pytest.approx(len(text.encode()) / 1e6, abs=0.06)


# What comes from outside.


def with_names(explanation: Explanation) -> Explanation:
    """Put hostile words wherever a file or a checkpoint has a say."""
    columns = []
    for column in explanation.columns:
        header = dataclasses.replace(
            column.header,
            data={"facts": dict.fromkeys(("data", "digits", "condition", "protocol"), HOSTILE)},
            training={"step": HOSTILE, "before": {"before_steps": HOSTILE, "before_condition": HOSTILE}},
            versions={HOSTILE: HOSTILE},
            arguments={HOSTILE: HOSTILE},
        )
        clip = dataclasses.replace(column.clip, warning=f"{HOSTILE} is damaged")
        path = column.path / HOSTILE.replace("/", "_")
        columns.append(dataclasses.replace(column, name=HOSTILE, header=header, clip=clip, path=path))
    clip = explanation.clip.with_name(HOSTILE.replace("/", "_"))
    return dataclasses.replace(explanation, clip=clip, columns=tuple(columns))


def test_no_name_becomes_markup(of_generated):
    tame = of_generated[0]
    hostile = with_names(tame)
    text = rendered(hostile, command=HOSTILE, provenance=HOSTILE)
    read = Reader(text)
    scripts = [attributes for tag, attributes in read.elements if tag == "script"]
    assert scripts == [{"id": "data", "type": "application/octet-stream"}, {"type": "module"}]
    assert "<script>alert" not in text
    # As text, every one of them is there as it was given.
    assert read.text.count("<script>alert(1)</script>&\"'$style ${x} `") >= 20
    assert read.text.count(HOSTILE.replace("/", "_")) >= 2
    assert data_of(text)["columns"][0]["name"] == HOSTILE


def test_a_checkpoint_may_say_anything_of_any_type(tmp_path, clip):
    odd = {"data": 3, "digits": ["a", 1], "condition": None, "protocol": {"x": [1]}}
    model = save_model(tmp_path, data=odd)
    explanation = explained(clip, [model])
    (column,) = explanation.columns
    header = dataclasses.replace(column.header, training={"step": None, "before": "scratch"})
    text = rendered(dataclasses.replace(explanation, columns=(dataclasses.replace(column, header=header),)))
    assert "Trained on 3 Digits ['a', 1]" in Reader(text).text
