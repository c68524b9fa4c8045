"""What is known of a clip that lies in a folder of `saccade generate`."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path

import torch

from saccade import foreign
from saccade.clips import Poses
from saccade.data.digits import schemes
from saccade.errors import UsageError
from saccade.generate.dataset import LABELS, MANIFEST, POSES
from saccade.labels import Labels

# What files raise that are none of `saccade generate`.
_OTHERS: tuple[type[Exception], ...] = (*foreign.UNREADABLE, csv.Error, UsageError)


@dataclass(frozen=True)
class Truth:
    """The digits of a generated clip, and where they are.

    Args:
        scheme: what the clips of the folder are called.
        digits: of the clip.
        poses: of the clip, a batch of one, in pixels of its own frames.
    """

    scheme: str
    digits: tuple[int, ...]
    poses: Poses

    def named_by(self, labels: Labels) -> str | None:
        """Return what a verdict of a model has to be; None where its classes cannot name these digits."""
        if not names_digits(labels):
            return None
        names = tuple(map(str, self.digits))
        if labels.parts is None:
            return labels.name_of(tuple(labels.names.index(name) for name in sorted(set(names))))
        # The order of two digits means something only where the folder was made to show it.
        if not labels.unordered_pairs and self.scheme != "ordered":
            return None
        wanted = tuple(sorted(names)) if labels.unordered_pairs else names
        return labels.names[labels.parts.index(wanted)] if wanted in labels.parts else None

    def poses_in(self, num_frames: int, file_size: tuple[int, int], frame_size: tuple[int, int]) -> Poses:
        """Return the poses in the first frames, resized; the edges of boxes then lie between pixels.

        Args:
            num_frames: how many frames.
            file_size: (height, width) of the file's frames.
            frame_size: the same of the resized frames.
        """
        zoom = torch.tensor(frame_size) / torch.tensor(file_size)
        first = slice(0, num_frames)
        return Poses(
            # Centres of pixels lie half a pixel from where edges do.
            centre_px=(self.poses.centre_px[:, first] + 0.5) * zoom - 0.5,
            angle_deg=self.poses.angle_deg[:, first],
            scale=self.poses.scale[:, first] * zoom[0],
            box_px=self.poses.box_px[:, first] * zoom.repeat(2),
            thing=self.poses.thing,
            instance=self.poses.instance,
        )


def names_digits(labels: Labels) -> bool:
    """Tell whether a model's classes are of digits."""
    return any(scheme.labels == labels for scheme in schemes.SCHEMES.values())


def truth_of(clip: Path) -> Truth | None:
    """Read what a folder of `saccade generate` says of one of its clips; None for every other file.

    A folder may hold files of these names that mean something else, hence whatever does not fit is left aside.
    """
    path = clip.resolve()
    for folder in path.parents[:2]:
        name = path.relative_to(folder).as_posix()
        try:
            if _is_listed(folder / LABELS, name) and (line := _line(folder / POSES, name)) is not None:
                return _truth(_label_scheme(folder / MANIFEST), line)
        except _OTHERS:
            continue
    return None


def _is_listed(path: Path, name: str) -> bool:
    with path.open(encoding="utf-8", newline="") as file:
        return any(row["file"] == name for row in csv.DictReader(file))


def _line(path: Path, name: str) -> dict[str, list[object]] | None:
    # Thousands of lines of tens of kilobytes: only the one that names the file is worth parsing.
    with path.open(encoding="utf-8") as file:
        found = (json.loads(line) for line in file if json.dumps(name) in line[: len(name) + 40])
        return next((dict(line) for line in found if line["file"] == name), None)


def _label_scheme(path: Path) -> str:
    config = json.loads(path.read_text(encoding="utf-8"))["config"]
    return schemes.create(config["scheme"] if "scheme" in config else config["labels"]).name  # as version 0.1 wrote it


def _truth(scheme: str, line: dict[str, list[object]]) -> Truth:
    digits = [int(str(digit)) for digit in line["digits"]]
    names = ("centre_px", "angle_deg", "scale", "box_px")
    centre, angle, scale, box = (torch.tensor(line[name], dtype=torch.float32).unsqueeze(0) for name in names)
    num_frames = angle.shape[1]
    wanted = [(1, num_frames, len(digits), *rest) for rest in ((2,), (), (), (4,))]
    if not digits or [tuple(part.shape) for part in (centre, angle, scale, box)] != wanted:
        raise ValueError("poses are of different frames or digits")
    digit = torch.tensor([digits])
    return Truth(scheme, tuple(digits), Poses(centre, angle, scale, box, digit, torch.full_like(digit, -1)))
