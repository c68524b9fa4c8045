"""The choice of the frames that a model for some clips expects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

from saccade.clips import MAX_PX, MIN_PX, SHORT_SIDE_PX, FrameFormat, Size
from saccade.data.labelled import LabelledClip
from saccade.data.video import Description, describe
from saccade.errors import DataError, UsageError

# Training uses about this frame rate: of a faster clip it takes every second, third, ... frame.
_ABOUT_FPS = 15.0

MAX_DESCRIBED = 500
"""The frame format is chosen from so many clips; of more, some are drawn at random."""
# The longer side of frames whose shorter side is above 160 px, as a multiple of it.
_LONGEST = 1.6


@dataclass(frozen=True)
class FrameChoice:
    """How the frame format of a training is chosen from its clips.

    Args:
        short_side: the length in pixels of the shorter side of frames after resizing. If all clips have the same size,
            at most this and at least 28 px, they keep it.
        enlarge: whether smaller frames are enlarged to `short_side`.

    Raises:
        UsageError: if `short_side` is too small.
    """

    short_side: int = SHORT_SIDE_PX
    enlarge: bool = False

    def __post_init__(self) -> None:
        if self.short_side < MIN_PX:
            raise UsageError(f"short_side must be at least {MIN_PX}; got {self.short_side}")

    def of(self, clips: Sequence[Description]) -> FrameFormat:
        """Return the frame format for some clips.

        It is grey if all of them are. The rate is the median of theirs, divided by a whole number to come near 15
        frames per second. The proportions are the median of theirs.

        >>> FrameChoice(short_side=160, enlarge=True).of([Description((48, 64), 30.0, grey=False)])
        FrameFormat(channels=3, size=(160, 213), mean=(0.0,), std=(1.0,), fps=15.0)
        """
        rates = [clip.fps for clip in clips if clip.fps]
        usual = median(rates) if rates else None
        fps = usual / max(1, round(usual / _ABOUT_FPS)) if usual else None
        channels = 1 if all(clip.grey for clip in clips) else 3
        return FrameFormat(channels, self._size([clip.size for clip in clips]), fps=fps)

    def _size(self, sizes: Sequence[Size]) -> Size:
        if (
            not self.enlarge
            and len(set(sizes)) == 1
            and MIN_PX <= min(sizes[0]) <= self.short_side
            and max(sizes[0]) <= MAX_PX
        ):
            return sizes[0]
        wide = median(width / height for height, width in sizes)
        # Above the usual size, frames are as large as they are.
        own = MAX_PX if self.enlarge else max(SHORT_SIDE_PX, round(median(map(min, sizes))))
        shorter = min(self.short_side, own)
        longer = min(round(shorter * max(wide, 1 / wide)), max(MAX_PX, round(_LONGEST * shorter)))
        return (shorter, longer) if wide >= 1 else (longer, shorter)


def sample(clips: Sequence[LabelledClip], seed: int) -> list[LabelledClip]:
    """Return `MAX_DESCRIBED` of many clips, drawn at random, in their order."""
    some = np.random.default_rng(seed).permutation(len(clips))[:MAX_DESCRIBED]
    return [clips[place] for place in sorted(some)]


class Descriptions:
    """The descriptions of files, each read once, and the errors of those that cannot be read."""

    def __init__(self) -> None:
        self._found: dict[Path, Description | DataError] = {}

    def of(self, clips: Sequence[LabelledClip]) -> list[Description]:
        """Return the descriptions of the clips that can be read."""
        return [said for clip in clips if isinstance(said := self._of_file(clip.path), Description)]

    def failed(self, clips: Sequence[LabelledClip]) -> Mapping[str, str]:
        """Return the names of the clips that cannot be read, each with the reason."""
        return {c.name: str(said) for c in clips if isinstance(said := self._of_file(c.path), DataError)}

    def _of_file(self, path: Path) -> Description | DataError:
        if path not in self._found:
            try:
                self._found[path] = describe(path)
            except DataError as error:
                self._found[path] = error
        return self._found[path]
