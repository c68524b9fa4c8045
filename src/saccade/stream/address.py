"""The addresses of sources: how each is opened, and how it is named without its password."""

from __future__ import annotations

import errno
import re
import stat
import sys
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

import av

from saccade.errors import DataError, UsageError

_STANDARD_INPUT = "pipe:0"
_WEB = "http,https,httpproxy,tcp,tls,crypto,data"
_STREAMING = "rtsp,rtsps,rtp,srtp,udp,tcp,tls,http"
# What FFmpeg may open on behalf of a source: a playlist from the network must not name files.
_PROTOCOLS = {
    **dict.fromkeys(("http", "https"), _WEB),
    **dict.fromkeys(("rtsp", "rtsps"), _STREAMING),
    **{scheme: scheme for scheme in ("udp", "tcp")},
}
# FFmpeg tries TCP first, since over UDP pictures get damaged, and falls back to UDP.
_OPTIONS = {scheme: {"rtsp_flags": "prefer_tcp"} for scheme in ("rtsp", "rtsps")}
# FFmpeg reads no frames ahead to guess the rate, which nobody asks it for. (With `nobuffer` it would lose frames.)
_AT_ONCE = {"fpsprobesize": "0"}
_CAMERAS = {"linux": "v4l2", "darwin": "avfoundation", "win32": "dshow"}
# A password may hold any character, also "/" and "@".
BEFORE_HOST = re.compile(r"(?<=://).*@", re.DOTALL)
# An address that is written wrongly is taken for a file, and may hold a password all the same.
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*")
_NO_PIPED_VIDEO = (
    "sends no video that can be read; pipe MPEG-TS or Matroska, since an MP4 whose index is at its end cannot be read"
    " from a pipe"
)
_ADVICE = "give a camera (0, /dev/video0), an address (rtsp://, http://), a file, or - for standard input"


class SourceKind(StrEnum):
    """What a source is, which decides how its end and its silence are taken."""

    FILE = "file"
    CAMERA = "camera"
    NETWORK = "network"
    WEB = "web"
    PIPE = "pipe"


@dataclass(frozen=True)
class Address:
    """Where a source is and how FFmpeg opens it.

    Args:
        kind: what the source is.
        url: what FFmpeg opens; it may hold a password.
        shown: the name for messages, without user, password and query.
        container: FFmpeg's name of the format; None if FFmpeg finds it.
        options: FFmpeg's options.

    >>> Address.of("rtsp://me:secret@10.0.0.7/door?key=1").shown
    'rtsp://10.0.0.7/door'
    """

    kind: SourceKind
    url: str = field(repr=False)
    shown: str
    container: str | None = None
    options: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, text: str) -> Address:
        """Return the address that a user gave: a number is a camera, `-` is standard input.

        Raises:
            UsageError: if it is neither a known kind of address nor a camera of this system.
        """
        scheme, has_scheme, _ = text.partition("://")
        if text == "-":
            return cls(SourceKind.PIPE, _STANDARD_INPUT, "standard input", options={"protocol_whitelist": "pipe"})
        if has_scheme:
            return _of_network(scheme.lower(), text)
        if text.isdecimal() or text.startswith(("/dev/video", "video=")):
            return _of_camera(text)
        try:
            mode = Path(text).stat().st_mode
        except OSError:
            return cls(SourceKind.FILE, f"file:{text}", _shown_as_missing(text))
        if stat.S_ISCHR(mode):
            return _of_camera(text)
        kind = SourceKind.PIPE if stat.S_ISFIFO(mode) else SourceKind.FILE
        return cls(kind, f"file:{text}", text, options={"protocol_whitelist": "file"})

    @property
    def is_standard_input(self) -> bool:
        """Whether the source is standard input."""
        return self.url == _STANDARD_INPUT

    def check(self) -> None:
        """Look whether a file is there; other sources are tried when they are read.

        Raises:
            DataError: if the source is a file that is missing.
        """
        if self.kind is SourceKind.FILE and not Path(self.shown).exists():
            raise DataError(f"there is no file {self.shown}; {_ADVICE}")

    def explain(self, error: OSError | av.FFmpegError) -> str:
        """Return one line for an error of FFmpeg: what is wrong with the source, and what to do."""
        name, number = self.shown, error.errno
        if self.kind is SourceKind.CAMERA:
            return _camera_line(name, number, error.strerror)
        if isinstance(error, av.HTTPUnauthorizedError | av.HTTPForbiddenError):
            return f"{name} refuses the user name or password; give them as in rtsp://USER:PASSWORD@HOST/PATH"
        if isinstance(error, av.HTTPNotFoundError):
            return f"{name} is not on its server; check the path in the address"
        if number == errno.ECONNREFUSED:
            return f"{name} refuses connections; check host and port, and that the camera or server runs"
        if isinstance(error, av.InvalidDataError) and self.kind is SourceKind.PIPE:
            return f"{name} {_NO_PIPED_VIDEO}"
        if isinstance(error, av.InvalidDataError) and self.kind is SourceKind.FILE:
            return f"{name} cannot be read as a video; give a video file"
        if isinstance(error, av.InvalidDataError):
            return f"{name} sends no video that can be read; give the address of a video stream, not of a page"
        if number == errno.EIO and self.kind in (SourceKind.NETWORK, SourceKind.WEB):
            return f"{name} cannot be reached or broke off; check the host's name and the network"
        if number in (errno.EACCES, errno.EPERM):
            return f"{name} cannot be opened: permission denied; check who may read it"
        return f"{name} cannot be read ({error.strerror}); check that it is there and sends video"


def _shown_as_missing(text: str) -> str:
    """Return the name of a file that is not there, without what may be a user name and a password."""
    before, at, behind = text.rpartition("@")
    return f"...@{behind}" if at and ":" in before else text


def _of_network(scheme: str, text: str) -> Address:
    if not _SCHEME.fullmatch(scheme):
        raise UsageError(f"what stands before :// is no kind of address; known: {', '.join(_PROTOCOLS)}")
    if scheme not in _PROTOCOLS:
        raise UsageError(f"no source begins with {scheme!r}://; known: {', '.join(_PROTOCOLS)}")
    shown = re.split("[?#]", BEFORE_HOST.sub("", text), maxsplit=1)[0]
    kind = SourceKind.WEB if _PROTOCOLS[scheme] == _WEB else SourceKind.NETWORK
    options = {"protocol_whitelist": _PROTOCOLS[scheme], **_AT_ONCE, **_OPTIONS.get(scheme, {})}
    return Address(kind, text, shown, options=options)


def _of_camera(text: str) -> Address:
    container = _CAMERAS.get(sys.platform)
    if container is None:
        raise UsageError(f"cameras are not supported on {sys.platform}; {_ADVICE}")
    if not text.isdecimal():
        return Address(SourceKind.CAMERA, text, text, container)
    if container == "v4l2":
        device = f"/dev/video{text}"
        return Address(SourceKind.CAMERA, device, device, container)
    if container == "dshow":
        raise UsageError(f"cameras have names on Windows; give video=NAME instead of {text}")
    # Without a rate, AVFoundation asks for one that few cameras have.
    return Address(SourceKind.CAMERA, f"{text}:none", f"camera {text}", container, {"framerate": "30"})


def _camera_line(name: str, number: int | None, why: str | None) -> str:
    if number in (errno.ENOENT, errno.ENODEV, errno.ENXIO):
        there = ", ".join(sorted(str(path) for path in Path("/dev").glob("video*"))) or "none"
        if Path(name).exists():  # a camera has several devices, of which one gives pictures
            return f"{name} gives no pictures; many cameras have a second device for metadata; devices here: {there}"
        return f"there is no camera at {name}; cameras here: {there}"
    if number in (errno.EACCES, errno.EPERM):
        return f"{name} cannot be opened: permission denied; join the group that may read it, often `video`"
    if number == errno.EBUSY:
        return f"{name} is used by another program; a camera serves one at a time: end the other one"
    if number == errno.ENOSPC:
        return f"{name} gets too little of the USB bus, often beside another camera; plug it in at another bus"
    if number in (errno.ENOTTY, errno.EINVAL):
        return f"{name} is no camera; {_ADVICE}"
    return f"{name} cannot be read ({why}); check that the camera is plugged in"
