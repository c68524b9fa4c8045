"""Animations of a figure, as frames of a clip."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from saccade.visualize.figures import load_pyplot


class Moving(Protocol):
    """A part of a figure that shows one frame of a clip at a time."""

    artists: list[Any]

    def show(self, t: int) -> None:
        """Show frame `t`."""


def animate(figure: Any, parts: Sequence[Moving], num_frames: int) -> UInt8[Tensor, "time 3 height width"]:
    """Draw a figure once for each frame, and close it.

    The static parts are drawn only once: drawing text and axes takes ten times as long as drawing the moving parts.

    Args:
        figure: a figure on Matplotlib's canvas `Agg`.
        parts: the moving parts, from back to front.
        num_frames: the number of frames.
    """
    artists = [artist for part in parts for artist in part.artists]
    for artist in artists:
        artist.set_animated(True)
    figure.canvas.draw()
    still = figure.canvas.copy_from_bbox(figure.bbox)
    width, height = figure.canvas.get_width_height()
    frames = torch.empty(num_frames, 3, height, width, dtype=torch.uint8)
    for t in range(num_frames):
        figure.canvas.restore_region(still)
        for part in parts:
            part.show(t)
        for artist in sorted(artists, key=lambda artist: artist.get_zorder()):
            figure.draw_artist(artist)
        frames[t] = torch.from_numpy(np.array(figure.canvas.buffer_rgba())[..., :3]).permute(2, 0, 1)
    load_pyplot().close(figure)
    return frames
