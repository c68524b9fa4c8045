"""The command `saccade record`: clips of a class from a live source, as files that training reads."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from saccade.clips import FrameFormat
from saccade.data.grouping import RECORDED
from saccade.data.pixels import Size
from saccade.errors import DataError
from saccade.foreign import shown
from saccade.record.config import RecordConfig
from saccade.record.session import FEWEST_SESSIONS, WANTED_SESSIONS, Session
from saccade.record.takes import Takes
from saccade.stream.live_frame import LiveFrame
from saccade.stream.source import Source

_RGB = FrameFormat(channels=3)  # every frame, as it comes


def record(config: RecordConfig, *, say: Callable[[str], None]) -> list[Path]:
    """Record clips of a class into a folder, each as a file; return the files.

    Each call is one recording session, which the names of the files hold. A finished clip is kept, whatever happens
    later. An unfinished clip leaves no file, and no file is replaced.

    Args:
        config: the class, the source and the options.
        say: called with each line for the user: what is recorded, and in the end how to train on the clips.

    Raises:
        UsageError: if the class cannot name a folder, or its name is almost that of another class.
        DataError: if the source cannot be opened, has failed for too long, or ends before the first clip does.
        OSError: if a file cannot be written.
    """
    session = Session.begin(config.out, config.class_name)
    if others := session.other_classes():
        say(f"{shown(config.class_name)} is a new class beside {', '.join(map(shown, others))}")
    clips: list[Path] = []
    try:
        with Source(config.source, _RGB, fit=_within(config.short_side), realtime=config.realtime, say=say) as source:
            for clip in Takes(config, say).clips(_checked(source, session)):
                clips.append(session.keep(clip.content()))
                say(f"wrote {clips[-1].name}, {clip.num_frames} frames")
            if not clips:
                raise DataError("the source ended before the first clip did; use a longer one, or less --seconds")
            if source.dropped:
                say(f"{source.dropped} frames are missing: they came faster than this machine could encode them")
    finally:
        _tell(config, session, len(clips), say)
    return clips


def _checked(source: Source, session: Session) -> Iterator[LiveFrame]:
    """Yield the frames; before the first one, which shows that the source works, check that clips can be written."""
    for number, frame in enumerate(source):
        if not number:
            session.check_writable()
        yield frame


def _tell(config: RecordConfig, session: Session, num: int, say: Callable[[str], None]) -> None:
    if not num:
        with suppress(OSError):  # it is not there, or holds clips of other sessions
            session.folder.rmdir()
        return
    say(f"{num} of {config.num_clips} clips recorded in {session.folder}")
    if (num_sessions := session.num_of_class()) < WANTED_SESSIONS:
        told = "1 session" if num_sessions == 1 else f"{num_sessions} sessions"
        needed = f"training needs {FEWEST_SESSIONS} of each class with --folds, {WANTED_SESSIONS} without"
        say(f"this class has {told}; {needed}: run this command again for another")
    words = ["saccade", "train", "--data", str(config.out), "--group", RECORDED]
    if session.fewest() < WANTED_SESSIONS:
        words += ["--folds", str(FEWEST_SESSIONS)]
    say(f"then train with: {shlex.join(words)}")


def _within(short_side: int) -> Callable[[Size], Size]:
    """Return the function from a size to that of the recorded frames: even, and in proportion."""

    def fit(size: Size) -> Size:
        zoom = min(1.0, short_side / min(size))
        height, width = (max(2, 2 * round(edge * zoom / 2)) for edge in size)
        return height, width

    return fit
