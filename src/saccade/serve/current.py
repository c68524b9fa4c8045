"""The models that pages show now, and the pages; both change while the server runs."""

from __future__ import annotations

import asyncio
import secrets
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from saccade.serve.engine import Engine
    from saccade.serve.live import Live


class Pages:
    """The connected pages, up to a limit.

    Args:
        limit: the maximum number of pages.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.by_token: dict[str, Live | None] = {}
        self._left: dict[str, asyncio.Event] = {}

    def enter(self) -> str | None:
        """Add a page and return its token; return None if the limit is reached."""
        if len(self.by_token) >= self.limit:
            return None
        token = secrets.token_urlsafe(16)
        self.by_token[token], self._left[token] = None, asyncio.Event()
        return token

    def leave(self, token: str) -> None:
        """Remove a page."""
        del self.by_token[token]
        self._left.pop(token).set()

    async def wait_until_left(self, token: str) -> None:
        """Wait until a page is removed."""
        if token in self._left:
            await self._left[token].wait()


class Current:
    """The engine that pages use, once it is loaded.

    Args:
        loading: the engine; its result is None while there is no model to show.
    """

    def __init__(self, loading: asyncio.Future[Engine | None]) -> None:
        self.engine = loading
        self.replaced = asyncio.Event()
        """Set when `engine` is no longer that of the pages that it was given to."""

    async def replace(self, engine: Engine, pages: Pages) -> None:
        """Give pages another engine: they leave and connect again. Then the engine before is closed."""
        before, replaced, tokens = self.engine, self.replaced, list(pages.by_token)
        self.engine = asyncio.get_running_loop().create_future()
        self.engine.set_result(engine)
        self.replaced = asyncio.Event()
        replaced.set()
        for token in tokens:
            await pages.wait_until_left(token)
        await _close(before)

    async def close(self) -> None:
        """Stop the threads of the engine."""
        await _close(self.engine)


async def _close(loaded: asyncio.Future[Engine | None]) -> None:
    if loaded.done() and not loaded.cancelled() and not loaded.exception() and (engine := loaded.result()):
        await asyncio.to_thread(engine.close)
