"""Scene cuts, by how much a frame differs from the one before."""

from __future__ import annotations

from jaxtyping import UInt8
from torch import Tensor
from torch.nn import functional as F

_CELLS = 8
# Of the range of brightness, on average over the cells; and how many times that is of the usual difference.
_LEAST_DIFFERENCE, _TIMES_USUAL = 0.1, 5.0
_SHARE_OF_NEW = 0.1


class Cuts:
    """Tell the first frame after a scene cut.

    A cut is a frame whose mean brightness in 8x8 cells differs from the frame before by a tenth of the range on
    average, and by five times the recent difference. So neither motion nor a slow change of light counts. A flash
    counts, and so does a camera that is covered at once.

    >>> import torch
    >>> cuts = Cuts()
    >>> dark, light = torch.zeros(2, 1, 32, 32, dtype=torch.uint8), torch.full((2, 1, 32, 32), 200, dtype=torch.uint8)
    >>> [cuts.push(frame) for frame in torch.cat((dark, light))]
    [False, False, True, False]
    """

    def __init__(self) -> None:
        self._before: Tensor | None = None
        self._usual = 0.0

    def push(self, frame: UInt8[Tensor, "channels height width"]) -> bool:
        """Return whether a cut lies before the next frame."""
        cells = F.adaptive_avg_pool2d(frame.float().unsqueeze(0) / 255, _CELLS)
        before, self._before = self._before, cells
        if before is None:
            return False
        difference = float((cells - before).abs().mean())
        if difference > max(_LEAST_DIFFERENCE, _TIMES_USUAL * self._usual):
            return True
        self._usual += _SHARE_OF_NEW * (difference - self._usual)
        return False
