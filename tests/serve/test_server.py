"""A real server in a second process, and programs that talk to it as pages do, well and badly."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from websockets.exceptions import ConnectionClosed, InvalidStatus

from saccade.data import video_writing

from .talk import SETTINGS, Page

# --- Files and names


def test_the_page_and_all_that_it_asks_for_is_there(server):
    status, html, headers = server.get("/")
    assert status == 200
    assert headers["Content-Type"].startswith("text/html")
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "script-src 'self'" in headers["Content-Security-Policy"]
    text = html.decode()
    for part in ('style="', "onclick", "<style", "<script>", "http://", "https://"):
        assert part not in text
    for name in ("app.js", "app.css", "icon.svg", "overlay.js"):
        assert server.get(f"/{name}")[0] == 200


@pytest.mark.parametrize(
    "path",
    ["/..%2fserver.py", "/%2e%2e/server.py", "//etc/passwd", "/app.js/..", "/static/app.js", "/docs", "/\0", "/.env"],
)
def test_nothing_else_is(server, path):
    assert server.get(path.replace("\0", "%00"))[0] == 404


def test_a_foreign_name_or_page_gets_nothing(server):
    assert server.get("/", Host="evil.example")[0] == 403
    assert server.get("/", Origin="http://evil.example")[0] == 403
    assert server.post("/api/video/x", b"data", Origin="http://evil.example")[0] == 403
    with pytest.raises(InvalidStatus, match="403"), Page(server, origin="http://evil.example"):
        pass


# --- One page


def test_a_page_gets_frames_with_where_each_model_looks(page):
    hello = page.start()
    assert [model["kind"] for model in hello["models"]] == ["lenet-lstm", "stn-lstm", "dcn-lstm"]
    assert [model["attention"] for model in hello["models"]] == [None, "stn", "dcn"]
    assert hello["knows_digits"]
    assert hello["frame_format"] == {"channels": 1, "size": None, "fps": None}
    frames = page.frames(3)
    assert [frame["number"] for frame in frames] == [1, 2, 3]
    for frame in frames:
        assert len(frame["digits"]) == 2
        assert frame["models"].keys() == {"lenet-lstm", "stn-lstm", "dcn-lstm"}
        assert frame["models"]["stn-lstm"]["look"]["quad"]
        assert frame["models"]["dcn-lstm"]["look"]["points"]
        assert all(model["ms"] > 0 for model in frame["models"].values())


def test_the_server_waits_for_a_page_that_shows_nothing(page):
    page.start()
    assert [frame["number"] for frame in page.rest(2, see=False)] == [1, 2]
    page.say("seen", number=2)
    assert page.take_until("frame")["number"] == 3


def test_frames_that_a_page_had_no_time_for_are_counted_as_its_own(page):
    page.start()
    page.say("show", models=["lenet-lstm"], saliency=[], clean=True)
    before = page.rest(0.4, see=False)[-1]
    page.say("seen", number=before["number"])
    assert page.take_until("frame")["skipped"] - before["skipped"] >= 8  # of 25 a second


def test_frames_come_at_the_pace_that_is_set(page):
    page.start()
    page.say("show", models=["lenet-lstm"], saliency=[], clean=True)
    page.say("pace", fps=5)
    page.frames(3)
    begin = time.monotonic()
    page.frames(6)
    assert time.monotonic() - begin > 6 / 5 - 0.3


def test_pause_and_step(page):
    page.start()
    page.frames(2)
    page.say("pause", paused=True)
    page.say("step")
    last = page.rest(2, see=True)[-1]["number"]
    page.say("step")
    assert page.take_until("frame")["number"] == last + 1


def test_wrong_messages_are_answered_and_after_a_few_the_server_hangs_up(page):
    page.start()
    page.say("pause", paused=True)
    page.rest(1, see=False)
    for _ in range(5):
        page.socket.send("{not JSON")
        assert "message not understood" in page.take_until("error")["message"]
    assert "invalid messages" in page.take_until("closed")["message"]
    with pytest.raises(ConnectionClosed) as closed:
        page.take()
    assert closed.value.rcvd.code == 1008


def test_too_many_messages_end_the_connection(page):
    page.start()

    def flood():
        for _ in range(2000):
            page.say("seen", number=0)
        while True:
            page.take()

    with pytest.raises(ConnectionClosed) as closed:
        flood()
    assert closed.value.rcvd.code == 1008


def test_a_message_that_is_too_long_ends_the_connection(page):
    page.start()
    page.socket.send(" " * (1 << 19))
    with pytest.raises(ConnectionClosed) as closed:
        page.frames(50)
    assert closed.value.rcvd.code == 1009


def test_closing_the_page_gives_its_place_back(server):
    server.wait_for_pages(0)
    for _ in range(8):  # more than there are places
        with Page(server) as page:
            page.start()
            page.frames(1)
        server.wait_for_pages(0)


def test_a_page_that_breaks_off_gives_its_place_back(server):
    server.wait_for_pages(0)
    with Page(server) as page:
        page.start()
        page.frames(1)
        page.socket.socket.shutdown(socket.SHUT_RDWR)
        server.wait_for_pages(0)


# --- Videos


@pytest.fixture(scope="module")
def mp4(tmp_path_factory):
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    frames = torch.randint(0, 256, (8, 1, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    video_writing.write_mp4(path, frames, fps=20)
    return path.read_bytes()


def test_an_uploaded_video_plays_on_its_page(server, page, mp4):
    token = page.start()["token"]
    page.frames(1)
    with ThreadPoolExecutor(1) as sender:
        sent = sender.submit(server.post, f"/api/video/{token}", mp4)
        # Digits move on until the video is decoded, and the video waits for its first frame to be seen.
        while not sent.done():
            shown = page.take_until("frame")
    status, body, _ = sent.result()
    assert status == 200
    assert json.loads(body) == {"frames": 8, "size": [64, 64], "fps": 20.0, "warning": None}
    while shown["source"] == "digits":
        shown = page.take_until("frame")
    positions = [shown["position"]]
    while (message := page.take())["type"] == "frame":
        positions.append(message["position"])
        page.say("seen", number=message["number"])
    assert message == {"type": "ended", "events": {}, "problem": None}
    assert positions == sorted(set(positions))
    assert positions[-1] == 7


def test_what_is_no_video_is_told_and_the_page_goes_on(server, page):
    token = page.start()["token"]
    for data, told in [(b"no video", "cannot be read as a video"), (b"", "1 byte")]:
        status, body, _ = server.post(f"/api/video/{token}", data)
        assert status in (413, 422)
        assert told in json.loads(body)["message"]
    page.frames(2)


def test_a_video_that_is_too_large_is_refused_before_it_is_read(server, page):
    token = page.start()["token"]
    host, port = server.address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as raw:
        head = f"POST /api/video/{token} HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Length: {100 << 20}\r\n\r\n"
        raw.sendall(head.encode() + b"only the beginning")
        assert raw.recv(1000).startswith(b"HTTP/1.1 413")
    page.frames(2)


def test_a_video_for_nobody_is_refused(server, mp4):
    status, body, _ = server.post("/api/video/guessed", mp4)
    assert status == 409
    assert "not connected" in json.loads(body)["message"]


# --- Fuzz


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.binary(max_size=300)
        | st.text(max_size=300)
        | st.sampled_from(
            ["start", "settings", "pace", "pause", "step", "seek", "source", "show", "draw", "pick"]
        ).flatmap(
            lambda kind: st.dictionaries(
                st.sampled_from(["seed", "settings", "fps", "paused", "frame", "kind", "models", "strokes", "slot"]),
                st.integers()
                | st.text(max_size=5)
                | st.booleans()
                | st.just(SETTINGS)
                | st.lists(st.integers(), max_size=3),
                max_size=4,
            ).map(lambda fields: json.dumps({"type": kind, **fields}))
        ),
        max_size=10,
    )
)
def test_nothing_that_is_sent_brings_the_server_down(server, sent):
    with Page(server) as page:
        page.take_until("hello")
        try:
            for message in sent:
                page.socket.send(message)
        except ConnectionClosed:
            pass
    assert server.process.poll() is None
    server.wait_for_pages(0)


@settings(max_examples=15, deadline=None)
@given(st.binary(min_size=1, max_size=400))
def test_bytes_that_are_no_http_do_not_bring_the_server_down(server, sent):
    host, port = server.address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=5) as raw:
        raw.sendall(sent)
    assert server.status()["ready"]


def test_after_all_that_a_page_is_served_as_before(server, page):
    page.start()
    page.frames(3)
    assert "Traceback" not in server.log.read_text()


# --- Many pages


def rate(server, seconds, number, results):
    """Watch for some seconds; note the frames a second, or that the server was busy."""
    with Page(server) as page:
        if page.take()["type"] == "busy":
            results[number] = "busy"
            return
        page.start()
        page.say("show", models=["lenet-lstm"], saliency=[], clean=True)
        page.say("pace", fps=10)
        page.frames(5)
        begin, frames = time.monotonic(), 0
        while time.monotonic() - begin < seconds:
            page.take_until("frame")
            frames += 1
        results[number] = frames / seconds


def watch(server, pages, seconds):
    results = {}
    threads = [threading.Thread(target=rate, args=(server, seconds, k, results)) for k in range(pages)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return list(results.values())


def test_beyond_the_limit_pages_are_told_that_the_server_is_busy(server):
    server.wait_for_pages(0)
    results = watch(server, pages=12, seconds=1.5)
    served = [result for result in results if result != "busy"]
    assert len(results) == 12
    assert len(served) == 3
    server.wait_for_pages(0)


@pytest.mark.slow
def test_of_fifty_pages_those_within_the_limit_keep_their_rate(server):
    server.wait_for_pages(0)
    alone = [result for result in watch(server, pages=3, seconds=5) if result != "busy"]
    server.wait_for_pages(0)
    crowded = [result for result in watch(server, pages=50, seconds=5) if result != "busy"]
    assert len(alone) == len(crowded) == 3
    assert min(crowded) > 0.7 * min(alone)


@pytest.mark.slow
def test_the_servers_memory_is_flat_over_ten_thousand_frames(make_server, untrained):
    made = make_server("--port", 0, "--model", untrained[0])
    made.wait_until_ready()

    def resident_mb():
        statm = Path(f"/proc/{made.process.pid}/statm")
        return int(statm.read_text().split()[1]) * 4096 / 1e6

    with Page(made) as page:
        page.start()
        page.say("pace", fps=60)
        page.frames(500)
        before = resident_mb()
        for _ in range(20):
            page.frames(500)
        assert resident_mb() - before < 4


# --- Beginning and end


def test_it_is_there_before_its_models_are_and_ctrl_c_ends_it_cleanly(make_server, untrained):
    made = make_server("--port", 0, "--model", *untrained)
    assert made.get("/")[0] == 200
    with Page(made) as page:
        assert page.take()["type"] == "loading"
        page.start()
        page.frames(2)
        assert made.interrupt() == 0
        with pytest.raises(ConnectionClosed):
            page.frames(100)
    log = made.log.read_text()
    assert log.endswith("ended\n")
    assert "Traceback" not in log
    assert "Error" not in log


def fails(*words):
    command = [sys.executable, "-m", "saccade.cli", "serve", *map(str, words)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    return ended.returncode, ended.stderr.strip().splitlines()


def test_a_port_that_is_taken_is_told_in_a_line_with_another(server):
    port = int(server.address.rpartition(":")[2])
    status, lines = fails("--port", port)
    assert status == 2
    assert lines == [f"saccade: port {port} of 127.0.0.1 is in use; free it, or choose another: --port {port + 1}"]


def test_models_that_cannot_watch_the_same_frames_are_refused_before_there_is_a_page(untrained, own_models):
    status, lines = fails("--port", 0, "--model", untrained[0], own_models[0])
    assert status == 2
    assert len(lines) == 1
    assert "saccade: lenet-lstm knows digits and stn-lstm does not: they cannot watch the same frames" in lines[0]


def test_digits_for_models_that_know_none_are_refused(own_models):
    status, lines = fails("--port", 0, "--model", own_models[0], "--digits", "uci")
    assert status == 2
    assert lines[-1] == "saccade: stn-lstm knows no digits; leave out --digits and --digits-dir"


@pytest.mark.parametrize(
    ("words", "status", "told"),
    [
        (["--model", "no/such/run"], 1, "no checkpoint at no/such/run"),
        (["--host", "203.0.113.7", "--port", "0"], 2, "cannot listen on 203.0.113.7"),
        (["--port", "70000"], 2, "0 to 65535"),
        (["--max-clients", "0"], 2, "at least 1"),
        (["--min-confidence", "2"], 2, "0 to 1"),
    ],
)
def test_a_wrong_call_is_told_in_a_line(words, status, told):
    ended, lines = fails(*words)
    assert ended == status
    assert told in lines[-1]
    assert len(lines) == 1


def test_a_checkpoint_that_is_none_ends_the_server_with_a_line(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"nothing")
    status, lines = fails("--port", 0, "--model", tmp_path / "model.safetensors")
    assert status == 1
    assert "is not a complete safetensors file" in lines[-1]
    assert lines[-1].startswith("saccade: ")


def test_without_the_extra_it_says_what_to_install(tmp_path):
    (tmp_path / "fastapi.py").write_text("raise ModuleNotFoundError('No module named fastapi', name='fastapi')")
    script = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from saccade.cli import main; sys.exit(main(['serve']))"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert ended.stderr == "saccade: fastapi is not installed; get it with: pip install 'saccade[serve]'\n"
