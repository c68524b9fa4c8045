"""One reader of a stream for all pages: it starts with the first that watches, and ends when the last has left."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Protocol

from saccade.clips import FrameFormat
from saccade.errors import SaccadeError, UsageError
from saccade.stream.address import Address
from saccade.stream.live_frame import LiveFrame
from saccade.stream.source import Source

_log = logging.getLogger("uvicorn.error")


class Watcher(Protocol):
    """Somebody who watches the stream; its methods are called in the thread that reads, and must not wait."""

    def put(self, frame: LiveFrame) -> None:
        """Take the next frame."""
        ...

    def tell(self, line: str) -> None:
        """Take a line about the stream, such as that it is connected again."""
        ...

    def end(self, problem: str | None) -> None:
        """Learn that no more frames come, and the problem in one line if there is one."""
        ...


class Broadcast:
    """Reads a source while somebody watches. A camera serves one reader at a time, so all watchers share it.

    The address is that of the command line. No page can choose it: whoever opens a page could otherwise make the server
    open any address that its machine can reach, or any file.

    Args:
        address: as for `saccade stream`: a camera, an address or a file. A file is played at its own rate.
        say: called with each line about the source, in the thread that reads.

    Attributes:
        name: the address without user, password and query.

    Raises:
        UsageError: if the address is of no known kind, or standard input.
        DataError: if the source is a file that is missing.
    """

    def __init__(self, address: str, say: Callable[[str], None]) -> None:
        self._address = Address.of(address)
        if self._address.is_standard_input:
            raise UsageError("pages cannot watch standard input, which can be read only once; give another --source")
        self._address.check()
        self.name = self._address.shown
        self._text, self._say = address, say
        self._lock = threading.Lock()
        self._watchers: list[Watcher] = []
        self._reading: _Reading | None = None
        self._line: str | None = None

    def enter(self, watcher: Watcher, frame_format: FrameFormat) -> None:
        """Add a watcher; start to read if nobody watches yet.

        Models may be replaced by others that expect other frames. The first watcher with those takes the source over:
        the pages of the models before are about to leave.
        """
        with self._lock:
            reading = self._reading
            if reading is not None and not reading.is_over and reading.frame_format == frame_format:
                self._watchers.append(watcher)
                if self._line is not None:
                    watcher.tell(self._line)
                return
            if reading is not None:
                reading.stop()
            self._watchers, self._line = [watcher], None
            self._reading = _Reading(self, self._text, frame_format, before=reading)

    def leave(self, watcher: Watcher) -> None:
        """Remove a watcher, if it is one; stop to read if it was the last."""
        with self._lock:
            if watcher in self._watchers:
                self._watchers.remove(watcher)
                if not self._watchers and self._reading is not None:
                    self._reading.stop()

    def close(self) -> None:
        """Stop to read, and wait until the source is closed."""
        with self._lock:
            self._watchers, reading = [], self._reading
            if reading is not None:
                reading.stop()
        if reading is not None:
            reading.join()

    def give(self, reading: _Reading, frame: LiveFrame) -> None:
        """Give a frame to all who watch; called by the thread that reads."""
        with self._lock:
            for watcher in self._watchers if reading is self._reading else ():
                watcher.put(frame)

    def tell(self, reading: _Reading, line: str) -> None:
        """Give a line to all who watch, and to the terminal; called by the thread that reads."""
        with self._lock:
            if reading.is_over or reading is not self._reading:
                return
            self._line = line
            for watcher in self._watchers:
                watcher.tell(line)
        self._say(line)

    def end(self, reading: _Reading, problem: str | None) -> None:
        """Tell all who watch that the source has ended; called by the thread that reads."""
        with self._lock:
            if reading.is_over or reading is not self._reading:
                return
            reading.is_over = True
            watchers, self._watchers = self._watchers, []
            for watcher in watchers:
                watcher.end(problem)
        self._say(problem or f"{self.name} has ended")


class _Reading:
    """A thread that reads the source once.

    Args:
        broadcast: what gets the frames; its lock is held when `stop` is called, and when `is_over` changes.
        text: the address.
        frame_format: the frames.
        before: the reading before, which has been stopped or has ended.

    Attributes:
        is_over: whether nothing more is wanted of it, or comes.
    """

    def __init__(self, broadcast: Broadcast, text: str, frame_format: FrameFormat, *, before: _Reading | None) -> None:
        self.frame_format, self.is_over = frame_format, False
        self._broadcast, self._text = broadcast, text
        self._lock = threading.Lock()
        self._source: Source | None = None
        self._is_stopped = False
        self._closing: threading.Thread | None = None
        self._thread = threading.Thread(target=self._run, args=(before,), name="saccade-broadcast", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Let the thread end soon; this does not wait."""
        self.is_over = True
        with self._lock:
            if self._is_stopped:
                return
            self._is_stopped = True
            if self._source is not None:  # it waits for a frame, until the source is closed
                self._closing = threading.Thread(target=self._source.__exit__, args=(None, None, None), daemon=True)
                self._closing.start()

    def join(self) -> None:
        """Wait until the source is closed."""
        self._thread.join()
        if self._closing is not None:
            self._closing.join()

    def _run(self, before: _Reading | None) -> None:
        if before is not None:  # a camera serves one reader at a time
            before.join()
        problem = None
        try:
            self._read()
        except SaccadeError as error:
            problem = str(error)
        except Exception as error:  # whoever watches must learn that nothing more comes; the text may hold the address
            _log.exception("the reader of the stream failed")
            problem = f"{self._broadcast.name} cannot be read: {type(error).__name__} in the reader"
        self._broadcast.end(self, problem)

    def _read(self) -> None:
        def say(line: str) -> None:
            self._broadcast.tell(self, line)

        with Source(self._text, self.frame_format, realtime=True, say=say) as source:
            with self._lock:
                if self._is_stopped:
                    return
                self._source = source
            for frame in source:
                self._broadcast.give(self, frame)
