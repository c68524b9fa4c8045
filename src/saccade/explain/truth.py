"""What is known of a clip that lies in a folder of `saccade generate`."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path

import torch

from saccade.data import labels as label_schemes
from saccade.data.labels import LabelScheme
from saccade.data.moving_digits import Poses
from saccade.errors import UsageError
from saccade.generate.dataset import LABELS, MANIFEST, POSES


@dataclass(frozen=True)
class Truth:
    """The digits of a generated clip, and where they are.

    Args:
        labels: the label scheme of the folder.
        digits: of the clip.
        poses: of the clip, a batch of one, in pixels of its own frames.
    """

    labels: str
    digits: tuple[int, ...]
    poses: Poses

    def named_by(self, scheme: LabelScheme) -> str | None:
        """Return what a verdict in a label scheme has to be; None where the scheme cannot name these digits."""
        if scheme.multi_label:
            return "-".join(map(str, sorted(set(self.digits))))
        # The order of two digits means something only where the folder was made to show it.
        if len(self.digits) != 2 or (scheme.name == "ordered" and self.labels != "ordered"):
            return None
        return "".join(map(str, self.digits if scheme.name == "ordered" else sorted(self.digits)))

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
            digit=self.poses.digit,
            instance=self.poses.instance,
        )


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
        except (OSError, ValueError, TypeError, LookupError, csv.Error, UsageError):
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
    return label_schemes.create(json.loads(path.read_text(encoding="utf-8"))["config"]["labels"]).name


def _truth(labels: str, line: dict[str, list[object]]) -> Truth:
    digits = [int(str(digit)) for digit in line["digits"]]
    names = ("centre_px", "angle_deg", "scale", "box_px")
    centre, angle, scale, box = (torch.tensor(line[name], dtype=torch.float32).unsqueeze(0) for name in names)
    num_frames = angle.shape[1]
    wanted = [(1, num_frames, len(digits), *rest) for rest in ((2,), (), (), (4,))]
    if not digits or [tuple(part.shape) for part in (centre, angle, scale, box)] != wanted:
        raise ValueError("poses are of different frames or digits")
    digit = torch.tensor([digits])
    return Truth(labels, tuple(digits), Poses(centre, angle, scale, box, digit, torch.full_like(digit, -1)))
