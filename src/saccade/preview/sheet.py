"""A sheet of clips as film strips with text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from jaxtyping import UInt8
from torch import Tensor

from saccade.errors import UsageError
from saccade.foreign import shown
from saccade.visualize.figures import DPI, load_pyplot, write_figure
from saccade.visualize.look_strip import evenly_spaced

Clip = UInt8[Tensor, "time channels height width"]

FEWEST_COLUMNS, MOST_COLUMNS = 4, 10
_FONT, _PALE = "DejaVu Sans", "#5d6470"  # the font comes with Matplotlib
# A sheet is about this wide; small frames are enlarged to about this height.
_SHEET_PX, _LEAST_PX, _TILE_PX = 1600, 900, 96
_MARGIN_PX, _LABEL_PX, _LINE_PX, _GAP_PX = 16, 88, 30, 4
_LETTER_PX, _FEWEST_LETTERS, _MOST_LETTERS = 8.0, 16, 60  # the width of a small letter, on average
# Matplotlib draws at most 65536 pixels in a row; before that, memory becomes large.
_HIGHEST_PX = 40_000


@dataclass(frozen=True)
class Block:
    """A clip and its augmented views.

    Args:
        title: the name of its class.
        about: its file and properties.
        rows: the clip, then its views; their lengths may differ.
    """

    title: str
    about: str
    rows: tuple[Clip, ...]

    @property
    def zoom(self) -> int:
        """The number of pixels on the sheet for the side of a pixel of the frame."""
        return max(1, round(_TILE_PX / self.rows[0].shape[-2]))

    @property
    def tile_px(self) -> tuple[int, int]:
        """(height, width) of a frame on the sheet."""
        height, width = self.rows[0].shape[-2:]
        return self.zoom * height, self.zoom * width

    @property
    def num_columns(self) -> int:
        """The number of frames that are shown of each row."""
        fitting = (_SHEET_PX - _LABEL_PX) // (self.tile_px[1] + _GAP_PX)
        return max(FEWEST_COLUMNS, min(fitting, MOST_COLUMNS))

    @property
    def size_px(self) -> tuple[int, int]:
        """(height, width) of the block with its title, without margins."""
        height, width = self.tile_px
        return (
            _LINE_PX + len(self.rows) * (height + _GAP_PX),
            _LABEL_PX + self.num_columns * (width + _GAP_PX) - _GAP_PX,
        )

    def draw(self, sheet: UInt8[Tensor, "height width 3"]) -> None:
        """Draw the frames into a part of a sheet of the size of the block."""
        height, width = self.tile_px
        for row, clip in enumerate(self.rows):
            top = _LINE_PX + row * (height + _GAP_PX)
            moments = evenly_spaced(len(clip), min(len(clip), self.num_columns))
            tiles = clip[moments].expand(-1, 3, -1, -1).permute(0, 2, 3, 1)
            tiles = tiles.repeat_interleave(self.zoom, 1).repeat_interleave(self.zoom, 2)
            for column, tile in enumerate(tiles):
                left = _LABEL_PX + column * (width + _GAP_PX)
                sheet[top : top + height, left : left + width] = tile

    def write(self, text: Text, top: int, width: int) -> None:
        """Write class, file and the names of the rows on a sheet."""
        base = top + _LINE_PX - 9
        end = text.line(shown(self.title), _MARGIN_PX, base, most=_MOST_LETTERS, size_pt=10, weight="bold")
        room = max(_FEWEST_LETTERS, int((width - end) / _LETTER_PX))
        text.line(shown(self.about), end + 12, base, most=room, color=_PALE)
        height = self.tile_px[0]
        for row, clip in enumerate(self.rows):
            name = f"view {row}" if row else "clip"
            length = "1 frame" if len(clip) == 1 else f"{len(clip)} frames"
            middle = top + _LINE_PX + row * (height + _GAP_PX) + height / 2
            text.line(name, _MARGIN_PX, middle - 2, color=_PALE)
            text.line(length, _MARGIN_PX, middle + 13, color=_PALE)


def write_sheet(path: Path, heading: str, blocks: Sequence[Block]) -> None:
    """Write clips, one below the other, as a PNG file: each with a row per view, and a column per moment.

    Args:
        path: the file.
        heading: the text above all clips.
        blocks: the clips.

    Raises:
        UsageError: if the picture would be too high.
        MissingExtraError: if matplotlib is not installed.
        OSError: if the file cannot be written.
    """
    heights, widths = zip(*(block.size_px for block in blocks), strict=True)
    tops = list(accumulate((height + _MARGIN_PX for height in heights), initial=_LINE_PX + _MARGIN_PX))
    if tops[-1] > _HIGHEST_PX:
        raise UsageError(f"the picture would be {tops[-1]} px high; draw fewer clips or views, for {_HIGHEST_PX} px")
    sheet = torch.full((tops.pop(), 2 * _MARGIN_PX + max(_LEAST_PX, *widths), 3), 255, dtype=torch.uint8)
    height, width = sheet.shape[:2]
    # Sizes in inches are rounded down to whole pixels.
    figure = load_pyplot().figure(figsize=((width + 0.5) / DPI, (height + 0.5) / DPI), dpi=DPI)
    axis = figure.add_axes((0, 0, 1, 1), xlim=(0, figure.bbox.width), ylim=(figure.bbox.height, 0))
    axis.set_axis_off()
    text = Text(axis)
    text.line(heading, _MARGIN_PX, _LINE_PX, size_pt=11)
    for block, top in zip(blocks, tops, strict=True):
        block.draw(sheet[top:, _MARGIN_PX:])
        block.write(text, top, width)
    figure.figimage(sheet.numpy(), origin="upper", zorder=-1)
    write_figure(figure, path)


class Text:
    """Foreign text on an axis whose unit is a pixel.

    Args:
        axis: a Matplotlib axis.
    """

    def __init__(self, axis: Any) -> None:
        from matplotlib import font_manager

        self._axis = axis
        self._letters = font_manager.get_font(font_manager.findfont(_FONT)).get_charmap()

    def line(self, text: str, left: float, base: float, *, most: int = 200, size_pt: float = 8, **style: str) -> float:
        """Write a line, and return where it ends.

        Args:
            text: the line; characters that the font lacks become escapes.
            left: where it begins.
            base: the height of its base.
            most: the largest number of characters.
            size_pt: the size of the font in points.
            style: properties of Matplotlib's text.
        """
        legible = "".join(c if ord(c) in self._letters else f"\\u{ord(c):04x}" for c in text)
        line = self._axis.text(
            left, base, shortened(legible, most), size=size_pt, family=_FONT, parse_math=False, **style
        )
        return float(line.get_window_extent().x1)


def shortened(text: str, num: int) -> str:
    """Return text of at most `num` characters, without its middle if it is longer.

    >>> shortened("a_long_name.mp4", 10)
    'a_lo…e.mp4'
    """
    start = (num - 1) // 2
    return text if len(text) <= num else f"{text[:start]}…{text[len(text) - (num - 1 - start) :]}"
