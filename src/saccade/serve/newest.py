"""The newest item of a stream and its picture, between the thread of the stream, one that draws, and viewers."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator
from typing import Generic, TypeVar

Item = TypeVar("Item")

MAX_VIEWERS = 8
"""The largest number of viewers at a time."""

# A viewer that has left is noticed when something is sent to it.
_AGAIN_S = 5.0


class Newest(Generic[Item]):
    """Hold the newest item and the newest picture, and count who waits for pictures; for any number of threads.

    Attributes:
        num_viewers: the number of viewers.
    """

    def __init__(self) -> None:
        self.num_viewers = 0
        self._changed = threading.Condition()
        self._item: Item | None = None
        self._num_items = self._drawn = 0  # the number of the newest item, and of the one in the picture
        self._picture = b""
        self._is_closed = False
        self._error: Exception | None = None

    def put(self, item: Item) -> None:
        """Replace the item; this never waits.

        Raises:
            Exception: the one of `fail`.
        """
        with self._changed:
            if self._error is not None:
                raise self._error
            self._item, self._num_items = item, self._num_items + 1
            self._changed.notify_all()

    def wanted(self) -> Iterator[tuple[int, Item]]:
        """Yield the newest item with its number, whenever it is not drawn and somebody watches, until all is closed."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._is_closed or (self.num_viewers and self._drawn < self._num_items))
                if self._is_closed:
                    return
                number, item = self._num_items, self._item
            assert item is not None
            yield number, item

    def put_picture(self, number: int, picture: bytes) -> None:
        """Replace the picture by that of the item of a number."""
        with self._changed:
            if self.num_viewers:  # or else it would be old when the next viewer comes
                self._picture, self._drawn = picture, number
                self._changed.notify_all()

    def fail(self, error: Exception) -> None:
        """Raise an error where the next item is put."""
        with self._changed:
            self._error = error

    def close(self) -> None:
        """End all waiting."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def enter(self) -> bool:
        """Count a viewer; return whether there was room for it."""
        with self._changed:
            if self.num_viewers >= MAX_VIEWERS or self._is_closed:
                return False
            self.num_viewers += 1
            self._changed.notify_all()
            return True

    def leave(self) -> None:
        """Count a viewer no more."""
        with self._changed:
            self.num_viewers -= 1
            if not self.num_viewers:
                self._picture, self._drawn = b"", 0

    def pictures(self) -> Generator[bytes, None, None]:
        """Yield the newest picture whenever there is a newer one, or the same after some seconds; empty for none."""
        sent = 0

        def is_news() -> bool:
            return self._is_closed or self._drawn > sent

        while True:
            with self._changed:
                self._changed.wait_for(is_news, _AGAIN_S)
                if self._is_closed:
                    return
                sent, picture = self._drawn, self._picture
            yield picture
