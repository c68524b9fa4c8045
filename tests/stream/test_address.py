"""The addresses of sources: kinds, names without passwords, lines for errors."""

import errno
import os
import sys

import av
import pytest

from saccade.errors import UsageError
from saccade.stream.address import Address, SourceKind


@pytest.mark.parametrize(
    "text",
    [
        "rtsp://me:secret@10.0.0.7:554/door",
        "rtsp://me:se/secret@x@10.0.0.7:554/door",
        "RTSP://me:secret?@10.0.0.7:554/door?user=me&password=secret",
        "rtsp://10.0.0.7:554/door?token=secret#secret",
        "http://me:#secret@10.0.0.7:554/door",
    ],
)
def test_no_name_holds_a_password(text):
    address = Address.of(text)
    assert "secret" not in address.shown + repr(address)
    assert "10.0.0.7:554/door" in address.shown
    assert address.url == text
    error = av.error.ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused", text)
    for number in (errno.ECONNREFUSED, errno.EIO, errno.EACCES, errno.ETIMEDOUT):
        error.errno = number
        assert "secret" not in address.explain(error)


@pytest.mark.parametrize(
    ("platform", "text", "url", "container"),
    [
        ("linux", "2", "/dev/video2", "v4l2"),
        ("linux", "/dev/video0", "/dev/video0", "v4l2"),
        ("darwin", "0", "0:none", "avfoundation"),
        ("win32", "video=My Camera", "video=My Camera", "dshow"),
    ],
)
def test_cameras_are_opened_as_the_system_does(monkeypatch, platform, text, url, container):
    monkeypatch.setattr(sys, "platform", platform)
    address = Address.of(text)
    assert (address.kind, address.url, address.container) == (SourceKind.CAMERA, url, container)


@pytest.mark.parametrize(("platform", "text", "line"), [("win32", "0", "video=NAME"), ("aix", "0", "not supported")])
def test_a_camera_that_cannot_be_meant_is_told(monkeypatch, platform, text, line):
    monkeypatch.setattr(sys, "platform", platform)
    with pytest.raises(UsageError, match=line):
        Address.of(text)


def test_files_pipes_and_the_web_are_told_apart(tmp_path):
    (tmp_path / "a.mp4").touch()
    os.mkfifo(tmp_path / "pipe")
    kinds = [
        Address.of(str(text)).kind for text in (tmp_path / "a.mp4", tmp_path / "pipe", "-", "https://x/y", "tcp://x:1")
    ]
    assert kinds == [SourceKind.FILE, SourceKind.PIPE, SourceKind.PIPE, SourceKind.WEB, SourceKind.NETWORK]
    assert Address.of("no-such.mp4").kind is SourceKind.FILE


def test_an_unknown_scheme_is_a_wrong_call():
    with pytest.raises(UsageError, match="'gopher'://; known: http"):
        Address.of("gopher://me:secret@x/")


@pytest.mark.parametrize(
    ("number", "line"),
    [
        (errno.EBUSY, "used by another program"),
        (errno.EACCES, "permission denied; join the group"),
        (errno.ENOENT, "there is no camera at /dev/video9; cameras here:"),
        (errno.ENOTTY, "is no camera"),
        (errno.EIO, "plugged in"),
    ],
)
def test_errors_of_cameras_say_what_to_do(number, line):
    assert line in Address.of("/dev/video9").explain(OSError(number, os.strerror(number), "/dev/video9"))
