"""Test-time turning: the probabilities of a model, averaged over turned copies of a clip."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn

from saccade.evaluate.page_sections import percent
from saccade.labels import Labels
from saccade.robustness.changes import turned
from saccade.robustness.curves import Curve

_LEAST_GAP = 0.02  # a smaller difference is no gap


class TurnedCopies(nn.Module):
    """A model whose probabilities are averaged over copies of a clip, turned by equal parts of a full turn.

    The copies are turned as pixels: of what lies near the corners of a frame, most copies show only a part.

    Args:
        model: a model from clips to logits.
        labels: its classes.
        num_turns: the number of copies; the first is the clip itself.

    >>> from saccade import models
    >>> model = models.create("lenet-lstm")
    >>> TurnedCopies(model, model.labels, 4)(torch.zeros(1, 2, 1, 64, 64, dtype=torch.uint8)).shape
    torch.Size([1, 2, 55])
    """

    def __init__(self, model: nn.Module, labels: Labels, num_turns: int) -> None:
        super().__init__()
        self.model, self.labels, self.num_turns = model, labels, num_turns

    def forward(
        self, clips: UInt8[Tensor, "batch time channels height width"], lengths: Int64[Tensor, "batch"] | None = None
    ) -> Float[Tensor, "batch time classes"]:
        """Return logits with the averaged probabilities."""
        total: Tensor | None = None
        for copy in range(self.num_turns):
            angle_deg = 360.0 * copy / self.num_turns
            frames = torch.stack([turned(clip, angle_deg) for clip in clips]) if copy else clips
            logits = self.model(frames, *(() if lengths is None else (lengths,)))
            said = self.labels.probabilities(logits.float())
            total = said if total is None else total + said
        assert total is not None
        mean = (total / self.num_turns).clamp(min=torch.finfo(torch.float32).tiny)
        return mean.log() if self.labels.exclusive else torch.logit(mean, eps=1e-7)


def told_of_turning(found: Sequence[Curve]) -> list[str]:
    """Return a line for each run on how far turned copies close the gap between upright and turned clips.

    Args:
        found: the curves; a run's curve with turned copies is compared with that without.
    """
    lines = []
    for curve in found:
        plain = next((one for one in found if (one.run, one.change, one.turns) == (curve.run, curve.change, 1)), None)
        if curve.turns == 1 or plain is None or curve.change != "turn":
            continue
        gap, gained = plain.unchanged.accuracy - plain.area, curve.area - plain.area
        told = (
            f"{curve.run}: over all angles, accuracy is {percent(plain.area)}, and {percent(curve.area)} with"
            f" probabilities averaged over {curve.turns} turned copies; on upright clips it goes from"
            f" {percent(plain.unchanged.accuracy)} to {percent(curve.unchanged.accuracy)}."
        )
        if gap > _LEAST_GAP and gained < 0:
            told += " The copies widen the gap between upright and turned clips."
        elif gap > _LEAST_GAP:
            told += f" The copies close {100 * gained / gap:.0f} % of the gap between upright and turned clips."
        else:
            told += " There is hardly a gap between upright and turned clips to close."
        lines.append(told)
    return lines
