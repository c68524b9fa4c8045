"""The known digits and poses of a clip in a folder of `saccade generate`."""

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

# The errors from files that `saccade generate` did not write.
_OTHERS: tuple[type[Exception], ...] = (*foreign.UNREADABLE, csv.Error, UsageError)


@dataclass(frozen=True)
class Truth:
    """The digits of a generated clip, and their poses.

    Args:
        scheme: the label scheme of the folder.
        digits: the digits of the clip.
        poses: the poses of the digits, as a batch of one clip, in pixels of the frames in the file.
    """

    scheme: str
    digits: tuple[int, ...]
    poses: Poses

    def named_by(self, labels: Labels) -> str | None:
        """Return the verdict that would be right for a model; None if its classes cannot name these digits."""
        if not names_digits(labels):
            return None
        names = tuple(map(str, self.digits))
        if labels.parts is None:
            return labels.name_of(tuple(labels.names.index(name) for name in sorted(set(names))))
        # The order of two digits has a meaning only in folders with the scheme `ordered`.
        if not labels.unordered_pairs and self.scheme != "ordered":
            return None
        wanted = tuple(sorted(names)) if labels.unordered_pairs else names
        return labels.names[labels.parts.index(wanted)] if wanted in labels.parts else None

    def poses_in(self, num_frames: int, file_size: tuple[int, int], frame_size: tuple[int, int]) -> Poses:
        """Return the poses in the first frames for resized frames; edges of boxes are then no longer whole numbers.

        Args:
            num_frames: the number of frames.
            file_size: (height, width) of the frames in the file.
            frame_size: (height, width) of the resized frames.
        """
        zoom = torch.tensor(frame_size) / torch.tensor(file_size)
        first = slice(0, num_frames)
        return Poses(
            # Scaling keeps the frame's edge, half a pixel before the centre of the first pixel, in place.
            centre_px=(self.poses.centre_px[:, first] + 0.5) * zoom - 0.5,
            angle_deg=self.poses.angle_deg[:, first],
            scale=self.poses.scale[:, first] * zoom[0],
            box_px=self.poses.box_px[:, first] * zoom.repeat(2),
            thing=self.poses.thing,
            instance=self.poses.instance,
        )


def names_digits(labels: Labels) -> bool:
    """Return whether a model's classes are those of a digit scheme."""
    return any(scheme.labels == labels for scheme in schemes.SCHEMES.values())


def truth_of(clip: Path) -> Truth | None:
    """Read the digits and poses of a clip in a folder of `saccade generate`; return None for any other file.

    Other programs may write files of the same names, so files that do not fit are ignored.
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
    # Files have thousands of lines of tens of kilobytes, so only the line that names the clip is parsed.
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
        raise ValueError("poses have different numbers of frames or digits")
    digit = torch.tensor([digits])
    return Truth(scheme, tuple(digits), Poses(centre, angle, scale, box, digit, torch.full_like(digit, -1)))
