"""Videos from strangers: taken, decoded in a process with limits, never believed."""

from __future__ import annotations

import asyncio
import io
import json
import os
import stat
import tempfile
import time
import zipfile
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from saccade.clips import FrameFormat
from saccade.data import video, video_writing
from saccade.errors import DataError
from saccade.serve import decode as decoder
from saccade.serve import upload

GREY = FrameFormat()


@pytest.fixture(scope="module")
def clip():
    frames = torch.zeros(12, 1, 48, 80, dtype=torch.uint8)
    for t in range(12):
        frames[t, :, 10:30, 10 + t : 20 + t] = 255
    return frames


@pytest.fixture(scope="module")
def mp4(clip, tmp_path_factory):
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    video_writing.write_mp4(path, clip, fps=10)
    return path.read_bytes()


async def chunks(data, size=1 << 16):
    for i in range(0, len(data), size):
        yield data[i : i + size]


def take(data, wanted=GREY, **options):
    async def taking():
        return await upload.take(chunks(data), asyncio.Semaphore(1), wanted, **options)

    return asyncio.run(taking())


def answer(data, folder, wanted=GREY):
    """Decode in this process, without the limits: starting a hundred others takes minutes."""
    path = folder / "upload"
    path.write_bytes(data)
    header, pixels = decoder.answer(path, wanted)
    if "error" not in header:
        assert len(pixels) == header["time"] * wanted.channels * header["height"] * header["width"]
    return header


@pytest.fixture
def uploads(tmp_path, monkeypatch):
    """Let uploads lie in a folder that the test can look into."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_a_video_becomes_small_grey_frames(mp4, clip, uploads):
    decoded = take(mp4)
    assert decoded.shape == (12, 1, 48, 80)  # within 28 to 128 px it stays as it is
    assert decoded.fps == 10
    assert decoded.warning is None
    frames = np.frombuffer(decoded.pixels, np.uint8).reshape(decoded.shape)
    assert np.abs(frames.astype(int) - clip.numpy()).mean() < 2
    assert list(uploads.iterdir()) == []


def test_a_video_becomes_frames_as_the_models_see_them(tmp_path, uploads):
    # A third of it red, then green, then blue; 30 frames a second.
    colours = torch.tensor([[220, 30, 30], [30, 220, 30], [30, 30, 220]], dtype=torch.uint8)
    frames = colours.repeat_interleave(20, 0).view(60, 3, 1, 1).expand(-1, -1, 120, 160)
    video_writing.write_mp4(tmp_path / "colour.mp4", frames, fps=30)
    decoded = take((tmp_path / "colour.mp4").read_bytes(), FrameFormat(3, (64, 96), fps=12))
    assert decoded.shape == (24, 3, 64, 96)
    assert decoded.fps == 12
    seen = np.frombuffer(decoded.pixels, np.uint8).reshape(decoded.shape)
    assert (seen.argmax(1).reshape(24, -1) == np.arange(3).repeat(8)[:, None]).all()


def test_a_file_without_time_stamps_plays_at_the_rate_of_the_models(tmp_path):
    buffer = io.BytesIO()
    np.savez(buffer, frames=np.zeros((4, 32, 32), np.uint8))
    assert take(buffer.getvalue()).fps == 25
    decoded = take(buffer.getvalue(), FrameFormat(3, (48, 48), fps=12))
    assert (decoded.shape, decoded.fps) == ((4, 3, 48, 48), 12)


def test_a_large_video_is_made_smaller(tmp_path):
    video_writing.write_gif(tmp_path / "large.gif", torch.zeros(3, 1, 240, 320, dtype=torch.uint8), fps=10)
    header = answer((tmp_path / "large.gif").read_bytes(), tmp_path)
    assert (header["time"], header["height"], header["width"]) == (3, 64, 85)


def test_arrays_are_taken_too_but_no_pickles(tmp_path):
    for frames, told in [(np.zeros((2, 32, 32), np.uint8), None), (np.array([{}], object), "frames of object")]:
        buffer = io.BytesIO()
        np.savez(buffer, frames=frames)
        header = answer(buffer.getvalue(), tmp_path)
        assert (told in header["error"]) if told else (header["time"] == 2)


def test_a_long_video_is_cut_and_says_so(tmp_path, monkeypatch):
    decoded, read = [], video.read_clip

    def counted(*arguments, **options):
        clip = read(*arguments, **options)
        decoded.append(len(clip.frames))
        return clip

    monkeypatch.setattr(video, "read_clip", counted)
    monkeypatch.setattr(upload, "MAX_FRAMES", 30)
    video_writing.write_mp4(tmp_path / "long.mp4", torch.zeros(50, 1, 32, 32, dtype=torch.uint8), fps=30)
    header = answer((tmp_path / "long.mp4").read_bytes(), tmp_path)
    assert header["time"] == 30
    assert header["warning"] == "only the first 30 frames are shown"
    assert max(decoded) == 31  # the one more tells that it is long; the rest would cost memory for nothing
    video_writing.write_mp4(tmp_path / "just.mp4", torch.zeros(30, 1, 32, 32, dtype=torch.uint8), fps=30)
    header = answer((tmp_path / "just.mp4").read_bytes(), tmp_path)
    assert (header["time"], header["warning"]) == (30, None)


def test_of_large_frames_in_colour_fewer_are_shown(tmp_path, monkeypatch):
    monkeypatch.setattr(upload, "MAX_CLIP_BYTES", 10 * 3 * 64 * 64)
    video_writing.write_mp4(tmp_path / "long.mp4", torch.zeros(31, 1, 64, 64, dtype=torch.uint8), fps=30)
    data = (tmp_path / "long.mp4").read_bytes()
    assert [answer(data, tmp_path, FrameFormat(channels))["time"] for channels in (1, 3)] == [30, 10]


def test_a_cut_video_shows_what_is_left(tmp_path):
    frames = torch.randint(0, 256, (40, 1, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    video_writing.write_gif(tmp_path / "whole.gif", frames, fps=10)
    data = (tmp_path / "whole.gif").read_bytes()
    header = answer(data[: len(data) // 2], tmp_path)
    assert 1 <= header["time"] < 40
    assert header["warning"].startswith("the file is damaged")


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"GIF89a", "cannot be read as a video"),
        (b"\0" * 5000, "cannot be read as a video"),
        (b"hello, this is no video at all\n" * 50, "cannot be read as a video"),
        (b"PK\x03\x04 and nothing more", "not a complete .npz"),
        (b"RIFF\xff\xff\xff\xffAVI LIST", "cannot be read as a video"),
        # A GIF of 60000x60000 pixels in a few bytes.
        (
            b"GIF89a"
            + b"\x60\xea" * 2
            + b"\x80\0\0\0\0\0\xff\xff\xff,\0\0\0\0"
            + b"\x60\xea" * 2
            + b"\0\x02\x02D\x01\0;",
            "no",
        ),
    ],
)
def test_what_is_no_video_is_told_in_a_line_without_a_path(data, told, tmp_path):
    error = answer(data, tmp_path)["error"]
    assert told in error
    assert "the file" in error
    assert str(tmp_path) not in error


def test_an_empty_file_is_told_of(uploads):
    with pytest.raises(DataError, match="empty"):
        take(b"")
    assert list(uploads.iterdir()) == []


PLAYLISTS = [
    "ffconcat version 1.0\nfile 'secret.mp4'\n",
    "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nfile://{path}\n#EXT-X-ENDLIST\n",
    '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" mediaPresentationDuration="PT1S">'
    '<Period><AdaptationSet mimeType="video/mp4"><Representation id="a" bandwidth="1"><BaseURL>file://{path}</BaseURL>'
    "</Representation></AdaptationSet></Period></MPD>",
]


@pytest.mark.parametrize("playlist", PLAYLISTS, ids=["concat", "hls", "dash"])
def test_a_playlist_opens_no_other_file(playlist, mp4, tmp_path):
    secret = tmp_path / "secret.mp4"
    secret.write_bytes(mp4)
    assert "cannot be read as a video" in answer(playlist.format(path=secret).encode(), tmp_path)["error"]


def test_without_the_list_of_containers_a_playlist_would_open_another_file(mp4, tmp_path):
    """Show that the test above can fail."""
    (tmp_path / "secret.mp4").write_bytes(mp4)
    (tmp_path / "upload").write_text(PLAYLISTS[0])
    with av.open(f"file:{tmp_path / 'upload'}") as container:
        assert sum(1 for _ in container.decode(video=0)) == 12


def test_too_large_is_told_before_the_end(uploads):
    read = []

    async def endless():
        while True:
            read.append(1)
            yield bytes(1 << 16)

    async def taking():
        await upload.take(endless(), asyncio.Semaphore(1), GREY, max_bytes=1 << 20)

    with pytest.raises(DataError, match="larger than 1 MB"):
        asyncio.run(taking())
    assert len(read) == 17
    assert list(uploads.iterdir()) == []


def test_too_slow_is_told(uploads, monkeypatch):
    monkeypatch.setattr(upload, "MAX_UPLOAD_S", 0.1)

    async def slow():
        yield b"a"
        await asyncio.sleep(30)

    async def taking():
        await upload.take(slow(), asyncio.Semaphore(1), GREY)

    with pytest.raises(DataError, match="took longer"):
        asyncio.run(taking())


def test_the_file_is_its_owners_alone_and_the_decoder_gets_no_name_from_outside(mp4, uploads, monkeypatch):
    seen = []

    async def look(path, wanted):
        seen.append((path, stat.S_IMODE(path.stat().st_mode), stat.S_IMODE(path.parent.stat().st_mode)))
        raise DataError("enough")

    monkeypatch.setattr(upload, "decode", look)
    with pytest.raises(DataError, match="enough"):
        take(mp4)
    ((path, file_mode, folder_mode),) = seen
    assert (path.name, file_mode, folder_mode) == ("upload", 0o600, 0o700)


# --- The process


def run_decoder(tmp_path, monkeypatch, script, **options):
    """Put another program in the decoder's place."""
    (tmp_path / "stand_in.py").write_text(f"print('ready', flush=True)\n{script}")
    launch = asyncio.create_subprocess_exec

    async def other(program, *_, **keywords):
        return await launch(program, str(tmp_path / "stand_in.py"), **keywords)

    monkeypatch.setattr(asyncio, "create_subprocess_exec", other)
    return asyncio.run(upload.decode(tmp_path / "upload", options.pop("wanted", GREY), **options))


def test_a_decoder_that_hangs_is_ended(tmp_path, monkeypatch):
    told = str(tmp_path / "pid")
    script = (
        "import os, pathlib, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        f"pathlib.Path({told!r}).write_text(str(os.getpid())); time.sleep(20)"
    )
    begin = time.monotonic()
    with pytest.raises(DataError, match="longer than 1 s"):
        run_decoder(tmp_path, monkeypatch, script, max_seconds=1.0)
    # It ends by itself too, later.
    assert time.monotonic() - begin < 15
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


@pytest.mark.skipif(not hasattr(os, "setpriority"), reason="there is no priority of processes here")
def test_a_decoder_lets_the_server_go_first(tmp_path, monkeypatch):
    script = (
        "import json, os, time\n"
        "end = time.monotonic() + 10\n"
        "while not os.nice(0) and time.monotonic() < end: time.sleep(0.01)\n"
        f"print(json.dumps({json.loads(header_of())!r} | {{'warning': str(os.nice(0))}}))\n"
        "print('x' * 64 * 64, end='')"
    )
    assert int(run_decoder(tmp_path, monkeypatch, script).warning) > os.nice(0)


def header_of(**fields):
    return json.dumps({"time": 1, "height": 64, "width": 64, "fps": 1, "warning": None} | fields)


def test_a_decoder_that_keeps_to_its_word_is_believed(tmp_path, monkeypatch):
    script = f"import sys; print({header_of()!r}); sys.stdout.write('x' * 64 * 64 * 3)"
    decoded = run_decoder(tmp_path, monkeypatch, script, wanted=FrameFormat(3))
    assert decoded.shape == (1, 3, 64, 64)
    assert decoded.pixels == b"x" * 64 * 64 * 3


def says(num_frames, height, width, fps=10, channels=1):
    """Let a decoder claim frames, and deliver them."""
    header = header_of(time=num_frames, height=height, width=width, fps=fps)
    return f"print({header!r}); print('x' * {num_frames * channels * height * width}, end='')"


@pytest.mark.parametrize(
    ("num_frames", "size", "channels"), [(upload.MAX_FRAMES, (28, 30), 1), (1, (256, 256), 3), (600, (256, 256), 3)]
)
def test_what_the_decoder_delivers_may_be_as_large_as_the_limits(tmp_path, monkeypatch, num_frames, size, channels):
    script = says(num_frames, *size, channels=channels)
    decoded = run_decoder(tmp_path, monkeypatch, script, wanted=FrameFormat(channels, size))
    assert decoded.shape == (num_frames, channels, *size)
    assert len(decoded.pixels) == num_frames * channels * size[0] * size[1]


@pytest.mark.parametrize(
    ("num_frames", "size", "channels"),
    [(upload.MAX_FRAMES + 1, (28, 30), 1), (1, (256, 257), 3), (0, (28, 30), 1), (601, (256, 256), 3)],
)
def test_what_the_decoder_delivers_beyond_the_limits_is_refused(tmp_path, monkeypatch, num_frames, size, channels):
    script = says(num_frames, *size, channels=channels)
    with pytest.raises(DataError, match="cannot be decoded within the limits"):
        run_decoder(tmp_path, monkeypatch, script, wanted=FrameFormat(channels, size))


@pytest.mark.parametrize(("told", "kept"), [(None, 25.0), (0.01, 1.0), (12.5, 12.5), (240, 60.0)])
def test_a_rate_that_no_page_shows_is_brought_within_bounds(tmp_path, monkeypatch, told, kept):
    assert run_decoder(tmp_path, monkeypatch, says(1, 28, 30, told)).fps == kept


def test_no_more_videos_are_decoded_at_once_than_allowed(monkeypatch):
    running = []

    async def decode(path, *_arguments, **_options):
        running.append(running[-1] + 1 if running else 1)
        await asyncio.sleep(0.05)
        running.append(running[-1] - 1)

    async def taking():
        decoders = asyncio.Semaphore(2)
        await asyncio.gather(*(upload.take(chunks(b"a video"), decoders, FrameFormat()) for _ in range(5)))

    monkeypatch.setattr(upload, "decode", decode)
    asyncio.run(taking())
    assert max(running) == 2


@pytest.mark.parametrize(
    "script",
    [
        "",
        "import os; os.abort()",
        "print('x' * 100_000)",
        "print('[]')",
        "print('{}')",
        f"print({header_of()!r}); print('x' * 64 * 64)",  # one channel instead of three
        f"print({header_of(time=99999999)!r}); print('x' * 3 * 64 * 64)",
        f"print({header_of(height=-64, width=-64)!r}); print('x' * 3 * 64 * 64)",
        f"print({header_of(height=9, width=9)!r}); print('x' * 3 * 64 * 64)",
        f"print({header_of(height=64, width=300)!r}); print('x' * 3 * 64 * 300)",
        f"print({header_of(fps=[1])!r}); print('x' * 3 * 64 * 64)",
        f"print({header_of(time=float('nan'))!r}); print('x' * 3 * 64 * 64)",
    ],
)
def test_a_decoder_that_dies_or_lies_is_not_believed(tmp_path, monkeypatch, script):
    with pytest.raises(DataError, match="cannot be decoded within the limits"):
        run_decoder(tmp_path, monkeypatch, script, wanted=FrameFormat(3))


@pytest.mark.skipif(
    not Path("/proc/self/statm").exists(), reason="limits on memory are set where /proc tells how much is taken"
)
def test_a_file_that_wants_much_memory_is_told_in_a_line(uploads):
    # An array that claims two gigabytes.
    described = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        described, {"descr": "|u1", "fortran_order": False, "shape": (2000, 1000, 1000)}
    )
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("frames.npy", described.getvalue())
    with pytest.raises(DataError, match="ends within a frame"):
        take(packed.getvalue())
    assert list(uploads.iterdir()) == []


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_file_with_any_damage_is_decoded_or_told_of(mp4, tmp_path, data):
    kind = data.draw(st.sampled_from(["flip", "cut", "noise", "behind a good start"]))
    position = data.draw(st.integers(0, len(mp4) - 1))
    noise = data.draw(st.binary(min_size=1, max_size=200))
    damaged = {
        "flip": mp4[:position] + noise + mp4[position + len(noise) :],
        "cut": mp4[:position] or b"\0",
        "noise": noise,
        "behind a good start": mp4[:64] + noise,
    }[kind]
    error = answer(damaged, tmp_path).get("error", "")
    assert "\n" not in error
    assert str(tmp_path) not in error
