"""Events on the page, of a camera, a video and the stream of the server, in a real browser."""

from __future__ import annotations

import csv
import io
import itertools
import json
import re

import pytest
import torch

from ..stream.sources import Rtsp
from .conftest import blinking
from .tab import Tab, with_camera, write_y4m

# Lets a test close the connection, and keeps what is said aloud.
SPY = """
const Original = WebSocket;
globalThis.sockets = [];
globalThis.WebSocket = class extends Original {
  constructor(...given) { super(...given); sockets.push(this); }
};
globalThis.said = [];
addEventListener("DOMContentLoaded", () => {
  const place = document.getElementById("events-said");
  new MutationObserver(() => said.push([performance.now(), place.textContent])).observe(place, { childList: true });
});
"""
ROWS = "[...document.querySelectorAll('.events-list tbody tr:not([hidden])')].map((row) => row.innerText)"
COLUMNS = ["event", "class", "start_s", "end_s", "peak_s", "peak_probability", "model"]


@pytest.fixture(scope="module")
def camera():
    """Start a camera that breaks off, comes back after some time, and then is gone."""

    class Returning(Rtsp):
        def serve(self, connection, number):
            self.is_closed.wait(2.5 * (number > 1))
            super().serve(connection, number)

    with Returning(20, stops_after={1: 25}, accepts=2) as started:
        yield started


@pytest.fixture(scope="module")
def live(make_server, noticing, camera):
    made = make_server("--port", 0, "--model", noticing, "--source", camera.url.replace("://", "://me:secret@"))
    made.wait_until_ready()
    return made


@pytest.fixture(scope="module")
def blinking_browser(playwright, tmp_path_factory):
    """Start a browser whose camera sees a lamp go on and off."""
    path = tmp_path_factory.mktemp("camera") / "camera.y4m"
    write_y4m(path, torch.nn.functional.interpolate(blinking(2, fps=20)[:, :1].float(), (240, 320)).to(torch.uint8))
    launched = with_camera(playwright, path)
    yield launched
    launched.close()


@pytest.fixture
def tab(blinking_browser, live):
    opened = Tab(blinking_browser, live.address, SPY, permissions=["camera"], accept_downloads=True)
    opened.messages = []
    opened.page.on("websocket", lambda socket: socket.on("framereceived", lambda text: opened.messages.append(text)))
    opened.page.reload()  # so that the first connection is heard too
    opened.page.wait_for_selector("#idle:visible")
    yield opened
    opened.context.close()
    live.wait_for_pages(0, seconds=30)
    assert opened.faults == []


def frames(tab):
    """Return the frames that the server has sent, without their pixels."""
    messages = [json.loads(text) for text in tab.messages]
    return [message for message in messages if message["type"] == "frame"]


def saved(tab):
    """Save the events; return the rows of the file."""
    with tab.page.expect_download() as download:
        tab.page.click("#events-save")
    assert download.value.suggested_filename == "events.csv"
    return list(csv.DictReader(io.StringIO(download.value.path().read_text(encoding="utf-8"))))


def in_words(row):
    """Return a row of the file as the page shows it."""
    end = f"{float(row['end_s']):.1f} s" if row["end_s"] else "now"
    return [row["class"], f"{float(row['start_s']):.1f} s", end, f"{round(100 * float(row['peak_probability']))} %"]


def serious_faults(tab):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    found = axe.run(tab.page).response["violations"]
    return [
        (fault["id"], [node["html"] for node in fault["nodes"]])
        for fault in found
        if fault["impact"] in ("serious", "critical")
    ]


def test_the_stream_is_watched_and_its_loss_told(tab, live):
    page = tab.page
    assert page.is_hidden("#events")
    assert page.locator(".tabs span:visible").all_inner_texts() == ["Webcam", "Video", "Stream"]
    page.click("#idle-stream")
    assert re.match(r"Opening rtsp://127.0.0.1:\d+/door", page.inner_text("#stream-state"))
    assert page.inner_text("#rate") == "opening the stream …"
    tab.stream()
    assert page.inner_text("#stream-state") == "Connected."
    tab.wait_for("document.getElementById('stream-state').textContent.endsWith('trying again for 600 s')")
    tab.wait_for("document.getElementById('rate').textContent.startsWith('no frames from the stream')")
    tab.wait_for("document.getElementById('stream-state').textContent.endsWith('sends frames again')")
    tab.wait_for("/frames.s/.test(document.getElementById('rate').textContent)")
    tab.wait_for(f"{ROWS}.length > 1")
    assert re.fullmatch(r"\d+\.\d s", page.inner_text("#truth"))
    assert "secret" not in page.content() + live.log.read_text()
    page.click("#pause")
    page.wait_for_timeout(300)  # until what was on its way has come
    shown = [text.split("\t") for text in page.evaluate(ROWS)]
    rows = saved(tab)
    assert list(rows[0]) == COLUMNS
    assert shown == [in_words(row) for row in reversed(rows)][:5]  # the newest first
    assert {(row["class"], row["model"]) for row in rows} == {("bright", "lenet-lstm")}
    for width in (1280, 360, 320):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.scrollingElement.scrollWidth") <= width
    assert serious_faults(tab) == []


def test_a_stream_that_is_gone_is_told_and_tried_again_by_hand(tab, live, camera):
    camera.__exit__()  # whatever ran before
    page = tab.page
    page.keyboard.press("Tab")
    page.focus("[name=source]:checked")
    page.keyboard.press("ArrowLeft")  # around to the last one
    assert page.is_checked("[name=source][value=stream]")
    for _ in range(2):
        page.wait_for_selector("#notice:visible")
        notice = page.inner_text("#notice")
        assert re.fullmatch(r"rtsp://127.0.0.1:\d+/door refuses connections; check host and port, .*", notice)
        assert notice == page.inner_text("#stream-state")
        assert notice in live.log.read_text()
        assert page.inner_text("#rate") == "no stream"
        assert page.inner_text("#pause") == "Play" or page.is_hidden("#pause")
        page.evaluate("document.getElementById('notice').hidden = true")
        page.click("#stream-again")
    page.locator("label", has_text="Webcam").first.click()
    tab.stream()
    assert page.is_hidden("#notice")


def test_a_webcam_has_events_at_the_rate_of_the_models(tab):
    page = tab.page
    page.click("#idle-camera")
    tab.wait_for(f"{ROWS}.some((text) => text.includes('now'))")
    row = page.locator(".events-list tr.on")
    assert row.count() == 1
    assert re.fullmatch(r"bright at \d+\.\d s", page.text_content("#events-said"))
    page.evaluate("{ const end = performance.now() + 700; while (performance.now() < end); }")  # the browser is busy
    tab.stream(12)
    given = frames(tab)
    first, last = given[0], given[-1]
    assert all(abs(10 * frame["time_s"] - round(10 * frame["time_s"])) < 0.1 for frame in given)
    left_out = sum(last[why] - first[why] for why in ("dropped", "skipped"))
    # Each period of the camera's time was seen or counted: what the browser left out was given again.
    assert round(10 * (last["time_s"] - first["time_s"])) == last["number"] - first["number"] + left_out

    count = len(page.evaluate(ROWS))
    page.evaluate("sockets.at(-1).close()")
    tab.wait_for("sockets.length > 1 && !document.getElementById('idle').hidden")
    tab.stream()
    rows = page.evaluate(ROWS)
    assert len(rows) >= min(count, 5)  # they outlive a lost connection
    assert sum("now" in text for text in rows) <= 1
    page.locator("label", has_text="Video").first.click()
    assert page.evaluate("document.getElementById('preview').srcObject") is None


# Gives a list of events what the server would send.
FEED = """
async (messages) => {
  const { Events } = await import("./events.js");
  const names = ["a", "b"];
  const events = new Events();
  events.begin(names.map((name) => ({ title: name.toUpperCase(), model: { name } })));
  for (const { pause, ...message } of messages) {
    events.take({ type: "frame", run: 1, ...message, events: { a: message.events ?? [], b: message.events ?? [] } });
    await new Promise((go) => setTimeout(go, pause ?? 0));
  }
  document.getElementById("events").hidden = false;
  document.querySelector(".stage").scrollIntoView();
}
"""


def event(name, start_s, end_s=None, peak=0.9):
    return {"class": name, "start_s": start_s, "end_s": end_s, "peak_s": start_s, "peak_probability": peak}


def test_a_video_that_goes_back_has_its_events_once(tab):
    first, lasts = event("first", 1.0, 1.5), event("second", 2.0)
    at = [(1.6, [first]), (2.0, [lasts]), (2.4, [lasts]), (1.7, [lasts | {"end_s": 2.4}]), (2.0, [lasts])]
    tab.page.evaluate(FEED, [{"source": "video", "time_s": time_s, "events": events} for time_s, events in at])
    rows = [(row["event"], row["class"]) for row in saved(tab) if row["model"] == "a"]
    assert rows == [("ended", "first"), ("begins", "second")]
    tab.page.evaluate(
        FEED, [{"source": "video", "time_s": 2.0, "events": [lasts]}, {"source": "camera", "time_s": 0.1}]
    )
    assert tab.page.locator(".events-list").first.inner_text().endswith("no events yet")


def test_events_are_said_once_a_second_and_saved_whole(tab):
    page = tab.page
    some = [event(f'wave, "{k}"', k, k + 0.5) for k in range(8)]
    page.evaluate(
        FEED, [{"source": "camera", "time_s": k, "events": [one], "pause": 150} for k, one in enumerate(some)]
    )
    tab.wait_for("said.length > 1 && said.at(-1)[1].includes('7')")
    said = page.evaluate("said")
    assert len(said) <= 4
    assert all(later - before > 950 for (before, _), (later, _) in itertools.pairwise(said))
    assert said[-1][1] == 'A: wave, "7" at 7.0 s. B: wave, "7" at 7.0 s'
    assert page.get_attribute("#events-said", "aria-live") == "polite"
    first, second = page.locator(".events-list").all()
    assert first.locator("tbody tr:visible").count() == second.locator("tbody tr:visible").count() == 5
    rows = saved(tab)
    assert len(rows) == 16
    assert [row["class"] for row in rows if row["model"] == "b"] == [f'wave, "{k}"' for k in range(8)]
