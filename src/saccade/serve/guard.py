"""Who may talk to the server, below which path, and what every answer tells the browser."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from saccade.errors import UsageError
from saccade.serve.address import Name, parse_name, split_netloc

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
        names: host names besides plain addresses, which no foreign page can make its own.
        allowed: further names, of a proxy in front. A page of their origin may talk to the server even where the proxy
            puts another `Host` in the place of its own.
    """

    def __init__(self, app: ASGIApp, names: Iterable[Name] = (), allowed: Iterable[Name] = ()) -> None:
        self._app = app
        self._allowed = tuple(allowed)
        self._names = (*names, *self._allowed)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or refuse it."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
        elif (refusal := self._refusal(Headers(scope=scope))) is None:
            await self._app(scope, receive, _with_headers(send))
        else:
            await _refuse(PlainTextResponse(f"{refusal}\n", 403), scope, receive, _with_headers(send))

    def _refusal(self, headers: Headers) -> str | None:
        host = headers.get("host", "")
        if not _is_address(host) and not _is_among(host, self._names):
            return f"this server is not called {host[:100]!r}; use its address, or start it with {_option_for(host)}"
        origin = headers.get("origin")
        # Programs send no origin; browsers cannot leave it out where it matters.
        if origin is None:
            return None
        netloc = _netloc(origin)
        if netloc.lower() == host.lower() or _is_among(netloc, self._allowed):
            return None
        return (
            f"the page of {origin[:100]!r} may not talk to this server; where that is this server's own page behind a "
            f"proxy, start it with {_option_for(netloc)}"
        )


class Below:
    """An application below a path: it sees the paths without the prefix, and nothing of what lies elsewhere.

    Args:
        app: the application.
        prefix: as `parse_prefix` returns it.
    """

    def __init__(self, app: ASGIApp, prefix: str) -> None:
        self._app, self._prefix = app, prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, bring it to the page's address, or say where that is."""
        if scope["type"] not in ("http", "websocket") or not self._prefix:
            await self._app(scope, receive, send)
            return
        path = scope["path"]
        if path.startswith(f"{self._prefix}/"):
            await self._app({**scope, "path": path[len(self._prefix) :]}, receive, send)
        elif path == self._prefix:
            # Relative, since the proxy may have another name; and the page's own addresses need the slash.
            there = self._prefix.rpartition("/")[2]
            await _refuse(RedirectResponse(f"{there}/", 307), scope, receive, send)
        else:
            told = f"there is no such page; the one there is lies at {self._prefix}/\n"
            await _refuse(PlainTextResponse(told, 404), scope, receive, send)


async def _refuse(response: Response, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a request, or in the place of a WebSocket."""
    if scope["type"] == "websocket" and "websocket.http.response" not in scope.get("extensions", {}):
        await send({"type": "websocket.close", "code": 1008})
    else:
        await response(scope, receive, send)


def _is_among(netloc: str, names: Iterable[Name]) -> bool:
    try:
        host, port = split_netloc(netloc)
    except ValueError:
        return False
    return any(name.covers(host, port) for name in names)


def _is_address(netloc: str) -> bool:
    try:
        ipaddress.ip_address(split_netloc(netloc)[0])
    except ValueError:
        return False
    return True


def _netloc(origin: str) -> str:
    try:
        scheme, netloc, *_ = urlsplit(origin)
    except ValueError:
        return ""
    return netloc if scheme in ("http", "https") else ""


def _option_for(netloc: str) -> str:
    try:
        parse_name(netloc)
    except UsageError:
        return "--allow-host NAME"
    return f"--allow-host {netloc.lower()}"


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] in ("http.response.start", "websocket.http.response.start"):
            headers: Any = MutableHeaders(scope=message)
            for name, value in SECURITY_HEADERS.items():
                headers.setdefault(name, value)
        await send(message)

    return sending
