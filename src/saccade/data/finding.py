"""Find the clips in a folder, and the group of a clip by its file name."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from saccade.data import members, video
from saccade.errors import DataError, UsageError

Closed = Callable[[Path, str], None]
"""A function that is called with a folder that cannot be opened, and why."""


def find_clips(path: Path, *, closed: Closed | None = None) -> list[Path]:
    """Return the file itself, or the clips in a folder and its subfolders, in order of their names.

    Args:
        path: the file or folder.
        closed: called for each subfolder that cannot be opened, which is then left out. If None, the error is raised.

    Raises:
        DataError: if `path` does not exist, cannot be opened, or is a folder without clips.
    """
    if not path.exists():
        raise DataError(f"there is nothing at {path}; give a video, GIF or .npz file, or a folder of such files")
    if not path.is_dir():
        return [path]
    clips = sorted(p for p in visible_files(path, closed=closed) if video.is_named_as_clip(p))
    if not clips:
        list(visible_files(path))  # a folder that cannot be opened is the better error
        raise DataError(
            f"{path} holds no clip; give a folder with files that end in {', '.join(sorted(video.SUFFIXES))}"
        )
    return clips


def visible_files(root: Path, *, closed: Closed | None = None) -> Iterator[Path]:
    """Yield the files below a folder that are not hidden; follow links to folders, but visit no folder twice.

    Links to files that are missing are files, so that they can be told: sets that git-annex keeps look like this before
    their content is fetched.

    Args:
        root: the folder.
        closed: called for each folder that cannot be opened. If None, the error is raised.

    Raises:
        DataError: if a folder cannot be opened, and `closed` is None.
    """

    def fail(error: OSError) -> None:
        folder, why = Path(error.filename), f"cannot be opened: {error.strerror}"
        if closed is None:
            raise DataError(f"{folder} {why}") from error
        closed(folder, why)

    seen: set[Path] = set()
    for folder, inside, names in os.walk(root, followlinks=True, onerror=fail):
        place = Path(folder).resolve()
        inside[:] = sorted(name for name in inside if not name.startswith("."))
        if place in seen:
            inside.clear()
            continue
        seen.add(place)
        visible = (Path(folder) / name for name in names if not name.startswith("."))
        yield from (path for path in visible if path.is_file() or not path.exists())  # a pipe would wait for ever


def check_pattern(pattern: str) -> None:
    """Raise UsageError if `pattern` is not a regular expression with a group.

    >>> check_pattern("_([0-9]+)_")
    """
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise UsageError(f"{pattern!r} is not a regular expression ({error}); an example is '_(\\d+)_'") from error
    if not compiled.groups:
        raise UsageError(f"{pattern!r} captures nothing; put the group's part in parentheses, as in '_(\\d+)_'")


def captured(pattern: str, path: Path) -> str:
    """Return the group of a file: what the first group of the pattern captures in its name.

    Raises:
        DataError: if it captures nothing.

    >>> captured("_([0-9]+)_", Path("wave_07_a.mp4"))
    '07'
    """
    found = re.search(pattern, path.name)
    if found is None or found[1] is None:
        raise DataError(f"the pattern {pattern!r} captures nothing in {path.name}; give one that fits all clips")
    return found[1]


def unreadable(path: Path) -> str | None:
    """Return why a file cannot be opened, or None."""
    try:
        if not members.is_file(path):  # to open a pipe would wait for ever
            if path.is_symlink() and not path.exists():
                return "does not exist: the file that it links to is missing"
            return "is not a file" if path.exists() else "does not exist"
        members.opened(path).close()
    except (OSError, ValueError) as error:
        return f"cannot be opened: {getattr(error, 'strerror', None) or error}"
    return None
