"""What a page may say: every message checked before anything is done with it.

Messages are JSON objects with a `type`; a frame of the camera comes as bytes. The page is foreign: whatever is not
exactly one of these is answered with one line that says what was wrong.
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

MAX_MESSAGE_BYTES = 1 << 18
"""Longest message that a page may send, in bytes."""

MAX_STROKES, MAX_POINTS = 32, 512
FPS = (1, 60)

Coordinate = Annotated[int, Field(ge=0, le=255)]
Point = tuple[Coordinate, Coordinate]
Slot = Annotated[int, Field(ge=0, le=4)]
Digit = Annotated[int, Field(ge=0, le=9)]
Names = Annotated[list[Annotated[str, Field(max_length=200)]], Field(max_length=32)]


class MessageError(Exception):
    """A message that cannot be understood, or asks for what cannot be; one line for the page."""


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Settings(_Message):
    """How digits move; `saccade.data.StreamSettings` says what each means and within which bounds."""

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
    """A digit from the data in one place of the stream: its class, and which image of that class, counted round."""

    type: Literal["pick"] = "pick"
    slot: Slot
    digit: Digit
    instance: Annotated[int, Field(ge=0, lt=2**31)] = 0


class Drawn(_Message):
    """A digit drawn by hand in one place of the stream.

    *Conventions:* points are (x, y), x to the right and y down, 0 to 255 across the drawing area. The label is the
    digit that it is meant to be; without one the page does not know what would be right.
    """

    type: Literal["draw"] = "draw"
    slot: Slot
    strokes: Annotated[
        list[Annotated[list[Point], Field(min_length=1, max_length=MAX_POINTS)]],
        Field(min_length=1, max_length=MAX_STROKES),
    ]
    label: Digit | None = None


class Start(_Message):
    """Restart a stream of digits: its seed, its settings, and the places that hold chosen digits."""

    type: Literal["start"]
    seed: Annotated[int, Field(ge=0, lt=2**31)]
    settings: Settings
    digits: Annotated[list[Drawn | Picked], Field(max_length=5)] = []


class Change(_Message):
    """Go on with the same stream under other settings."""

    type: Literal["settings"]
    settings: Settings


class Pace(_Message):
    """So many frames a second at most."""

    type: Literal["pace"]
    fps: Annotated[float, Field(ge=FPS[0], le=FPS[1])]


class Pause(_Message):
    """Stand still, or go on."""

    type: Literal["pause"]
    paused: bool


class Step(_Message):
    """One frame more while standing still."""

    type: Literal["step"]


class Seek(_Message):
    """Go on from another frame of the video."""

    type: Literal["seek"]
    frame: Annotated[int, Field(ge=0, lt=2**31)]


class Forget(_Message):
    """Let the models begin with an empty memory."""

    type: Literal["forget"]


class Source(_Message):
    """Where frames come from."""

    type: Literal["source"]
    kind: Literal["digits", "camera", "video"]


class Show(_Message):
    """What the page wants to see, so that nothing else is computed.

    Args:
        models: names of the models that shall run.
        saliency: names of those whose saliency is wanted, which takes twice as long.
        clean: whether pictures of camera and video become light strokes on a dark ground; only for models that know
            digits.
    """

    type: Literal["show"]
    models: Names
    saliency: Names
    clean: bool


class Seen(_Message):
    """The page has shown the frame of that number."""

    type: Literal["seen"]
    number: Annotated[int, Field(ge=0)]


Message = Start | Change | Pace | Pause | Step | Seek | Forget | Source | Show | Seen | Drawn | Picked

Errand = Start | Drawn | Picked
"""Messages that take long to do."""

_ADAPTER: TypeAdapter[Message] = TypeAdapter(Annotated[Message, Field(discriminator="type")])


def parse(text: str) -> Message:
    """Read a message.

    Raises:
        MessageError: no JSON, of no known type, or with a field that is missing, unknown or out of bounds.

    >>> parse('{"type": "pause", "paused": true}').paused
    True
    """
    try:
        return _ADAPTER.validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        # Parts of the place may be keys that the page made up.
        place = ".".join(str(part)[:40] for part in first["loc"][:6])
        raise MessageError(f"message not understood: {place + ': ' if place else ''}{first['msg'][:200]}") from error


def parse_camera(data: bytes, channels: int) -> NDArray[np.uint8]:
    """Read a frame of the camera: (height, width, channels).

    *Conventions:* the first byte is the height, the second the width, 0 standing for 256; then come the pixels, row by
    row, those of RGB as three bytes each.

    Args:
        data: the message.
        channels: 1 for grey, 3 for RGB.

    Raises:
        MessageError: too few or too many bytes.

    >>> parse_camera(bytes([28, 30]) + bytes(28 * 30), 1).shape
    (28, 30, 1)
    """
    if len(data) < 2:
        raise MessageError(f"a camera frame begins with its height and width; got {len(data)} bytes")
    height, width = (edge or 256 for edge in data[:2])
    if len(data) != (needed := 2 + height * width * channels):
        kind = "grey" if channels == 1 else "RGB"
        raise MessageError(f"a camera frame of {height}x{width} {kind} px is {needed} bytes long; got {len(data)}")
    return np.frombuffer(data, np.uint8, offset=2).reshape(height, width, channels)
