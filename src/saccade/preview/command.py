"""Run `saccade preview`: from its options to the picture."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from itertools import islice

import numpy as np

from saccade import files
from saccade.clips import FrameFormat
from saccade.data import collection, video
from saccade.data.augment import Augmentation, view_generator
from saccade.data.collection import Collection, Entry
from saccade.data.frame_choice import MAX_DESCRIBED, FrameChoice
from saccade.errors import DataError, SaccadeError
from saccade.models import efficientnet
from saccade.models.trunks import PICTURE_TRUNKS, frame_px
from saccade.preview.config import PreviewConfig
from saccade.preview.sheet import Block, Clip, write_sheet
from saccade.visualize.figures import load_pyplot

MAX_FRAMES = 256
"""The number of frames that are drawn from; of a longer clip, it is the beginning."""


def preview(
    config: PreviewConfig,
    frame_format: FrameFormat | None = None,
    augmentation: Augmentation | None = None,
    *,
    unreadable: Callable[[SaccadeError], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Draw some clips of each class: one row as a model sees them, and a row for each augmented view.

    Args:
        config: the clips and the file.
        frame_format: the frames that the model expects; None for the format that a training with the trunk of the
            configuration chooses for these clips.
        augmentation: the strengths of the changes; None for the defaults.
        unreadable: called with the error for each clip that cannot be read; another clip of its class is then drawn.
            If None, the error is raised.
        progress: called with the number of clips read and the number wanted.

    Raises:
        UsageError: if `group` is not a regular expression with a group, or the picture would be too high.
        DataError: if the collection cannot be read, or none of its clips.
        MissingExtraError: if matplotlib is not installed.
        OSError: if the file cannot be written.
    """
    # Fail before the work, not after it.
    files.check_writable(config.out)
    load_pyplot()
    clips = collection.read(config.data, group=config.group)
    for path, why in clips.unreadable:
        _tell(DataError(f"{path} {why}"), unreadable)
    trunk = config.trunk or _default_trunk()
    wanted = frame_format or _chosen(clips, config.seed, trunk)
    heading = _heading(wanted, config.num_views, trunk if frame_format is None else None)
    changes = augmentation or Augmentation()
    num = min(config.num_clips, len(clips.entries))
    blocks: dict[int, Block] = {}
    for index, clip in islice(_by_turns(clips, wanted, config.seed, unreadable), num):
        views = [
            changes.augmented(clip.frames, view_generator(config.seed, index, view)) for view in range(config.num_views)
        ]
        blocks[index] = _block(clips.entries[index], clip, views)
        if progress is not None:
            progress(len(blocks), num)
    write_sheet(config.out, heading, _in_order(blocks, clips))


def _in_order(blocks: dict[int, Block], clips: Collection) -> list[Block]:
    if not blocks:
        raise DataError(f"none of the {len(clips.entries)} clips of {clips.source} can be read")
    # In a CSV file, clips of one class need not stand together.
    return [blocks[index] for index in sorted(blocks, key=lambda index: (clips.entries[index].classes, index))]


def _default_trunk() -> str:
    """Return the trunk of a training on own clips without options."""
    return "small" if efficientnet.pretrained_file() is None else "efficientnet-lite0"


def _chosen(clips: Collection, seed: int, trunk: str) -> FrameFormat:
    """Return the frame format that a training with a trunk chooses for the clips that can be read."""
    places = np.random.default_rng(seed).permutation(len(clips.entries))[:MAX_DESCRIBED]
    described, failed = [], []
    for path in dict.fromkeys(clips.entries[place].path for place in sorted(places)):
        try:
            described.append(video.describe(path))
        except DataError as error:
            failed.append(error)
    if not described:
        raise DataError(f"no clip of {clips.source} can be read; the first: {failed[0]}")
    short_side = frame_px(trunk, attention=None)
    choice = FrameChoice(short_side, enlarge=True) if short_side else FrameChoice()
    return choice.of(described)


def _by_turns(
    clips: Collection, wanted: FrameFormat, seed: int, unreadable: Callable[[SaccadeError], None] | None
) -> Iterator[tuple[int, video.Clip]]:
    """Yield clips in random order with their indices, one of each class in turn."""
    of_class = defaultdict(list)
    for index in np.random.default_rng(seed).permutation(len(clips.entries)).tolist():
        of_class[clips.entries[index].classes].append(index)
    turns = deque(_readable(clips, indices, wanted, unreadable) for indices in of_class.values())
    while turns:
        readable = turns.popleft()
        if (found := next(readable, None)) is not None:
            yield found
            turns.append(readable)


def _readable(
    clips: Collection, indices: list[int], wanted: FrameFormat, unreadable: Callable[[SaccadeError], None] | None
) -> Iterator[tuple[int, video.Clip]]:
    for index in indices:
        entry = clips.entries[index]
        try:
            clip = video.read_clip(
                entry.path,
                size=wanted.fit,
                num_channels=wanted.channels,
                max_frames=MAX_FRAMES,
                fps=wanted.fps,
                start_s=entry.start_s,
                end_s=entry.end_s,
            )
        except DataError as error:
            _tell(error, unreadable)
        else:
            yield index, clip


def _tell(error: SaccadeError, unreadable: Callable[[SaccadeError], None] | None) -> None:
    if unreadable is None:
        raise error
    unreadable(error)


def _block(entry: Entry, clip: video.Clip, views: list[Clip]) -> Block:
    title = " | ".join(entry.classes) or "no class"
    about = [entry.path.name]
    if clip.source is not None:
        height, width = clip.source.size
        about += [f"{width}x{height} px"] + ([f"{clip.source.fps:.3g} frames/s"] if clip.source.fps else [])
    if entry.start_s is not None or entry.end_s is not None:
        about.append(f"from {entry.start_s or 0:g} s" + ("" if entry.end_s is None else f" to {entry.end_s:g} s"))
    if len(clip.frames) == MAX_FRAMES:
        about.append("only its beginning")
    if clip.warning is not None:
        about.append("damaged: only a part can be read")
    return Block(title, ", ".join(about), (clip.frames, *views))


def _heading(wanted: FrameFormat, num_views: int, trunk: str | None) -> str:
    colours = "grey" if wanted.channels == 1 else "RGB"
    size = "in the proportions of the clip" if wanted.size is None else f"of {wanted.size[1]}x{wanted.size[0]} px"
    rate = "at the rate of the clip" if wanted.fps is None else f"at {wanted.fps:.3g} frames/s"
    # Of a trunk that does not learn, the maps are computed once, from clips as they are.
    when = "as in training with --finetune" if trunk in PICTURE_TRUNKS else "as in training"
    views = f"; below each clip, random views of it {when}" if num_views else ""
    model = "a model" if trunk is None else f"the trunk {trunk}"
    return f"What {model} sees: {colours} frames {size}, {rate}{views}"
