"""Parts of clips, frames in constant memory, and what is told of a file."""

import gc
import math
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from saccade.data import video
from saccade.data.container import Decoder
from saccade.data.pixels import Converter
from saccade.data.reading import FRAMES_PER_PART
from saccade.data.video import frames, read_clip
from saccade.data.video_writing import write_gif, write_mp4
from saccade.errors import DataError

NUM_FRAMES, FPS = 75, 25
# Suffix, format, codec and options: frames between frames, key frames that come seldom or often, and open groups.
FILES = {
    "b_frames.mp4": ("mp4", "libx264", {"g": "12", "bf": "3"}),
    "b_frames.mkv": ("matroska", "libx264", {"g": "12", "bf": "3"}),
    "open.mkv": ("matroska", "libx264", {"x264-params": "open-gop=1:keyint=12:bframes=3"}),
    "one_key_frame.mov": ("mov", "libx264", {"g": "1000"}),
    "refresh.mp4": ("mp4", "libx264", {"x264-params": "intra-refresh=1:keyint=12"}),
    "h265.mp4": ("mp4", "libx265", {"x265-params": "log-level=none:keyint=12:bframes=3:open-gop=1"}),
    "vp9.webm": ("webm", "libvpx-vp9", {"deadline": "realtime", "cpu-used": "8", "g": "12"}),
    "vp8.mkv": ("matroska", "libvpx", {"g": "12"}),
    "mpeg4.avi": ("avi", "mpeg4", {"g": "12"}),
    "mpeg4.mp4": ("mp4", "mpeg4", {"g": "12", "bf": "2"}),
    "mpeg2.ts": ("mpegts", "mpeg2video", {"g": "12", "bf": "2"}),
    "h264.flv": ("flv", "libx264", {"g": "12", "bf": "3"}),
    "wmv2.wmv": ("asf", "wmv2", {"g": "12"}),
    "animation.gif": ("gif", "gif", {}),
}
PIXELS = {"gif": "gray"}


def write(path, container_format, codec, options, *, num_frames=NUM_FRAMES, moments=None, first=0):
    """Write frames of which each is brighter than the one before; moments are in hundredths of a second."""
    ramp = np.linspace(0, 60, 64 * 48).reshape(48, 64)
    moments = moments or [100 // FPS * index for index in range(num_frames)]
    with av.open(str(path), "w", format=container_format) as container:
        stream = container.add_stream(codec, rate=FPS, options=options)
        stream.height, stream.width, stream.pix_fmt = 48, 64, PIXELS.get(codec, "yuv420p")
        stream.codec_context.thread_count = 1
        if moments[-1] != 100 // FPS * (num_frames - 1):
            stream.codec_context.time_base = Fraction(1, 100)
        for index, moment in enumerate(moments):
            array = (ramp + 180 * index / num_frames).astype(np.uint8)
            frame = av.VideoFrame.from_ndarray(array, format="gray").reformat(format=stream.pix_fmt)
            frame.pts, frame.time_base = moment + first, Fraction(1, 100)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    for name, (container_format, codec, options) in FILES.items():
        write(folder / name, container_format, codec, options)
    uneven = [round(100 * math.sqrt(index)) for index in range(NUM_FRAMES)]
    write(folder / "uneven.mkv", "matroska", "libx264", {"g": "12", "bf": "3"}, moments=uneven)
    write(folder / "late.mkv", "matroska", "libx264", {"g": "12", "bf": "3"}, first=1000)
    return folder


ALL = [*FILES, "uneven.mkv", "late.mkv"]


@pytest.mark.parametrize("name", ALL)
def test_a_part_has_the_frames_of_the_whole_that_a_player_shows_in_it(folder, name):
    whole = read_clip(folder / name)
    assert len(whole.frames) == NUM_FRAMES
    starts = [*whole.seconds, math.inf]
    for start_s, end_s in ((0.0, 0.2), (0.5, 1.0), (1.25, 1.27), (1.7, 2.51), (2.0, None), (2.9, 50.0), (None, 1.1)):
        part = read_clip(folder / name, start_s=start_s, end_s=end_s)
        first, last = start_s or 0.0, end_s or math.inf
        shown = [t for t in range(NUM_FRAMES) if starts[t] < last - 0.001 and starts[t + 1] > first + 0.001]
        assert torch.equal(part.frames, whole.frames[shown]), (start_s, end_s)
        assert part.seconds == pytest.approx([starts[t] - starts[shown[0]] for t in shown])
        assert part.source.num_frames == len(shown)
        assert part.warning is None


@pytest.mark.parametrize("name", ALL)
def test_a_part_at_another_rate_has_what_is_shown_at_each_moment(folder, name):
    whole = read_clip(folder / name)
    for fps in (7.0, 40.0):
        for start_s, end_s in ((0.5, 1.0), (1.33, 2.0), (2.0, 2.7)):
            part = read_clip(folder / name, fps=fps, start_s=start_s, end_s=end_s)
            moments = [start_s + number / fps for number in range(math.ceil((end_s - start_s) * fps - 0.01))]
            shown = [sum(second <= moment + 0.1 / fps for second in whole.seconds) - 1 for moment in moments]
            assert torch.equal(part.frames, whole.frames[shown]), (fps, start_s)
            assert part.seconds == pytest.approx([number / fps for number in range(len(moments))])


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="the system does not tell how much was read")
def test_a_late_part_is_found_without_reading_what_lies_before(tmp_path):
    path = tmp_path / "a.mp4"
    noise = np.random.default_rng(0).integers(0, 256, (40, 240, 320), np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"g": "10", "preset": "ultrafast", "crf": "10"})
        stream.height, stream.width, stream.pix_fmt = 240, 320, "yuv420p"
        for array in noise:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(array, format="gray").reformat(format="yuv420p")))
        container.mux(stream.encode(None))

    def num_read_bytes():
        return int(Path("/proc/self/io").read_text().split()[1])

    start = num_read_bytes()
    assert len(read_clip(path, size=(8, 8), start_s=3.5).frames) == 5
    assert num_read_bytes() - start < 0.5 * path.stat().st_size


def test_damage_is_told_of_the_part_in_which_it_lies(tmp_path):
    path = write(tmp_path / "a.avi", "avi", "mpeg4", {"g": "1"})
    with av.open(str(path)) as container:
        packets = [p for p in container.demux(video=0) if p.size]
    content = bytearray(path.read_bytes())
    content[packets[30].pos : packets[30].pos + packets[30].size] = bytes(packets[30].size)
    path.write_bytes(content)
    for start_s, end_s, is_damaged in ((0.0, 1.0, False), (1.0, 2.0, True), (2.0, 3.0, False)):
        assert bool(read_clip(path, start_s=start_s, end_s=end_s).warning) == is_damaged


@pytest.mark.parametrize("name", ["b_frames.mp4", "mpeg2.ts", "animation.gif"])
def test_a_part_behind_the_end_is_refused_by_name(folder, name):
    for fps in (None, 10.0):
        with pytest.raises(DataError, match=rf"{name} holds no frame from 7 s to 8 s: its last one is at 2\.96 s"):
            read_clip(folder / name, start_s=7.0, end_s=8.0, fps=fps)


def test_a_part_needs_a_length_and_time_stamps(folder, tmp_path):
    for start_s, end_s in ((1.0, 1.0), (2.0, 1.0), (-1.0, 1.0), (math.nan, 1.0), (math.inf, None), (0.0, math.nan)):
        with pytest.raises(ValueError, match="0 <= start < end is needed"):
            read_clip(folder / "b_frames.mp4", start_s=start_s, end_s=end_s)
    np.savez(tmp_path / "a.npz", frames=np.zeros((5, 8, 8), np.uint8))
    with pytest.raises(DataError, match=r"a\.npz has no time stamps"):
        read_clip(tmp_path / "a.npz", start_s=1.0)


# --- Frames in constant memory


@pytest.mark.parametrize("how", [{}, {"fps": 10.0}, {"max_frames": 40}, {"start_s": 1.1, "size": (9, 8)}])
@pytest.mark.parametrize("name", ["b_frames.mp4", "uneven.mkv", "animation.gif"])
def test_frames_in_parts_are_the_clip(folder, name, how):
    clip = read_clip(folder / name, num_channels=3, **how)
    with frames(folder / name, num_channels=3, **how) as read:
        parts, seconds = [], []
        for part in read:
            parts.append(part)
            seconds += read.part_seconds
            assert len(read.part_seconds) == len(part) <= FRAMES_PER_PART
    assert torch.equal(torch.cat(parts), clip.frames)
    assert (tuple(seconds), read.fps, read.warning, read.source) == (clip.seconds, clip.fps, clip.warning, clip.source)


def test_the_size_may_follow_from_that_of_the_file(folder, tmp_path):
    np.savez(tmp_path / "a.npz", frames=np.zeros((5, 48, 64), np.uint8))
    for path in (folder / "b_frames.mp4", tmp_path / "a.npz"):
        seen = []
        clip = read_clip(path, size=lambda size, seen=seen: seen.append(size) or (size[0] // 2, size[1] // 4))
        assert clip.frames.shape[-2:] == (24, 16)
        assert seen == [(48, 64)]


def test_a_clip_that_would_fill_the_memory_is_refused_but_its_frames_are_read(folder, monkeypatch):
    monkeypatch.setattr(video, "MAX_CLIP_BYTES", 48 * 64 * 50)
    with pytest.raises(DataError, match=r"b_frames\.mp4 has more than 50 frames of 48x64 px.*give a part"):
        read_clip(folder / "b_frames.mp4")
    assert len(read_clip(folder / "b_frames.mp4", fps=10.0).frames) == 30
    with frames(folder / "b_frames.mp4") as read:
        assert sum(map(len, read)) == NUM_FRAMES


def test_the_memory_of_large_frames_is_bounded_by_shorter_parts(tmp_path):
    write_mp4(tmp_path / "a.mp4", torch.zeros(6, 1, 2000, 4000, dtype=torch.uint8), 10)
    with frames(tmp_path / "a.mp4", num_channels=3) as read:
        assert [len(part) for part in read] == [3, 3]


@pytest.mark.parametrize("how", [{}, {"start_s": 1.5, "fps": 5.0}, {"max_frames": 5}])
def test_memory_is_freed_without_the_garbage_collector(folder, how):
    gc.collect()
    gc.disable()
    try:
        read_clip(folder / "b_frames.mp4", size=(10, 10), **how)
        left = [kept for kept in gc.get_objects() if type(kept) is Decoder or type(kept) is av.VideoFrame]
    finally:
        gc.enable()
    # A tiny copy of a frame may be left, of which the orientation was read.
    assert [kept for kept in left if type(kept) is Decoder or kept.width > 10] == []


# --- What is told of the file


@pytest.mark.parametrize(("name", "codec"), [("b_frames.mp4", "h264"), ("vp9.webm", "vp9"), ("mpeg2.ts", "mpeg2video")])
def test_the_source_is_told_as_it_was_decoded(folder, name, codec):
    whole = read_clip(folder / name).source
    assert (whole.num_frames, whole.size, whole.codec) == (NUM_FRAMES, (48, 64), codec)
    assert whole.fps == pytest.approx(FPS)
    assert whole.duration_s == pytest.approx(NUM_FRAMES / FPS)
    with av.open(str(folder / name)) as container:
        num_bytes = sum(packet.size for packet in container.demux(video=0))
    assert whole.bit_rate_bps == pytest.approx(8 * num_bytes / whole.duration_s)
    small = read_clip(folder / name, size=(8, 8), num_channels=3, fps=5.0).source
    assert small == whole


def test_the_parts_of_a_file_have_its_frames_and_bits(folder):
    whole = read_clip(folder / "b_frames.mkv").source
    parts = [read_clip(folder / "b_frames.mkv", start_s=t, end_s=t + 0.6).source for t in (0.0, 0.6, 1.2, 1.8, 2.4)]
    assert sum(part.num_frames for part in parts) == whole.num_frames
    assert sum(part.bit_rate_bps for part in parts) / 5 == pytest.approx(whole.bit_rate_bps)


def test_what_a_file_does_not_tell_is_none(tmp_path):
    np.savez(tmp_path / "a.npz", frames=np.zeros((5, 48, 64), np.uint8))
    source = read_clip(tmp_path / "a.npz", size=(8, 8)).source
    assert source == video.Source(5, None, None, (48, 64), "npz", None)
    write_gif(tmp_path / "a.gif", torch.zeros(5, 1, 20, 30, dtype=torch.uint8), fps=10)
    assert read_clip(tmp_path / "a.gif").source.codec == "gif"


@pytest.mark.parametrize("codec", ["yuv420p", "yuvj420p", "yuv422p", "yuv444p"])
@pytest.mark.parametrize("width", [34, 40, 48, 56, 72])
def test_colour_frames_that_keep_their_size_have_all_their_columns(codec, width):
    # libswscale leaves columns at the right edge unwritten when it makes planes without scaling.
    frame = av.VideoFrame.from_ndarray(np.full((32, width, 3), 110, np.uint8), format="rgb24").reformat(format=codec)
    converted = Converter(None, 3)
    before = [Converter(None, 3)(frame) + 100 for _ in range(4)]  # memory that a frame may get again
    del before
    pixels = converted(frame)
    assert pixels.shape == (3, 32, width)
    assert abs(pixels.astype(int) - 110).max() <= 3


def test_colours_are_those_of_their_channels_scaled_or_not():
    picture = np.zeros((32, 48, 3), np.uint8)
    picture[..., 0], picture[..., 1], picture[:, 24:, 2] = 200, 100, 50
    frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
    assert (Converter(None, 3)(frame) == picture.transpose(2, 0, 1)).all()
    small = Converter((16, 24), 3)(frame).astype(int)
    assert abs(small[0] - 200).max() <= 2
    assert abs(small[1] - 100).max() <= 2
    assert small[2, :, :10].max() <= 2
    assert abs(small[2, :, 14:] - 50).max() <= 2
