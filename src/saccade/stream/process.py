"""The process that reads a source, seen from its parent: started, listened to with a time limit, ended."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from saccade.errors import DataError
from saccade.stream import reader, wire
from saccade.stream.address import Address, SourceKind
from saccade.stream.decoding import Task
from saccade.stream.limits import Limits

# A busy machine takes its time to start a process, which is not the source's fault.
_START_S = 120.0
# Of the system call that waits, 24 days.
_NO_LIMIT_S = 2e6
# With -P, the folder of the program is not searched for modules.
_COMMAND = (sys.executable, "-P", str(Path(reader.__file__)))


class ReadingProcess:
    """A process that reads a source once.

    A call of FFmpeg that waits for a silent source cannot be ended but with its process.

    Args:
        task: what is read.
        address: the source of the task.
        limits: the time limits of the source.

    Attributes:
        is_open: whether the source has sent a frame.
    """

    def __init__(self, task: Task, address: Address, limits: Limits) -> None:
        self._address, self._limits, self.is_open = address, limits, False
        self._connection, theirs = multiprocessing.Pipe()
        with theirs:
            self._process = subprocess.Popen(
                [*_COMMAND, str(theirs.fileno())],
                pass_fds=(theirs.fileno(),),
                stdin=None if address.kind is SourceKind.PIPE else subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,  # FFmpeg may print an address with its password
                process_group=0,  # Ctrl-C at the terminal does not reach it
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )
        with suppress(OSError):  # it has died: told when it is listened to
            # Not as an argument: other users see those, and the address may hold a password.
            self._connection.send_bytes(wire.told(wire.Kind.TASK, task.as_json()))

    def messages(self) -> Iterator[bytes]:
        """Yield the messages of the process, until it says that the source has ended or `kill` is called.

        Raises:
            DataError: if the source cannot be read, or stays silent beyond a limit.
        """
        waits_forever = self._address.kind is SourceKind.PIPE
        since, limit_s = time.monotonic(), _START_S
        while self._connection.poll(max(0.0, since + limit_s - time.monotonic())):
            try:
                message = self._connection.recv_bytes()
            except (EOFError, OSError):
                raise DataError(f"{self._address.shown} was lost: {self._died()}") from None
            match message[0]:
                case wire.Kind.ERROR:
                    raise DataError(wire.content_of(message))
                case wire.Kind.END:
                    return
                case wire.Kind.READY:
                    since, limit_s = time.monotonic(), _NO_LIMIT_S if waits_forever else self._limits.connect_s
                case wire.Kind.SEEN | wire.Kind.ALIVE:
                    self.is_open = True
                    since, limit_s = time.monotonic(), _NO_LIMIT_S if waits_forever else self._limits.silence_s
            before = time.monotonic()
            yield message
            since += time.monotonic() - before  # that the frame waited for the consumer is no silence of the source
        raise DataError(f"{self._address.shown} {self._silent(limit_s)}")

    def answer(self, content: object) -> None:
        """Answer a message of the kind SIZE."""
        with suppress(OSError):
            self._connection.send_bytes(wire.told(wire.Kind.SIZE, content))

    def kill(self) -> None:
        """End the process, whatever it does; another thread that listens gets the end."""
        self._process.kill()

    def close(self) -> None:
        """End the process and free what it took."""
        self._process.kill()
        self._process.wait()
        self._connection.close()

    def _silent(self, limit_s: float) -> str:
        if self.is_open:
            return f"sent no frame for {limit_s:g} s; check the camera and the network"
        return f"sent no frame within {limit_s:g} s; check that it runs and sends video"

    def _died(self) -> str:
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(1.0)
        return f"the process that reads it ended with status {self._process.returncode}"
