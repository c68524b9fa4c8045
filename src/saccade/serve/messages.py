"""The messages that a page may send; each is validated before it takes effect.

Messages are JSON objects with a `type`; a camera frame is a binary message. The page is not trusted: an invalid message
is answered with one line that states the fault.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

MAX_MESSAGE_BYTES = 1 << 18
"""The maximum length of a message, in bytes."""

MAX_STROKES, MAX_POINTS = 32, 512
FPS = (1, 60)

Coordinate = Annotated[int, Field(ge=0, le=255)]
Point = tuple[Coordinate, Coordinate]
Slot = Annotated[int, Field(ge=0, le=4)]
Digit = Annotated[int, Field(ge=0, le=9)]
Names = Annotated[list[Annotated[str, Field(max_length=200)]], Field(max_length=32)]


class MessageError(Exception):
    """A message is invalid, or cannot take effect now; the text is one line for the page."""


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Settings(_Message):
    """The settings of moving digits; `saccade.data.digits.StreamSettings` states their meanings and bounds."""

    num_digits: int
    max_angle_deg: float
    scale_low: float
    scale_high: float
    speed_px: float
    tempo: float
    per_digit: bool
    clutter: int
    noise: float


class Picked(_Message):
    """Put a digit of the data in one place of the stream; `instance` counts images of its class, cyclically."""

    type: Literal["pick"] = "pick"
    slot: Slot
    digit: Digit
    instance: Annotated[int, Field(ge=0, lt=2**31)] = 0


class Drawn(_Message):
    """Put a digit drawn by hand in one place of the stream.

    *Conventions:* points are (x, y), x to the right and y down, 0 to 255 across the drawing area. The label is the
    digit that the drawing represents; without a label, verdicts are not judged.
    """

    type: Literal["draw"] = "draw"
    slot: Slot
    strokes: Annotated[
        list[Annotated[list[Point], Field(min_length=1, max_length=MAX_POINTS)]],
        Field(min_length=1, max_length=MAX_STROKES),
    ]
    label: Digit | None = None


class Start(_Message):
    """Start a new stream of digits from a seed, settings, and chosen digits for some of the places."""

    type: Literal["start"]
    seed: Annotated[int, Field(ge=0, lt=2**31)]
    settings: Settings
    digits: Annotated[list[Drawn | Picked], Field(max_length=5)] = []


class Change(_Message):
    """Continue the same stream with other settings."""

    type: Literal["settings"]
    settings: Settings


class Pace(_Message):
    """Set the maximum frame rate, in frames per second."""

    type: Literal["pace"]
    fps: Annotated[float, Field(ge=FPS[0], le=FPS[1])]


class Pause(_Message):
    """Pause or resume."""

    type: Literal["pause"]
    paused: bool


class Step(_Message):
    """Show one more frame while paused."""

    type: Literal["step"]


class Seek(_Message):
    """Continue the video from another frame, counted from 0."""

    type: Literal["seek"]
    frame: Annotated[int, Field(ge=0, lt=2**31)]


class Forget(_Message):
    """Clear the temporal states of the models."""

    type: Literal["forget"]


class Source(_Message):
    """Choose the source of frames.

    A stream has no address here: a page that could name one could make the server open whatever its machine can reach.
    """

    type: Literal["source"]
    kind: Literal["digits", "camera", "video", "stream"]


class Show(_Message):
    """Choose the results that the page shows; the server computes no others.

    Args:
        models: the names of the models to run.
        saliency: the names of the models whose saliency is computed, which doubles their time.
        clean: whether frames of the camera and of videos are converted to light strokes on a dark background. It has an
            effect only if the models know digits.
    """

    type: Literal["show"]
    models: Names
    saliency: Names
    clean: bool


class Seen(_Message):
    """Report that the page has shown the frame with this number."""

    type: Literal["seen"]
    number: Annotated[int, Field(ge=0)]


Message = Start | Change | Pace | Pause | Step | Seek | Forget | Source | Show | Seen | Drawn | Picked

Errand = Start | Drawn | Picked
"""Messages that are slow to apply."""

_CAMERA = struct.Struct(">BBI")
_ADAPTER: TypeAdapter[Message] = TypeAdapter(Annotated[Message, Field(discriminator="type")])


def parse(text: str) -> Message:
    """Parse a text message.

    Raises:
        MessageError: if the text is not JSON, the type is unknown, or a field is missing, unknown or out of bounds.

    >>> parse('{"type": "pause", "paused": true}').paused
    True
    """
    try:
        return _ADAPTER.validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        # The location may contain arbitrary keys from the page.
        place = ".".join(str(part)[:40] for part in first["loc"][:6])
        raise MessageError(f"message not understood: {place + ': ' if place else ''}{first['msg'][:200]}") from error


@dataclass(frozen=True)
class CameraFrame:
    """A frame of the page's camera.

    Args:
        pixels: (height, width, channels).
        time_s: the time at which the camera showed it, in seconds after any moment.
    """

    pixels: NDArray[np.uint8]
    time_s: float


def parse_camera(data: bytes, channels: int) -> CameraFrame:
    """Parse a camera frame.

    *Conventions:* the first byte is the height, the second the width; 0 means 256. Four bytes with the time in
    milliseconds follow, the highest first. The pixels follow row by row, with one byte per channel.

    Args:
        data: the message.
        channels: 1 for grey, 3 for RGB.

    Raises:
        MessageError: if the number of bytes does not match height, width and channels.

    >>> frame = parse_camera(bytes([28, 30, 0, 0, 0, 40]) + bytes(28 * 30), 1)
    >>> frame.pixels.shape, frame.time_s
    ((28, 30, 1), 0.04)
    """
    if len(data) < _CAMERA.size:
        raise MessageError(f"a camera frame begins with its height, width and time; got {len(data)} bytes")
    *edges, time_ms = _CAMERA.unpack_from(data)
    height, width = (edge or 256 for edge in edges)
    if len(data) != (needed := _CAMERA.size + height * width * channels):
        kind = "grey" if channels == 1 else "RGB"
        raise MessageError(f"a camera frame of {height}x{width} {kind} px is {needed} bytes long; got {len(data)}")
    pixels = np.frombuffer(data, np.uint8, offset=_CAMERA.size).reshape(height, width, channels)
    return CameraFrame(pixels, time_ms / 1000)
