"""Who may talk to the server, and below which path."""

import asyncio

import pytest

from saccade.serve.address import own_names, parse_name
from saccade.serve.guard import SECURITY_HEADERS, Below, Guard


def ask(app, headers, kind="http", path="/"):
    """Give a request to an application; return what it sends."""
    sent = []

    async def send(message):
        sent.append(message)

    async def receive():
        return {"type": "http.request", "body": b""}

    scope = {"type": kind, "method": "GET", "path": path, "headers": [(k.encode(), v.encode()) for k, v in headers]}
    scope["extensions"] = {"websocket.http.response": {}}
    asyncio.run(app(scope, receive, send))
    return sent


async def behind(scope, receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": scope["path"].encode()})
    else:
        await send({"type": "websocket.accept"})


def status(guard, host, origin=None, kind="http"):
    """Return the status of the answer; 200 for a WebSocket that is accepted."""
    headers = [("host", host)] + ([("origin", origin)] if origin is not None else [])
    return ask(guard, headers, kind)[0].get("status", 200)


def refusal(guard, host, origin=None):
    headers = [("host", host)] + ([("origin", origin)] if origin is not None else [])
    return ask(guard, headers)[1]["body"].decode()


GUARD = Guard(behind, [*own_names("127.0.0.1"), parse_name("lab-pc")])
OURS = ["127.0.0.1:8000", "localhost:8000", "LOCALHOST", "localhost.", "[::1]:8000", "192.168.1.7:8000", "Lab-PC"]
FOREIGN = [
    "evil.example", "evil.example:8000", "127.0.0.1.evil.example", "localhost.evil.example", "", "[", "a b",
    "evil.example@localhost", "localhost:8000@evil.example", "localhost:80:80", "localhost:99999", "localhost..",
    "localhost/", "localhost\\", "[localhost]",
]  # fmt: skip


@pytest.mark.parametrize("kind", ["http", "websocket"])
@pytest.mark.parametrize("host", OURS)
def test_its_own_names_are_let_in(host, kind):
    assert status(GUARD, host, kind=kind) == 200
    assert status(GUARD, host, f"http://{host}", kind) == 200


@pytest.mark.parametrize("kind", ["http", "websocket"])
@pytest.mark.parametrize("host", FOREIGN)
def test_a_name_that_is_not_ours_is_refused(host, kind):
    assert status(GUARD, host, kind=kind) == 403


@pytest.mark.parametrize("kind", ["http", "websocket"])
@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://127.0.0.1:9000", "http://localhost:8000", "http://[", ""]
)
def test_a_page_of_another_origin_is_refused(origin, kind):
    assert status(GUARD, "127.0.0.1:8000", origin, kind) == 403


# --- Names of a proxy in front


PROXIED = Guard(behind, own_names("127.0.0.1"), [parse_name("lab.example"), parse_name("cam.example:8443")])


@pytest.mark.parametrize("kind", ["http", "websocket"])
@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("lab.example", "https://lab.example"),
        ("LAB.example.:9000", "https://lab.example.:9000"),
        ("cam.example:8443", "https://cam.example:8443"),
        # Proxies that put another name, or the name without its port, in the place of the page's own.
        ("127.0.0.1:8000", "https://lab.example"),
        ("127.0.0.1:8000", "https://cam.example:8443"),
        ("lab.example", "https://lab.example:8443"),
    ],
)
def test_names_that_are_allowed_are_let_in(host, origin, kind):
    assert status(PROXIED, host, kind=kind) == 200
    assert status(PROXIED, host, origin, kind) == 200


@pytest.mark.parametrize("kind", ["http", "websocket"])
@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("sub.lab.example", None),
        ("lab.example.evil.example", None),
        ("cam.example", None),
        ("cam.example:9000", None),
        ("lab.example", "https://evil.example"),
        ("lab.example", "https://lab.example@evil.example"),
        ("lab.example", "null"),
        ("127.0.0.1:8000", "https://cam.example:9000"),
        ("127.0.0.1:8000", "http://localhost:8000"),
        ("127.0.0.1:8000", "file://lab.example"),
    ],
)
def test_others_are_refused_as_before(host, origin, kind):
    assert status(PROXIED, host, origin, kind) == 403


def test_a_standard_port_need_not_be_named():
    guard = Guard(behind, [], [parse_name("lab.example:443")])
    assert status(guard, "lab.example", "https://lab.example") == 200
    assert status(guard, "lab.example:444") == 403


@pytest.mark.parametrize("host", ["lab.example", "lab.example:8443", "Lab.Example:8443"])
def test_the_refusal_names_the_option_that_helps(host):
    told = refusal(GUARD, host)
    assert repr(host) in told
    option = told.split()[-1]
    assert told.split()[-2] == "--allow-host"
    assert status(Guard(behind, [], [parse_name(option)]), host, f"https://{host}") == 200
    told = refusal(GUARD, "127.0.0.1:8000", f"https://{host}")
    assert told.split()[-2:] == ["--allow-host", option]
    assert status(Guard(behind, [], [parse_name(option)]), "127.0.0.1:8000", f"https://{host}") == 200


def test_the_refusal_repeats_no_nonsense_as_an_option():
    assert refusal(GUARD, "; rm -rf ~").endswith("--allow-host NAME\n")
    assert refusal(GUARD, "localhost", "null").endswith("--allow-host NAME\n")


def test_every_answer_has_the_security_headers():
    for host, kind in (("localhost", "http"), ("evil.example", "http"), ("evil.example", "websocket")):
        sent = dict(ask(GUARD, [("host", host)], kind)[0]["headers"])
        for name, value in SECURITY_HEADERS.items():
            assert sent[name.lower().encode()] == value.encode()
    assert "unsafe" not in SECURITY_HEADERS["Content-Security-Policy"]


# --- Below a path


@pytest.mark.parametrize(
    ("path", "status", "seen"),
    [
        ("/demo/saccade/", 200, "/"),
        ("/demo/saccade/app.js", 200, "/app.js"),
        ("/demo/saccade//app.js", 200, "//app.js"),
        ("/", 404, None),
        ("/app.js", 404, None),
        ("/demo/", 404, None),
        ("/demo/saccades/", 404, None),
        ("//demo/saccade/", 404, None),
        ("/demo/../demo/saccade/", 404, None),
        ("/Demo/Saccade/", 404, None),
    ],
)
def test_below_a_prefix_the_application_sees_the_rest_of_the_path(path, status, seen):
    start, body = ask(Below(behind, "/demo/saccade"), [], path=path)
    assert start["status"] == status
    assert body["body"].decode() == (seen or "there is no page at this address; open /demo/saccade/\n")


def test_without_its_last_slash_the_prefix_leads_to_the_page():
    start, _ = ask(Below(behind, "/demo/saccade"), [], path="/demo/saccade")
    assert start["status"] == 307
    assert dict(start["headers"])[b"location"] == b"saccade/"


def test_a_websocket_beside_the_prefix_is_refused():
    assert ask(Below(behind, "/saccade"), [], "websocket", "/api/stream")[0]["status"] == 404
    assert ask(Below(behind, "/saccade"), [], "websocket", "/saccade/api/stream")[0]["type"] == "websocket.accept"
