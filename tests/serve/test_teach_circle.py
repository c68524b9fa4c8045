"""The whole circle: record in the page, train from it, then stream, predict and export in processes of their own."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from saccade import predict
from saccade.data import collection, video
from saccade.data.grouping import RECORDED
from saccade.predict import PredictConfig
from saccade.serve.taught import WANTED

from .tab import Tab, with_camera, write_y4m
from .test_teach_page import add, hold, moving, start_camera, wait_for_count

CAMERA = Path(__file__).parents[2] / "examples" / "onnx_camera.py"
KINDS = ("none", "right", "down")
SIZE = (240, 320)


class Circle:
    """What a user types after the page has trained a model."""

    def __init__(self, folder):
        self.clips, self.run, self.exported = folder / "clips", folder / "clips-models" / "model-1", folder / "exported"
        self.clip = min((self.clips / "right").iterdir())

    def saccade(self, *words, status=0):
        return python("-m", "saccade.cli", *words, status=status)

    def streamed(self, model):
        """Return the lines of a stream of the clip."""
        return [json.loads(line) for line in self.saccade("stream", self.clip, "--model", model).splitlines()]


def python(*words, status=0):
    """Return the standard output of a process."""
    done = subprocess.run([sys.executable, *map(str, words)], capture_output=True, text=True, timeout=900)
    assert status is None or done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


def unlike(frames, times):
    """Repeat frames under noise, so that no clip is a copy of another: copies are left out of a training."""
    generator = torch.Generator().manual_seed(0)
    repeated = frames.repeat(times, 1, 1, 1)
    return repeated + torch.randint(0, 9, repeated.shape, dtype=torch.uint8, generator=generator)


def record_all(playwright, server, folder):
    """Record clips of each class from a camera that shows it; return the last page, still open."""
    for kind in KINDS:
        write_y4m(folder / f"{kind}.y4m", unlike(moving(kind, size=SIZE), 20), fps=15)
        browser = with_camera(playwright, folder / f"{kind}.y4m")
        tab = Tab(browser, server.address, permissions=["camera"])
        tab.page.wait_for_selector(".lesson")
        if kind != "none":
            add(tab, kind)
        start_camera(tab)
        for number in range(WANTED):
            hold(tab, kind, 2000 + 100 * (number % 3))
            wait_for_count(tab, kind, number + 1)
        if kind != KINDS[-1]:
            browser.close()
    return tab


def train_from(tab):
    """Press the button, and wait until the page shows the model."""
    tab.page.click("#teach-train")
    tab.page.wait_for_selector("#teach-progress:visible")
    begin = time.monotonic()
    while not tab.page.locator(".card").count():
        assert time.monotonic() - begin < 900
        assert "No new model" not in tab.text(), tab.text()
        tab.page.wait_for_timeout(200)


def check_clips(circle):
    """See that other commands can use the clips."""
    found = collection.read(circle.clips, group=RECORDED)
    assert found.classes == tuple(sorted(KINDS))
    assert (len(found.entries), found.left_out) == (len(KINDS) * WANTED, ())
    clips = [video.read_clip(entry.path, num_channels=3) for entry in found.entries]
    assert {tuple(clip.frames.shape[1:]) for clip in clips} == {(3, *SIZE)}
    assert all(12 <= clip.fps <= 18 for clip in clips)
    report = circle.saccade("check", circle.clips, status=None)  # clips of one camera look alike
    assert f"{len(clips)} clips of {len(KINDS)} classes" in report
    assert "a training is refused" not in report


def check_answers(circle):
    """Return a stream of the clip, which says at every frame what `predict` says."""
    streamed = circle.streamed(circle.run)
    said = json.loads(circle.saccade("predict", circle.clip, "--model", circle.run, "--over-time", "--json"))
    over_time = said["over_time"]
    assert [one["class"] for one in streamed] == over_time["verdicts"]
    assert [one["sure"] for one in streamed] == over_time["sure"]
    assert [one["time_s"] for one in streamed] == pytest.approx(over_time["seconds"], abs=1e-3)
    (exact,) = predict.predict(PredictConfig((circle.clip,), circle.run, over_time=True))  # as JSON it has four digits
    wanted = [verdict.probability for verdict in exact.over_time.verdicts]
    assert [one["probability"] for one in streamed] == pytest.approx(wanted, abs=1e-5)
    assert over_time["probability"] == pytest.approx(wanted, abs=6e-5)
    return streamed


def check_exported(circle, streamed):
    """See that the exported model says outside of saccade what the stream says."""
    circle.saccade("export", "--model", circle.run, "--format", "onnx", "--out", circle.exported)
    outside = [json.loads(line) for line in python(CAMERA, circle.exported / "step.onnx", circle.clip).splitlines()]
    assert [one["verdict"] for one in outside] == [one["class"] for one in streamed]
    assert [one["sure"] for one in outside] == [one["sure"] for one in streamed]
    probabilities = [one["probability"] for one in streamed]
    assert [one["probability"] for one in outside] == pytest.approx(probabilities, abs=1e-4)


@pytest.mark.slow
def test_two_classes_and_none_are_recorded_learned_streamed_and_exported(playwright, make_server, tmp_path):
    server = make_server("--port", 0, "--teach", tmp_path / "clips")
    tab = record_all(playwright, server, tmp_path)
    try:
        train_from(tab)
        tab.stream()
        assert f"of {len(KINDS) * WANTED} clips are named rightly" in tab.page.inner_text("#teach-outcome")
        tab.wait_for("document.querySelector('.verdict').textContent !== ''")
        assert tab.faults == []
    finally:
        tab.context.browser.close()
        server.interrupt()
    circle = Circle(tmp_path)
    check_clips(circle)
    streamed = check_answers(circle)
    assert streamed[-1]["class"] == "right"
    assert len({one["sure"] for one in streamed}) == 2  # the threshold matters
    check_exported(circle, streamed)
    own = circle.run.parent / "own"
    circle.saccade("train", "--data", circle.clips, "--model", "lenet-lstm", "--steps", "2", "--out", own)
    assert len(circle.streamed(own)) == len(streamed)
