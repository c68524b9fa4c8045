import asyncio

import pytest

from saccade.serve.guard import SECURITY_HEADERS, Guard, own_names


def ask(guard, headers, kind="http"):
    """Give a request to a guard; return what it sends."""
    sent = []

    async def send(message):
        sent.append(message)

    async def receive():
        return {"type": "http.request", "body": b""}

    scope = {"type": kind, "method": "GET", "path": "/", "headers": [(k.encode(), v.encode()) for k, v in headers]}
    asyncio.run(guard(scope, receive, send))
    return sent


async def behind(scope, receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"in"})
    else:
        await send({"type": "websocket.accept"})


GUARD = Guard(behind, {"lab-pc"})
OURS = ["127.0.0.1:8000", "localhost:8000", "LOCALHOST", "[::1]:8000", "192.168.1.7:8000", "lab-pc:8000", "Lab-PC"]
FOREIGN = ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "localhost.evil.example", "", "[", "a b"]


@pytest.mark.parametrize("kind", ["http", "websocket"])
@pytest.mark.parametrize("host", OURS)
def test_its_own_names_are_let_in(host, kind):
    assert ask(GUARD, [("host", host)], kind)[0].get("status", "accept") in (200, "accept")
    assert ask(GUARD, [("host", host), ("origin", f"http://{host}")], kind)[0]["type"] != "websocket.close"


@pytest.mark.parametrize("host", FOREIGN)
def test_a_name_that_is_not_ours_is_refused(host):
    assert ask(GUARD, [("host", host)])[0]["status"] == 403
    assert ask(GUARD, [("host", host)], "websocket")[0]["type"] == "websocket.close"


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://127.0.0.1:9000", "http://localhost:8000", ""]
)
def test_a_page_of_another_origin_is_refused(origin):
    headers = [("host", "127.0.0.1:8000"), ("origin", origin)]
    assert ask(GUARD, headers)[0]["status"] == 403
    assert ask(GUARD, headers, "websocket")[0]["type"] == "websocket.close"


def test_every_answer_has_the_security_headers():
    for host in ("localhost", "evil.example"):
        sent = dict(ask(GUARD, [("host", host)])[0]["headers"])
        for name, value in SECURITY_HEADERS.items():
            assert sent[name.lower().encode()] == value.encode()
    assert "unsafe" not in SECURITY_HEADERS["Content-Security-Policy"]


def test_a_server_beyond_loopback_knows_the_name_of_its_machine(monkeypatch):
    monkeypatch.setattr("socket.gethostname", lambda: "robot")
    assert own_names("0.0.0.0") == {"0.0.0.0", "robot", "robot.local"}
    assert own_names("::1") == {"::1"}
