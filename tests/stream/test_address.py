"""The addresses of sources: kinds, names without passwords, lines for errors."""

import errno
import os
import sys

import av
import pytest

from saccade.errors import SaccadeError, UsageError
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
    "text",
    [
        *("rtsp//me:secret@10.0.0.7/door", "rtsp:/me:secret@10.0.0.7/door", "me:se/secret@x@10.0.0.7/door"),
        *("me:secret@rtsp://10.0.0.7/door", "rtsp ://me:secret@10.0.0.7/door", "://me:secret@10.0.0.7/door"),
        "rtps://me:secret@10.0.0.7/door",
    ],
)
def test_an_address_that_is_written_wrongly_is_told_without_its_password(text):
    with pytest.raises(SaccadeError) as caught:
        Address.of(text).check()
    assert "secret" not in str(caught.value)
    assert "rtsp" in str(caught.value)


def test_a_missing_file_has_its_own_name():
    for name in ("me@home/a.mp4", "12:30.mp4", "a.mp4"):
        assert Address.of(name).shown == name


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
        (errno.ENOSPC, "plug it in at another bus"),
    ],
)
def test_errors_of_cameras_say_what_to_do(number, line):
    assert line in Address.of("/dev/video9").explain(OSError(number, os.strerror(number), "/dev/video9"))


def test_the_second_device_of_a_camera_is_not_told_to_be_missing():
    """Version 4 of Video4Linux answers ENODEV for the metadata of a camera; any device that is there will do here."""
    line = Address.of(os.devnull).explain(OSError(errno.ENODEV, os.strerror(errno.ENODEV), os.devnull))
    assert line.startswith(f"{os.devnull} gives no pictures; many cameras have a second device for metadata")
