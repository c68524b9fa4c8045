"""A temporal part without weights: what a window of recent features was like, and how it changed; and its head."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from saccade.nn.shapes import check_shape
from saccade.nn.temporal import State

DEGREE = 3
# Keeps the gradient of the square root finite where a feature does not change.
_LEAST_VARIANCE = 1e-6


class Memory(nn.Module):
    """Describe the last frames by the coefficients of Legendre polynomials over time, and by the standard deviation.

    The coefficient of degree 0 is the mean of a feature over the window, degree 1 its trend, degrees 2 and 3 its
    curvature. The time axis of a window that is not full yet ends at the present frame: a clip shorter than the window
    is described as a whole, whatever its length.

    *Conventions:* the state at a frame is (degree 0, degree 1, ..., deviation), each with one number per feature, and
    then the number of frames in the window, one number. Coefficients are scaled so that polynomials have unit mean
    square.

    Args:
        in_features: the size of the feature of a frame.
        window: the number of frames, up to the present one, that are described.

    Raises:
        ValueError: if the window is below 1 frame; in `forward`, if features or state have another shape.

    >>> memory = Memory(1, window=4)
    >>> states, _ = memory(torch.tensor([[[1.0], [2.0], [3.0]]]), memory.initial_state(1))
    >>> states[0, -1, :2].tolist()  # the mean, and a positive trend
    [2.0, 0.7698003...]

    Source: Voelker et al. 2019, "Legendre memory units", whose window is fixed; here the sums over it are exact.
    """

    def __init__(self, in_features: int, *, window: int) -> None:
        super().__init__()
        if window < 1:
            raise ValueError(f"window is {window}; at least 1 frame is needed")
        self.in_features, self.window = in_features, window
        self.num_units = in_features * (DEGREE + 2) + 1

    def initial_state(self, batch: int) -> State:
        """Return an empty window for each clip, and 0 for the number of frames seen."""
        return torch.zeros(batch, self.window - 1, self.in_features), torch.zeros(batch, dtype=torch.int64)

    def forward(
        self, features: Float[Tensor, "batch time features"], state: State
    ) -> tuple[Float[Tensor, "batch time units"], State]:
        """Return the state at every frame, and the state to pass in with the next frames."""
        check_shape("features", features, "batch", "time", self.in_features)
        check_shape("states", state[0], len(features), self.window - 1, self.in_features)
        past, count = state[0].to(features.device, torch.float32), state[1].to(features.device)
        found = []
        with torch.autocast(features.device.type, enabled=False):
            for part in features.float().split(self.window, 1):  # a window at a time: memory is linear in the length
                known = torch.cat((past, part), 1)
                found.append(self._described(known, count, part.shape[1]))
                past, count = known[:, part.shape[1] :], (count + part.shape[1]).clamp(max=self.window)
        return torch.cat(found, 1), (past, count)

    def _described(
        self, known: Float[Tensor, "batch frames features"], count: Int64[Tensor, "batch"], num: int
    ) -> Float[Tensor, "batch num units"]:
        """Describe the window that ends at each of the last `num` frames of `known`."""
        new = torch.arange(num, device=count.device)
        size = (count.unsqueeze(1) + new + 1).clamp(max=self.window)  # frames in the window of each new frame
        shares = self._polynomials(size)
        coefficients = torch.einsum("btsk,bsf->btkf", shares, known)
        # The difference of two squares: in float32, a mean of 100 would hide a deviation of 0.1.
        exact, inside = known.double(), (shares[..., 0] > 0).double()
        even = inside / inside.sum(-1, keepdim=True)
        variance = even @ exact.square() - (even @ exact).square()
        deviation = (variance.clamp(min=0) + _LEAST_VARIANCE).sqrt().float()
        return torch.cat((coefficients.flatten(2), deviation, size.unsqueeze(-1).float()), -1)

    def _polynomials(self, size: Int64[Tensor, "batch num"]) -> Float[Tensor, "batch num frames degrees"]:
        """Return the share of each known frame in each coefficient of each new frame, whose window has some size."""
        device, num = size.device, size.shape[1]
        frame = torch.arange(self.window - 1 + num, device=device)
        first = self.window + torch.arange(num, device=device) - size  # where the window begins
        place = frame - first.unsqueeze(-1)
        inside = (place >= 0) & (place < size.unsqueeze(-1))
        x = (2 * place + 1) / size.unsqueeze(-1) - 1
        values = torch.stack(
            (
                torch.ones_like(x),
                3**0.5 * x,
                5**0.5 * (3 * x**2 - 1) / 2,
                7**0.5 * (5 * x**3 - 3 * x) / 2,
            ),
            -1,
        )
        return torch.where(inside.unsqueeze(-1), values / size[..., None, None], 0.0)


class MemoryHead(nn.Linear):
    """A linear head on the states of a `Memory`, with a temperature that falls to 1 with the number of frames seen.

    What a head has learned about whole clips makes it too sure of their first frames. So its logits are divided by
    `temperature_after`. The most likely class stays the same.

    A window that is not full holds a clip from its beginning. A full one holds the end of a stream, in which there is
    more than an event. So a model of streams has a second linear part, `stream`, for full windows.

    Args:
        in_features: the size of a state, of which the last number is that of frames in the window.
        out_features: the number of classes.
        early: the temperature at the first frame; 1 at all frames if it is 1.
        decay: the number of frames in which its excess over 1 falls to 1/e.
        full_window: the number of frames of a full window, for which there is a second part; None for no such part.

    Raises:
        ValueError: if `early` is below 1, `decay` is not positive, or one of them is not finite.

    Source: Guo et al. 2017, "On calibration of modern neural networks", whose temperature is constant.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        early: float = 1.0,
        decay: float = 1.0,
        full_window: int | None = None,
    ) -> None:
        if not (1 <= early < math.inf and 0 < decay < math.inf):
            raise ValueError(f"early is {early} and decay {decay}; at least 1 and above 0 are needed, both finite")
        super().__init__(in_features - 1, out_features)
        self.early, self.decay, self.full_window = early, decay, full_window
        self.stream = None if full_window is None else nn.Linear(in_features - 1, out_features)

    def forward(self, states: Float[Tensor, "*any units"]) -> Float[Tensor, "*any classes"]:
        """Return the logit of every class."""
        states, num_frames = states[..., :-1], states[..., -1:]
        of_clip = super().forward(states) / temperature_after(num_frames, self.early, self.decay)
        if self.stream is None or self.full_window is None:
            return of_clip
        return torch.where(num_frames >= self.full_window, self.stream(states), of_clip)


def temperature_after(num_frames: Float[Tensor, "*any"], early: float, decay: float) -> Float[Tensor, "*any"]:
    """Return the temperature of a `MemoryHead` after some frames.

    >>> temperature_after(torch.tensor([1.0, 4.0, 31.0]), early=5.0, decay=3.0)
    tensor([5.0000, 2.4715, 1.0002])
    """
    return 1 + (early - 1) * torch.exp((1 - num_frames) / decay)
