"""The page of an evaluation as text: what stands in it, and what cannot get into it."""

import base64
import hashlib
import re
from html.parser import HTMLParser

import pytest
import torch

from saccade.data import StoredClips
from saccade.evaluate import AttentionEffect, Result, WrongClip, evaluate, page, through_cameras
from saccade.evaluate.forward import Setup
from saccade.labels import Labels

from .stand_ins import Canned

HOSTILE = "<script>alert(1)</script>&\"'$style ${x} `"
NAMES = ("wave", HOSTILE, "clap")
PNG = b"\x89PNG\r\n\x1a\n"


class Reader(HTMLParser):
    """Collects elements, and the text outside the style."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.words, self.open = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self.open.append(tag)

    def handle_endtag(self, tag):
        self.words.append(" ")
        if tag in self.open:
            while self.open.pop() != tag:
                pass

    def handle_data(self, data):
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self):
        return " ".join("".join(self.words).replace("\u00a0", " ").split())

    def named(self, tag):
        return [attrs for name, attrs in self.elements if name == tag]


def result(*, camera=False, groups=("p", "q"), num=12, data="my clips"):
    frames = [torch.zeros(3, 1, 8, 8, dtype=torch.uint8)] * num
    targets = torch.arange(num) % 3
    named = [str(groups[index % len(groups)]) for index in range(num)] if groups else None
    clips = StoredClips(frames, targets, Labels(NAMES), {"data": data, "split": "test"}, groups=named)
    logits = torch.nn.functional.one_hot(torch.where(targets == 2, 1, targets), 3) * 3.0
    found = evaluate(Canned(logits), clips)
    setup = Setup.choose(clips, None, 4, "cpu", "float32")
    figures = through_cameras(Canned(logits), clips, setup, found.clips) if camera else []
    effect = AttentionEffect({}, found.accuracy, None, None, 0, num)
    return Result(found, effect, found.row(model="lenet-lstm", seed=0), camera=figures, fps=15.0)


def wrong(name="a.mp4", **changes):
    told = {
        "shown": "clap",
        "said": "wave",
        "right": False,
        "sure": True,
        "exclusive": True,
        "probability": 0.75,
        "target_probability": 0.125,
        "picture": PNG,
        "picture_size": (800, 200),
        "legend": "Upper row: frames.",
        "said_over_time": [0.5, 0.6, 0.75],
        "shown_over_time": [0.2, 0.15, 0.125],
        "num_frames": 3,
        "did": [("Sampled area", "40 %")],
        "command": "saccade explain a.mp4",
    }
    return WrongClip(name=name, **told | changes)


def read(found, clips=(), **changes):
    return Reader(
        page.render(found, clips, **{"command": "saccade evaluate", "provenance": "Made by a test."} | changes)
    )


def test_the_figures_stand_on_the_page():
    found = result()
    text = read(found).text
    low, high, label = found.evaluation.interval
    assert "lenet-lstm on my clips, test split" in text
    assert "12 clips · 3 classes · 2 groups · 15 frames/s" in text
    assert f"Accuracy 66.7 % 95 % interval {100 * low:.1f} % to {100 * high:.1f} % ({label})" in text
    assert "Largest class 33.3 %" in text
    assert "Attention" not in text
    assert "Fewer than 5 clips: wave (4)" in text


def test_every_class_has_a_row_with_the_worst_first():
    text = read(result()).text
    assert "clap 4 0.0 % (0 to 49) none" in text
    assert "wave 4 100.0 % (51 to 100) 100.0 % (51 to 100)" in text
    assert text.index("clap 4 0.0 %") < text.index("wave 4 100.0 %")


def test_sections_that_have_nothing_to_show_are_left_out():
    def headings(found, clips=()):
        return {attrs["id"] for attrs in read(found, clips).named("h2")}

    assert headings(result(groups=None)) == {"confusion", "classes", "reading", "origin"}
    everything = headings(result(camera=True), [wrong()])
    assert everything == {"confusion", "classes", "groups", "camera", "wrong", "reading", "origin"}


def test_cameras_are_charted_and_listed():
    text = read(result(camera=True)).text
    for told in ("every 2nd frame (7.5 frames/s)", "every 4th frame (3.8 frames/s)", "50 % of the frames lost"):
        assert told in text
    assert text.count("no verdict changed") == 6


def test_a_wrong_clip_is_told():
    doubted = wrong("b.mp4", right=True, said="clap", sure=False, command=None)
    reader = read(result(), [wrong("a.mp4"), doubted, wrong("c.mp4", sure=False)])
    assert "1. a.mp4 predicted wave 75.0 %, true class clap 12.5 %" in reader.text
    assert "2. b.mp4 unsure: clap 75.0 %, right" in reader.text
    assert "3. c.mp4 predicted unsure: wave 75.0 %, true class clap 12.5 %" in reader.text
    assert "Sampled area 40 %" in reader.text
    assert reader.text.count("saccade explain a.mp4") == 2
    first, *_ = reader.named("img")
    assert first["src"] == f"data:image/png;base64,{base64.b64encode(PNG).decode()}"
    assert (first["width"], first["height"]) == ("800", "200")


def test_sets_of_classes_are_explained():
    labels = Labels(NAMES, exclusive=False)
    clips = StoredClips([torch.zeros(3, 1, 8, 8, dtype=torch.uint8)] * 6, torch.ones(6, 3), labels, {"data": "sets"})
    found = evaluate(Canned(torch.ones(6, 3)), clips)
    effect = AttentionEffect({}, found.accuracy, None, None, 0, 6)
    reader = read(Result(found, effect, found.row(model="lenet-lstm", seed=0)), [wrong(exclusive=False)])
    assert "predicted wave 75.0 %, true classes clap 12.5 %" in reader.text
    assert "The probability beside a verdict is that of exactly this set" in reader.text
    assert "Most frequent set 100.0 %" in reader.text
    assert "exactly this set" not in read(result(), [wrong()]).text


def test_clips_of_one_group_say_nothing_about_others():
    text = read(result(groups=("p",))).text
    assert "1 group ·" in text
    assert "All clips are of the group p: the intervals say nothing about clips of other groups." in text
    assert "(Wilson, 12 clips of one group)" in text
    assert "draws whole groups" not in text


def test_a_model_that_predicts_at_the_end_has_one_point():
    def points(clip):
        dots = read(result(), [clip]).named("circle")
        return [float(dot["cx"]) for dot in dots if dot["class"] == "verdict"]

    assert len(points(wrong())) == 3
    assert points(wrong(said_over_time=[0.75], shown_over_time=[0.125])) == points(wrong())[-1:]


def test_no_name_becomes_markup():
    found = result(data=HOSTILE, groups=(HOSTILE, "q"), camera=True)
    clip = wrong(HOSTILE, shown=HOSTILE, said=HOSTILE, did=[(HOSTILE, HOSTILE)], command=HOSTILE, legend=HOSTILE)
    reader = read(found, [clip], command=HOSTILE, provenance=HOSTILE)
    assert not reader.named("script")
    assert reader.text.count("<script>alert(1)</script>&\"'$style ${x} `") > 8
    assert all(not name.startswith("on") for _, attrs in reader.elements for name in attrs)


@pytest.mark.parametrize("camera", [False, True])
def test_the_page_needs_nothing_else_and_allows_nothing_else(camera):
    text = page.render(result(camera=camera), [wrong()], command="saccade", provenance="")
    reader = Reader(text)
    (policy,) = (a["content"] for a in reader.named("meta") if a.get("http-equiv") == "Content-Security-Policy")
    style = re.search(r"<style>(.*?)</style>", text, re.S)[1]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy == f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:"
    assert text.count("<style>") == 1
    for _, attrs in reader.elements:
        assert "style" not in attrs
        for name in ("src", "href"):
            assert attrs.get(name, "data:").startswith("data:")
