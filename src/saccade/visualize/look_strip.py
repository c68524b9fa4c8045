"""Pairs of film strips that show the frames of a clip above, and a model's attention to them below."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional as F

from saccade.attention import Look
from saccade.attention.look import tiled
from saccade.data.video_writing import write_png
from saccade.visualize.animation import animate
from saccade.visualize.figures import DPI, load_pyplot
from saccade.visualize.look_picture import LookPicture

NUM_SHOWN = 10
_GAP = 0.05  # between frames, as a fraction of their width


@dataclass(frozen=True)
class LookStrip:
    """Evenly spaced frames of a clip, and where a model looked in them.

    Args:
        title: the text above the strips.
        frames: the frames of the clip.
        look: where the model looked in the clip.
        colour: the colour of the model.
        num_shown: the number of frames to show; if the clip is shorter, frames repeat.
    """

    title: str
    frames: UInt8[Tensor, "time channels height width"]
    look: Look
    colour: str
    num_shown: int = NUM_SHOWN

    @property
    def times(self) -> list[int]:
        """The indices of the frames that are shown."""
        return evenly_spaced(len(self.frames), self.num_shown)

    @property
    def height_per_width(self) -> float:
        """The height of one strip divided by its width."""
        height, width = self.frames.shape[-2:]
        return height / (width * self._length)

    @property
    def _length(self) -> float:
        return self.num_shown * (1 + _GAP) - _GAP

    def draw(self, upper: Any, lower: Any, *, line_pt: float = 1.0) -> None:
        """Draw the pair of strips.

        The upper strip shows the frames, with the areas that a spatial transformer samples. The lower strip shows the
        crops of a spatial transformer, or the sampling points of a deformable model, or else the saliency.

        Args:
            upper: a Matplotlib axis.
            lower: another Matplotlib axis.
            line_pt: the line width of the quadrilaterals, in points.
        """
        self._draw_frames(upper, self.frames, ("quad",), line_pt)
        if self.look.crop is not None:
            self._draw_frames(lower, as_frames(self.look.crop, self.frames.shape[-2:]), (), line_pt)
        else:
            below = ("points",) if self.look.points_px is not None else ("saliency",)
            self._draw_frames(lower, self.frames, below, line_pt)
        upper.set_title(self.title, fontsize=8, loc="left", pad=3, parse_math=False)

    def picture(self, width_px: int = 960) -> UInt8[Tensor, "3 height width"]:
        """Return the pair of strips as an image.

        Raises:
            MissingExtraError: if matplotlib is not installed.
        """
        width, title, gap = width_px / DPI, 0.24, 0.06
        strip = (width - 2 * gap) * self.height_per_width
        height = title + 2 * (strip + gap)
        figure = load_pyplot().figure(figsize=(width, height), dpi=DPI)
        bottoms = (strip + 2 * gap, gap)
        self.draw(*(figure.add_axes((gap / width, y / height, 1 - 2 * gap / width, strip / height)) for y in bottoms))
        return animate(figure, (), 1)[0]

    def _draw_frames(
        self, axis: Any, frames: UInt8[Tensor, "time channels h w"], layers: Collection[str], line_pt: float
    ) -> None:
        height, width = frames.shape[-2:]
        pitch = width * (1 + _GAP)
        axis.set_xlim(-0.5, self._length * width - 0.5)
        axis.set_ylim(height - 0.5, -0.5)
        axis.set_aspect("equal")
        axis.set_axis_off()
        for place, t in enumerate(self.times):
            origin = (0.0, place * pitch)
            picture = LookPicture(
                axis, frames, self.look, colour=self.colour, layers=layers, origin=origin, line_pt=line_pt
            )
            picture.show(t)
            _clip_to_frame(axis, picture, (place * pitch, width, height))


def evenly_spaced(num_frames: int, num_shown: int) -> list[int]:
    """Return the indices of evenly spaced frames, from the first to the last.

    >>> evenly_spaced(50, 4), evenly_spaced(2, 3)
    ([0, 16, 33, 49], [0, 0, 1])
    """
    return list(torch.linspace(0, num_frames - 1, num_shown).round().long().tolist())


def draw_looks(path: Path, strips: Sequence[LookStrip]) -> None:
    """Draw pairs of film strips, one below the other.

    Args:
        path: the `.png` file to write.
        strips: the pairs, for example one for each model and condition.

    Raises:
        MissingExtraError: if matplotlib is not installed.
    """
    write_png(path, torch.cat([strip.picture() for strip in strips], 1))


def as_frames(
    crops: Float[Tensor, "time glimpses channels h w"], size: Sequence[int]
) -> UInt8[Tensor, "time channels height width"]:
    """Convert crops in [0, 1] to frames of the given size; crops of another size are resized.

    Several glimpses share a frame, up to two in a row, on white.
    """
    num = 1 if crops.shape[1] == 1 else 2
    height, width = ((edge - num + 1) // num for edge in size)
    mode = "nearest" if height >= crops.shape[-2] or num == 1 else "area"
    pixels = F.interpolate(crops.detach().float().cpu().flatten(0, 1), (height, width), mode=mode)
    picture = tiled(pixels.unflatten(0, crops.shape[:2]))
    below, right = size[0] - picture.shape[-2], size[1] - picture.shape[-1]
    picture = F.pad(picture, (right // 2, right - right // 2, below // 2, below - below // 2), value=1.0)
    return (255 * picture.clamp(0, 1)).round().to(torch.uint8)


def _clip_to_frame(axis: Any, picture: LookPicture, place: tuple[float, float, float]) -> None:
    """Clip the marks of a frame, so that they do not cover its neighbours."""
    from matplotlib.patches import Rectangle

    left, width, height = place
    # Half of the gap is included: otherwise lines on the border of the frame would be half as wide.
    rim = width * _GAP / 2
    corner, size = (left - 0.5 - rim, -0.5 - rim), (width + 2 * rim, height + 2 * rim)
    frame = Rectangle(corner, *size, transform=axis.transData)
    for artist in picture.artists:
        artist.set_clip_path(frame)
