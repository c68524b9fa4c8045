"""The WebSocket connection to one page: it receives messages and sends frames, and queues neither."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from fastapi import WebSocket, WebSocketDisconnect

from saccade.clips import FrameFormat
from saccade.serve import messages
from saccade.serve.allowance import Allowance
from saccade.serve.engine import Engine
from saccade.serve.messages import MessageError
from saccade.serve.session import Session
from saccade.serve.turns import Account, whole
from saccade.serve.upload import Decoded

POLICY_VIOLATION = 1008
MAX_FAULTS = 5
"""The number of invalid messages after which the server closes the connection."""

MESSAGES_PER_S, MESSAGES_AT_ONCE = 150.0, 300.0

# Longer texts are parsed in a thread, since parsing them would block the event loop.
_SHORT_TEXT = 4096

T = TypeVar("T")


class Live:
    """One page: its WebSocket, its session, and the two tasks that receive messages and send frames.

    Args:
        socket: the accepted WebSocket.
        engine: the models.
    """

    def __init__(self, socket: WebSocket, engine: Engine) -> None:
        self._socket, self._engine = socket, engine
        self._loop = asyncio.get_running_loop()
        self._session = Session(engine, self._wake)
        # Held while a frame is computed, so that messages take effect between frames.
        self._between_frames = asyncio.Lock()
        self._changed = asyncio.Event()
        self._allowance = Allowance(MESSAGES_PER_S, MESSAGES_AT_ONCE)
        self._frames, self._errands = Account(), Account()

    @property
    def frame_format(self) -> FrameFormat:
        """The frames that the models expect."""
        return self._engine.frame_format

    async def run(self) -> None:
        """Receive messages and send frames until the page disconnects or breaks a rule."""
        tasks = [asyncio.create_task(self._listen()), asyncio.create_task(self._stream())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            came = await asyncio.gather(*tasks, return_exceptions=True)
            self._session.close()
        for error in came:
            if isinstance(error, Exception) and not isinstance(error, WebSocketDisconnect):
                raise error
        if isinstance(broken_rule := came[0], str):
            with contextlib.suppress(WebSocketDisconnect):
                await self._say({"type": "closed", "message": broken_rule})
                await self._socket.close(POLICY_VIOLATION, broken_rule)

    async def show_video(self, decoded: Decoded) -> None:
        """Show a video that the page has uploaded."""
        async with self._between_frames:
            self._session.put_video(decoded)
        self._changed.set()

    async def _listen(self) -> str | None:
        """Apply messages until the page disconnects (return None) or breaks a rule (return a line about it)."""
        faults = 0
        while True:
            received = await self._socket.receive()
            if received["type"] == "websocket.disconnect":
                return None
            if not self._allowance.take():
                return f"the page sent more than {MESSAGES_PER_S:.0f} messages per second; reload it"
            try:
                await self._take(received)
            except MessageError as error:
                faults += 1
                await self._say({"type": "error", "message": str(error)})
            if faults >= MAX_FAULTS:
                return f"the page sent {faults} invalid messages; reload it"
            self._changed.set()

    async def _take(self, received: Mapping[str, Any]) -> None:
        if (data := received.get("bytes")) is not None:
            self._session.put_camera(data)
            return
        text = received["text"]
        message = messages.parse(text) if len(text) <= _SHORT_TEXT else await self._errand(messages.parse, text)
        if isinstance(message, messages.Seen):
            self._session.apply(message)
            return
        async with self._between_frames:
            is_long = isinstance(message, messages.Errand)
            answers = await self._errand(self._session.apply, message) if is_long else self._session.apply(message)
        for answer in answers:
            await self._say(answer)

    async def _errand(self, function: Callable[[Any], T], argument: Any) -> T:
        """Call a slow function in a thread; until it returns, no other message of this page is read."""
        return await self._engine.errands.do(self._errands, whole(function, argument))

    def _wake(self) -> None:
        """Look for frames and lines of the stream; called in any thread."""
        with contextlib.suppress(RuntimeError):  # the server has ended
            self._loop.call_soon_threadsafe(self._changed.set)

    async def _stream(self) -> None:
        while True:
            waited_for_page_s = await self._until_it_can_go()
            if (wait_s := self._session.wait_s()) > 0:
                await asyncio.sleep(wait_s)
                continue
            async with self._between_frames:
                if not self._session.can_go:  # paused while we waited for the lock
                    continue
                missed = self._session.take_tick(waited_for_page_s)
                frame = await self._engine.frames.do(self._frames, self._session.next_frame(missed))
            await self._socket.send_text(frame)

    async def _until_it_can_go(self) -> float:
        """Wait until a frame can be sent, and send lines about the stream meanwhile.

        Return the seconds of waiting for the page to show earlier frames.
        """
        waited_s = 0.0
        while True:
            self._changed.clear()
            while (line := self._session.take_line()) is not None:
                await self._say({"type": "told", "line": line})
            if self._session.can_go:
                return waited_s
            begin, by_page = time.monotonic(), self._session.waits_for_page
            await self._changed.wait()
            waited_s += by_page * (time.monotonic() - begin)

    async def _say(self, answer: dict[str, Any]) -> None:
        await self._socket.send_text(json.dumps(answer))
