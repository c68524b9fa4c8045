"""Access control: accepted hosts and origins, the path prefix, and the security headers of every response."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from saccade.errors import UsageError
from saccade.serve.address import Name, is_address, is_among, parse_name

SECURITY_HEADERS: Mapping[str, str] = {
    # Everything comes from this server; the page has no inline script or style.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; media-src 'self' blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    # After an update of the package, the browser must not use files of the older page from its cache.
    "Cache-Control": "no-cache",
}


class Guard:
    """Middleware that refuses requests for other host names and requests from pages of other origins.

    A foreign page can make a browser send requests to a server on loopback in two ways. It can let its own host name
    resolve to 127.0.0.1 (DNS rebinding); the `Host` header reveals this. It can send a request across origins; the
    `Origin` header reveals this.

    Args:
        app: the application.
        names: the accepted host names. IP addresses are always accepted, since DNS rebinding needs a name.
        allowed: further accepted host names, those of a proxy in front. Pages of their origins are accepted even if
            the proxy sends another `Host` header.
    """

    def __init__(self, app: ASGIApp, names: Iterable[Name] = (), allowed: Iterable[Name] = ()) -> None:
        self._app = app
        self._allowed = tuple(allowed)
        self._names = (*names, *self._allowed)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request to the application, or refuse it."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
        elif (refusal := self._refusal(Headers(scope=scope))) is None:
            await self._app(scope, receive, _with_headers(send))
        else:
            await _refuse(PlainTextResponse(f"{refusal}\n", 403), scope, receive, _with_headers(send))

    def _refusal(self, headers: Headers) -> str | None:
        host = headers.get("host", "")
        if not is_address(host) and not is_among(host, self._names):
            return (
                f"host name {host[:100]!r} is not accepted; use an IP address, or start the server with "
                f"{_option_for(host)}"
            )
        origin = headers.get("origin")
        # Programs send no origin. Browsers always send it with WebSockets and with requests that change anything.
        if origin is None:
            return None
        netloc = _netloc(origin)
        if netloc.lower() == host.lower() or is_among(netloc, self._allowed):
            return None
        return (
            f"pages of {origin[:100]!r} may not use this server; if that is a proxy in front of this server, start the "
            f"server with {_option_for(netloc)}"
        )


class Below:
    """Middleware that removes the path prefix from requests, and refuses requests for paths without it.

    Args:
        app: the application.
        prefix: the path prefix, as `parse_prefix` returns it.
    """

    def __init__(self, app: ASGIApp, prefix: str) -> None:
        self._app, self._prefix = app, prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request to the application, redirect it to the page, or refuse it."""
        if scope["type"] not in ("http", "websocket") or not self._prefix:
            await self._app(scope, receive, send)
            return
        path = scope["path"]
        if path.startswith(f"{self._prefix}/"):
            await self._app({**scope, "path": path[len(self._prefix) :]}, receive, send)
        elif path == self._prefix:
            # Relative, since a proxy may have another name. The slash is needed by the relative addresses in the page.
            there = self._prefix.rpartition("/")[2]
            await _refuse(RedirectResponse(f"{there}/", 307), scope, receive, send)
        else:
            told = f"there is no page at this address; open {self._prefix}/\n"
            await _refuse(PlainTextResponse(told, 404), scope, receive, send)


async def _refuse(response: Response, scope: Scope, receive: Receive, send: Send) -> None:
    """Send a response; close a WebSocket instead if the server cannot send a response to it."""
    if scope["type"] == "websocket" and "websocket.http.response" not in scope.get("extensions", {}):
        await send({"type": "websocket.close", "code": 1008})
    else:
        await response(scope, receive, send)


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
