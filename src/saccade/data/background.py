"""Background that training joins to clips, so that a model for streams learns where an event begins and ends."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from saccade.labels import IGNORED, Labels, Targets

SHARE = 0.5
"""The share of clips that get background before them; half of these get some after them too."""

# Parts of an event in which it does not count yet, and of the background after it in which it may still count.
_TOO_EARLY, _UNCLEAR = 0.1, 0.6

Part = Callable[[int, float, int], Tensor]


@dataclass(frozen=True)
class Background:
    """The clips in which nothing happens, and how they are joined to training clips.

    Background comes before half of all clips, and also after half of these. It is made of parts of clips with random
    starts. Clips in which nothing happens get it too: otherwise a change of the clip alone would announce an event.

    Args:
        none: the class that means that nothing happens.
        clips: the indices of its clips.
    """

    none: int
    clips: Sequence[int]

    @classmethod
    def of(cls, targets: Targets, labels: Labels) -> Background | None:
        """Return the background of some clips; None if no class means that nothing happens, or all or no clips have it.

        >>> Background.of(torch.tensor([0, 1, 0]), Labels(("none", "wave"), none="none"))
        Background(none=0, clips=(0, 2))
        """
        if labels.none is None:
            return None
        none = labels.names.index(labels.none)
        clips = tuple((targets == none).nonzero().flatten().tolist())
        return cls(none, clips) if 0 < len(clips) < len(targets) else None

    def joined(
        self, shown: Tensor, target: int, num_frames: int, part: Part, generator: np.random.Generator
    ) -> tuple[Tensor, Int64[Tensor, "time"]]:
        """Return a clip, perhaps with background, and the class of each frame.

        The first tenth of an event behind background does not count yet. Whether an event still counts is left open in
        the first three fifths of the background after it: these frames are `IGNORED`.

        Args:
            shown: the frames of the clip, or maps of them.
            target: its class.
            num_frames: the largest number of frames of a clip; with background, there are at most twice as many.
            part: a function that returns a part of a clip, given the index of the clip, where the part begins in the
                first half of the clip, from 0 to 1, and the largest number of frames.
            generator: the source of all choices.
        """
        before = after = shown[:0]
        if joins := generator.random() < SHARE:
            if generator.random() < 0.5:
                after = self._some(after, min(len(shown), num_frames // 2), part, generator)
            most = min(num_frames, 2 * num_frames - len(shown) - len(after))
            num = int(generator.integers(max(1, num_frames // 4), most, endpoint=True))
            before = self._some(before, num, part, generator)
        classes = torch.full((len(before) + len(shown) + len(after),), self.none)
        if target != self.none:
            start, end = len(before), len(before) + len(shown)
            classes[start + int(_TOO_EARLY * len(shown)) * joins : end] = target
            classes[end : end + int(_UNCLEAR * len(after))] = IGNORED
        return torch.cat((before, shown, after)), classes

    def _some(self, empty: Tensor, num: int, part: Part, generator: np.random.Generator) -> Tensor:
        """Return parts of background clips, `num` frames in all."""
        parts, left = [empty], num
        while left > 0:
            clip = self.clips[int(generator.integers(len(self.clips)))]
            parts.append(part(clip, generator.random(), left))
            left -= len(parts[-1])
        return torch.cat(parts)
