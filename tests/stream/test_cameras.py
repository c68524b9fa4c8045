"""What the reading process says of a camera that fails, at the level of what PyAV raises for Video4Linux."""

import errno
import os
import threading
from multiprocessing import Pipe

import av
import pytest
from av.error import err_check

from saccade.stream import decoding, wire

from .sources import encoded

CAMERA = "/dev/video9"
TASK = decoding.Task(CAMERA, 3, 10.0, None, keeps_size=True, realtime=False)


class Camera:
    """A container that plays a file and then fails as a device does."""

    def __init__(self, container, number):
        self._container, self._number = container, number

    def __getattr__(self, name):
        return getattr(self._container, name)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._container.close()

    def demux(self, *streams):
        yield from self._container.demux(*streams)
        err_check(-self._number, CAMERA)


def said(monkeypatch, open_camera):
    """Let the reading process read a camera; return the kinds of its messages, and the content of the last one."""
    monkeypatch.setattr(av, "open", open_camera)
    ours, theirs = Pipe()
    reader = threading.Thread(target=decoding.serve, args=(theirs,))
    reader.start()
    ours.send_bytes(wire.told(wire.Kind.TASK, TASK.as_json()))
    kinds = []
    while not kinds or kinds[-1] not in (wire.Kind.END, wire.Kind.ERROR):
        message = ours.recv_bytes()
        kinds.append(message[0])
        if kinds[-1] == wire.Kind.SIZE:
            ours.send_bytes(wire.told(wire.Kind.SIZE, (48, 64)))
    reader.join()
    return kinds, wire.content_of(message)


LINES = {
    "EBUSY": f"{CAMERA} is used by another program; a camera serves one at a time: end the other one",
    "EACCES": f"{CAMERA} cannot be opened: permission denied; join the group that may read it, often `video`",
    "ENOENT": f"there is no camera at {CAMERA}; cameras here: ",
    "ENODEV": f"there is no camera at {CAMERA}; cameras here: ",
    "ENXIO": f"there is no camera at {CAMERA}; cameras here: ",
    "ENOSPC": f"{CAMERA} gets too little of the USB bus",
    "EPIPE": f"{CAMERA} cannot be read (Broken pipe); check that the camera is plugged in",
    "ETIMEDOUT": f"{CAMERA} cannot be read (Connection timed out); check that the camera is plugged in",
    "EINVAL": f"{CAMERA} is no camera; give a camera (0, /dev/video0)",
}


@pytest.mark.parametrize("name", LINES)
def test_a_camera_that_cannot_be_opened_is_one_line(monkeypatch, name):
    kinds, line = said(monkeypatch, lambda *_, **__: err_check(-getattr(errno, name), CAMERA))
    assert kinds == [wire.Kind.READY, wire.Kind.ERROR]
    assert line.startswith(LINES[name])
    assert "\n" not in line


@pytest.mark.parametrize("name", ["ENODEV", "EIO", "EPIPE"])
def test_a_camera_that_is_unplugged_is_one_line_after_its_frames(monkeypatch, tmp_path, name):
    (tmp_path / "a.ts").write_bytes(encoded("mpegts", num_frames=10))
    opened, number = av.open, getattr(errno, name)
    kinds, line = said(monkeypatch, lambda *_, **__: Camera(opened(tmp_path / "a.ts"), number))
    assert kinds.count(wire.Kind.FRAME) == 5
    assert kinds[-1] == wire.Kind.ERROR
    wanted = "there is no camera at" if name == "ENODEV" else f"({os.strerror(number)}); check that the camera is"
    assert wanted in line
