"""Write clips, labels and poses atomically, with a manifest that keeps different datasets apart."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

import saccade
from saccade import files, foreign, run_folder
from saccade.clips import Poses
from saccade.data.digits import Digits, DigitsConfig, MovingDigits
from saccade.data.video_writing import write_png
from saccade.errors import DataError, Interrupted, UsageError
from saccade.generate.config import FORMATS, GenerateConfig
from saccade.generate.contact_sheet import draw_contact_sheet

MANIFEST, LABELS, POSES, SHEET = "dataset.json", "labels.csv", "poses.jsonl", "contact_sheet.png"
COLUMNS = ("file", "label", "digits", "index", "instances")
FORMAT = 2
_FRAMES_PER_ROUND = 800
_SHEET_CLIPS = 8
# Locations may change between two calls; other fields identify the digit images.
_FREE = ("out", "digits_dir", "digits", "kind", "short_fraction")


def generate(config: GenerateConfig, digits: DigitsConfig, progress: Callable[[int, int], None] | None = None) -> Path:
    """Write clips into a folder, or only those that are missing there; return the folder.

    Every file is written atomically. `labels.csv` is written last: if it exists, the dataset is complete.

    *Conventions:* clip `i` of class `07` is `07/00000i.mp4`. A line of `poses.jsonl` describes a clip: lists over
    frames of lists over digits. Positions are (y, x) in pixels; the centre of the upper left pixel is (0, 0). Boxes are
    (top, left, bottom, right), bottom and right exclusive. Angles are counter-clockwise as seen on the screen.

    Args:
        config: the folder and the file format.
        digits: the clips.
        progress: a function that is called with the number of clips done and the total.

    Raises:
        UsageError: if the folder holds other files or clips of another configuration, or another process writes to it.
        DataError: if the manifest of the folder is damaged.
        OSError: if the folder cannot be written; files that were written are kept.
        Interrupted: if the user presses Ctrl-C; files that were written are kept.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     digits = DigitsConfig("uci", condition=("rotation",), num_clips=2, num_frames=5)
    ...     written = generate(GenerateConfig(Path(folder), format="npz"), digits)
    ...     sorted(str(path.relative_to(folder)) for path in written.rglob("*.*"))
    ['00/000000.npz', '01/000001.npz', 'contact_sheet.png', 'dataset.json', 'labels.csv', 'poses.jsonl']
    """
    images = digits.load("train" if digits.instances == "shared" else config.split)
    clips = digits.drawn_from(images, config.split)
    with run_folder.held(config.out):
        _claim(config, digits, images)
        there = _clips_there(config)
        if len(there) == len(clips) and all((config.out / name).is_file() for name in (LABELS, POSES, SHEET)):
            return config.out
        for folder in config.out.glob("[0-9]*/"):
            files.remove_leftovers(folder)
        try:
            _draw_sheet(config.out / SHEET, clips)
            _write(config, clips, there, progress or (lambda _done, _total: None))
        except KeyboardInterrupt as error:
            num = len(_clips_there(config))
            raise Interrupted(f"{num} of {len(clips)} clips are in {config.out}") from error
    return config.out


def class_name(clips: MovingDigits, digits: list[int]) -> str:
    """Return the class of a clip that shows these digits: `07`, or the set `0-3-7` for the label scheme `digits`.

    An absent digit is -1.
    """
    shown = [digit for digit in digits if digit >= 0]
    return "".join(map(str, shown)) if clips.scheme.pairs else "-".join(map(str, sorted(set(shown))))


def _write(config: GenerateConfig, clips: MovingDigits, there: set[int], progress: Callable[[int, int], None]) -> None:
    # Labels and poses are always written in full: computing them is far quicker than writing the file of a clip.
    with (
        files.whole(config.out / LABELS) as labels_path,
        files.whole(config.out / POSES) as poses_path,
        labels_path.open("w", encoding="utf-8", newline="") as labels,
        poses_path.open("w", encoding="utf-8") as poses,
    ):
        table = csv.DictWriter(labels, COLUMNS, lineterminator="\n")
        table.writeheader()
        for clip in _described(config, clips):
            if clip.index not in there:
                FORMATS[config.format](config.out / clip.file, clip.frames, config.fps)
            table.writerow(clip.row())
            poses.write(json.dumps(clip.line(), separators=(",", ":")) + "\n")
            progress(clip.index + 1, len(clips))


@dataclass(frozen=True)
class _Clip:
    """A clip with its label and poses."""

    index: int
    file: str
    label: str
    frames: UInt8[Tensor, "time 1 height width"]
    truth: dict[str, list[Any]]

    def row(self) -> dict[str, str | int]:
        digits, instances = (" ".join(map(str, self.truth[name])) for name in ("thing", "instance"))
        return dict(zip(COLUMNS, (self.file, self.label, digits, self.index, instances), strict=True))

    def line(self) -> dict[str, Any]:
        poses = {name: self.truth[name] for name in ("centre_px", "angle_deg", "scale", "box_px")}
        return {"file": self.file, "label": self.label, "digits": self.truth["thing"]} | poses


def _described(config: GenerateConfig, clips: MovingDigits) -> Iterator[_Clip]:
    for indices in torch.arange(len(clips)).split(max(1, _FRAMES_PER_ROUND // clips.motion.num_frames)):
        batch = clips.located(indices)
        assert batch.poses is not None
        truths = {name: _exact(getattr(batch.poses, name)) for name in Poses.__dataclass_fields__}
        for position, index in enumerate(indices.tolist()):
            truth = _shown({name: values[position] for name, values in truths.items()})
            label = class_name(clips, truth["thing"])
            yield _Clip(index, f"{label}/{index:06d}.{config.format}", label, batch.frames[position], truth)


def _shown(truth: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """Remove the absent digits, which come last."""
    num = sum(digit >= 0 for digit in truth["thing"])
    whole_clip = {name: truth[name][:num] for name in ("thing", "instance")}
    return whole_clip | {name: [frame[:num] for frame in truth[name]] for name in truth.keys() - whole_clip.keys()}


def _exact(values: Tensor) -> list[Any]:
    """Return nested lists whose numbers are the shortest that read back as the same float32."""
    numbers: list[Any] = values.flatten().tolist()
    if values.is_floating_point():
        numbers = [float(str(number)) for number in values.flatten().numpy()]
    nested: list[Any] = np.array(numbers).reshape(values.shape).tolist()
    return nested


def _claim(config: GenerateConfig, digits: DigitsConfig, images: Digits) -> None:
    """Write the manifest of a new folder, or check that the folder holds the same clips."""
    source = {"digits_source": images.source, "digits_sha256": images.sha256()}
    asked = files.json_fields(config) | digits.as_json() | {"clips_seed": digits.clips_seed or 0}
    wanted = {name: value for name, value in asked.items() if name not in _FREE} | source
    manifest = config.out / MANIFEST
    if manifest.exists() and any(config.out.glob("[0-9]*/[0-9]*.*")):
        run_folder.check_same(config.out, _read_manifest(manifest), wanted)
        return
    # A call that failed before its first clip leaves a manifest, which is overwritten.
    others = sorted(path.name for path in config.out.glob("[!.]*"))
    if others and not manifest.exists():
        raise UsageError(f"{config.out} holds {others[0]}, but no {MANIFEST}; choose an empty or new folder as --out")
    versions = {"saccade": saccade.__version__, "torch": str(torch.__version__)}
    motion = asdict(digits.motions()[0])
    files.write_json(manifest, {"format": FORMAT, "config": wanted, "motion": motion, "versions": versions})


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        config: dict[str, Any] = dict(manifest["config"])
        if manifest.get("format") == 1:  # of version 0.1, with one condition per folder
            config |= {"condition": [config["condition"]], "scheme": config["labels"], "clips_seed": config["seed"]}
    except foreign.UNREADABLE as error:
        raise DataError(f"{path} is damaged ({error}); remove {path.parent}, or choose another --out") from error
    return config


def _clips_there(config: GenerateConfig) -> set[int]:
    found = config.out.glob(f"[0-9]*/[0-9]*.{config.format}")
    return {int(path.stem) for path in found if path.stem.isdecimal() and path.stat().st_size}


def _draw_sheet(path: Path, clips: MovingDigits) -> None:
    indices = torch.linspace(0, len(clips) - 1, min(len(clips), _SHEET_CLIPS)).round().long()
    batch = clips.located(indices)
    assert batch.poses is not None
    names = [class_name(clips, digits) for digits in batch.poses.thing.tolist()]
    write_png(path, draw_contact_sheet(batch, names, clips.motion))
