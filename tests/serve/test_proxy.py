"""The page in a real browser behind a proxy with TLS, under another name and below a path."""

from __future__ import annotations

import http.client
import ssl

import pytest
import torch

from saccade.data import video_writing

from .proxy import Proxy, make_certificate
from .tab import WAIT_MS, Tab, with_camera, write_y4m

NAME, PREFIX = "lab.example", "/demo/saccade"
# How a proxy hands requests on: as they come, or as if they were made to the server itself.
AS_IT_CAME = {"keeps_prefix": True, "keeps_host": True}
AS_ITS_OWN = {"keeps_prefix": False, "keeps_host": False}


@pytest.fixture(scope="module")
def tls(tmp_path_factory):
    return make_certificate(tmp_path_factory.mktemp("tls"), NAME)


@pytest.fixture(scope="module")
def behind(make_server, untrained, tls):
    """Start a server with options and a proxy in front of it."""
    started = []

    def start(*options, port=0, **how):
        server = make_server("--port", port, "--model", untrained[0], *options)
        server.wait_until_ready()
        started.append(Proxy(server.netloc, tls, prefix=PREFIX, **how).__enter__())
        return server, started[-1]

    yield start
    for proxy in started:
        proxy.__exit__()


@pytest.fixture(scope="module")
def browser(playwright, tmp_path_factory):
    """Start a browser that finds the name on this machine, and whose camera sees a white wall."""
    path = tmp_path_factory.mktemp("camera") / "camera.y4m"
    write_y4m(path, torch.full((10, 1, 240, 320), 235, dtype=torch.uint8))
    launched = with_camera(playwright, path, f"--host-resolver-rules=MAP {NAME} 127.0.0.1")
    yield launched
    launched.close()


def ask(proxy, path, **headers):
    """Ask a proxy for a path as a program does; return the status, where it leads, and the body."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    connection = http.client.HTTPSConnection("127.0.0.1", proxy.port, context=context, timeout=30)
    connection.request("GET", path, headers={"Host": f"{NAME}:{proxy.port}"} | headers)
    answer = connection.getresponse()
    found = answer.status, answer.headers.get("Location"), answer.read().decode("utf-8", "replace")
    connection.close()
    return found


@pytest.mark.parametrize(
    ("options", "how"),
    [
        (["--allow-host", NAME, "--path-prefix", PREFIX], AS_IT_CAME),
        (["--allow-host", NAME], AS_ITS_OWN),
        (["--allow-host", "other.example", "--allow-host", NAME], {"keeps_prefix": False, "keeps_host": True}),
    ],
    ids=["as it came", "as its own", "without the prefix"],
)
def test_the_page_its_camera_and_its_videos_work(behind, browser, options, how, tmp_path):
    server, proxy = behind(*options, **how)
    tab = Tab(browser, f"https://{NAME}:{proxy.port}{PREFIX}/", ignore_https_errors=True, permissions=["camera"])
    tab.stream()
    assert tab.page.evaluate("isSecureContext")
    tab.page.locator("label", has_text="Webcam").click()
    tab.wait_for("document.getElementById('truth').textContent === ''")
    tab.stream(5)
    assert tab.page.is_hidden("#notice")
    video_writing.write_mp4(tmp_path / "clip.mp4", torch.zeros(10, 1, 64, 64, dtype=torch.uint8), fps=20)
    tab.page.locator("label", has_text="Video").first.click()
    tab.page.set_input_files("#file", tmp_path / "clip.mp4")
    tab.wait_for("document.getElementById('video-state').textContent.includes('10 frames')")
    tab.wait_for("document.getElementById('truth').textContent === 'frame 10'")
    tab.context.close()
    assert tab.faults == []
    server.wait_for_pages(0, seconds=30)


def test_a_page_that_is_refused_says_which_option_lets_it_in(behind, browser):
    server, proxy = behind(**AS_ITS_OWN)
    tab = Tab(browser, f"https://{NAME}:{proxy.port}{PREFIX}/", ignore_https_errors=True)
    tab.page.wait_for_selector("#notice:visible")
    told = tab.page.inner_text("#notice")
    assert told.endswith(f"start the server with --allow-host {NAME}:{proxy.port}")
    assert "Loading" not in tab.text()
    assert server.interrupt() == 0
    behind("--allow-host", told.split()[-1], port=server.port, **AS_ITS_OWN)
    tab.page.reload()
    tab.stream()
    assert tab.page.is_hidden("#notice")
    tab.context.close()


def test_a_websocket_that_is_refused_says_so_too(behind, browser):
    # As in browsers that do not name the origin of a page's own scripts.
    server, proxy = behind(**AS_ITS_OWN)
    context = browser.new_context(ignore_https_errors=True)

    def without_origin(route):
        status, body, _ = server.get(f"/{route.request.url.rpartition('/')[2]}")
        route.fulfill(status=status, body=body, content_type="text/javascript")

    context.route("**/*.js", without_origin)
    page = context.new_page()
    page.goto(f"https://{NAME}:{proxy.port}{PREFIX}/")
    page.wait_for_selector("#notice:visible", timeout=WAIT_MS)
    assert page.inner_text("#notice").endswith(f"start the server with --allow-host {NAME}:{proxy.port}")
    assert "no connection" in page.inner_text("#rate")
    context.close()


def test_a_name_that_is_refused_is_told_with_the_option_that_lets_it_in(behind):
    _, proxy = behind("--path-prefix", PREFIX, **AS_IT_CAME)
    status, _, told = ask(proxy, f"{PREFIX}/")
    assert status == 403
    assert told == (
        f"host name '{NAME}:{proxy.port}' is not accepted; use an IP address, or start the server with "
        f"--allow-host {NAME}:{proxy.port}\n"
    )


def test_below_a_prefix_nothing_lies_elsewhere(behind):
    server, proxy = behind("--path-prefix", PREFIX, "--allow-host", NAME, **AS_IT_CAME)
    assert server.address.endswith(PREFIX)  # the line that names it
    assert ask(proxy, PREFIX)[:2] == (307, "saccade/")
    assert ask(proxy, f"{PREFIX}/app.js")[0] == 200
    for path in ("/", "/app.js", "/api/status", f"/{PREFIX}/", f"{PREFIX}//app.js", f"{PREFIX}/../app.js", "/demo"):
        assert ask(proxy, path)[0] == 404, path
    assert ask(proxy, f"{PREFIX}/", Origin="https://evil.example")[0] == 403
    assert ask(proxy, f"{PREFIX}/", Host="evil.example")[0] == 403
