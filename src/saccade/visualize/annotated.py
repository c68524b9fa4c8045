"""A moment of a stream as a picture: the frame, where the model looked, and what it says."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from saccade.attention import Look
from saccade.errors import MissingExtraError
from saccade.foreign import shown
from saccade.stream import Moment, Prediction
from saccade.visualize.look_picture import UNIT_COLOURS, glimpse_colour

SIDE_PX = 640
"""The longer side of the frame in the picture; smaller frames are enlarged."""

_NARROWEST_PX, _RIM_PX, _PANEL_PX = 400, 16, 72
_HEADLINE_PX, _DETAILS_PX, _GAP_PX = 26, 15, 8
_BACKGROUND, _TEXT, _UNSURE, _MUTED = "#14181d", "#ffffff", "#f2b84b", "#b4bcc6"
_EDGE = "#ffffffd9"
# Marks are drawn larger and then reduced, so that their edges are smooth.
_OVERSAMPLING = 2
_LINE_PX, _DOT_PX, _CROSS_PX = 3, 4.5, 7
_FAINTEST = 0.1  # the radius of the smallest point that is drawn, as a fraction of the largest
_FARTHEST_PX = 10_000.0


class Annotator:
    """Draw moments of a stream: the frame with where the model looked, and below it the verdict and the delay.

    The area that a spatial transformer samples is an outline with a dot at its upper left corner; several areas have
    colours and numbers. Sampling points of
    deformable convolutions are dots, larger for a larger weight, in one colour for each unit; a cross marks the unit.

    Args:
        colour: the colour of the outline, or of the first if there are several.

    Raises:
        MissingExtraError: if matplotlib, which brings Pillow and the font, is not installed.
    """

    def __init__(self, colour: str = "#ee7733") -> None:
        try:
            import matplotlib
            from PIL import ImageFont
        except ImportError as error:
            raise MissingExtraError(error.name or "matplotlib", "plot") from error
        font = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
        sizes = (_HEADLINE_PX, _DETAILS_PX, _OVERSAMPLING * _DETAILS_PX)
        self._headline, self._details, self._number = (ImageFont.truetype(font, size) for size in sizes)
        self._colour = colour

    def jpeg(self, moment: Moment) -> bytes:
        """Return the picture of a moment as a JPEG file."""
        buffer = io.BytesIO()
        self._drawn(moment).save(buffer, "JPEG", quality=85)
        return buffer.getvalue()

    def draw(self, moment: Moment) -> UInt8[Tensor, "height width 3"]:
        """Return the picture of a moment.

        The frame's picture is drawn if it has one, or else the frame as the model sees it.
        """
        return torch.from_numpy(np.array(self._drawn(moment)))

    def _drawn(self, moment: Moment) -> Any:
        from PIL import Image

        frame = _enlarged(moment)
        width = max(_NARROWEST_PX, frame.width + 2 * _RIM_PX)
        canvas = Image.new("RGBA", (width, frame.height + 2 * _RIM_PX + _PANEL_PX), _BACKGROUND)
        left = (width - frame.width) // 2
        canvas.paste(frame, (left, _RIM_PX))
        if moment.look is not None:
            size, corner = (width, frame.height + 2 * _RIM_PX), (left, _RIM_PX)
            marks = _Marks(size, corner, frame.size, moment.look, self._colour, self._number)
            canvas.alpha_composite(marks.reduced())
        self._write(canvas, moment, frame.height + 2 * _RIM_PX)
        return canvas.convert("RGB")

    def _write(self, canvas: Any, moment: Moment, top: int) -> None:
        """Write the verdict and the delay below the frame."""
        from PIL import ImageDraw

        draw, prediction = ImageDraw.Draw(canvas), moment.prediction
        room = canvas.width - 2 * _RIM_PX
        percent = f"{100 * prediction.probability:.0f} %"
        name = _shortened(_named(prediction), self._headline, room - self._headline.getlength(percent) - 2 * _GAP_PX)
        colour = _TEXT if prediction.sure else _UNSURE
        draw.text((_RIM_PX, top), name, font=self._headline, fill=colour)
        draw.text((canvas.width - _RIM_PX, top), percent, font=self._headline, fill=colour, anchor="ra")
        told = f"{moment.frame.time_s:.1f} s    latency {1000 * moment.latency_s:.0f} ms    {moment.dropped} dropped"
        below = top + _HEADLINE_PX + 2 * _GAP_PX
        draw.text((_RIM_PX, below), _shortened(told, self._details, room), font=self._details, fill=_MUTED)


class _Marks:
    """Where a model looked, on a transparent layer above a frame.

    Args:
        size: width and height of the layer.
        corner: x and y of the upper left corner of the frame in it.
        frame_size: width and height of the frame in it.
        look: where the model looked in one frame.
        colour: the colour of the outline.
        font: the font of the numbers of several outlines.
    """

    def __init__(
        self,
        size: tuple[int, int],
        corner: tuple[int, int],
        frame_size: tuple[int, int],
        look: Look,
        colour: str,
        font: Any,
    ) -> None:
        from PIL import Image, ImageDraw

        width, height = size
        self._layer = Image.new("RGBA", (_OVERSAMPLING * width, _OVERSAMPLING * height))
        self._draw = ImageDraw.Draw(self._layer)
        self._font = font
        self._corner = torch.tensor(corner)
        self._zoom = torch.tensor(frame_size) / torch.tensor(look.frame_size).flip(0)
        if look.points_px is not None and look.point_weight is not None and look.unit_px is not None:
            for unit, (points, centre) in enumerate(zip(look.points_px[-1], look.unit_px[-1], strict=True)):
                weight = look.point_weight[-1] / look.point_weight[-1].amax().clamp(min=1e-12)
                self._add_unit(points, weight[unit], centre, UNIT_COLOURS[unit % len(UNIT_COLOURS)])
        if look.quadrilateral_px is not None:
            glimpses = look.quadrilateral_px[-1]
            for index, corners in enumerate(glimpses):
                self._add_outline(corners, glimpse_colour(index, colour), index + 1 if len(glimpses) > 1 else None)

    def reduced(self) -> Any:
        """Return the layer in its size."""
        return self._layer.reduce(_OVERSAMPLING)

    def _add_outline(self, corners: Float[Tensor, "4 2"], colour: str, number: int | None) -> None:
        places = self._placed(corners)
        path = [*places, places[0], places[1]]  # once more along the first edge, so that every corner is round
        for fill, width in ((_EDGE, 2 * _LINE_PX), (colour, _LINE_PX)):
            self._draw.line(path, fill=fill, width=_OVERSAMPLING * width, joint="curve")
        self._add_dot(places[0], (2 if number is None else 3.5) * _LINE_PX, colour)
        if number is not None:
            self._draw.text(places[0], str(number), fill=_TEXT, font=self._font, anchor="mm")

    def _add_unit(self, points: Tensor, weight: Tensor, centre: Tensor, colour: str) -> None:
        radii = weight.cpu().sqrt().tolist()
        for place, radius in zip(self._placed(points), radii, strict=True):
            if radius > _FAINTEST:
                self._add_dot(place, radius * _DOT_PX, colour)
        ((x, y),) = self._placed(centre.unsqueeze(0))
        for fill, width, more in ((_EDGE, 5, 1), (colour, 3, 0)):
            reach = _OVERSAMPLING * (_CROSS_PX + more)
            self._draw.line([(x - reach, y), (x + reach, y)], fill=fill, width=_OVERSAMPLING * width)
            self._draw.line([(x, y - reach), (x, y + reach)], fill=fill, width=_OVERSAMPLING * width)

    def _add_dot(self, place: tuple[float, float], radius_px: float, colour: str) -> None:
        self._draw.circle(place, _OVERSAMPLING * radius_px, fill=colour, outline=_EDGE, width=_OVERSAMPLING)

    def _placed(self, positions: Float[Tensor, "n 2"]) -> list[tuple[float, float]]:
        """Return positions, (y, x) in the model's frame, as (x, y) in the layer."""
        # The centre of a pixel is at whole coordinates; its upper left corner is half a pixel before.
        x_y = (positions.detach().float().cpu().flip(-1) + 0.5) * self._zoom + self._corner
        return [(x, y) for x, y in (_OVERSAMPLING * x_y.clamp(-_FARTHEST_PX, _FARTHEST_PX)).tolist()]


def _enlarged(moment: Moment) -> Any:
    """Return the frame as an image whose longer side has `SIDE_PX`."""
    from PIL import Image

    picture = moment.frame.picture
    if picture is None:
        picture = moment.frame.pixels.expand(3, -1, -1).permute(1, 2, 0)
    image = Image.fromarray(picture.cpu().contiguous().numpy())
    zoom = SIDE_PX / max(image.size)
    width, height = (max(1, round(zoom * edge)) for edge in image.size)
    return image if zoom == 1 else image.resize((width, height), Image.Resampling.BILINEAR)


def _named(prediction: Prediction) -> str:
    name = shown(prediction.verdict)  # a class name may hold characters that break the line
    return name if prediction.sure else f"unsure: {name}"


def _shortened(text: str, font: Any, room_px: float) -> str:
    if font.getlength(text) <= room_px:
        return text
    while text and font.getlength(f"{text}…") > room_px:
        text = text[:-1]
    return f"{text}…"
