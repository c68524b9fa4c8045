"""Small decoded frames on disk, so that large videos are decoded only once.

A cache never costs work: if it cannot be read or written, clips are decoded.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from saccade import files, foreign
from saccade.data import members
from saccade.data.pixels import Size
from saccade.data.reading import Source
from saccade.data.video import Clip, read_clip
from saccade.errors import DataError

# Count up when the same file gives other frames than before.
_VERSION = 1
_MAX_BYTES, _MAX_SHARE_OF_FREE = 10**10, 0.1
# One clip may take this share of the cache, and at this share of new bytes the cache is measured again.
_LARGEST_SHARE, _SHARE_UNMEASURED = 0.25, 0.02
_LONGEST_WRITE_S = 3600.0
_UNREADABLE: tuple[type[Exception], ...] = (*foreign.UNREADABLE, SafetensorError)


def default_folder() -> Path:
    """Return the folder of the cache: `saccade/frames` in `$XDG_CACHE_HOME`, or else in `~/.cache`."""
    home = os.environ.get("XDG_CACHE_HOME", "")
    # By the specification, a relative path there is ignored.
    return (Path(home) if Path(home).is_absolute() else Path.home() / ".cache") / "saccade" / "frames"


def default_max_bytes(folder: Path) -> int:
    """Return the default size of a cache: 10 GB, or a tenth of the free space of its disk if that is less."""
    existing = next((parent for parent in (folder, *folder.parents) if parent.exists()), None)
    free_bytes = shutil.disk_usage(existing).free if existing else 0
    return min(_MAX_BYTES, int(_MAX_SHARE_OF_FREE * free_bytes))


class FrameCache:
    """Read clips through a folder of decoded frames, which several processes may share.

    An entry is found by the content of the file, not by its name, and by the format of the frames. Frames from the
    cache are mapped into memory: they take memory only where they are used. The least recently used entries are removed
    when the cache reaches its bound.

    Attributes:
        warning: one line if the cache could not be used at some time; else None.

    Args:
        folder: where the entries lie; it is made when the first one is written.
        max_bytes: the largest size of the folder; each process that writes may exceed it by 2 %.

    >>> import tempfile, torch
    >>> from saccade.data.video_writing import write_gif
    >>> with tempfile.TemporaryDirectory() as name:
    ...     write_gif(Path(name) / "a.gif", torch.zeros(5, 1, 32, 48, dtype=torch.uint8), fps=10)
    ...     cache = FrameCache(Path(name) / "cache", max_bytes=10**6)
    ...     first, second = (cache.read(Path(name) / "a.gif", size=(16, 24)) for _ in range(2))
    >>> torch.equal(first.frames, second.frames), second.fps, cache.warning
    (True, 10.0, None)
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder, self._max_bytes = folder, max_bytes
        self._num_unmeasured_bytes: float = max_bytes  # so that the first entry has the folder measured
        self._is_writable = True
        self.warning: str | None = None

    def read(
        self,
        path: Path,
        *,
        size: Size | Callable[[Size], Size] | None = None,
        num_channels: int = 1,
        fps: float | None = None,
        start_s: float | None = None,
        end_s: float | None = None,
        digest: str | None = None,
    ) -> Clip:
        """Read a clip from the cache, or from its file and into the cache.

        The other args and errors are those of `video.read_clip`. A file that cannot be read is not remembered.

        Args:
            digest: SHA-256 of the content that is wanted, as hexadecimal digits. Frames that are in the cache are then
                read even if the file has changed or vanished meanwhile. None: the content that the file has now.

        Raises:
            DataError: if the file has another content than `digest`, and that content is not in the cache.
        """
        form = {"channels": num_channels, "fps": fps, "start_s": start_s, "end_s": end_s, "version": _VERSION}
        kept = None if digest is None or callable(size) else self._get(self._entry(digest, form, size), path)
        if kept is not None:
            return kept
        described = self._described(path)
        if digest is not None and described is not None and described["digest"] != digest:
            raise DataError(f"{path} changed while it was in use; put the earlier file back, or begin again")
        shape = described and described["shown_size"]
        wanted = size(tuple(shape)) if callable(size) and shape else size
        if described and not callable(wanted):
            clip = self._get(self._entry(described["digest"], form, wanted), path)
            if clip is not None:
                return clip
        clip = read_clip(path, size=size, num_channels=num_channels, fps=fps, start_s=start_s, end_s=end_s)
        if described and clip.source:
            made = None if size is None else (clip.frames.shape[-2], clip.frames.shape[-1])
            self._put(self._entry(described["digest"], form, made), clip, path)
            if shape is None:
                self._note(path, described | {"shown_size": clip.source.size})
        return clip

    def _entry(self, digest: str, form: dict[str, Any], size: Size | None) -> Path:
        key = hashlib.sha256(json.dumps([digest, size, form]).encode()).hexdigest()
        return self._folder / key[:2] / f"{key[2:]}.safetensors"

    def _get(self, entry: Path, path: Path) -> Clip | None:
        try:
            with safe_open(entry, framework="pt") as stored:
                header = json.loads(stored.metadata()["clip"])
                frames = stored.get_tensor("frames")
            os.utime(entry)  # it was used last now
            # The same content may lie under several names.
            warning = header["warning"] and header["warning"].replace(header["path"], str(path))
            seconds = header["seconds"] and tuple(header["seconds"])
            source = Source(**header["source"] | {"size": tuple(header["source"]["size"])})
            return Clip(frames, header["fps"], warning, seconds, source)
        except _UNREADABLE as error:
            if entry.exists():  # it is opened twice, and another process may remove it between
                self._warn("has an entry that cannot be read", error)
                with suppress(OSError):
                    entry.unlink()
            return None

    def _put(self, entry: Path, clip: Clip, path: Path) -> None:
        num_bytes = clip.frames.nbytes
        if not self._is_writable:
            return
        if num_bytes > (most := _LARGEST_SHARE * self._max_bytes):
            self.warning = self.warning or (
                f"the frame cache {foreign.shown(self._folder)} keeps no clip above {most / 1e6:.3g} MB, such as"
                f" {foreign.shown(path)} with {num_bytes / 1e6:.3g} MB; such clips are decoded again: free space on its"
                " disk, or cut them into shorter clips"
            )
            return
        header = {name: value for name, value in vars(clip).items() if name not in ("frames", "source")}
        header |= {"path": str(path), "source": clip.source and asdict(clip.source)}
        with self._writing():
            self._num_unmeasured_bytes += num_bytes
            if self._num_unmeasured_bytes > _SHARE_UNMEASURED * self._max_bytes:
                self._make_room(num_bytes)
            with files.whole(entry) as temporary:
                save_file({"frames": clip.frames}, temporary, metadata={"clip": json.dumps(header)})

    def _note(self, path: Path, described: dict[str, Any]) -> None:
        if self._is_writable:
            with self._writing():
                files.write_json(self._note_path(path), described)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except _UNREADABLE as error:
            self._is_writable = False
            self._warn("cannot be written", error)

    def _make_room(self, num_bytes: int) -> None:
        """Remove the entries that were not used for the longest time until so many bytes have room."""
        room = (1 - _SHARE_UNMEASURED) * self._max_bytes - num_bytes
        with suppress(TimeoutError), files.locked(self._folder / "room", timeout_s=0):  # or another process does it
            entries = []
            for entry in self._folder.glob("**/??/*"):  # what killed processes left included
                with suppress(FileNotFoundError):
                    entries.append((entry.stat().st_mtime, entry.stat().st_size, entry))
            for last_used, size, entry in sorted(entries, reverse=True):
                room -= size
                is_being_written = entry.name.startswith(".") and time.time() - last_used < _LONGEST_WRITE_S
                if room < 0 and not is_being_written:
                    entry.unlink(missing_ok=True)
        self._num_unmeasured_bytes = num_bytes

    def _described(self, path: Path) -> dict[str, Any] | None:
        """Return digest and shown size of a file; the content of a known and unchanged file is not read."""
        try:
            size, changed_ns = members.state(path)
            state = {"path": str(path.resolve()), "size": size, "mtime_ns": changed_ns}
            with suppress(*_UNREADABLE):
                known: dict[str, Any] = json.loads(self._note_path(path).read_text(encoding="utf-8"))
                if known | state == known and isinstance(known["digest"], str):
                    return known
            digest = members.digest_of(path)
        except OSError:
            return None  # reading it tells why
        return state | {"digest": digest, "shown_size": None}

    def _note_path(self, path: Path) -> Path:
        name = hashlib.sha256(os.fsencode(path.resolve())).hexdigest()
        return self._folder / "digests" / name[:2] / f"{name[2:]}.json"

    def _warn(self, what: str, error: Exception) -> None:
        if self.warning is None:
            self.warning = (
                f"the frame cache {foreign.shown(self._folder)} {what} ({foreign.shown(str(error))});"
                f" clips are decoded again: {_advice(error)}"
            )


def _advice(error: Exception) -> str:
    """Return what to do about an error of a cache."""
    if getattr(error, "errno", None) in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "let this user write there, or name another folder in XDG_CACHE_HOME"
    return "free space on its disk, or remove the folder"
