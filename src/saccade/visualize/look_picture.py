"""Draw where a model looked on a frame: the Matplotlib counterpart of `overlay.js`, in the same colours."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from saccade.attention import Look

Colour = tuple[int, int, int]

LAYERS = ("quad", "points", "arrows", "saliency", "field", "boxes")
"""The layers of a drawing: the transformer's quadrilateral, sampling points, offsets, two gradients and true boxes."""

GLIMPSE_COLOURS, GLIMPSE_DASHES = ("#0077bb", "#ee3377", "#009988"), ("-", "--", ":", "-.")
"""The colours of the second and further glimpses, and the line styles of all; the first has the colour of its model.
People with colour blindness can tell them apart."""
UNIT_COLOURS = ("#ffd23f", "#4cc9f0", "#f72585")
ARROW_COLOUR, BOX_COLOUR = "#1fa187", "#33bbee"
# For the smallest and the largest gradient of a frame.
_SALIENCY_COLOURS, _FIELD_COLOURS = ((214, 40, 40), (255, 214, 64)), ((58, 80, 224), (120, 240, 255))
# As in `overlay.js`: the frame stays readable below, and the opacity rises up to this part of a frame's maximum.
_HEAT_OPACITY, _HEAT_FULL = 190, 0.5
_FAINTEST = 0.1  # the radius of the smallest point that is drawn, as a fraction of the largest
_RIM = (1.0, 1.0, 1.0, 0.85)


class LookPicture:
    """A clip's frames on an axis, with where a model looked drawn on them; one frame is shown at a time.

    *Conventions:* the unit of the axis is a pixel of the frame. The centre of the upper left pixel is at `origin`.

    Args:
        axis: a Matplotlib axis; its limits are not changed.
        frames: grey or colour frames.
        look: where the model looked in the frames; None draws the frames alone.
        colour: the colour of the quadrilateral; that of the first if there are several.
        layers: the layers of `LAYERS` to draw; layers that the model does not have are skipped.
        boxes_px: (top, left, bottom, right) around each object, bottom and right exclusive.
        origin: (y, x) of the frame on the axis, to place several frames on one axis.
        line_pt: the width of the quadrilateral's line in points; the other marks scale with it.
    """

    def __init__(
        self,
        axis: Any,
        frames: UInt8[Tensor, "time channels height width"],
        look: Look | None = None,
        *,
        colour: str = "#ee7733",
        layers: Collection[str] = ("quad", "points"),
        boxes_px: Float[Tensor, "time things 4"] | None = None,
        origin: tuple[float, float] = (0.0, 0.0),
        line_pt: float = 2.0,
    ) -> None:
        self._axis, self._origin, self._pt = axis, torch.tensor(origin), line_pt
        self._frames = frames.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).cpu()
        self.artists: list[Any] = []
        self._updates: list[Any] = []
        self._add_frames()
        if look is not None:
            wanted = [layer for layer in ("field", "saliency", "arrows", "quad", "points") if layer in layers]
            for layer in wanted:
                getattr(self, f"_add_{layer}")(look, colour)
        if boxes_px is not None and "boxes" in layers:
            self._add_boxes(boxes_px)

    def show(self, t: int) -> None:
        """Show frame `t`."""
        for update in self._updates:
            update(t)

    def _add_frames(self) -> None:
        image = self._image(self._frames[0].numpy())
        self._updates.append(lambda t: image.set_data(self._frames[t].numpy()))

    def _add_saliency(self, look: Look, _colour: str) -> None:
        if look.saliency is not None:
            self._add_heat(heat_rgba(look.saliency, _SALIENCY_COLOURS))

    def _add_field(self, look: Look, _colour: str) -> None:
        if look.receptive_field is not None:
            self._add_heat(heat_rgba(look.receptive_field, _FIELD_COLOURS))

    def _add_heat(self, maps: UInt8[Tensor, "time height width 4"]) -> None:
        image = self._image(maps[0].numpy())
        self._updates.append(lambda t: image.set_data(maps[t].numpy()))

    def _add_quad(self, look: Look, colour: str) -> None:
        if look.quadrilateral_px is None:
            return
        several = look.quadrilateral_px.shape[1] > 1
        for glimpse, corners in enumerate(self._placed(look.quadrilateral_px).unbind(1)):
            own = glimpse_colour(glimpse, colour)
            dashes = GLIMPSE_DASHES[glimpse % len(GLIMPSE_DASHES)]
            line = self._line(own, self._pt, closed=True, linestyle=dashes)
            # Marks the crop's upper left corner, so that a rotation by 90 degrees is visible.
            mark = self._line(own, self._pt, marker="o", markersize=(5.0 if several else 3.2) * self._pt)
            self._updates.append(lambda t, line=line, at=corners: line.set_data(*at[t, [0, 1, 2, 3, 0]].T))
            self._updates.append(lambda t, mark=mark, at=corners: mark.set_data(*at[t, :1].T))
            if several:
                self._add_number(glimpse + 1, corners[:, 0])

    def _add_number(self, number: int, places: Float[Tensor, "time 2"]) -> None:
        style = {"ha": "center", "va": "center_baseline", "color": "white", "fontweight": "bold", "zorder": 5}
        text = self._axis.text(0, 0, str(number), fontsize=4.2 * self._pt, **style)
        self.artists.append(text)
        self._updates.append(lambda t: text.set_position(places[t].tolist()))

    def _add_points(self, look: Look, _colour: str) -> None:
        if look.points_px is None or look.point_weight is None or look.unit_px is None:
            return
        points, centres = self._placed(look.points_px), self._placed(look.unit_px)
        sizes = look.point_weight / look.point_weight.amax((-1, -2), keepdim=True).clamp(min=1e-12)
        for unit in range(points.shape[1]):
            self._add_unit(points[:, unit], sizes[:, unit], centres[:, unit], UNIT_COLOURS[unit % len(UNIT_COLOURS)])

    def _add_unit(self, points: Tensor, sizes: Tensor, centres: Tensor, colour: str) -> None:
        sizes = sizes.cpu()
        drawn = sizes > _FAINTEST**2
        dots = self._axis.scatter([], [], c=colour, edgecolors="white", linewidths=0.2 * self._pt, zorder=4)
        cross = self._line(colour, 0, marker="+", markersize=3.5 * self._pt, markeredgewidth=0.8 * self._pt)
        self.artists.append(dots)
        self._updates.append(lambda t: self._put(dots, points[t], sizes[t], drawn[t]))
        self._updates.append(lambda t: cross.set_data(*centres[t].unsqueeze(-1)))

    def _put(self, dots: Any, points: Tensor, sizes: Tensor, drawn: Tensor) -> None:
        dots.set_offsets(points[drawn].numpy())
        dots.set_sizes((sizes[drawn] * (2.2 * self._pt) ** 2).numpy())

    def _add_arrows(self, look: Look, _colour: str) -> None:
        if look.arrows_px is None:
            return
        from matplotlib.collections import LineCollection

        arrows = self._placed(look.arrows_px).flatten(1, 2)
        lines = LineCollection([], colors=ARROW_COLOUR, linewidths=0.5 * self._pt, zorder=2, path_effects=self._rim())
        self._axis.add_collection(lines, autolim=False)
        self.artists.append(lines)
        self._updates.append(lambda t: lines.set_segments(list(_with_heads(arrows[t]).numpy())))

    def _add_boxes(self, boxes_px: Float[Tensor, "time things 4"]) -> None:
        # A box's edges lie between pixels, whose centres have whole coordinates.
        top, left, bottom, right = (boxes_px.cpu() - 0.5).unbind(-1)
        corners = torch.stack((top, left, top, right, bottom, right, bottom, left, top, left), -1)
        placed = self._placed(corners.unflatten(-1, (5, 2)))
        for thing in range(boxes_px.shape[1]):
            line, path = self._line(BOX_COLOUR, 0.6 * self._pt), placed[:, thing]
            self._updates.append(lambda t, line=line, path=path: line.set_data(*path[t].T))

    def _placed(self, positions: Float[Tensor, "*any 2"]) -> Float[Tensor, "*any 2"]:
        """Return positions in coordinates of the axis, (x, y)."""
        return (positions.detach().float().cpu() + self._origin).flip(-1)

    def _image(self, pixels: Any) -> Any:
        height, width = pixels.shape[:2]
        y, x = self._origin.tolist()
        extent = (x - 0.5, x + width - 0.5, y + height - 0.5, y - 0.5)
        limits = self._axis.axis()
        image = self._axis.imshow(pixels, extent=extent, interpolation="nearest", zorder=1)
        self._axis.axis(limits)
        self.artists.append(image)
        return image

    def _line(self, colour: str, width: float, *, closed: bool = False, **style: Any) -> Any:
        joins = {"solid_joinstyle": "round", "solid_capstyle": "projecting" if closed else "round"}
        (line,) = self._axis.plot(
            [], [], color=colour, linewidth=width, zorder=3, path_effects=self._rim(), **joins, **style
        )
        self.artists.append(line)
        return line

    def _rim(self) -> list[Any]:
        from matplotlib import patheffects

        return [patheffects.withStroke(linewidth=1.7 * self._pt, foreground=_RIM)]


def glimpse_colour(index: int, first: str) -> str:
    """Return the colour of a glimpse's outline.

    Args:
        index: the index of the glimpse.
        first: the colour of the first glimpse, which is that of the model.

    >>> glimpse_colour(0, "#ee7733"), glimpse_colour(1, "#ee7733")
    ('#ee7733', '#0077bb')
    """
    colours = (first, *GLIMPSE_COLOURS)
    return colours[index % len(colours)]


def heat_rgba(
    maps: Float[Tensor, "time height width"], colours: tuple[Colour, Colour]
) -> UInt8[Tensor, "time height width 4"]:
    """Colour maps from a transparent first colour to a strong second one; each frame is scaled by its maximum.

    Low values fade smoothly to nothing, so that no edge shows where a map begins.
    """
    part = (maps / maps.amax((-1, -2), keepdim=True).clamp(min=1e-30)).detach().cpu().unsqueeze(-1)
    weak, strong = (torch.tensor(colour) for colour in colours)
    rise = (part / _HEAT_FULL).clamp(max=1)
    coloured = torch.cat((weak + (strong - weak) * part, _HEAT_OPACITY * rise.square() * (3 - 2 * rise)), -1)
    return coloured.round().to(torch.uint8)


def _with_heads(arrows: Float[Tensor, "n 2 2"], head: float = 0.35) -> Float[Tensor, "lines 2 2"]:
    """Return arrows with two short lines for each head, in proportion to the length of the arrow."""
    start, end = arrows.unbind(1)
    back = head * (start - end)
    aside = 0.5 * torch.stack((-back[:, 1], back[:, 0]), -1)
    sides = [torch.stack((end, end + back + sign * aside), 1) for sign in (1, -1)]
    return torch.cat((arrows, *sides))
