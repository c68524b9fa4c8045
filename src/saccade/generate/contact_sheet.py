"""Contact sheets: a row per clip, a column per frame, boxes around the digits, angle and scale below."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import UInt8
from torch import Tensor

from saccade.clips import ClipBatch, Poses
from saccade.data.digits import Motion

# A character has five rows of three dots; each octal digit is one row.
_FONT = {
    "0": "75557", "1": "26227", "2": "71747", "3": "71717", "4": "55711", "5": "74717", "6": "74757", "7": "71122",
    "8": "75757", "9": "75717", "-": "00700", "+": "02720", ".": "00002", "°": "25200", "x": "00525", " ": "00000",
}  # fmt: skip
_BACKGROUND, _TEXT, _FAINT = (22, 22, 26), (235, 235, 235), (140, 140, 150)
# People with red-green colour blindness can tell these colours apart.
_BOXES = ((238, 119, 51), (51, 187, 238), (204, 187, 68), (170, 51, 119), (34, 136, 51))
_NUM_COLUMNS, _TILE_PX, _GAP_PX, _LINE_PX = 10, 128, 6, 16


def draw_contact_sheet(batch: ClipBatch, names: Sequence[str], motion: Motion) -> UInt8[Tensor, "3 height width"]:
    """Draw evenly spaced frames of clips, with the boxes of their digits and the first digit's angle and scale.

    Args:
        batch: uint8 grey clips with poses.
        names: the text before each row.
        motion: the motion of the digits; angle and scale are written only if they change.

    >>> from saccade.data import digits
    >>> from saccade.data.digits import MovingDigits
    >>> motion = Motion("rotation", num_frames=4)
    >>> batch = MovingDigits(digits.load("uci", "test"), motion).located(torch.arange(2))
    >>> draw_contact_sheet(batch, ["00", "01"], motion).shape
    torch.Size([3, 322, 588])
    """
    assert batch.poses is not None
    num_frames, side = batch.frames.shape[1], batch.frames.shape[-1]
    zoom = max(1, _TILE_PX // side)
    tile = side * zoom
    moments = torch.linspace(0, num_frames - 1, min(num_frames, _NUM_COLUMNS)).round().long().tolist()
    margin = max(_text_width(name, _name_zoom(name)) for name in names) + 2 * _GAP_PX
    row_px = tile + _GAP_PX + (_LINE_PX if motion.rotates or motion.scales else 0)
    sheet = torch.tensor(_BACKGROUND, dtype=torch.uint8).repeat(
        _LINE_PX + _GAP_PX + len(names) * row_px, margin + len(moments) * (tile + _GAP_PX), 1
    )
    for column, moment in enumerate(moments):
        left = margin + column * (tile + _GAP_PX)
        _write(sheet, str(moment), _GAP_PX, left, 2, _FAINT)
        for row, name in enumerate(names):
            top = _LINE_PX + _GAP_PX + row * row_px
            zoomed = batch.frames[row, moment, 0].repeat_interleave(zoom, 0).repeat_interleave(zoom, 1)
            sheet[top : top + tile, left : left + tile] = zoomed.unsqueeze(-1)
            for box, colour in zip(batch.poses.box_px[row, moment].tolist(), _BOXES, strict=False):
                _outline(sheet[top : top + tile, left : left + tile], [zoom * edge for edge in box], colour)
            pose = _pose(batch.poses, row, moment, motion)
            _write(sheet, pose, top + tile + 4, left, 2 if _text_width(pose, 2) <= tile + _GAP_PX else 1, _FAINT)
            if column == 0:
                size = _name_zoom(name)
                _write(sheet, name, top + (tile - 5 * size) // 2, _GAP_PX, size, _TEXT)
    return sheet.permute(2, 0, 1)


def _pose(poses: Poses, row: int, moment: int, motion: Motion) -> str:
    angle, scale = (float(values[row, moment, 0]) for values in (poses.angle_deg, poses.scale))
    return " ".join([f"{angle:+.0f}°"] * motion.rotates + [f"x{scale:.2f}"] * motion.scales)


def _name_zoom(name: str) -> int:
    return 5 if len(name) <= 2 else 3


def _text_width(text: str, zoom: int) -> int:
    return 4 * zoom * len(text)


def _write(sheet: Tensor, text: str, top: int, left: int, zoom: int, colour: tuple[int, int, int]) -> None:
    for place, character in enumerate(text):
        dots = torch.tensor([[int(row) >> bit & 1 for bit in (2, 1, 0)] for row in _FONT[character]], dtype=torch.bool)
        inked = dots.repeat_interleave(zoom, 0).repeat_interleave(zoom, 1)
        start = left + 4 * zoom * place
        sheet[top : top + 5 * zoom, start : start + 3 * zoom][inked] = torch.tensor(colour, dtype=torch.uint8)


def _outline(tile: Tensor, box: list[int], colour: tuple[int, int, int]) -> None:
    top, left, bottom, right = box
    if bottom <= top or right <= left:
        return
    ink = torch.tensor(colour, dtype=torch.uint8)
    for edge in (
        tile[top, left:right],
        tile[bottom - 1, left:right],
        tile[top:bottom, left],
        tile[top:bottom, right - 1],
    ):
        edge.copy_(ink.expand_as(edge))
