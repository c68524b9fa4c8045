"""Limits on each TCP connection: time to send a request, share of the event loop, time to read responses.

Uvicorn parses HTTP and WebSockets but has no such limits. Without them, a client that sends half a request, or a
thousand pings at once, would make all others wait.
"""

from __future__ import annotations

import asyncio
import math
import socket
import time
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, cast

import uvicorn
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from saccade.serve.allowance import Allowance

MAX_ASK_S = 10.0
"""The maximum time that a connection may stay without a request in progress, in seconds."""

MAX_STALL_S = 30.0
"""The maximum time that a client may read none of the data that waits for it, in seconds."""

MAX_ASKING = 64
"""The maximum number of connections without a request in progress; above it, the longest idle one is closed."""

MAX_DELAY_S = 1.0
"""The maximum time that a request waits because of the limit on their rate, in seconds."""

# Reads are small: even if they contain only pings, each blocks the event loop for a few milliseconds at most.
_READ_BYTES = 4096
# Fractions of the event loop's time: for reading from one page, and for reading from all other connections.
_PAGE_SHARE, _REST_SHARE = 0.1, 0.1
_READ_AT_ONCE_S = 0.05
_REQUESTS_PER_S, _REQUESTS_AT_ONCE = 100.0, 200.0

_current: ContextVar[Connection] = ContextVar("connection")


class Server(uvicorn.Server):
    """Uvicorn's server, changed so that shutdown does not wait for requests in progress.

    Args:
        config: the configuration; its HTTP protocol class is `connections`.
        connections: all connections of the server.
    """

    def __init__(self, config: uvicorn.Config, connections: Connections) -> None:
        super().__init__(config)
        self._connections = connections

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Shut down: abort uploads as if their senders had disconnected, and notify pages."""
        self._connections.close()
        await super().shutdown(sockets)


class Connections:
    """The connections of a server; uvicorn uses this object as its HTTP protocol class.

    Args:
        make: uvicorn's HTTP protocol class.
    """

    def __init__(self, make: Callable[..., asyncio.Protocol]) -> None:
        self._make = make
        self.reading = Allowance(_REST_SHARE, _READ_AT_ONCE_S)
        # Ordered by the time at which each connection began to wait for a request.
        self._asking: dict[Connection, asyncio.TimerHandle] = {}
        self._answered: set[Connection] = set()

    def __call__(self, **options: Any) -> Connection:
        """Create the protocol of a new connection."""
        return Connection(self._make(**options), self)

    def begin_to_ask(self, connection: Connection) -> None:
        """Close a connection unless a request begins within `MAX_ASK_S`."""
        self.end(connection)
        if len(self._asking) >= MAX_ASKING:
            self._give_up(next(iter(self._asking)))
        later = asyncio.get_running_loop().call_later(MAX_ASK_S, self._give_up, connection)
        self._asking[connection] = later

    def begin_to_answer(self, connection: Connection) -> None:
        """Register that a connection has a request in progress."""
        self.end(connection)
        self._answered.add(connection)

    def end(self, connection: Connection) -> None:
        """Unregister a connection and cancel its time limit."""
        self._answered.discard(connection)
        if later := self._asking.pop(connection, None):
            later.cancel()

    def close(self) -> None:
        """Close all connections except those of pages, which uvicorn notifies before it closes them."""
        for connection in [*self._asking, *self._answered]:
            if not connection.is_page:
                connection.close()

    def _give_up(self, connection: Connection) -> None:
        self.end(connection)
        connection.close()


class Connection(asyncio.BufferedProtocol):
    """The protocol of one connection: it applies the limits and passes everything on to uvicorn's protocol.

    Args:
        protocol: uvicorn's protocol for the connection.
        connections: the connections of the server.
    """

    def __init__(self, protocol: asyncio.Protocol, connections: Connections) -> None:
        self.protocol, self._connections = protocol, connections
        self._reading = connections.reading
        self._buffer = bytearray(_READ_BYTES)
        self._transport: asyncio.Transport | None = None
        self._stalling: asyncio.TimerHandle | None = None
        self._rests = self._is_held = False
        self.is_page = False
        """Whether the connection is a WebSocket."""

    # --- Called by asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the time limit for a request, and connect uvicorn's protocol."""
        self._transport = cast(asyncio.Transport, transport)
        self._connections.begin_to_ask(self)
        held: Any = _Held(self._transport, self)
        self.protocol.connection_made(held)
        # The allowance is shared: if others have overdrawn it, a new connection has to wait too.
        self._rest(self._reading.charge(0.0))

    def connection_lost(self, exc: Exception | None) -> None:
        """Unregister the connection, and notify uvicorn's protocol."""
        self._transport = None
        self._connections.end(self)
        self._stop_stalling()
        self.protocol.connection_lost(exc)

    def get_buffer(self, sizehint: int) -> bytearray:
        """Return the buffer for the next bytes."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Process received bytes; pause reading if they took more than the allowed share of time."""
        _current.set(self)
        begin = time.thread_time()
        self.protocol.data_received(bytes(memoryview(self._buffer)[:nbytes]))
        self._rest(self._reading.charge(time.thread_time() - begin))

    def eof_received(self) -> bool | None:
        """Notify uvicorn's protocol that the client sends nothing more."""
        return self.protocol.eof_received()

    def pause_writing(self) -> None:
        """Pause uvicorn's protocol, and start the time limit for the client to read."""
        self._watch_reader()
        self.protocol.pause_writing()

    def resume_writing(self) -> None:
        """Resume uvicorn's protocol, and stop the time limit for the client to read."""
        if self.is_open:
            self._stop_stalling()
        self.protocol.resume_writing()

    # --- Called by uvicorn and the application

    def hold(self, is_held: bool) -> None:
        """Pause or resume reading, as uvicorn requests."""
        self._is_held = is_held
        self._reflect()

    def close(self) -> None:
        """Close the connection once all data is sent, or once the client reads no more."""
        if self._transport is not None and self.is_open:
            self._transport.close()
            self._watch_reader()

    def change_protocol(self, protocol: asyncio.Protocol) -> None:
        """Switch to a WebSocket protocol."""
        self.protocol, self.is_page = protocol, True

    def begin_request(self) -> None:
        """Register that the application begins to answer a request."""
        self._connections.begin_to_answer(self)

    def end_request(self) -> None:
        """Register that the application has answered the request, and take back the connection's own share."""
        # A page that has left may keep its connection open for some time.
        self._reading = self._connections.reading
        if self._transport is not None:
            self._connections.begin_to_ask(self)

    @property
    def is_open(self) -> bool:
        """Whether the client is connected."""
        return self._transport is not None and not self._transport.is_closing()

    def have_own_share(self) -> None:
        """Give this connection its own share of reading time, independent of other connections."""
        self._reading = Allowance(_PAGE_SHARE, _READ_AT_ONCE_S)

    def _rest(self, seconds: float) -> None:
        if seconds > 0:
            self._rests = True
            self._reflect()
            asyncio.get_running_loop().call_later(seconds, self._go_on)

    def _go_on(self) -> None:
        self._rests = False
        self._reflect()

    def _reflect(self) -> None:
        if self._transport is None or not self.is_open:
            return
        if self._rests or self._is_held:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def _watch_reader(self, unread: float = math.inf) -> None:
        """Abort the connection if `unread` or more bytes are still unsent; otherwise check again later."""
        self._stop_stalling()
        if self._transport is None:
            return
        left = self._transport.get_write_buffer_size()
        if left < unread:
            self._stalling = asyncio.get_running_loop().call_later(MAX_STALL_S, self._watch_reader, left)
        else:
            self._transport.abort()

    def _stop_stalling(self) -> None:
        if self._stalling is not None:
            self._stalling.cancel()


class _Held:
    """The transport that uvicorn receives: calls that concern the limits go through the connection."""

    def __init__(self, transport: asyncio.Transport, connection: Connection) -> None:
        self._transport, self._connection = transport, connection

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def pause_reading(self) -> None:
        self._connection.hold(True)

    def resume_reading(self) -> None:
        self._connection.hold(False)

    def close(self) -> None:
        self._connection.close()

    def set_protocol(self, protocol: asyncio.Protocol) -> None:
        self._connection.change_protocol(protocol)


class Limited:
    """Middleware that limits the rate of requests and tells each connection when a request begins and ends.

    Args:
        app: the application.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._requests = Allowance(_REQUESTS_PER_S, _REQUESTS_AT_ONCE)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, with a delay if the rate exceeds the limit; refuse it if the delay would be too long."""
        connection = _current.get(None)
        if scope["type"] not in ("http", "websocket") or connection is None:
            await self._app(scope, receive, send)
            return
        delay_s = self._requests.charge(1.0)
        if delay_s > MAX_DELAY_S:  # or clients that have gone would make others wait
            self._requests.charge(-1.0)
            await _refuse(scope, receive, send)
            return
        connection.begin_request()
        try:
            await asyncio.sleep(delay_s)
            await self._app(scope, receive, send)
        finally:
            connection.end_request()


async def _refuse(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await WebSocket(scope, receive, send).close()
        return
    response = PlainTextResponse("too many requests; try again in a moment\n", 503, headers={"Connection": "close"})
    await response(scope, receive, send)


def is_open() -> bool:
    """Return whether the client of the current request is still connected."""
    connection = _current.get(None)
    return connection is None or connection.is_open


def have_own_share() -> None:
    """Give the connection of the current request its own share of reading time."""
    if connection := _current.get(None):
        connection.have_own_share()
