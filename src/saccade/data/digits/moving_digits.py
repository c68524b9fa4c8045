"""Moving digits that rotate and change scale: the clips of the experiment, generated when they are needed.

A clip is a function of (split, seed, index). Poses are computed by integer arithmetic on counter-based random numbers,
and are therefore exact on every device. Pixels are drawn in two steps. Every digit is rotated, scaled and bent into a
small patch, once per setting. The patches are pasted into each frame at whole pixels; the brighter pixel wins.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor
from torch.utils.data import Dataset

from saccade.clips import ClipBatch, Poses
from saccade.data.digits import drawing
from saccade.data.digits import schemes as label_schemes
from saccade.data.digits.counter_random import INDEX_BITS, draw_u32
from saccade.data.digits.motion import DIGIT_SLOTS, KIND_SLOTS, Motion
from saccade.data.digits.sources import SPLITS, Digits
from saccade.errors import UsageError, unknown_name
from saccade.labels import Labels

DATA = "moving digits"
"""The name of these clips in result files."""

VISIBLE_GAP_PX = 8

# Positions, velocities and scales are integers in units of 2**-16.
_FIXED_BITS = 16
_ONE = 1 << _FIXED_BITS
_HALF = _ONE >> 1
# Headings come from a table made on the CPU, so that the sine of a device cannot change a trajectory.
_HEADINGS = torch.tensor(
    [[round(f(math.tau * i / 4096) * _ONE) for f in (math.sin, math.cos)] for i in range(4096)],
    dtype=torch.int64,
)
# The kinds of draws of a digit in a setting; each kind has its own slot of the counter.
_ANGLE, _SCALE, _Y, _X, _HEADING, _SPEED, _CLASS, _INSTANCE, _ELASTIC = range(9)
_ELASTIC_KNOTS = 5
_COUNT, _LEVEL = 59, 60  # after the slots of the elastic knots
# Added to the seed, so that clutter, noise and jitter have their own random numbers.
_CLUTTER_SEED, _NOISE_SEED, _JITTER_SEED = 0x436C7574746572, 0x4E6F697365, 0x4A6974746572
# On a CPU, the patches of one round fit into the cache.
_CPU_FRAMES_PER_ROUND, _GPU_FRAMES_PER_ROUND = 800, 200_000


@dataclass(frozen=True)
class _Plan:
    """The exact description of the digits, or of the clutter, in a batch of clips before drawing."""

    digit: Int64[Tensor, "batch digits"]  # -1 if absent
    instance: Int64[Tensor, "batch digits"]
    angle_deg: Tensor  # float64 (batch, looks, digits); a look is an angle and a scale that frames share
    scale: Int64[Tensor, "batch looks digits"]
    look_of_frame: Int64[Tensor, "time"]
    shift_px: Int64[Tensor, "batch time digits 2"]  # whole pixels from the centre of the canvas
    bend: Tensor | None  # float32 (batch, looks, digits, 2, knots, knots) in digit pixels


class MovingDigits(Dataset[tuple[Tensor, Tensor]]):
    """Clips of moving digits, each a function of (split, seed, index); memory does not grow with `num_clips`.

    Clip `i` shows class `i % num_classes`, so that all classes are equally frequent. With the label scheme `digits`,
    the digits are drawn independently instead. The choice of digit images depends on the split of `digits`, all other
    draws depend on `split`. `MovingDigits(train_digits, split="test")` shows the digit images of the training clips on
    new trajectories (*shared instances*). `MovingDigits(test_digits)` shows images that training never uses
    (*disjoint instances*).

    Args:
        digits: the digit images to draw from.
        motion: the motion of the digits.
        split: the split that the poses depend on; by default the split of `digits`.
        labels: the label scheme: `pair`, `ordered` or `digits`.
        order: for `ordered`, whether the first digit starts each setting visibly to the left (`visible`) or not
            (`hidden`).
        num_digits: the number of digits in a clip, 1 to 5, or the range from which each clip draws its number; exactly
            2 for `pair` and `ordered`.
        num_clips: the length of the dataset.
        seed: any integer.

    Raises:
        UsageError: if a name is unknown, there are no clips, or the label scheme does not allow the number of digits.

    >>> from saccade.data import digits
    >>> clips = MovingDigits(digits.load("uci", "test"), Motion("rotation", num_frames=20), num_clips=100)
    >>> batch = clips.batch(torch.arange(4))
    >>> batch.frames.shape, batch.targets.tolist()
    (torch.Size([4, 20, 1, 64, 64]), [0, 1, 2, 3])
    """

    def __init__(
        self,
        digits: Digits,
        motion: Motion | None = None,
        *,
        split: str | None = None,
        labels: str = "pair",
        order: str = "visible",
        num_digits: int | tuple[int, int] = 2,
        num_clips: int = 1000,
        seed: int = 0,
    ) -> None:
        self.motion = motion or Motion()
        self.scheme = label_schemes.create(labels)
        self.source, self.split = digits.source, split or digits.split
        self.num_digits_range = self.scheme.check_num_digits(num_digits)
        self.num_clips, self.seed = num_clips, seed
        self.order = order
        self._check()
        self._stream = SPLITS.index(self.split)
        self._instance_stream = SPLITS.index(digits.split)
        order_by_class = torch.argsort(digits.labels, stable=True)
        self._images = digits.images[order_by_class]
        self._image_index = order_by_class
        self._class_count = torch.bincount(digits.labels, minlength=10)
        if len(self._class_count) != 10 or bool((self._class_count == 0).any()):
            raise UsageError(f"ten digit classes are needed; the images hold {self._class_count.tolist()} of each")

    def _check(self) -> None:
        if self.split not in SPLITS:
            raise unknown_name("split", self.split, SPLITS)
        if self.order not in ("visible", "hidden"):
            raise unknown_name("order", self.order, ("visible", "hidden"))
        if self.num_clips < 1 or self.num_clips > 1 << INDEX_BITS:
            raise UsageError(f"num_clips must lie in 1 to {1 << INDEX_BITS}; got {self.num_clips}")
        smallest = self.motion.scale_range[0] if self.motion.scales else 1.0
        free_px = (self.motion.canvas_px - self.motion.digit_px) * smallest
        if self._ordered_visibly and free_px < VISIBLE_GAP_PX + 2:
            raise UsageError(
                f"a visible order needs {VISIBLE_GAP_PX + 2} px for a digit to move at the smallest scale; a canvas of"
                f" {self.motion.canvas_px} px leaves {free_px:.0f}; take a larger canvas_px or order='hidden'"
            )

    @property
    def num_digits(self) -> int:
        """Largest number of digits in a clip."""
        return self.num_digits_range[1]

    @property
    def labels(self) -> Labels:
        """The classes."""
        return self.scheme.labels

    @property
    def facts(self) -> dict[str, Any]:
        """What the clips are, as columns of a result row."""
        fewest, most = self.num_digits_range
        return {
            "data": DATA,
            "condition": self.motion.condition,
            "digits": self.source,
            "instances": "disjoint" if self._stream == self._instance_stream else "shared",
            "labels": self.scheme.name,
            "order": self.order if self.scheme.name == "ordered" else None,
            "split": self.split,
            "num_frames": self.motion.num_frames,
            "num_digits": most if fewest == most else f"{fewest} to {most}",
            "max_angle_deg": self.motion.max_angle_deg,
            "clutter": self.motion.clutter or None,
            "noise": self.motion.noise or None,
            "clips_seed": self.seed,
        }

    @property
    def _ordered_visibly(self) -> bool:
        return self.scheme.name == "ordered" and self.order == "visible"

    def __len__(self) -> int:
        return self.num_clips

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        if not 0 <= index < self.num_clips:
            raise IndexError(f"clip {index} of {self.num_clips}")
        batch = self.batch(torch.tensor([index]))
        return batch.frames[0], batch.targets[0]

    def to(self, device: torch.device | str) -> MovingDigits:
        """Return the same dataset with its digit images on `device`, where batches are then generated."""
        moved = object.__new__(MovingDigits)
        moved.__dict__.update(self.__dict__)
        for name in ("_images", "_image_index", "_class_count"):
            setattr(moved, name, getattr(self, name).to(device))
        return moved

    def with_motion(self, **changes: object) -> MovingDigits:
        """Return the same digits, labels and seed with a changed `Motion`.

        Raises:
            UsageError: as for the constructor.
        """
        changed = object.__new__(MovingDigits)
        changed.__dict__.update(self.__dict__)
        changed.motion = replace(self.motion, **changes)  # type: ignore[arg-type]
        changed._check()
        return changed

    def batch(
        self, indices: Int64[Tensor, "batch"], *, dtype: torch.dtype = torch.uint8, poses: bool = False
    ) -> ClipBatch:
        """Generate the clips at `indices`, on the device of the digit images.

        Args:
            indices: any clips, in any order. Indices at or above `num_clips` are allowed, since training needs them.
            dtype: uint8 for pixels in [0, 255], or a float type for pixels in [0, 1].
            poses: whether to return the ground truth of every frame too.
        """
        indices = indices.to(self._images.device, torch.int64)
        if bool(((indices < 0) | (indices >= 1 << INDEX_BITS)).any()):
            raise IndexError(f"clips have indices 0 to {(1 << INDEX_BITS) - 1}; got {indices.tolist()[:8]}")
        frames_per_round = _CPU_FRAMES_PER_ROUND if indices.device.type == "cpu" else _GPU_FRAMES_PER_ROUND
        clips_per_round = max(1, frames_per_round // self.motion.num_frames)
        m = self.motion
        frames = torch.empty(
            (len(indices), m.num_frames, 1, m.canvas_px, m.canvas_px),
            dtype=torch.uint8,
            device=indices.device,
        )
        truths: list[Poses] = []
        for start in range(0, len(indices), clips_per_round):
            part = slice(start, start + clips_per_round)
            plan = self._plan(indices[part])
            patches = self._render(plan, self._shown(indices[part], plan))
            if poses:
                truths.append(self._truth(plan, patches))
            self._draw_frames(indices[part], plan, patches, frames[part].squeeze(2))
        pixels = frames if dtype == torch.uint8 else frames.to(dtype) / 255
        targets = self.scheme.encode(self._digits_of(indices), indices)
        return ClipBatch(pixels, targets, poses=_concatenate(truths))

    def located(self, indices: Int64[Tensor, "batch"]) -> ClipBatch:
        """Generate the clips at `indices`, with the ground truth of every frame."""
        return self.batch(indices, poses=True)

    def _digits_of(self, indices: Int64[Tensor, "batch"]) -> Int64[Tensor, "batch digits"]:
        drawn = self._draw(indices, 1, (_CLASS, _COUNT), self._instance_stream)[:, 0]
        chosen = self.scheme.choose(indices, drawn[..., 0] * 10 >> 32)
        fewest, most = self.num_digits_range
        number = fewest + (drawn[:, :1, 1] * (most - fewest + 1) >> 32)
        return torch.where(torch.arange(most, device=indices.device) < number, chosen, -1)

    def _draw(
        self,
        indices: Tensor,
        num_settings: int,
        kinds: tuple[int, ...],
        stream: int,
        *,
        num: int | None = None,
        seed: int = 0,
    ) -> Int64[Tensor, "b s d k"]:
        device = indices.device
        setting = torch.arange(num_settings, device=device).view(-1, 1, 1)
        digit = torch.arange(num or self.num_digits, device=device).view(-1, 1)
        slot = (setting * DIGIT_SLOTS + digit) * KIND_SLOTS + torch.tensor(kinds, device=device)
        return draw_u32(self.seed + seed, stream, indices.view(-1, 1, 1, 1), slot)

    def _plan(self, indices: Int64[Tensor, "batch"]) -> _Plan:
        digit = self._digits_of(indices)
        instance = self._draw(indices, 1, (_INSTANCE,), self._instance_stream)[:, 0, :, 0]
        counts = self._class_count
        instance = (torch.cumsum(counts, 0) - counts)[digit] + (instance * counts[digit] >> 32)
        bend = self._bend(indices) if self.motion.condition == "elastic" else None
        return self._moved(indices, digit, instance, bend)

    def _clutter(self, indices: Int64[Tensor, "batch"]) -> tuple[_Plan, UInt8[Tensor, "b l num p p"]]:
        """Plan and draw pieces of digits like digits; a piece may come from any image of the split."""
        num, side = self.motion.clutter, self._images.shape[-1]
        kinds = (_INSTANCE, _COUNT, _CLASS, _LEVEL)
        drawn = self._draw(indices, 1, kinds, self._stream, num=num, seed=_CLUTTER_SEED)[:, 0]
        number = drawn[:, :1, 1] * (num + 1) >> 32
        there = torch.where(torch.arange(num, device=indices.device) < number, 0, -1)
        lent = drawn[..., 0] * len(self._images) >> 32
        corner = drawn[..., 2:] * (side - drawing.PIECE_PX + 1) >> 32
        pieces = drawing.cut_pieces(self._images[lent.flatten()], corner.flatten(0, 1)).view(*lent.shape, side, side)
        plan = self._moved(indices, there, lent, None, seed=_CLUTTER_SEED)
        return plan, self._render(plan, pieces)

    def _moved(self, indices: Tensor, digit: Tensor, instance: Tensor, bend: Tensor | None, *, seed: int = 0) -> _Plan:
        """Return the plan for given digits or pieces, with randomly drawn motion."""
        m = self.motion
        drawn = self._draw(
            indices,
            m.num_settings + m.continuous,
            (_ANGLE, _SCALE, _Y, _X, _HEADING, _SPEED),
            self._stream,
            num=digit.shape[1],
            seed=seed,
        )
        angle, scale = self._looks(drawn)
        frame = torch.arange(m.num_frames, device=indices.device)
        look_of_frame = frame if m.continuous else frame // m.frames_per_setting
        if not (m.rotates or m.scales):
            angle, scale, look_of_frame = angle[:, :1], scale[:, :1], torch.zeros_like(frame)
        shift = self._trajectory(drawn, scale[:, look_of_frame], in_order=self._ordered_visibly and not seed)
        return _Plan(digit, instance, angle, scale, look_of_frame, shift, bend)

    def _looks(self, drawn: Int64[Tensor, "b s d k"]) -> tuple[Tensor, Int64[Tensor, "b l d"]]:
        m = self.motion
        turn = drawn[..., _ANGLE] if m.angle_per_digit else drawn[:, :, :1, _ANGLE].expand(-1, -1, drawn.shape[2])
        angle = (turn.double() / 2**31 - 1) * (m.max_angle_deg if m.rotates else 0.0)
        if m.angle_deg is not None:
            angle = torch.full_like(angle, m.angle_deg)
        low, high = (round(s * _ONE) for s in (m.scale_range if m.scales else (1.0, 1.0)))
        scale = (low + (drawn[:, :, :1, _SCALE] * (high - low) >> 32)).expand(-1, -1, drawn.shape[2])
        if m.continuous:
            before, step = self._glide(drawn.device)
            angle = angle[:, before] + (angle[:, before + 1] - angle[:, before]) * step / m.frames_per_setting
            scale = scale[:, before] + (scale[:, before + 1] - scale[:, before]) * step // m.frames_per_setting
        return angle, scale

    def _glide(self, device: torch.device) -> tuple[Int64[Tensor, "time"], Int64[Tensor, "time 1"]]:
        """Return the setting of each frame, and the number of frames since the start of this setting."""
        frame = torch.arange(self.motion.num_frames, device=device)
        return frame // self.motion.frames_per_setting, (frame % self.motion.frames_per_setting).view(-1, 1)

    def _trajectory(
        self, drawn: Int64[Tensor, "b s d k"], scale: Int64[Tensor, "b t d"], *, in_order: bool
    ) -> Int64[Tensor, "b t d 2"]:
        m = self.motion
        room = (m.canvas_px - m.digit_px) * _ONE  # the range of a digit's centre at scale 1
        start = drawn[..., (_Y, _X)] * room >> 32
        if in_order:
            start = _first_to_the_left(start, drawn, scale[:, :: m.frames_per_setting], room)
        slow, fast = (round(s * _ONE) for s in m.speed_range_px)
        speed = slow + (drawn[..., _SPEED] * (fast - slow) >> 32)
        heading = _HEADINGS.to(drawn.device)[drawn[..., _HEADING] >> 20]
        velocity = speed.unsqueeze(-1) * heading >> _FIXED_BITS
        frame = torch.arange(m.num_frames, device=drawn.device)
        setting = torch.zeros_like(frame) if m.continuous else frame // m.frames_per_setting
        since = (frame - setting * m.frames_per_setting).view(1, -1, 1, 1)
        travelled = start[:, setting] + velocity[:, setting] * since
        if room == 0:
            return torch.zeros_like(travelled)
        folded = room - (travelled % (2 * room) - room).abs()  # reflection at both walls
        return ((folded - room // 2) * scale.unsqueeze(-1) + _ONE * _HALF) >> (2 * _FIXED_BITS)

    def _shown(self, indices: Tensor, plan: _Plan) -> UInt8[Tensor, "batch digits side side"]:
        """Return the digit images of clips; if there is jitter, every second one, at random, is changed."""
        images = self._images[plan.instance]
        if not self.motion.jitter:
            return images
        kinds = tuple(range(drawing.NUM_JITTER))
        drawn = self._draw(indices, 1, kinds, self._stream, num=images.shape[1], seed=_JITTER_SEED)[:, 0]
        changed = drawn[..., :1] & 1
        strengths = (drawn.double() / 2**31 - 1).float() * self.motion.jitter * changed
        return drawing.jittered(images.flatten(0, 1), strengths.flatten(0, 1)).view(images.shape)

    def _bend(self, indices: Int64[Tensor, "batch"]) -> Tensor:
        m = self.motion
        kinds = tuple(range(_ELASTIC, _ELASTIC + 2 * _ELASTIC_KNOTS**2))
        drawn = self._draw(indices, m.num_settings + m.continuous, kinds, self._stream)
        bend = (drawn.double() / 2**31 - 1).float() * m.elastic_px
        if m.continuous:
            before, step = self._glide(indices.device)
            bend = torch.lerp(bend[:, before], bend[:, before + 1], (step / m.frames_per_setting).view(-1, 1, 1))
        return bend.view(*bend.shape[:-1], 2, _ELASTIC_KNOTS, _ELASTIC_KNOTS)

    def _render(
        self, plan: _Plan, images: UInt8[Tensor, "batch digits side side"]
    ) -> UInt8[Tensor, "batch looks digits patch patch"]:
        """Draw every image once per look."""
        m, looks = self.motion, plan.angle_deg.shape[1]
        patches = drawing.draw_patches(
            images.unsqueeze(1).expand(-1, looks, -1, -1, -1).flatten(0, 2),
            plan.angle_deg.flatten(),
            plan.scale.flatten().double() / _ONE,
            digit_px=m.digit_px,
            patch_px=m.patch_px,
            bend=None if plan.bend is None else plan.bend.flatten(0, 2),
        )
        return patches.view(*plan.angle_deg.shape, m.patch_px, m.patch_px)

    def _draw_frames(
        self, indices: Tensor, plan: _Plan, patches: UInt8[Tensor, "b l d p p"], out: UInt8[Tensor, "b t height width"]
    ) -> None:
        """Paste digits and clutter into the frames, and add noise."""
        m = self.motion
        layers = [(plan, patches)]
        if m.clutter:
            layers.append(self._clutter(indices))
        shown, corners, first = [], [], 0
        for part, drawn_patches in layers:
            patch, corner = self._places(part)
            shown.append(torch.where(patch >= 0, patch + first, -1))
            corners.append(corner)
            first += drawn_patches[..., 0, 0].numel()
        drawing.paste(
            torch.cat([drawn_patches.flatten(0, 2) for _, drawn_patches in layers]),
            torch.cat(shown, -1).flatten(0, 1),
            torch.cat(corners, -2).flatten(0, 1),
            out.flatten(0, 1),
        )
        if m.noise:
            self._add_noise(indices, out)

    def _places(self, plan: _Plan) -> tuple[Int64[Tensor, "b t d"], Int64[Tensor, "b t d 2"]]:
        """Return the index and the corner of the patch that each frame shows for each digit of a plan."""
        b, looks, digits = plan.angle_deg.shape
        patch = torch.arange(b, device=plan.digit.device).view(-1, 1, 1) * looks + plan.look_of_frame.view(1, -1, 1)
        patch = patch * digits + torch.arange(digits, device=plan.digit.device)
        corner = plan.shift_px + (self.motion.canvas_px - self.motion.patch_px) // 2
        return torch.where(plan.digit.unsqueeze(1) >= 0, patch, -1), corner

    def _add_noise(self, indices: Tensor, out: UInt8[Tensor, "b t height width"]) -> None:
        level = self._draw(indices, 1, (_LEVEL,), self._stream, num=1, seed=_NOISE_SEED)[:, 0, 0, 0].double()
        deviation = (level / 2**32 * self.motion.noise).view(-1, 1).expand(out.shape[:2]).flatten()
        pixel = torch.arange(out[0].numel(), device=out.device)
        words = draw_u32(self.seed + _NOISE_SEED + 1, self._stream, indices.view(-1, 1), pixel).view(out.shape)
        drawing.add_noise(out.flatten(0, 1), words.flatten(0, 1), deviation)

    def _truth(self, plan: _Plan, patches: UInt8[Tensor, "b l d p p"]) -> Poses:
        m = self.motion
        look = plan.look_of_frame
        _, corner = self._places(plan)
        box = drawing.box_in_frame(drawing.ink_box(patches)[:, look], corner, m.canvas_px)
        return Poses(
            centre_px=corner.float() + (m.patch_px - 1) / 2,
            angle_deg=plan.angle_deg[:, look].float(),
            scale=plan.scale[:, look].float() / _ONE,
            box_px=torch.where(plan.digit[:, None, :, None] >= 0, box, 0),
            thing=plan.digit,
            instance=torch.where(plan.digit >= 0, self._image_index[plan.instance], -1),
        )


def _first_to_the_left(
    start: Int64[Tensor, "b s 2 2"], drawn: Int64[Tensor, "b s 2 k"], scale: Int64[Tensor, "b s 2"], room: int
) -> Int64[Tensor, "b s 2 2"]:
    """Redraw the horizontal starts so that the first digit starts at least `VISIBLE_GAP_PX` left of the second."""
    num_settings = scale.shape[1]
    gap = (VISIBLE_GAP_PX + 1) * _ONE * _ONE // scale[..., 0]  # one more pixel, because both are rounded
    first = drawn[:, :num_settings, 0, _X] * (room - gap) >> 32
    second = first + gap + (drawn[:, :num_settings, 1, _X] * (room - gap - first) >> 32)
    start = start[:, :num_settings].clone()
    start[..., 1] = torch.stack((first, second), -1)
    return start


def _concatenate(parts: list[Poses]) -> Poses | None:
    if not parts:
        return None
    return Poses(**{field.name: torch.cat([getattr(part, field.name) for part in parts]) for field in fields(Poses)})
