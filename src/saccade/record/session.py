"""Where the clips of one recording go: the folder of their class, the session, and the names of files."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

from saccade import files
from saccade.data.collection import CLASS_SEPARATOR, SPLIT_NAMES
from saccade.data.grouping import RECORDED
from saccade.errors import UsageError
from saccade.foreign import shown

FEWEST_SESSIONS, WANTED_SESSIONS = 2, 3
"""The numbers of sessions of each class that training needs: with `--folds`, and to hold out validation and a test."""

_MOST_BYTES = 200  # file systems take 255, and the names of files hold more than the class


@dataclass(frozen=True)
class Session:
    """One recording of a class.

    Clips of one session are much alike. So they are one group, which is never split between training and test.

    Args:
        folder: the folder of the class.
        name: date and time of the beginning in UTC, with a number behind them if there is such a session already.
    """

    folder: Path
    name: str

    @classmethod
    def begin(cls, out: Path, class_name: str) -> Session:
        """Return a new session; nothing is written.

        Args:
            out: the folder of the collection.
            class_name: the class.

        Raises:
            UsageError: if the name is that of no folder, or almost that of another class of the collection; if the
                folder holds splits.
        """
        _check_name(class_name)
        _check_collection(out, class_name)
        begins = f"{datetime.now(UTC):%Y%m%d-%H%M%S}"
        names = (begins if number == 1 else f"{begins}-{number}" for number in count(1))
        return cls(out / class_name, next(name for name in names if not any(out.glob(f"*/*_r{name}_*"))))

    def check_writable(self) -> None:
        """Create the folder; raise OSError if no file can be written there."""
        files.check_writable(self._path(1))

    def keep(self, content: bytes) -> Path:
        """Write a clip under the next free name, at once or not at all; return its path.

        Raises:
            OSError: if it cannot be written.
        """
        with files.locked(self.folder / self.name):  # a second camera may have begun in the same second
            path = next(path for path in map(self._path, count(1)) if not path.exists())
            with files.whole(path) as temporary:
                temporary.write_bytes(content)
        return path

    def num_of_class(self) -> int:
        """Return how many sessions of the class are recorded, this one included."""
        return _num_sessions(self.folder)

    def other_classes(self) -> list[str]:
        """Return the classes of the collection in order, if this one is new; otherwise none."""
        if self.folder.exists() or not self.folder.parent.is_dir():
            return []
        return sorted(path.name for path in _folders(self.folder.parent))

    def fewest(self) -> int:
        """Return how many sessions of the class with the fewest are recorded, of all classes in the collection."""
        return min(map(_num_sessions, _folders(self.folder.parent)))

    def _path(self, number: int) -> Path:
        return self.folder / f"{self.folder.name}_r{self.name}_{number:02}.mp4"


def _check_name(name: str) -> None:
    why = None
    if not name.strip():
        why = "it is blank"
    elif name != name.strip():
        why = "it begins or ends with a blank"
    elif name.startswith("."):
        why = "folders whose names begin with a dot are hidden"
    elif any(letter in name for letter in ("/", "\\", CLASS_SEPARATOR)) or shown(name) != name:
        why = f"it contains '/', '\\', {CLASS_SEPARATOR!r} or a character that cannot be printed"
    elif len(name.encode()) > _MOST_BYTES:
        why = f"it is longer than {_MOST_BYTES} bytes"
    if why is not None:
        raise UsageError(f"the class {shown(name)!r} cannot name a folder: {why}; give a plain name, such as wave")


def _check_collection(out: Path, name: str) -> None:
    others = [path for path in out.iterdir() if path.is_dir()] if out.is_dir() else []
    for other in others:
        if other.name != name and _key(other.name) == _key(name):
            raise UsageError(
                f"the class {name!r} differs only in case or blanks from {shown(other.name)!r} in {out}; record into"
                " that one, or choose another name"
            )
        if other.name.casefold() in SPLIT_NAMES and any(_folders(other)):
            raise UsageError(f"{out} holds the split {other.name!r}; name a split, as in --out {out / other.name}")


def _num_sessions(folder: Path) -> int:
    found = (re.search(RECORDED, path.name) for path in folder.iterdir() if not path.name.startswith("."))
    return len({match[1] for match in found if match})


def _folders(folder: Path) -> Iterator[Path]:
    return (path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _key(name: str) -> str:
    """Return what is equal for names that a collection takes as one class."""
    return "".join(unicodedata.normalize("NFKC", name).casefold().split())
