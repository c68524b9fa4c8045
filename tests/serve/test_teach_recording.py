"""Recordings of a page: what is refused, and what becomes of the time stamps."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from saccade.data import video
from saccade.errors import DataError
from saccade.serve import recording


def packed(times_ms, height=60, width=80, level=100):
    """Pack grey frames as a page does; each is brighter than the one before."""
    times = np.asarray(times_ms, "<u4")
    pixels = b"".join(bytes([min(255, level + number)]) * (3 * height * width) for number in range(len(times)))
    return struct.pack("<HHI", height, width, len(times)) + times.tobytes() + pixels


def steady(seconds=1.0, fps=15.0):
    return [round(1000 * tick / fps) for tick in range(int(seconds * fps) + 1)]


def test_a_recording_becomes_a_clip_of_constant_rate(tmp_path):
    path = tmp_path / "clip.mp4"
    path.write_bytes(recording.encode(packed(steady(2.0))))
    assert video.describe(path).size == (60, 80)
    assert video.describe(path).fps == pytest.approx(recording.FPS)
    frames = video.read_clip(path, num_channels=3).frames
    assert len(frames) == 31
    brightness = frames.float().mean((1, 2, 3))
    assert brightness[0] == pytest.approx(100, abs=3)
    assert brightness[-1] == pytest.approx(130, abs=3)


def test_a_slow_camera_keeps_its_time():
    times = np.array([0.0, 0.3, 0.6, 0.9])
    assert recording.at_constant_rate(times).tolist() == [0] * 5 + [1] * 4 + [2] * 5 + [3]


def test_colours_keep_their_order(tmp_path):
    times = np.asarray(steady(), "<u4")
    red = struct.pack("<HHI", 28, 28, len(times)) + times.tobytes() + bytes([200, 40, 40]) * (28 * 28 * len(times))
    path = tmp_path / "clip.mp4"
    path.write_bytes(recording.encode(red))
    assert np.allclose(video.read_clip(path, num_channels=3).frames[3].float().mean((1, 2)), [200, 40, 40], atol=4)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "begins with 8 bytes"),
        (packed(steady(), height=26), "even sides of 28 to 240"),
        (packed(steady(), height=61), "even sides"),
        (packed(steady(), height=242, width=242), "even sides"),
        (packed(steady(), height=60, width=482), "even sides"),
        (packed([0]), "2 to 166 frames; got 1"),
        (struct.pack("<HHI", 60, 80, 2**31), "2 to 166 frames"),
        (packed(steady())[:-1], "bytes long"),
        (packed(steady()) + b"0", "bytes long"),
        (packed([0, 500, 500]), "order of time"),
        (packed([0, 900, 700]), "order of time"),
        (packed(steady(0.4)), "this one has 0.4 s"),
        (packed([0, 12_000]), "this one has 12.0 s"),
        (packed([0, 2**32 - 1]), "lasts 0.5 to 10 s"),
    ],
)
def test_other_data_is_refused_in_a_line(data, told):
    with pytest.raises(DataError, match=told):
        recording.encode(data)


def test_the_longest_recording_fits_its_limit():
    assert len(packed(steady(11.0), height=240, width=2)) <= recording.MAX_BYTES
    assert recording.MAX_BYTES < 64 << 20
