"""The page in a real browser, as people use it."""

from __future__ import annotations

import re
import time

import numpy as np
import pytest
import torch

from saccade.data import digits, video_writing
from saccade.data.digits import DigitStream, StreamSettings

from .tab import WAIT_MS, Tab, with_camera, write_y4m
from .talk import Server

# Every frame's header then tells that server and browser left out more than before, which a quick machine never does.
LEFT_OUT = """
const parse = JSON.parse;
let frames = 0;
JSON.parse = (text) => {
  const message = parse(text);
  if ("dropped" in message) message.dropped = message.skipped = 3 * ++frames;
  return message;
};
"""


@pytest.fixture(scope="module")
def live(make_server):
    """Serve the package's own weights, as a newcomer would."""
    made = make_server("--port", 0, "--max-clients", 2)
    made.wait_until_ready()
    return made


@pytest.fixture
def open_tab(browser, live):
    """Open pages; at the end none may have met an error, and the server has its places back."""
    live.wait_for_pages(0, seconds=30)
    tabs = []

    def opened(fragment="", **options):
        tabs.append(Tab(browser, f"{live.address}/{fragment}", **options))
        return tabs[-1]

    yield opened
    for tab in tabs:
        tab.context.close()
    live.wait_for_pages(0, seconds=30)
    assert [fault for tab in tabs for fault in tab.faults] == []


@pytest.fixture
def tab(open_tab):
    opened = open_tab("#s=7")
    opened.stream()
    return opened


# --- Frames


def test_three_models_watch_one_stream(tab):
    page = tab.page
    assert page.locator(".card h2").all_inner_texts() == ["LeNet-LSTM", "STN-LSTM", "DCN-LSTM"]
    # The rate is told when there is one.
    page.wait_for_function("() => /^\\d+ frames\\/s/.test(document.querySelector('#rate').innerText)")
    assert all(re.fullmatch(r"\d+ ms", text) for text in page.locator(".card .ms").all_inner_texts())
    assert all(page.locator(".card .verdict").all_inner_texts())
    assert "digits and nothing else" in page.inner_text("#about")
    assert len(tab.shown()) == 2
    assert len({tab.picture(card) for card in range(3)}) == 3  # each with an overlay of its own
    assert page.locator(".crop:visible").count() == 1


def test_the_models_name_the_digits(open_tab):
    tab = open_tab("#s=7&n=1&r=0")
    tab.stream(30)
    right = 0
    for _ in range(6):
        tab.stream(3)
        right += tab.page.locator(".judged.right").count()
    assert right > 9  # of 18


def test_sliders_change_the_stream(tab):
    tab.slide("num_digits", 5)
    tab.wait_for("document.querySelector('#truth strong').textContent.split(' ').length === 5")
    tab.slide("scale_low", 1.2)
    assert tab.page.inner_text("output[for=set-scale_high]").startswith("1.20")
    tab.wait_for("location.hash.includes('n=5') && location.hash.includes('a=1.2')")
    tab.page.click("#pause")
    before = tab.picture()
    tab.slide("noise", 60)
    tab.wait_for(f"document.querySelectorAll('.view canvas')[0].toDataURL() !== {before!r}")


def test_a_model_can_be_switched_off(tab):
    tab.page.locator(".card .switch input").nth(1).uncheck()
    tab.wait_for("document.querySelectorAll('.card')[1].classList.contains('off')")
    tab.stream()
    assert tab.page.locator(".card.off").count() == 1


def test_pause_step_back_scrub_play(tab):
    page = tab.page
    page.click("#pause")
    assert page.inner_text("#pause") == "Play"
    page.wait_for_timeout(300)
    at = tab.number()
    assert at > 2
    page.click("#back")
    assert tab.number() == at - 1
    page.click("#step")
    assert tab.number() == at
    page.click("#step")  # behind the last one: from the server
    tab.wait_for(f"Number(document.getElementById('scrub').value) === {at + 1}")
    now = tab.picture()
    page.focus("#scrub")
    page.keyboard.press("Home")
    assert tab.number() == 1
    assert tab.picture() != now
    page.click("#pause")
    tab.wait_for(f"Number(document.getElementById('scrub').max) > {at + 3}")


def test_keys_are_enough(tab):
    page = tab.page
    page.keyboard.press("Space")
    assert page.inner_text("#pause") == "Play"
    at = tab.number()
    page.keyboard.press("ArrowLeft")
    assert tab.number() == at - 1
    page.keyboard.press("Space")
    assert page.inner_text("#pause") == "Pause"
    reached = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        now = page.evaluate("document.activeElement.id || document.activeElement.name")
        reached.add(now)
        if page.evaluate(
            "document.activeElement !== document.body && document.activeElement.matches(':focus-visible')"
        ):
            # The radio buttons of the source are drawn by what stands beside them.
            shown = "document.activeElement" + (".nextElementSibling" if now == "source" else "")
            outline = page.evaluate(f"getComputedStyle({shown}).outlineStyle")
            assert outline != "none"
    sliders = {f"set-{name}" for name in ("num_digits", "max_angle_deg", "speed_px", "noise", "fps")}
    assert reached >= sliders | {"pause", "step", "scrub", "forget", "link", "source", "pad", "meaning", "layer-boxes"}


# --- Drawing


def draw_a_one(page):
    box = page.locator("#pad").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"]
    page.mouse.move(x, y + 0.1 * box["height"])
    page.mouse.down()
    for k in range(2, 10):
        page.mouse.move(x, y + 0.1 * k * box["height"])
    page.mouse.up()


DRAWN = "document.getElementById('drawn').getContext('2d').getImageData(0, 0, 28, 28).data"
INK = f"[...{DRAWN}].filter((value, i) => i % 4 === 0)"


def test_a_drawn_digit_moves_with_the_others(tab):
    page = tab.page
    page.locator("#pad").scroll_into_view_if_needed()
    draw_a_one(page)
    tab.wait_for("document.querySelector('#truth strong').textContent.startsWith('?')")
    image = np.array(page.evaluate(INK)).reshape(28, 28)
    assert (image.max(1) > 128).sum() in range(16, 22)  # 20 px tall, as MNIST's digits are
    page.select_option("#meaning", "1")
    tab.wait_for("document.querySelector('#truth strong').textContent.startsWith('1')")
    tab.wait_for("/d=0.1(~|%7E)/.test(location.hash)")
    page.check("#places input[value='1']")
    page.click("#picks button >> nth=7")
    tab.wait_for("document.querySelector('#truth strong').textContent === '1 7'")


def test_a_finger_draws_too(open_tab):
    tab = open_tab("#s=7", viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    tab.stream()
    page = tab.page
    page.locator("#pad").scroll_into_view_if_needed()
    session = tab.context.new_cdp_session(page)

    def touch(kind, *points):
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": x, "y": y} for x, y in points]})

    page.wait_for_timeout(300)  # until it has scrolled
    box = page.locator("#pad").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + 20
    scrolled = page.evaluate("scrollY")
    touch("touchStart", (x, y))
    for k in range(1, 8):
        touch("touchMove", (x, y + 15 * k))
    touch("touchEnd")
    tab.wait_for("document.querySelector('#truth strong').textContent.startsWith('?')")
    assert page.evaluate("scrollY") == scrolled


def test_keys_draw_too(tab):
    page = tab.page
    page.focus("#pad")
    for key in ["ArrowUp"] * 6 + ["Space"] + ["ArrowDown"] * 14 + ["Enter"]:
        page.keyboard.press(key)
    tab.wait_for("document.querySelector('#truth strong').textContent.startsWith('?')")
    image = np.array(page.evaluate(INK)).reshape(28, 28)
    assert (image.max(1) > 128).sum() in range(16, 22)
    assert (image.max(0) > 128).sum() < 6


# --- Links


def test_a_link_opens_the_same_stream(open_tab):
    # Who wants less motion sees the first frame stand still: the same in both.
    first = open_tab("#s=11&n=3&z=20", reduced_motion="reduce")
    first.stream(0)
    first.page.locator("#pad").scroll_into_view_if_needed()
    draw_a_one(first.page)
    first.wait_for("document.querySelector('#truth strong')?.textContent.startsWith('?')")
    first.page.click("#link")
    first.wait_for("location.hash.includes('d=')")
    fragment = first.page.evaluate("location.hash")
    first.page.reload()
    second = open_tab(fragment, reduced_motion="reduce")
    pictures = []
    for opened in (first, second):
        opened.wait_for("document.querySelector('#truth strong')?.textContent.startsWith('?')")
        assert opened.page.inner_text("#pause") == "Play"
        assert opened.number() == 1
        pictures.append(opened.picture(1))
    assert pictures[0] == pictures[1]
    assert fragment == second.page.evaluate("location.hash")


def test_a_broken_link_opens_a_stream_all_the_same(tab):
    for fragment in ("#s=x&n=99&r=&a=1e9&d=0.~!!&d=9.9&d=0.7~AAAA", "#%%%", "#d=0.~_w", "#s=-1&f=0"):
        tab.page.evaluate(f"location.hash = {fragment!r}")
        tab.page.reload()
        tab.stream(2)
        assert tab.page.is_hidden("#notice")


def test_reload_keeps_what_was_set(tab):
    tab.slide("num_digits", 4)
    tab.wait_for("location.hash.includes('n=4')")
    tab.page.reload()
    tab.stream()
    assert tab.page.input_value("#set-num_digits") == "4"
    assert len(tab.shown()) == 4


# --- Camera and video


@pytest.fixture(scope="module")
def clip():
    stream = DigitStream(digits.load("strokes", "test"), StreamSettings(num_digits=1, max_angle_deg=20), seed=2)
    frames = [stream.next_frame() for _ in range(30)]
    return torch.stack([frame for frame, _ in frames]), int(frames[0][1].digit[0])


@pytest.fixture
def webcam(playwright, live, clip, tmp_path):
    """Open a page in a browser whose camera sees a clip on paper."""
    live.wait_for_pages(0, seconds=30)
    frames, _ = clip
    paper = (215 - frames.float() * (180 / 255)).to(torch.uint8)
    large = torch.nn.functional.interpolate(paper.float(), scale_factor=5, mode="bilinear").to(torch.uint8)
    sides = torch.full((len(large), 1, 320, 60), 215, dtype=torch.uint8)
    write_y4m(tmp_path / "camera.y4m", torch.cat((sides, large, sides), -1))
    browser = with_camera(playwright, tmp_path / "camera.y4m")
    yield Tab(browser, f"{live.address}/#s=7", permissions=["camera"])
    browser.close()
    live.wait_for_pages(0, seconds=30)


def test_a_webcam_is_classified(webcam, clip):
    webcam.stream()
    webcam.page.locator("label", has_text="Webcam").click()
    webcam.wait_for("document.getElementById('truth').textContent === ''")
    webcam.stream(20)
    said = []
    for _ in range(6):
        webcam.stream(3)
        said += webcam.page.locator(".verdict").all_inner_texts()
    assert said.count(str(clip[1])) > len(said) / 2, said
    # Light on dark, what was dark on light.
    corner = "document.querySelector('.view canvas').getContext('2d').getImageData(40, 40, 1, 1).data"
    assert max(webcam.page.evaluate(f"[...{corner}]")[:3]) < 60
    webcam.page.locator("label", has_text="Digits").first.click()
    webcam.wait_for("document.querySelector('#truth strong')")
    assert webcam.page.evaluate("document.getElementById('preview').srcObject") is None
    assert webcam.faults == []


def test_without_a_camera_the_page_says_so_and_goes_on(tab):
    tab.page.locator("label", has_text="Webcam").click()
    tab.page.wait_for_selector("#notice:visible")
    assert "amera" in tab.page.inner_text("#notice")
    assert tab.page.is_checked("[name=source][value=digits]")
    tab.stream()


def test_videos_good_broken_and_too_large(tab, clip, tmp_path):
    page = tab.page
    video_writing.write_mp4(tmp_path / "good.mp4", clip[0], fps=20)
    (tmp_path / "<b>broken.mp4").write_bytes((tmp_path / "good.mp4").read_bytes()[:300])
    with (tmp_path / "large.mp4").open("wb") as large:
        large.truncate(65 << 20)
    page.locator("label", has_text="Video").first.click()
    for name, told in [
        ("<b>broken.mp4", "<b>broken.mp4: the file"),
        ("large.mp4", "larger than 64 MB"),
        ("good.mp4", "good.mp4: 30 frames, seen as 64x64 px at 20/s"),
    ]:
        page.set_input_files("#file", tmp_path / name)
        tab.wait_for(f"document.getElementById('video-state').textContent.includes({told!r})")
        tab.faults = [fault for fault in tab.faults if "422" not in fault]  # Chromium tells of refused requests
    tab.wait_for("document.getElementById('truth').textContent.startsWith('frame')")
    tab.wait_for("document.getElementById('pause').textContent === 'Play'")  # at its end
    assert page.inner_text("#truth") == "frame 30"
    page.locator("#position").fill("12")
    tab.wait_for("document.getElementById('truth').textContent === 'frame 12'")
    assert page.inner_text("#pause") == "Play"
    page.click("#pause")
    tab.wait_for("document.getElementById('position-told').textContent === '30'")
    tab.wait_for("document.getElementById('pause').textContent === 'Play'")
    page.click("#pause")
    tab.wait_for("/^frame \\d$/.test(document.getElementById('truth').textContent)")
    page.locator("label", has_text="Digits").first.click()
    tab.wait_for("document.querySelector('#truth strong')")
    page.click("#pause")
    page.locator("label", has_text="Video").first.click()
    tab.wait_for("document.getElementById('truth').textContent.startsWith('frame')")
    page.locator("#position").fill("7")
    tab.wait_for("document.getElementById('truth').textContent === 'frame 7'")
    page.click("#back")
    tab.wait_for("document.getElementById('position-told').textContent !== '7'")
    assert page.is_hidden("#notice")


def test_a_video_may_be_dropped_on_the_page(tab):
    tab.page.evaluate(
        """() => {
          const transfer = new DataTransfer();
          transfer.items.add(new File([new Uint8Array(65 << 20)], "clip.gif"));
          for (const type of ["dragover", "drop"]) {
            document.dispatchEvent(new DragEvent(type, { dataTransfer: transfer, bubbles: true, cancelable: true }));
          }
        }"""
    )
    tab.wait_for("document.getElementById('video-state').textContent.includes('clip.gif: the file is larger')")
    assert tab.page.is_checked("[name=source][value=video]")


# --- Several pages, and servers that come and go


def test_two_pages_at_once_and_a_third_that_waits_for_its_turn(open_tab):
    first, second = open_tab("#s=1"), open_tab("#s=2&n=3")
    first.stream()
    second.stream()
    assert (len(first.shown()), len(second.shown())) == (2, 3)
    third = open_tab("#s=3")
    third.page.wait_for_selector("#notice:visible")
    assert "all 2 places are taken" in third.page.inner_text("#notice")
    first.stream()
    second.stream()
    first.context.close()
    third.stream()
    assert third.page.is_hidden("#notice")


def test_the_page_waits_for_the_models_and_comes_back_when_the_server_does(browser, make_server, untrained):
    first = make_server("--port", 0, "--model", untrained[0])
    tab = Tab(browser, f"{first.address}/#s=7&n=4")
    # There is something to see before the models are loaded.
    assert tab.page.inner_text("#models") == "Loading models …"
    assert tab.page.evaluate("performance.getEntriesByName('first-contentful-paint').length") == 1
    tab.stream()
    assert first.interrupt() == 0
    tab.wait_for("document.getElementById('rate').textContent.includes('no connection')")
    make_server("--port", first.address.rpartition(":")[2], "--model", untrained[0], untrained[2])
    tab.wait_for("document.querySelectorAll('.card').length === 2")
    tab.stream()
    assert len(tab.shown()) == 4
    tab.context.close()


# --- For everyone


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_fault(open_tab, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    tab = open_tab("#s=7", color_scheme=scheme)
    tab.stream()
    tab.page.click("#pause")
    for width, source in ((1280, "Digits"), (1280, "Video"), (390, "Digits")):
        tab.page.set_viewport_size({"width": width, "height": 850})
        tab.page.locator("label", has_text=source).first.click()
        found = axe.run(tab.page).response["violations"]
        serious = [
            (fault["id"], [node["html"] for node in fault["nodes"]])
            for fault in found
            if fault["impact"] in ("serious", "critical")
        ]
        assert serious == []


def test_nothing_sticks_out_at_the_side(open_tab):
    tab = open_tab("#s=7&n=5")
    for width in (320, 390, 768, 1024, 1440):
        tab.page.set_viewport_size({"width": width, "height": 800})
        tab.stream(2)
        assert tab.page.evaluate("document.scrollingElement.scrollWidth") <= width


def test_both_warnings_of_slowness_have_room(open_tab):
    tab = open_tab("#s=7", script=LEFT_OUT)
    both = "/server too slow.*browser too slow/.test(document.querySelector('#rate strong')?.textContent)"
    for width in (320, 390, 768, 1024, 1440):
        tab.page.set_viewport_size({"width": width, "height": 800})
        tab.wait_for(both)
        tab.page.click("#pause")
        top = tab.page.evaluate("document.querySelector('main').offsetTop")
        assert tab.page.evaluate("document.scrollingElement.scrollWidth") <= width
        tab.page.evaluate("document.getElementById('rate').textContent = '25 frames/s'")
        assert tab.page.evaluate("document.querySelector('main').offsetTop") == top
        tab.page.click("#pause")


def test_nothing_jumps_while_frames_come(open_tab):
    tab = open_tab("#s=7")
    tab.stream()
    for width in (1280, 390):
        tab.page.set_viewport_size({"width": width, "height": 800})
        places = set()
        for num in (1, 2, 5):  # sure, less sure, hardly ever sure
            tab.slide("num_digits", num)
            for _ in range(4):
                tab.stream(2)
                places.add(tab.page.evaluate("document.querySelector('.player').offsetTop"))
        assert len(places) == 1


def test_what_is_said_to_those_who_do_not_see_is_said_once_it_matters(tab):
    said = tab.page.inner_text("#announce")
    time.sleep(1)
    assert tab.page.inner_text("#announce") == said  # no chatter while frames come
    tab.page.click("#pause")
    text = tab.page.text_content("#announce")
    assert re.match(r"Frame \d+\. LeNet-LSTM: .+\. STN-LSTM: .+\. DCN-LSTM: ", text)
    assert "percent" in tab.page.get_attribute(".card .bars", "aria-label")


def test_nothing_is_asked_of_another_machine(browser, live: Server):
    live.wait_for_pages(0, seconds=30)
    asked = []
    context = browser.new_context()
    page = context.new_page()
    page.on("request", lambda request: asked.append(request.url))
    page.goto(live.address)
    page.wait_for_selector(".card", timeout=WAIT_MS)
    context.close()
    assert len(asked) > 5
    assert all(url.startswith((live.address, "data:")) for url in asked)
