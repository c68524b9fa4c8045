"""Random changes of training clips that keep the class: one draw for each clip, applied alike to all its frames."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from saccade.errors import UsageError

MIN_FRAMES = 4
"""Dropping frames leaves at least this number of frames, or all frames of a shorter clip."""

# The weights of luma, and the two colour differences of NTSC, around whose origin hues turn.
_LUMA = np.array((0.299, 0.587, 0.114))
_TO_YIQ = np.array((_LUMA, (0.596, -0.274, -0.322), (0.211, -0.523, 0.312)))
# A few small frames fit into the cache of a processor; a whole clip would not.
_FRAMES_PER_PASS = 8
# Keeps these draws apart from those of other users of the same seed.
_STREAM = 0x61756721


@dataclass(frozen=True)
class Augmentation:
    """The strengths of random changes of a clip; with all of them at zero, clips stay as they are.

    The defaults keep what classes may depend on: rotations are small, because up and left may be classes, and clips
    are not mirrored.

    *Conventions:* numbers are drawn evenly from the range that is given; scales and rates evenly on a logarithmic
    scale. Positions outside the frame show the nearest pixel of its border.

    Args:
        max_angle_deg: the largest rotation, in either direction.
        scale: the smallest and the largest scale; 1 is the original size.
        crop: the largest share of the height that is cut off, and likewise of the width. The rest, from anywhere in the
            frame, is stretched to the size of the frame.
        shift: the largest shift in each direction, as a share of height and width.
        brightness: the largest change of brightness, as a share.
        contrast: the largest change of contrast about the mean level of the clip, as a share.
        saturation: the largest change of saturation, as a share; only for RGB.
        max_hue_deg: the largest rotation of hues; only for RGB.
        erase_probability: the probability that a rectangle is erased: the same one in all frames, filled with the mean
            colour of the clip.
        erase_share: the largest share of the frame that is erased.
        rate: the smallest and the largest speed; 2 shows every second frame, and 0.5 shows each frame twice.
        drop_probability: the probability that a frame is left out.
        flip: whether every second clip is mirrored left to right, on average.

    Raises:
        UsageError: if a strength is out of range.

    >>> clip = torch.arange(8, dtype=torch.uint8).view(8, 1, 1, 1).expand(8, 3, 32, 48)
    >>> Augmentation().augmented(clip, view_generator(seed=0, clip=5, view=0)).shape
    torch.Size([7, 3, 32, 48])
    """

    max_angle_deg: float = 10.0
    scale: tuple[float, float] = (0.85, 1.15)
    crop: float = 0.1
    shift: float = 0.05
    brightness: float = 0.2
    contrast: float = 0.2
    saturation: float = 0.3
    max_hue_deg: float = 10.0
    erase_probability: float = 0.25
    erase_share: float = 0.1
    rate: tuple[float, float] = (0.8, 1.25)
    drop_probability: float = 0.05
    flip: bool = False

    def __post_init__(self) -> None:
        for name in ("scale", "rate"):
            low, high = getattr(self, name)
            if not 0.1 <= low <= high <= 10:
                raise UsageError(f"{name} is {low} to {high}; a range within 0.1 to 10 is needed, such as 0.8 to 1.25")
        most = {"max_angle_deg": 180.0, "max_hue_deg": 180.0, "crop": 0.9}
        for name in (field.name for field in fields(self) if field.name not in ("scale", "rate", "flip")):
            if not 0 <= getattr(self, name) <= most.get(name, 1.0):
                raise UsageError(f"{name} must lie in 0 to {most.get(name, 1.0):g}; got {getattr(self, name)}")

    @classmethod
    def none(cls) -> Augmentation:
        """Return the augmentation that changes nothing; `dataclasses.replace` gives it single strengths."""
        return cls(0.0, (1.0, 1.0), 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, (1.0, 1.0), 0.0)

    def augmented(
        self, frames: UInt8[Tensor, "time channels height width"], generator: np.random.Generator
    ) -> UInt8[Tensor, "new_time channels height width"]:
        """Return a clip with one random change, which is the same for all its frames.

        The change depends on the generator, the strengths and the shape of the clip. The drawn number of one kind of
        change does not depend on the strengths of others. The length of the clip may change.

        Args:
            frames: the clip, grey or RGB; it is not changed.
            generator: the source of the draws, such as `view_generator`.

        Raises:
            ValueError: if the frames are not uint8 of that layout, or there are none.
        """
        if frames.dtype != torch.uint8 or frames.ndim != 4 or frames.shape[1] not in (1, 3) or not frames.numel():
            raise ValueError(
                f"frames are {frames.dtype} of shape {tuple(frames.shape)}; uint8 (time, channels, height, width) with"
                " 1 or 3 channels is needed"
            )
        where, colours, erasing = generator.random(9), generator.random(4), generator.random(5)
        kept = frames[self._moments(len(frames), generator)]
        height, width = frames.shape[-2:]
        theta = self._theta(where, width / height)
        area = self._erased(erasing, height, width)
        if area is None and not any(self._colour_strengths) and np.array_equal(theta, np.eye(2, 3)):
            return kept
        mean = frames.sum((0, 2, 3), dtype=torch.int64).double() / (frames.numel() // frames.shape[1])
        matrix, offset = self._colour_map(colours, mean.numpy())
        return torch.cat(list(_changed(kept, theta, area, mean.float(), (matrix, offset))))

    @property
    def _colour_strengths(self) -> tuple[float, ...]:
        return self.brightness, self.contrast, self.saturation, self.max_hue_deg

    def _moments(self, num_frames: int, generator: np.random.Generator) -> Int64[Tensor, "new_time"]:
        """Draw the indices of the frames that are shown."""
        least = min(MIN_FRAMES, num_frames)
        num = max(least, round(num_frames / _between(*self.rate, generator.random())))
        # In whole numbers, so that an unchanged rate gives each frame once, whatever the phase.
        moments = (np.arange(num) * num_frames + generator.integers(num_frames)) // num
        luck = generator.random(num)
        kept = luck >= self.drop_probability
        kept[np.argsort(luck)[-least:]] = True
        return torch.from_numpy(moments[kept])

    def _theta(self, drawn: NDArray[np.float64], width_per_height: float) -> NDArray[np.float64]:
        """Return the affine map from positions of the result to those of the frame, (x, y) in [-1, 1]."""
        angle = math.radians(self.max_angle_deg * _signed(drawn[0]))
        cosine, sine = math.cos(angle), math.sin(angle)
        # In units of half the height, rotations keep shapes.
        turn = np.array(((cosine, -sine / width_per_height), (sine * width_per_height, cosine)))
        turn /= _between(*self.scale, drawn[1])
        cut = self.crop * drawn[2:4]
        aside = cut * _signed(drawn[4:6])
        mirror = np.array((-1.0 if self.flip and drawn[6] < 0.5 else 1.0, 1.0))
        shift = 2 * self.shift * _signed(drawn[7:])
        return np.column_stack((turn * (mirror * (1 - cut)), turn @ aside + shift))

    def _erased(self, drawn: NDArray[np.float64], height: int, width: int) -> tuple[slice, slice] | None:
        """Return the rows and columns of the rectangle that is erased, or None."""
        share = self.erase_share * drawn[1]
        if drawn[0] >= self.erase_probability or not share:
            return None
        tall = _between(0.5, 2.0, drawn[2])
        spans = []
        for edge, part, place in zip((height, width), (share * tall, share / tall), drawn[3:], strict=True):
            side = max(1, round(min(math.sqrt(part), 1.0) * edge))
            start = round(place * (edge - side))
            spans.append(slice(start, start + side))
        return spans[0], spans[1]

    def _colour_map(
        self, drawn: NDArray[np.float64], mean: NDArray[np.float64]
    ) -> tuple[Float[Tensor, "channels channels"], float]:
        """Return the matrix that is applied to the channels of a pixel, and the number that is added then."""
        brightness, contrast, saturation = 1 + np.array(self._colour_strengths[:3]) * _signed(drawn[:3])
        matrix, level = np.eye(1), float(mean[0])
        if len(mean) == 3:
            hue = math.radians(self.max_hue_deg * _signed(drawn[3]))
            cosine, sine = math.cos(hue), math.sin(hue)
            turn = np.array(((1, 0, 0), (0, cosine, -sine), (0, sine, cosine)))
            grey = np.outer(np.ones(3), _LUMA)
            matrix = np.linalg.inv(_TO_YIQ) @ turn @ _TO_YIQ @ (saturation * np.eye(3) + (1 - saturation) * grey)
            level = float(_LUMA @ mean)
        return torch.from_numpy(brightness * contrast * matrix).float(), float(brightness * (1 - contrast) * level)


def view_generator(seed: int, clip: int, view: int) -> np.random.Generator:
    """Return the source of the draws for one view of a clip, so that every view can be made again.

    Args:
        seed: the seed of the training.
        clip: the index of the clip.
        view: the number of the view, for example the epoch.
    """
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, clip, view), spawn_key=(_STREAM,))))


def _changed(
    frames: UInt8[Tensor, "time channels height width"],
    theta: NDArray[np.float64],
    area: tuple[slice, slice] | None,
    mean: Float[Tensor, "channels"],
    colours: tuple[Float[Tensor, "channels channels"], float],
) -> Iterator[UInt8[Tensor, "some channels height width"]]:
    """Yield frames after the changes, a few at a time."""
    channels, height, width = frames.shape[1:]
    grid = F.affine_grid(
        torch.from_numpy(theta).float().unsqueeze(0), [1, channels, height, width], align_corners=False
    )
    matrix, offset = colours
    for some in frames.split(_FRAMES_PER_PASS):
        many = grid.expand(len(some), -1, -1, -1)
        levels = F.grid_sample(some.float(), many, padding_mode="border", align_corners=False)
        if area is not None:
            levels[:, :, *area] = mean.view(-1, 1, 1)
        coloured = (matrix @ levels.flatten(2)).view_as(levels).add_(offset)
        yield coloured.clamp_(0, 255).round_().to(torch.uint8)


def _between(low: float, high: float, drawn: float) -> float:
    """Return the number at a place in [0, 1] of a range, on a logarithmic scale."""
    return low * math.exp(drawn * math.log(high / low))


def _signed(drawn: NDArray[np.float64]) -> NDArray[np.float64]:
    """Stretch [0, 1] to [-1, 1]."""
    return 2 * drawn - 1
