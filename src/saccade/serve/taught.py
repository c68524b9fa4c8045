"""The folder of the clips that a page teaches: its classes and clips, in the form that `train --data` reads."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from pathlib import Path

from saccade.errors import DataError, UsageError

NONE = "none"
"""The class that means that nothing happens."""

FEWEST, WANTED = 3, 8
"""The number of clips that each class needs for training, and the number that the page asks for."""

DELETED = ".deleted"
"""The hidden folder, inside the folder of clips, into which the page deletes."""

_MAX_LETTERS = 40
_SESSION = re.compile(r"[0-9]{8}-[0-9]{6}")
_STILL_PX = 96


@dataclass(frozen=True)
class Taught:
    """A class: its name, and the paths of its clips relative to its folder, in order."""

    name: str
    clips: tuple[str, ...]


class ClipFolder:
    """The clips that a page teaches. No text of a page becomes a path: it is compared with the names in the folder.

    Args:
        root: the folder; it is created, with a folder for the class `none`.

    Raises:
        OSError: if the folder cannot be created.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        # Two recordings may end at once, or one while its class is deleted.
        self._lock = threading.Lock()
        (self.root / NONE).mkdir(parents=True, exist_ok=True)

    def check(self) -> None:
        """Raise UsageError if the folder holds splits. This imports torch."""
        if splits := [path.name for path in self._folders() if path.name.casefold() in _splits()]:
            raise UsageError(f"{self.root} holds the split {splits[0]!r}; give a folder with one folder per class")

    def classes(self) -> list[Taught]:
        """Return the classes, `none` first."""
        names = sorted((path.name for path in self._folders()), key=lambda name: (name != NONE, name.casefold(), name))
        return [Taught(name, tuple(self._clips(name))) for name in names]

    def add(self, name: str) -> str:
        """Create a class; return its name.

        Raises:
            UsageError: if the name is not that of a folder, or almost that of another class.
            OSError: if the folder cannot be created.
        """
        from saccade.record.session import Session

        name = " ".join(name.split())
        if len(name) > _MAX_LETTERS:
            raise UsageError(f"the name of a class has at most {_MAX_LETTERS} letters; got {len(name)}")
        if name.casefold() in _splits():
            raise UsageError(f"{name!r} is the name of a part of a collection; choose another name for the class")
        if any(letter in name for letter in '<>:"|?*') or name.endswith("."):
            raise UsageError(f"the class {name!r} could not name a folder everywhere; use letters, digits and blanks")
        with self._lock:
            folder = Session.begin(self.root, name).folder
            try:
                folder.mkdir()
            except FileExistsError as error:
                raise UsageError(
                    f"there is a class {name!r} already; record into it, or choose another name"
                ) from error
        return name

    def keep(self, name: str, session: str, content: bytes) -> str:
        """Write a recorded clip under a new name; return it.

        Args:
            name: the class.
            session: the time at which the recording session began, as in 20261129-180500.
            content: the content of the file.

        Raises:
            DataError: if there is no such class any more.
            UsageError: if the session is not one.
            OSError: if the clip cannot be written, for example because the disk is full.
        """
        from saccade.record.session import Session

        if not _SESSION.fullmatch(session):
            raise UsageError(f"a session is a time such as 20261129-180500; got {session[:40]!r}")
        with self._lock:
            return Session(self._folder(name), session).keep(content).name

    def delete(self, name: str, clip: str | None = None) -> None:
        """Move a clip or a class, with all its clips, into the folder `DELETED`.

        Raises:
            DataError: if there is no such class or clip.
            OSError: if it cannot be moved.
        """
        with self._lock:
            path = self._folder(name) if clip is None else self._clip(name, clip)
            to = self.root / DELETED / path.relative_to(self.root)
            to.parent.mkdir(parents=True, exist_ok=True)
            path.replace(_free(to))
            (self.root / NONE).mkdir(exist_ok=True)

    def still(self, name: str, clip: str) -> bytes:
        """Return a small picture of a clip as a PNG file. This is slow, and imports torch.

        Raises:
            DataError: if there is no such clip, or it cannot be read.
        """
        path = self._clip(name, clip)
        status = path.stat()
        return _still(path, status.st_mtime_ns, status.st_size)

    def _folders(self) -> Iterator[Path]:
        return (path for path in self.root.iterdir() if path.is_dir() and not path.name.startswith("."))

    def _folder(self, name: str) -> Path:
        for path in self._folders():
            if path.name == name:
                return path
        raise DataError(f"there is no class {name[:_MAX_LETTERS]!r} any more; add it again")

    def _clips(self, name: str) -> Iterator[str]:
        from saccade.data import finding, video

        folder = self.root / name
        found = (path for path in finding.visible_files(folder) if video.is_named_as_clip(path))
        return iter(sorted(path.relative_to(folder).as_posix() for path in found))

    def _clip(self, name: str, clip: str) -> Path:
        folder = self._folder(name)
        if clip not in self._clips(name):
            raise DataError(f"there is no such clip of {name!r} any more; another page may have deleted it")
        return folder / clip


def _splits() -> frozenset[str]:
    from saccade.data.collection import SPLIT_NAMES

    return frozenset(SPLIT_NAMES)


def _free(path: Path) -> Path:
    number = 1
    while (free := path if number == 1 else path.with_stem(f"{path.stem} ({number})")).exists():
        number += 1
    return free


@lru_cache(maxsize=512)
def _still(path: Path, _time_ns: int, _size: int) -> bytes:
    import av
    from av.video.codeccontext import VideoCodecContext

    from saccade.data import video

    def small(size: tuple[int, int]) -> tuple[int, int]:
        return round(size[0] * _STILL_PX / min(size)), round(size[1] * _STILL_PX / min(size))

    frames = video.read_clip(path, size=small, num_channels=3).frames
    middle = frames[len(frames) // 2].permute(1, 2, 0).contiguous().numpy()
    picture = av.VideoFrame.from_ndarray(middle, format="rgb24")
    encoder = av.CodecContext.create("png", "w")
    assert isinstance(encoder, VideoCodecContext)
    encoder.height, encoder.width, encoder.pix_fmt = picture.height, picture.width, picture.format.name
    encoder.time_base = Fraction(1)
    return b"".join(bytes(packet) for packet in (*encoder.encode(picture), *encoder.encode(None)))
