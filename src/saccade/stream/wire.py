"""The messages of the process that reads a live source: a byte for the kind, then a body."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Kind(IntEnum):
    """The kinds of messages.

    TASK: what the process is to read, the first message to it. READY: it has started and now opens the source. OPEN:
    the source is open; the body says whether it is a recording, which can wait. ALIVE: a recording shows a still. SIZE:
    the process asks to what size frames of a given size are scaled, and waits for the answer. SEEN: a frame was
    decoded. FRAME: a frame that is due. AGAIN: the last one is due again. NOTE: one line for the user. ERROR: one line,
    the last message. END: the source has ended.
    """

    TASK = 0
    READY = 1
    OPEN = 2
    ALIVE = 3
    SIZE = 4
    SEEN = 5
    FRAME = 6
    AGAIN = 7
    NOTE = 8
    ERROR = 9
    END = 10


@dataclass(frozen=True)
class Shown:
    """A frame that is due.

    Args:
        time_s: seconds since the last beginning.
        arrived_s: `time.monotonic()` when it was known to be due.
        begins: whether it is the first one after the source opened, or after a gap.
        pixels: (channels, height, width); None if they are those of the frame before.
        picture: (3, height, width) in RGB; None if it was not asked for.
    """

    time_s: float
    arrived_s: float
    begins: bool
    pixels: NDArray[np.uint8] | None
    picture: NDArray[np.uint8] | None

    def packed(self) -> bytes:
        """Return the message."""
        if self.pixels is None:
            return _FRAME.pack(Kind.AGAIN, self.time_s, self.arrived_s, self.begins, *[0] * 5)
        shapes = (*self.pixels.shape, *(self.picture.shape[1:] if self.picture is not None else (0, 0)))
        head = _FRAME.pack(Kind.FRAME, self.time_s, self.arrived_s, self.begins, *shapes)
        return b"".join((head, self.pixels.tobytes(), b"" if self.picture is None else self.picture.tobytes()))

    @classmethod
    def unpacked(cls, message: bytes) -> Shown:
        """Return the frame in a message of the kind FRAME or AGAIN."""
        kind, time_s, arrived_s, begins, channels, height, width, picture_height, picture_width = _FRAME.unpack_from(
            message
        )
        if kind == Kind.AGAIN:
            return cls(time_s, arrived_s, begins, None, None)
        # A copy, since tensors share only memory that may be written.
        levels = np.frombuffer(message, np.uint8, offset=_FRAME.size).copy()
        num = channels * height * width
        picture = levels[num:].reshape(3, picture_height, picture_width) if picture_height else None
        return cls(time_s, arrived_s, begins, levels[:num].reshape(channels, height, width), picture)


_FRAME = struct.Struct("<Bdd?HHHHH")
_SEEN = struct.Struct("<Bd")


def seen(moment_s: float) -> bytes:
    """Return the message that a frame was decoded, with its time in seconds since the last beginning."""
    return _SEEN.pack(Kind.SEEN, moment_s)


def moment_of(message: bytes) -> float:
    """Return the time in a message of the kind SEEN."""
    return float(_SEEN.unpack(message)[1])


def told(kind: Kind, content: object = None) -> bytes:
    """Return a message of another kind; its body is JSON."""
    return bytes([kind]) + json.dumps(content).encode()


def content_of(message: bytes) -> Any:
    """Return the body of a message that `told` made."""
    return json.loads(message[1:])
