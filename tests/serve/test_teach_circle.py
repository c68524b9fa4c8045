"""The whole circle: record in the page, train from it, then stream, predict and export in processes of their own."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from saccade.data import collection
from saccade.record.session import GROUP
from saccade.serve.taught import FEWEST, WANTED

from .tab import Tab, with_camera, write_y4m
from .test_teach_page import add, hold, moving, start_camera, wait_for_count

CAMERA = Path(__file__).parents[2] / "examples" / "onnx_camera.py"
KINDS = ("none", "right", "down")


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


def record_all(playwright, server, folder, *, num, size, ms):
    """Record clips of each class from a camera that shows it; return the last page, still open."""
    for kind in KINDS:
        write_y4m(folder / f"{kind}.y4m", moving(kind, size=size), fps=15)
        browser = with_camera(playwright, folder / f"{kind}.y4m")
        tab = Tab(browser, server.address, permissions=["camera"])
        tab.page.wait_for_selector(".lesson")
        if kind != "none":
            add(tab, kind)
        start_camera(tab)
        for number in range(num):
            hold(tab, kind, ms + 100 * (number % 3))
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


@pytest.fixture(scope="module")
def go(playwright, make_server, tmp_path_factory):
    """Return a function that records and trains in the page."""

    def walked(**options):
        folder = tmp_path_factory.mktemp("circle")
        server = make_server("--port", 0, "--teach", folder / "clips")
        tab = record_all(playwright, server, folder, **options)
        try:
            train_from(tab)
            tab.stream()
            told = tab.page.inner_text("#teach-outcome")
            assert f"of {len(KINDS) * options['num']} clips are named rightly" in told
            tab.wait_for("document.querySelector('.verdict').textContent !== ''")
            assert tab.faults == []
        finally:
            tab.context.browser.close()
            server.interrupt()
        return Circle(folder)

    return walked


def check_clips(circle, num):
    """See that other commands can use the clips."""
    found = collection.read(circle.clips, group=GROUP)
    assert found.classes == tuple(sorted(KINDS))
    assert (len(found.entries), found.left_out) == (len(KINDS) * num, ())
    report = circle.saccade("check", circle.clips, status=None)  # clips of one camera look alike
    assert f"{len(KINDS) * num} clips of {len(KINDS)} classes" in report
    assert "a training is refused" not in report


def check_answers(circle):
    """Return a stream of the clip, which says at every frame what `predict` says."""
    streamed = circle.streamed(circle.run)
    said = json.loads(circle.saccade("predict", circle.clip, "--model", circle.run, "--over-time", "--json"))
    over_time = said["over_time"]
    assert [one["class"] for one in streamed] == over_time["verdicts"]
    assert [one["sure"] for one in streamed] == over_time["sure"]
    assert [one["time_s"] for one in streamed] == pytest.approx(over_time["seconds"], abs=1e-3)
    # Those over time have four digits.
    assert [one["probability"] for one in streamed] == pytest.approx(over_time["probability"], abs=6e-5)
    assert streamed[-1]["probability"] == pytest.approx(said["probability"], abs=1e-5)
    return streamed


def test_what_a_page_taught_answers_alike_in_a_stream_and_in_a_file(go):
    circle = go(num=FEWEST, size=(64, 64), ms=750)
    check_clips(circle, FEWEST)
    assert len(check_answers(circle)) >= 10


@pytest.mark.slow
def test_two_classes_and_none_are_learned_streamed_and_exported(go):
    circle = go(num=WANTED, size=(240, 320), ms=2000)
    check_clips(circle, WANTED)
    streamed = check_answers(circle)
    assert streamed[-1]["class"] == "right"
    circle.saccade("export", "--model", circle.run, "--format", "onnx", "--out", circle.exported)
    outside = [json.loads(line) for line in python(CAMERA, circle.exported / "step.onnx", circle.clip).splitlines()]
    assert [one["verdict"] for one in outside] == [one["class"] for one in streamed]
    exported = [one["probability"] for one in outside]
    assert exported == pytest.approx([one["probability"] for one in streamed], abs=1e-4)
    own = circle.run.parent / "own"
    circle.saccade("train", "--data", circle.clips, "--model", "lenet-lstm", "--steps", "2", "--out", own)
    assert len(circle.streamed(own)) == len(streamed)
