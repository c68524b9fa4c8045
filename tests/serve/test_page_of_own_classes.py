"""The page for models that know no digits, in a real browser."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from saccade import checkpoint, models
from saccade.data import video_writing
from saccade.labels import Labels
from saccade.nn import attention_layers

from .conftest import OWN, RGB, write_checkpoint
from .tab import Tab, with_camera, write_y4m

STN = {"labels": OWN, "frame_format": RGB}


@pytest.fixture(scope="module")
def own_live(make_server, own_models):
    made = make_server("--port", 0, "--min-confidence", 0, "--model", *own_models)
    made.wait_until_ready()
    return made


@pytest.fixture
def tab(playwright, own_live, tmp_path):
    """Open a page in a browser whose camera sees a reddish wall with a bright square on its left side."""
    frames = torch.full((20, 1, 240, 320), 110, dtype=torch.uint8)
    frames[:, :, 80:160, 40:120] = 200
    write_y4m(tmp_path / "camera.y4m", frames, fps=20, blue_red=(100, 200))
    browser = with_camera(playwright, tmp_path / "camera.y4m")
    opened = Tab(browser, own_live.address, permissions=["camera"])
    opened.page.wait_for_selector("#idle:visible")
    yield opened
    browser.close()
    own_live.wait_for_pages(0, seconds=30)
    assert opened.faults == []


def colour(tab, y, x):
    """Return what the first card shows at a place of its frame, in parts of its height and width."""
    # Without layers, so that it is the frame that shows; 4 pixels of margin around 64x96.
    script = """([y, x]) => {
      const canvas = document.querySelector(".view canvas");
      const at = [canvas.width * (4 + 96 * x) / 104, canvas.height * (4 + 64 * y) / 72];
      return [...canvas.getContext("2d").getImageData(...at, 1, 1).data];
    }"""
    return np.array(tab.page.evaluate(script, [y, x])[:3])


def test_nothing_is_said_of_digits(tab):
    page = tab.page
    assert page.locator(".tabs span:visible").all_inner_texts() == ["Webcam", "Video"]
    assert page.is_checked("[name=source][value=camera]")
    assert page.evaluate("document.getElementById('preview').srcObject") is None  # until somebody asks for it
    assert "take2, wave, 3 wheels" in page.inner_text("#idle")
    told = [tab.text()]
    page.click("#idle-camera")
    tab.stream()
    told.append(tab.text())
    page.locator("label", has_text="Video").first.click()
    told.append(tab.text())
    page.click("#pause")
    told.append(page.text_content("#announce"))
    told.append(page.title() + page.get_attribute("meta[name=description]", "content"))
    visible = "[...document.querySelectorAll('*')].filter((part) => part.checkVisibility())"
    said = "['aria-label', 'title', 'placeholder', 'alt'].map((name) => part.getAttribute(name))"
    told += page.evaluate(f"{visible}.flatMap((part) => {said}).filter((text) => text)")
    assert "This class" in " ".join(told).replace("exactly this class", "This class")
    assert [text for text in told if "digit" in text.lower() or "stroke" in text.lower()] == []


def test_a_webcam_is_seen_in_colour_and_classes_go_by_their_names(tab):
    page = tab.page
    page.click("#idle-camera")
    tab.stream(10)
    assert page.is_hidden("#idle")
    assert set(page.locator(".verdict").all_inner_texts()) <= set(OWN.names)
    names = page.locator(".bar span:first-child").all_inner_texts()
    assert names == list(OWN.names) * 2
    assert all(text.endswith("%") for text in page.locator(".bar .percent").all_inner_texts())
    page.uncheck("#layer-attention")
    tab.stream(3)
    red, green, blue = colour(tab, 0.9, 0.9)
    assert red > green + 60
    assert red > blue + 60
    # The middle of the picture, not squeezed: of 240 rows the upper and lower 13 are cut.
    bright = [colour(tab, y, x).mean() > 140 for y, x in ((0.5, 0.2), (0.5, 0.45), (0.28, 0.2), (0.37, 0.2))]
    assert bright == [True, False, False, True]
    page.click("#camera-switch")
    tab.wait_for("document.getElementById('preview').srcObject === null")
    assert page.inner_text("#camera-switch") == "Start webcam"


def test_the_camera_keeps_to_the_rate_of_the_models(tab):
    tab.page.click("#idle-camera")
    tab.stream(5)
    script = "[Number(document.getElementById('scrub').max), performance.now()]"
    number, begin = tab.page.evaluate(script)
    tab.page.wait_for_timeout(4000)
    later, end = tab.page.evaluate(script)
    assert 2 < 1000 * (later - number) / (end - begin) < 12.5 * 1.1


def test_a_video_is_seen_in_colour_at_the_rate_of_the_models(tab, tmp_path):
    halves = torch.zeros(50, 3, 128, 192, dtype=torch.uint8)
    halves[:, 1, :, :96] = 220
    halves[:, 2, :, 96:] = 220
    video_writing.write_mp4(tmp_path / "take2.mp4", halves, fps=25)
    page = tab.page
    with page.expect_file_chooser() as chooser:
        page.click("#idle-video")
    chooser.value.set_files(tmp_path / "take2.mp4")
    tab.wait_for("document.getElementById('video-state').textContent.includes('25 frames, seen as 96x64 px at 12.5/s')")
    tab.wait_for("document.getElementById('truth').textContent === 'frame 25'")
    page.uncheck("#layer-attention")
    assert colour(tab, 0.5, 0.25).argmax() == 1
    assert colour(tab, 0.5, 0.75).argmax() == 2
    assert page.locator(".events-list caption").all_inner_texts() == ["STN-LSTM", "DCN-LSTM"]
    assert page.locator(".events-list tbody tr:visible").count() >= 2  # the least probability of a verdict is 0
    assert set(page.locator(".verdict").all_inner_texts()) <= set(OWN.names)


def test_of_many_classes_the_strongest_show(browser, make_server, tmp_path):
    names = tuple(f"the {k}th thing that somebody may do" for k in range(40))
    torch.manual_seed(0)
    # Probabilities reach the page with four decimals: loud, or two of them could be alike.
    path = write_checkpoint(tmp_path / "many.safetensors", loud=30, labels=Labels(names), frame_format=RGB)
    live = make_server("--port", 0, "--min-confidence", 0, "--model", path)
    tab = Tab(browser, live.address)
    video_writing.write_gif(tmp_path / "noise.gif", torch.randint(0, 256, (3, 1, 64, 96), dtype=torch.uint8), fps=10)
    tab.page.wait_for_selector("#idle:visible")
    tab.page.set_input_files("#file", tmp_path / "noise.gif")
    tab.wait_for("document.getElementById('pause').textContent === 'Play'")
    shown = tab.page.locator(".bar span:first-child").all_inner_texts()
    percents = [int(text.split()[0]) for text in tab.page.locator(".bar .percent").all_inner_texts()]
    assert len(shown) == 5
    assert set(shown) < set(names)
    assert percents == sorted(percents, reverse=True)
    assert tab.page.inner_text(".verdict") == shown[0]
    likely = tab.page.get_attribute(".bars", "aria-label")
    assert shown[0] in likely
    verdict = "document.querySelector('.verdict')"
    assert tab.page.evaluate(f"{verdict}.scrollHeight <= {verdict}.clientHeight")  # the long name has room
    tab.context.close()


def test_models_built_from_parts_go_by_their_names_and_classes(browser, make_server, tmp_path):
    parts = {"trunk": "small", "attention": "dcn", "temporal": "gru", "frame_format": RGB}
    several = Labels(("run", "sit", "eat", "drink"), exclusive=False)
    paths = [
        write_checkpoint(tmp_path / f"{name}.safetensors", models.BUILT, labels=labels, **parts)
        for name, labels in (("one", OWN), ("two", OWN), ("other", several))
    ]
    live = make_server("--port", 0, "--model", *paths, write_checkpoint(tmp_path / "stn", "stn-lstm", **STN))
    tab = Tab(browser, live.address)
    tab.page.wait_for_selector("#idle:visible")
    titles = [f"small-dcn-gru ({name})" for name in ("one", "two", "other")]
    assert tab.page.locator(".card h2").all_text_contents() == [*titles, "STN-LSTM"]
    told = tab.page.inner_text("#idle-told").replace("\n\n", "\n").split("\n")
    assert told == [
        f"{titles[0]}, {titles[1]}, STN-LSTM",
        "Names one of 3 classes: take2, wave, 3 wheels",
        titles[2],
        "Names any of 4 classes: run, sit, eat, drink",
    ]
    assert tab.page.locator(".card .what").first.text_content().startswith("Deformable convolution")
    tab.context.close()


def test_controls_of_a_stream_show_with_the_stream(tab):
    page = tab.page
    controls = ("#pause", "#scrub", "#forget")
    assert not any(page.is_visible(control) for control in controls)
    page.keyboard.press(" ")
    page.click("#idle-camera")
    tab.stream()
    assert all(page.is_visible(control) for control in controls)


def test_a_card_says_whether_attention_changes_anything(browser, make_server, tmp_path):
    turned = write_checkpoint(tmp_path / "turned", "stn-lstm", **STN)
    model, header = checkpoint.load(turned)
    with torch.no_grad():
        for layer in attention_layers(model).values():
            for parameter in layer.positions.parameters():
                parameter.add_(0.2)
    checkpoint.save(turned, model, header)
    live = make_server("--port", 0, "--model", write_checkpoint(tmp_path / "straight", "stn-lstm", **STN), turned)
    tab = Tab(browser, live.address)
    tab.page.wait_for_selector("#idle:visible")
    video_writing.write_gif(tmp_path / "noise.gif", torch.randint(0, 256, (3, 1, 64, 96), dtype=torch.uint8), fps=10)
    tab.page.set_input_files("#file", tmp_path / "noise.gif")
    tab.wait_for("document.getElementById('pause').textContent === 'Play'")
    said = tab.page.locator(".card .what").all_inner_texts()
    assert ["Here it is the whole frame: attention changes nothing." in text for text in said] == [True, False]
    tab.page.set_viewport_size({"width": 390, "height": 844})
    said = tab.page.locator(".card .what").all_inner_texts()
    assert [text.strip().lower() for text in said] == ["attention changes nothing.", ""]  # all that has room on a phone
    top = "document.querySelector('.player').offsetTop"
    before = tab.page.evaluate(top)
    tab.page.evaluate("document.querySelector('.idle-attention').hidden = true")
    assert tab.page.evaluate(top) == before  # its room stays
    tab.context.close()


def test_a_page_goes_on_when_the_server_comes_back_with_other_models(browser, make_server, own_models, untrained):
    first = make_server("--port", 0, "--model", untrained[0])
    tab = Tab(browser, f"{first.address}/#s=7")
    tab.stream()
    assert tab.page.is_visible("#pad")
    assert first.interrupt() == 0
    second = make_server("--port", first.address.rpartition(":")[2], "--model", *own_models)
    tab.page.wait_for_selector("#idle:visible")
    assert "digit" not in tab.text().lower()
    assert second.interrupt() == 0
    make_server("--port", first.address.rpartition(":")[2], "--model", untrained[0])
    tab.wait_for("document.querySelector('#truth strong') && !document.querySelector('.models').hidden")
    tab.stream()
    assert tab.page.is_visible("#sliders")
    tab.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_fault(tab, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    tab.page.emulate_media(color_scheme=scheme)
    for begin in (lambda: None, lambda: tab.page.click("#idle-camera")):
        begin()
        tab.page.wait_for_timeout(500)
        found = axe.run(tab.page).response["violations"]
        serious = [
            (fault["id"], [node["html"] for node in fault["nodes"]])
            for fault in found
            if fault["impact"] in ("serious", "critical")
        ]
        assert serious == []


def test_nothing_sticks_out_at_the_side(tab):
    for begin in (lambda: None, lambda: tab.page.click("#idle-camera")):
        begin()
        tab.page.wait_for_timeout(1500)
        for width in (320, 390, 768, 1024, 1440):
            tab.page.set_viewport_size({"width": width, "height": 800})
            assert tab.page.evaluate("document.scrollingElement.scrollWidth") <= width
