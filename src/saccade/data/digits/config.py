"""The options of moving digits, for all verbs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar

import tyro

from saccade import files, foreign
from saccade.clips import FrameFormat
from saccade.data.digits import schemes, sources
from saccade.data.digits.curriculum import Curriculum
from saccade.data.digits.mixture import Mixture
from saccade.data.digits.motion import CONDITIONS, MAX_JITTER, Motion
from saccade.data.digits.moving_digits import DATA, MovingDigits
from saccade.data.digits.sources import Digits
from saccade.errors import UsageError, unknown_name
from saccade.labels import Labels


@dataclass(frozen=True)
class DigitSourceConfig:
    """The source of digit images.

    Args:
        digits: uci, mnist, strokes, auto, a folder with four IDX files, or several joined by +.
        digits_dir: the folder that is searched for MNIST before the user cache.
    """

    digits: str = "auto"
    digits_dir: Path | None = None

    def load(self, split: str) -> Digits:
        """Load the digit images of a split.

        Raises:
            UsageError, DataError: as for `sources.load`.
        """
        return sources.load(self.digits, split, digits_dir=self.digits_dir)

    def resolve(self) -> sources.DigitSource:
        """Return the source that the options name, without reading it."""
        return sources.resolve(self.digits, self.digits_dir)


@dataclass(frozen=True)
class DigitsConfig(DigitSourceConfig):
    """The images, number, motion and labels of moving digits.

    Clips are generated when they are needed. Training begins with short clips, since a step then shows more different
    digits. If the number of digits is a range, the short clips of training start with
    the smallest number, without clutter and noise. Number, clutter and noise then grow to their full ranges in equal
    stages. The model thus learns the shapes of digits from digits alone.

    Args:
        digits: uci, mnist, strokes, auto, a folder with four IDX files, or several joined by +.
        digits_dir: the folder that is searched for MNIST before the user cache.
        condition: normal, rotation, scaling, rotation_scaling or elastic. If several are given, each training clip has
            one of them, drawn at random (twice as often if it is given twice), and each is tested separately.
        scheme: the label scheme: pair, ordered or digits.
        order: for ordered labels, whether the first digit starts to the left (visible) or anywhere (hidden).
        instances: disjoint: digit images of the split; shared: images of the training split on new trajectories.
        num_digits: the number of digits in a clip, or the smallest and the largest number; 2 unless labels are digits.
        clutter: the largest number of moving pieces of digits in addition to the digits.
        noise: the largest standard deviation of the pixel noise, in grey levels.
        num_clips: the number of clips in a split; training has no such limit.
        clips_seed: the seed of clips outside training; by default 0, or the seed of training for shared instances.
        num_frames: the number of frames in a clip.
        frames_per_setting: the number of frames between two draws of angle and scale; training has fewer than the test,
            because similar frames teach little.
        short_fraction: the fraction of training steps that use short clips; the frames per step stay the same.
        short_frames: the number of frames in a short clip.
        jitter: how strongly half of the digit images, drawn anew for each clip, are changed at random in training:
            turned a little, sheared, stretched, bent, their strokes thickened or thinned. 0 for not at all, 1 for what
            still looks like handwriting. Other clips are never changed. It is for long trainings, which would remember
            the digits (docs/log.md).
        continuous: change angle and scale smoothly from setting to setting.
        canvas: the height and width of a frame in pixels.
        digit_size: the height and width of a digit in pixels at scale 1.
        angle: the largest rotation in degrees, in either direction.
        scale: the smallest and largest scale of the whole canvas.

    Raises:
        UsageError: if a name is unknown, there are no clips, or a range is empty or does not fit into the canvas.

    >>> clips = DigitsConfig(digits="uci", condition=("normal",)).clips("test")
    >>> len(clips), clips.facts["num_frames"], clips.labels.names[:2]
    (2000, 50, ('00', '01'))
    """

    KIND: ClassVar[str] = "digits"
    default_input: ClassVar[str] = "frames"

    condition: tuple[str, ...] = ("rotation_scaling",)
    scheme: Annotated[str, tyro.conf.arg(name="labels")] = "pair"
    order: str = "visible"
    instances: str = "disjoint"
    num_digits: int | tuple[int, int] = 2
    clutter: int = 0
    noise: float = 0.0
    num_clips: int = 2000
    clips_seed: int | None = None
    num_frames: int = 50
    frames_per_setting: int = 5
    short_fraction: float = 0.6
    short_frames: int = 2
    jitter: float = 0.0
    continuous: bool = False
    canvas: int = 64
    digit_size: int = 28
    angle: float = 90.0
    scale: tuple[float, float] = (0.5, 1.0)

    def __post_init__(self) -> None:
        if isinstance(self.condition, str):
            object.__setattr__(self, "condition", (self.condition,))
        if not self.condition:
            raise UsageError(f"no condition was given; name at least one of {', '.join(CONDITIONS)}")
        if self.instances not in ("disjoint", "shared"):
            raise unknown_name("instances", self.instances, ("disjoint", "shared"))
        if self.order not in ("visible", "hidden"):
            raise unknown_name("order", self.order, ("visible", "hidden"))
        if self.num_clips < 1:
            raise UsageError(f"num_clips must be at least 1; got {self.num_clips}")
        if not 0 <= self.short_fraction <= 1:
            raise UsageError(f"short_fraction must lie in 0 to 1; got {self.short_fraction}")
        if not 0 <= self.jitter <= MAX_JITTER:
            raise UsageError(f"jitter must lie in 0 to {MAX_JITTER:g}; got {self.jitter}")
        if self.short_frames < 1:
            raise UsageError(f"short_frames must be at least 1; got {self.short_frames}")
        self.motions()
        schemes.create(self.scheme).check_num_digits(self.num_digits)

    @classmethod
    def from_json(cls, described: Mapping[str, Any]) -> DigitsConfig:
        """Create the configuration from the result of `as_json`; missing fields have their defaults.

        Raises:
            TypeError, UsageError: if `described` does not describe moving digits.
        """
        foreign.check_types(described, cls)
        values: dict[str, Any] = {
            name: tuple(v) if isinstance(v, list) else v for name, v in described.items() if name != "kind"
        }
        if values.get("digits_dir"):
            values["digits_dir"] = Path(values["digits_dir"])
        return cls(**values)

    def as_json(self) -> dict[str, Any]:
        """Return the fields as JSON types, and the entry `kind`."""
        return {"kind": self.KIND} | files.json_fields(self)

    @property
    def labels(self) -> Labels:
        """The classes."""
        return schemes.create(self.scheme).labels

    @property
    def frame_format(self) -> FrameFormat:
        """The frames that a model for these clips expects: grey, of any size and frame rate."""
        return FrameFormat()

    @property
    def facts(self) -> dict[str, Any]:
        """A description of the clips, as columns of a result row."""
        return {
            "data": DATA,
            "condition": "+".join(self.condition),
            "digits": self.resolve().name,
            "labels": self.scheme,
            "order": self.order if self.scheme == "ordered" else None,
        }

    def identity(self) -> dict[str, Any]:
        """Return the facts that must not change when training continues; the location of the images may change."""
        tested = ("digits_dir", "instances", "num_clips", "clips_seed")
        described = {name: value for name, value in self.as_json().items() if name not in tested}
        described["labels"] = described.pop("scheme")  # the name of the option
        return described | {"digits": self.resolve().name}  # `auto` may mean another source next time

    def parts(self) -> list[DigitsConfig]:
        """Return one configuration per condition; each is tested separately."""
        return [replace(self, condition=(name,)) for name in dict.fromkeys(self.condition)]

    def clips(self, split: str) -> MovingDigits:
        """Return the clips of a split, of the only condition.

        Raises:
            UsageError: if there are several conditions; `parts` separates them.
            DataError: if digit files are missing or damaged.
        """
        return self.drawn_from(self.load("train" if self.instances == "shared" else split), split)

    def drawn_from(self, digits: Digits, split: str) -> MovingDigits:
        """Return the clips of a split that show the given images."""
        conditions = dict.fromkeys(self.condition)
        if len(conditions) > 1:
            raise UsageError(
                f"{len(conditions)} conditions are measured one at a time; name one of {', '.join(conditions)}"
            )
        return MovingDigits(
            digits,
            self.motions()[0],
            split=split,
            labels=self.scheme,
            order=self.order,
            num_digits=self.num_digits,
            num_clips=self.num_clips,
            seed=self.clips_seed or 0,
        )

    def batches(self, size: int, seed: int) -> Curriculum:
        """Return training batches of `size` clips of full length, or of more short clips.

        Raises:
            DataError: if digit files are missing or damaged.
        """
        digits = self.load("train")
        long = self._mixture(digits, self.motions(), self.num_digits, seed)
        return Curriculum(long, self._short(digits, seed), size, self.short_fraction)

    def motions(self, *, short: bool = False) -> tuple[Motion, ...]:
        """Return the motion of each condition; a setting of short clips is one frame."""
        return tuple(
            Motion(
                condition,
                min(self.short_frames, self.num_frames) if short else self.num_frames,
                1 if short else self.frames_per_setting,
                self.continuous,
                self.canvas,
                self.digit_size,
                self.angle,
                scale_range=self.scale,
                clutter=self.clutter,
                noise=self.noise,
            )
            for condition in self.condition
        )

    def _short(self, digits: Digits, seed: int) -> tuple[Mixture, ...]:
        motions = self.motions(short=True)
        fewest, most = schemes.create(self.scheme).check_num_digits(self.num_digits)
        stages = []
        for largest in range(fewest, most + 1):
            share = (largest - fewest) / (most - fewest) if most > fewest else 1.0
            clutter, noise = round(share * self.clutter), share * self.noise
            staged = [replace(motion, clutter=clutter, noise=noise) for motion in motions]
            stages.append(self._mixture(digits, staged, (fewest, largest), seed))
        return tuple(stages)

    def _mixture(
        self, digits: Digits, motions: Sequence[Motion], num_digits: int | tuple[int, int], seed: int
    ) -> Mixture:
        arguments: dict[str, Any] = {"labels": self.scheme, "order": self.order, "num_digits": num_digits, "seed": seed}
        jittered = [replace(motion, jitter=self.jitter) for motion in motions]
        return Mixture([MovingDigits(digits, motion, **arguments) for motion in jittered])

    def for_test(self, learned: Mapping[str, Any], seed: int, **given: Any) -> DigitsConfig:
        """Return the standard test of a model that was trained on these digits.

        Condition, source, labels and order are those of training. All other fields have their defaults.

        Args:
            learned: the facts of the training data.
            seed: the seed of the training, which shared instances need.
            given: the fields to override.

        Raises:
            UsageError: if instances are shared, but the source is not that of training.
        """
        kept = {name: getattr(self, name) for name in ("condition", "digits", "digits_dir", "scheme", "order")}
        config = DigitsConfig(**kept | given)
        if config.instances != "shared":
            return config
        came, wanted = config.resolve().name, learned.get("digits")
        if wanted is not None and came != wanted:
            raise UsageError(
                f"shared instances are those of training, from {wanted}; got {came}; leave --digits out, or use"
                " --instances disjoint"
            )
        return config if config.clips_seed is not None else replace(config, clips_seed=seed)


TRAINING = DigitsConfig(num_frames=16, frames_per_setting=1)
"""The default clips of training: shorter than those of the test, with more frequent changes."""
