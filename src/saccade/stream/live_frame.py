"""A frame of a source, as a model and a display want it."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import UInt8
from torch import Tensor


@dataclass(frozen=True)
class LiveFrame:
    """A frame that is due.

    Args:
        pixels: the frame in the size and channels of the model, in [0, 255]. A repeated frame has the same tensor.
        time_s: its display time in seconds after the first frame of the source, by the source's time stamps. It also
            grows over a gap.
        arrived_s: `time.monotonic()` when it was known to be due.
        begins: whether video begins with it: the first frame, and the first one after a gap. Whoever follows resets
            its state.
        picture: a larger picture in RGB for display; None if it was not asked for.
    """

    pixels: UInt8[Tensor, "channels height width"]
    time_s: float
    arrived_s: float
    begins: bool
    picture: UInt8[Tensor, "height width 3"] | None = None
