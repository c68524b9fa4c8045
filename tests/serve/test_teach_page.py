"""Teaching in a real browser: record with the pointer and with keys, delete after a question, see the new model."""

from __future__ import annotations

import shutil

import pytest
import torch

from saccade import files
from saccade.data import collection, video
from saccade.data.grouping import RECORDED
from saccade.serve import training
from saccade.serve.taught import WANTED

from .tab import Tab, with_camera, write_y4m
from .test_teach_training import ENDED, write_run

SERIOUS = ("serious", "critical")


def moving(kind, num_frames=30, size=(240, 320)):
    """Return grey frames of a square that moves to the right or down, or of none."""
    frames = torch.full((num_frames, 1, *size), 90, dtype=torch.uint8)
    edge = size[0] // 5
    for number, frame in enumerate(frames):
        along = edge // 2 + (size[0] - 2 * edge) * number // num_frames
        y, x = {"right": (2 * edge, along), "down": (along, 2 * edge), "none": (0, 0)}[kind]
        if kind != "none":
            frame[:, y : y + edge, x : x + edge] = 220
    return frames


@pytest.fixture
def teaching(make_server, tmp_path):
    server = make_server("--port", 0, "--teach", tmp_path / "clips")
    server.wait_for("(no model yet)")
    return server


@pytest.fixture
def browser_of(playwright, tmp_path):
    """Start browsers whose camera shows a class."""
    launched = []

    def start(kind):
        write_y4m(tmp_path / f"{kind}.y4m", moving(kind), fps=15)
        launched.append(with_camera(playwright, tmp_path / f"{kind}.y4m"))
        return launched[-1]

    yield start
    for browser in launched:
        browser.close()


def opened(browser, server, **options):
    tab = Tab(browser, server.address, permissions=["camera"], **options)
    tab.page.wait_for_selector(".lesson")
    return tab


def start_camera(tab):
    tab.page.click("#teach-start")
    tab.wait_for("document.getElementById('preview').videoWidth > 0")


def add(tab, name):
    tab.page.fill("#teach-name", name)
    tab.page.keyboard.press("Enter")
    lesson(tab, name).wait_for()


def lesson(tab, name):
    return tab.page.locator(".lesson", has=tab.page.get_by_role("heading", name=name, exact=True))


def wait_for_count(tab, name, count):
    told = f"{count} of {WANTED} clips" if count < WANTED else f"{count} clips"
    lesson(tab, name).get_by_text(told, exact=True).wait_for()


def hold(tab, name, ms):
    """Hold the button of a class with the mouse."""
    lesson(tab, name).locator(".record").hover()
    tab.page.mouse.down()
    tab.page.wait_for_timeout(ms)
    tab.page.mouse.up()


def said(tab):
    return tab.page.inner_text("#teach-said")


def test_clips_are_recorded_counted_and_deleted(browser_of, teaching, tmp_path):
    tab = opened(browser_of("right"), teaching)
    page, keys = tab.page, tab.page.keyboard
    assert not page.is_visible(".stage")  # nothing but teaching, while there is no model
    assert page.locator(".lesson h3").all_inner_texts() == ["none"]
    assert page.is_disabled("#teach-train")
    add(tab, "wave & co")
    start_camera(tab)
    hold(tab, "wave & co", 1200)
    wait_for_count(tab, "wave & co", 1)
    lesson(tab, "none").locator(".record").focus()
    keys.down(" ")
    page.wait_for_selector(".teach-view.on")
    page.wait_for_timeout(900)
    keys.up(" ")
    wait_for_count(tab, "none", 1)
    lesson(tab, "none").locator(".record").evaluate("(button) => button.click()")  # as screen readers do
    wait_for_count(tab, "none", 2)
    page.wait_for_selector(".teach-view:not(.on)", state="attached")
    assert "none needs 1 more clip; wave & co needs 2 more clips" in page.inner_text("#teach-needs")

    folder = tmp_path / "clips"
    found = collection.read(folder, group=RECORDED)
    assert found.classes == ("none", "wave & co")
    assert len({entry.group for entry in found.entries}) == 1  # one visit, one session
    clips = {entry.path.name: video.read_clip(entry.path, num_channels=3) for entry in found.entries}
    assert {tuple(clip.frames.shape[1:]) for clip in clips.values()} == {(3, 240, 320)}
    assert all(14 <= clip.fps <= 16 for clip in clips.values())
    held, clicked = (len(clips[name].frames) for name in sorted(clips) if name.startswith("none"))
    assert 10 <= held <= clicked
    assert clicked >= 28  # two seconds
    shown = next(clip for name, clip in clips.items() if name.startswith("wave"))
    assert float(shown.frames.float().amax()) > 180  # the square of the camera

    page.get_by_role("button", name="Delete clip 1 of wave & co").click()
    page.get_by_role("button", name="Keep").click()
    assert page.locator(".still").count() == 3
    page.get_by_role("button", name="Delete clip 1 of wave & co").click()
    page.get_by_role("button", name="Delete", exact=True).click()
    wait_for_count(tab, "wave & co", 0)
    page.get_by_role("button", name="Delete the class wave & co").click()
    assert "the class wave & co with its 0 clips" in page.inner_text("#teach-question")
    keys.press("Escape")
    assert page.locator(".lesson").count() == 2
    page.get_by_role("button", name="Delete the class wave & co").click()
    page.get_by_role("button", name="Delete", exact=True).click()
    lesson(tab, "wave & co").wait_for(state="detached")
    assert tab.faults == []
    tab.context.close()


def test_a_refused_recording_is_kept_and_saved_again(browser_of, teaching, tmp_path):
    tab = opened(browser_of("right"), teaching)
    add(tab, "wave")
    start_camera(tab)
    lesson(tab, "wave").locator(".record").focus()
    tab.page.keyboard.down("Enter")
    tab.page.wait_for_timeout(900)
    shutil.rmtree(tmp_path / "clips" / "wave")  # another page deletes it meanwhile
    tab.page.keyboard.up("Enter")
    tab.page.wait_for_selector("#teach-unsaved:visible")
    assert "Not saved yet: wave. there is no class 'wave' any more; add it again." in said(tab)
    add(tab, "wave")
    tab.page.click("#teach-again")
    wait_for_count(tab, "wave", 1)
    assert not tab.page.is_visible("#teach-unsaved")
    tab.context.close()


def test_a_training_is_found_again_and_its_model_answers(browser_of, teaching, tmp_path):
    browser = browser_of("right")
    folder = tmp_path / "clips"
    first = opened(browser, teaching)
    run = write_run(folder, 1, {"stage": "features of the pretrained trunk", "done": 3, "total": 24})
    with files.locked(run.parent / training.LOCK):
        first.page.get_by_text("3 of 24").wait_for()
        first.context.close()
        tab = opened(browser, teaching)
        tab.page.get_by_text("Features of the pretrained trunk, 3 of 24").wait_for()
        assert tab.page.is_disabled("#teach-train")
        start_camera(tab)
    shutil.rmtree(run)
    write_run(folder, 1, {"ended": ENDED}, classes=("none", "wave"))
    tab.stream()  # without a reload
    assert tab.page.locator(".card h2").all_inner_texts() == ["STN-LSTM"]
    tab.page.locator("#teach-outcome", has_text="7 of 8 clips are named rightly").wait_for()
    write_run(folder, 2, {"ended": ENDED}, classes=("none", "wave"))
    tab.wait_for("document.querySelectorAll('.card').length === 2")
    tab.stream()
    assert tab.page.locator(".card h2").all_inner_texts() == ["STN-LSTM (model-2)", "STN-LSTM (model-1)"]
    tab.page.get_by_text("The model still names none, wave, deleted since. Train again.").wait_for()
    assert tab.faults == []
    tab.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_fault_and_nothing_sticks_out(browser_of, teaching, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    tab = opened(browser_of("right"), teaching, color_scheme=scheme)
    add(tab, "a long name of a class, as they come")
    start_camera(tab)
    hold(tab, "none", 800)
    wait_for_count(tab, "none", 1)
    for begin in (lambda: None, lambda: tab.page.click(".delete")):
        begin()
        tab.page.wait_for_timeout(300)
        faults = [one for one in axe.run(tab.page).response["violations"] if one["impact"] in SERIOUS]
        assert [(one["id"], [node["html"] for node in one["nodes"]]) for one in faults] == []
    tab.page.keyboard.press("Escape")
    for width in (320, 390, 768, 1024, 1440):
        tab.page.set_viewport_size({"width": width, "height": 800})
        assert tab.page.evaluate("document.scrollingElement.scrollWidth") <= width
    tab.context.close()
