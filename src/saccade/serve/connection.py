"""What one TCP connection may take of the server: time to ask, work in the event loop, time to read its answers.

Uvicorn parses HTTP and WebSockets, and sets no such limits: whoever asks half a question, or sends a thousand pings in
one go, would keep all others waiting.
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
from starlette.types import ASGIApp, Receive, Scope, Send

from saccade.serve.allowance import Allowance

MAX_ASK_S = 10.0
"""How long a connection may be without a request that is being answered."""

MAX_STALL_S = 30.0
"""How long a connection may read nothing of what waits for it."""

MAX_ASKING = 64
"""Connections without a request that is being answered; beyond, the one that has waited longest goes."""

# Few bytes at a time: even made up of nothing but pings they hold up the event loop for a few milliseconds.
_READ_BYTES = 4096
# Part of the event loop's time for reading one page's messages, and for reading all else.
_PAGE_SHARE, _REST_SHARE = 0.1, 0.1
_READ_AT_ONCE_S = 0.05
_REQUESTS_PER_S, _REQUESTS_AT_ONCE = 100.0, 200.0

_current: ContextVar[Connection] = ContextVar("connection")


class Server(uvicorn.Server):
    """Uvicorn's server, which does not wait for requests under way when it ends.

    Args:
        config: whose class of the HTTP protocol is `connections`.
        connections: all there are.
    """

    def __init__(self, config: uvicorn.Config, connections: Connections) -> None:
        super().__init__(config)
        self._connections = connections

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End; uploads end as if their senders had gone, and pages are told."""
        self._connections.close()
        await super().shutdown(sockets)


class Connections:
    """The connections of a server; uvicorn takes it for the class of its HTTP protocol.

    Args:
        make: makes uvicorn's own.
    """

    def __init__(self, make: Callable[..., asyncio.Protocol]) -> None:
        self._make = make
        self.reading = Allowance(_REST_SHARE, _READ_AT_ONCE_S)
        # In the order in which they began to wait for a request.
        self._asking: dict[Connection, asyncio.TimerHandle] = {}
        self._answered: set[Connection] = set()

    def __call__(self, **options: Any) -> Connection:
        """Make the next connection."""
        return Connection(self._make(**options), self)

    def begin_to_ask(self, connection: Connection) -> None:
        """Give a connection some time to ask for something."""
        self.end(connection)
        if len(self._asking) >= MAX_ASKING:
            self._give_up(next(iter(self._asking)))
        later = asyncio.get_running_loop().call_later(MAX_ASK_S, self._give_up, connection)
        self._asking[connection] = later

    def begin_to_answer(self, connection: Connection) -> None:
        """A connection has asked."""
        self.end(connection)
        self._answered.add(connection)

    def end(self, connection: Connection) -> None:
        """Forget a connection."""
        self._answered.discard(connection)
        if later := self._asking.pop(connection, None):
            later.cancel()

    def close(self) -> None:
        """Close those that ask or are answered, but for pages, which are told before."""
        for connection in [*self._asking, *self._answered]:
            if not connection.is_page:
                connection.close()

    def _give_up(self, connection: Connection) -> None:
        self.end(connection)
        connection.close()


class Connection(asyncio.BufferedProtocol):
    """A connection, in front of uvicorn's protocol for it.

    Args:
        protocol: uvicorn's.
        connections: where it belongs.
    """

    def __init__(self, protocol: asyncio.Protocol, connections: Connections) -> None:
        self.protocol, self._connections = protocol, connections
        self._reading = connections.reading
        self._buffer = bytearray(_READ_BYTES)
        self._transport: asyncio.Transport | None = None
        self._stalling: asyncio.TimerHandle | None = None
        self._rests = self._is_held = False
        self.is_page = False
        """Whether it holds a WebSocket."""

    # --- What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast(asyncio.Transport, transport)
        self._connections.begin_to_ask(self)
        held: Any = _Held(self._transport, self)
        self.protocol.connection_made(held)
        # What others have overdrawn is not paid back by connecting anew.
        self._rest(self._reading.charge(0.0))

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self._transport = None
        self._connections.end(self)
        self._stop_stalling()
        self.protocol.connection_lost(exc)

    def get_buffer(self, sizehint: int) -> bytearray:
        """Return where the next bytes go."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Take bytes, and rest once they have cost more than their share."""
        _current.set(self)
        begin = time.thread_time()
        self.protocol.data_received(bytes(memoryview(self._buffer)[:nbytes]))
        self._rest(self._reading.charge(time.thread_time() - begin))

    def eof_received(self) -> bool | None:
        """Tell that nothing more will come."""
        return self.protocol.eof_received()

    def pause_writing(self) -> None:
        """Wait until what was sent has been read, but not forever."""
        self._watch_reader()
        self.protocol.pause_writing()

    def resume_writing(self) -> None:
        """Go on sending."""
        if self._transport is not None and not self._transport.is_closing():
            self._stop_stalling()
        self.protocol.resume_writing()

    # --- What uvicorn and the application call

    def hold(self, is_held: bool) -> None:
        """Read nothing for a while, or go on."""
        self._is_held = is_held
        self._reflect()

    def close(self) -> None:
        """Close once all is sent, or the other side reads no more."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.close()
            self._watch_reader()

    def change_protocol(self, protocol: asyncio.Protocol) -> None:
        """Talk as WebSockets do from now on."""
        self.protocol, self.is_page = protocol, True

    def begin_request(self) -> None:
        """The application answers a request."""
        self._connections.begin_to_answer(self)

    def end_request(self) -> None:
        """The application has answered it."""
        if self._transport is not None:
            self._connections.begin_to_ask(self)

    def have_own_share(self) -> None:
        """Let the reading of this connection not depend on what others send."""
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
        if self._transport is None or self._transport.is_closing():
            return
        if self._rests or self._is_held:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def _watch_reader(self, unread: float = math.inf) -> None:
        """Hang up on one who has read nothing since so many bytes were left."""
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
    """The transport as uvicorn sees it: what concerns limits goes through the connection."""

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
    """The application, with requests counted: so many a second, and their connections know that they are answered.

    Args:
        app: answers.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._requests = Allowance(_REQUESTS_PER_S, _REQUESTS_AT_ONCE)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request when it is its turn."""
        connection = _current.get(None)
        if scope["type"] not in ("http", "websocket") or connection is None:
            await self._app(scope, receive, send)
            return
        connection.begin_request()
        try:
            await asyncio.sleep(self._requests.charge(1.0))
            await self._app(scope, receive, send)
        finally:
            connection.end_request()


def have_own_share() -> None:
    """Let the connection of this request be read whatever others send."""
    if connection := _current.get(None):
        connection.have_own_share()
