"""Who may talk to the server, and what every answer tells the browser."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

SECURITY_HEADERS: Mapping[str, str] = {
    # Everything comes from this server; no script or style stands in the page itself.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; media-src 'self' blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    # A newer version of the package must not meet an older page in the browser's store.
    "Cache-Control": "no-cache",
}


class Guard:
    """Answer only requests that name this server, and that come from its own page where a browser sends them.

    A foreign page can make a browser talk to a server on loopback in two ways. With a name of its own that suddenly
    means 127.0.0.1 (DNS rebinding), it would be found by the `Host` header; with a request across origins, by `Origin`.

    Args:
        app: what is guarded.
        names: host names besides `localhost` and plain addresses, which no foreign page can make its own.
    """

    def __init__(self, app: ASGIApp, names: Iterable[str] = ()) -> None:
        self._app = app
        self._names = {"localhost", *(name.lower() for name in names)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or refuse it."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        if (refusal := self._refusal(Headers(scope=scope))) is None:
            await self._app(scope, receive, _with_headers(send))
        elif scope["type"] == "http":
            await PlainTextResponse(refusal, 403)(scope, receive, _with_headers(send))
        else:
            await send({"type": "websocket.close", "code": 1008, "reason": refusal})

    def _refusal(self, headers: Headers) -> str | None:
        host = headers.get("host", "")
        if not _is_named(host, self._names):
            return f"this server is not called {host[:100]!r}; use its address, or start it with --host NAME"
        origin = headers.get("origin")
        # Programs send no origin; browsers cannot leave it out where it matters.
        if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
            return f"the page of {origin[:100]!r} may not talk to this server"
        return None


def own_names(host: str) -> set[str]:
    """Return the names under which a server that listens at `host` may be called, besides plain addresses.

    >>> own_names("127.0.0.1")
    {'127.0.0.1'}
    """
    if _is_loopback(host):
        return {host}
    own = socket.gethostname()
    return {host, own, f"{own}.local"}


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _is_named(host: str, names: set[str]) -> bool:
    try:
        name = urlsplit(f"//{host}").hostname or ""
        if name in names:
            return True
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers: Any = MutableHeaders(scope=message)
            for name, value in SECURITY_HEADERS.items():
                headers.setdefault(name, value)
        await send(message)

    return sending
