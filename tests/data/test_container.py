"""What containers claim, beside what can be decoded."""

import io
import random
import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from av.stream import Disposition
from PIL import Image, ImageOps
from torch.nn import functional as F

from saccade.data.ending import is_cut_off
from saccade.data.finding import find_clips
from saccade.data.times import Times
from saccade.data.video import SUFFIXES, describe, read_clip
from saccade.data.video_writing import write_gif, write_mp4
from saccade.errors import DataError

ODD = Path(__file__).parent / "odd_files"


def scenes(num_frames=60, height=96, width=128, seed=0):
    """Make grainy pictures that move, so that a file of them has tens of kilobytes."""
    generator = torch.Generator().manual_seed(seed)
    picture = torch.rand(1, 1, height // 2, (width + num_frames) // 2, generator=generator) * 255
    wide = F.interpolate(picture, scale_factor=2, mode="bilinear").round().to(torch.uint8)[0]
    return torch.stack([wide[..., shift : shift + width] for shift in range(num_frames)])


def encoded(container_format, codec, frames, *, pixels="yuv420p", rate=25, options=None, container_options=None):
    """Write frames as any format and codec that PyAV has."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container_format, options=container_options) as container:
        stream = add_video(container, codec, frames, pixels=pixels, rate=rate, options=options)
        mux_pictures(container, stream, frames, rate)
    return buffer.getvalue()


def add_video(container, codec, frames, *, pixels="yuv420p", rate=25, options=None):
    """Add a stream; nothing can be written before all streams are there."""
    stream = container.add_stream(codec, rate=rate, options=options)
    stream.height, stream.width, stream.pix_fmt = frames.shape[-2], frames.shape[-1], pixels
    stream.codec_context.thread_count = 1
    return stream


def mux_pictures(container, stream, frames, rate, moments=None):
    for index, array in enumerate(frames[:, 0].numpy()):
        frame = av.VideoFrame.from_ndarray(array, format="gray").reformat(format=stream.pix_fmt)
        frame.pts, frame.time_base = index if moments is None else moments[index], Fraction(1, rate)
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


CODECS = {
    ".mp4": ("mp4", "libx264", {"g": "6"}),
    ".mkv": ("matroska", "libx264", {"g": "6"}),
    ".webm": ("webm", "libvpx-vp9", {"deadline": "realtime", "cpu-used": "8"}),
    ".flv": ("flv", "flv", {}),
    ".avi": ("avi", "mpeg4", {"g": "6"}),
    ".ts": ("mpegts", "libx264", {"g": "6"}),
    ".mpg": ("mpeg", "mpeg2video", {}),
    ".mov": ("mov", "mpeg4", {"g": "6"}),
    ".wmv": ("asf", "wmv2", {"g": "6"}),
    ".ogv": ("ogg", "libvpx", {"g": "6"}),
    ".apng": ("apng", "apng", {}),
}


@pytest.fixture(scope="module")
def whole_files():
    """Write the same pictures in each container."""
    pixels = {"apng": "gray"}
    return {
        suffix: encoded(name, codec, scenes(), pixels=pixels.get(codec, "yuv420p"), options=options)
        for suffix, (name, codec, options) in CODECS.items()
    }


@pytest.mark.parametrize("suffix", CODECS)
def test_a_whole_file_has_no_warning_and_one_that_is_cut_has(tmp_path, whole_files, suffix):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(whole_files[suffix])
    whole = read_clip(path)
    assert (len(whole.frames), whole.warning) == (60, None)
    assert whole.fps == pytest.approx(25)
    path.write_bytes(whole_files[suffix][: int(0.55 * len(whole_files[suffix]))])
    if suffix in (".mp4", ".mov"):  # its index lies at the end
        with pytest.raises(DataError, match="cannot be read as a video"):
            read_clip(path)
        return
    cut = read_clip(path)
    assert 5 <= len(cut.frames) < 60
    assert f"is damaged: {len(cut.frames)} " in cut.warning


@pytest.mark.parametrize("suffix", [".mp4", ".ts", ".avi", ".mkv"])
def test_pictures_that_the_decoder_had_to_mend_are_told(tmp_path, whole_files, suffix):
    content = bytearray(whole_files[suffix])
    middle, draw = len(content) // 2, random.Random(0)
    for _ in range(40):
        content[middle + draw.randrange(2000)] ^= 1 << draw.randrange(8)
    path = tmp_path / f"a{suffix}"
    path.write_bytes(content)
    warning = read_clip(path).warning
    assert "is damaged" in warning
    assert "incomplete frames" in warning or "packets that failed" in warning


def test_a_gif_may_have_bytes_behind_its_trailer_but_must_have_it(tmp_path):
    path = tmp_path / "a.gif"
    for channels in (1, 3):  # one table of colours for all pictures, or one each
        write_gif(path, scenes(12).expand(-1, channels, -1, -1), fps=10)
        whole = path.read_bytes()
        for behind in (b"", b"\0", b"x", b"; and text"):
            path.write_bytes(whole + behind)
            clip = read_clip(path)
            assert (len(clip.frames), clip.warning) == (12, None), behind
        for cut in (1, 2, len(whole) // 2):
            path.write_bytes(whole[:-cut])
            assert "is damaged" in read_clip(path).warning, cut


@pytest.mark.parametrize("suffix", [".mov", ".mkv", ".webm", ".flv", ".avi", ".wmv", ".ogv", ".apng"])
def test_a_file_that_records_its_length_is_cut_wherever_it_ends_before(tmp_path, whole_files, suffix):
    path, content = tmp_path / f"a{suffix}", whole_files[suffix]
    for share in (0.35, 0.5, 0.65, 0.8, 0.95, 0.99):
        path.write_bytes(content[: int(share * len(content))])
        assert is_cut_off(path), share
    for behind in (b"", b"\n", bytes(1000), b"some text that does not belong to it"):
        path.write_bytes(content + behind)
        assert not is_cut_off(path), behind


def test_a_live_stream_records_no_length(tmp_path):
    path = tmp_path / "a.mkv"
    content = encoded("matroska", "libx264", scenes(12), container_options={"live": "1"})
    for end in (len(content), len(content) // 2):
        path.write_bytes(content[:end])
        assert not is_cut_off(path)


@pytest.mark.parametrize("name", ["avi", "flv", "matroska", "mp4"])
def test_a_last_picture_that_stands_long_is_no_damage(tmp_path, name):
    path = tmp_path / f"a.{name}"
    with av.open(str(path), "w", format=name) as container:
        stream = add_video(container, "libx264", scenes(3), rate=25, options={"tune": "zerolatency"})
        packets = []
        for index, array in enumerate(scenes(3)[:, 0].numpy()):
            frame = av.VideoFrame.from_ndarray(array, format="gray").reformat(format="yuv420p")
            frame.pts, frame.time_base = index, Fraction(1, 25)
            packets += stream.encode(frame)
        packets += stream.encode(None)
        packets[-1].duration *= 100  # four seconds
        for packet in packets:
            container.mux(packet)
    clip = read_clip(path)
    assert (len(clip.frames), clip.warning) == (3, None)


def test_pictures_with_exif_data_are_turned_as_a_viewer_does(tmp_path):
    image = Image.fromarray(scenes(1)[0, 0].numpy())
    for orientation in (1, 3, 6, 8):
        exif = Image.Exif()
        exif[0x0112], exif[0x010F] = orientation, "a camera"
        image.save(tmp_path / "a.png", exif=exif)
        shown = np.asarray(ImageOps.exif_transpose(Image.open(tmp_path / "a.png")))
        assert np.array_equal(read_clip(tmp_path / "a.png").frames[0, 0].numpy(), shown), orientation


def test_sizes_that_are_only_claimed_take_no_memory(tmp_path):
    path = tmp_path / "a.gif"
    pixel = b",\0\0\0\0\x01\0\x01\0\0\x02\x02\x44\x01\0"
    for edge in (9000, 16000, 65535):
        path.write_bytes(
            b"GIF89a" + struct.pack("<HH", edge, edge) + b"\x80\0\0" + bytes(3) + b"\xff" * 3 + pixel + b";"
        )
        with pytest.raises(DataError, match=r"a\.gif"):
            describe(path)


@pytest.mark.parametrize(
    ("container_format", "codec", "pixels"),
    [
        ("matroska", "ffv1", "gray"),
        ("avi", "mjpeg", "yuvj420p"),
        ("apng", "apng", "gray"),
    ],
)
def test_frames_of_a_hundred_megapixels_are_refused_before_they_take_memory(tmp_path, container_format, codec, pixels):
    path = tmp_path / f"a.{container_format}"
    large = torch.zeros(1, 1, 10_000, 10_000, dtype=torch.uint8)
    path.write_bytes(encoded(container_format, codec, large, pixels=pixels))
    with pytest.raises(DataError, match=rf"a\.{container_format} has frames of .*pixels"):
        read_clip(path, size=(8, 8))


@pytest.mark.parametrize(
    ("name", "num_frames", "fps", "damaged"),
    [
        ("trimmed.mp4", 20, 10.0, False),
        ("gap2.avi", 20, 6.9, False),
        ("gap.mkv", 20, 20 / 3, False),
        ("cut_a.mkv", 45, 25.0, True),
        ("cut_a.flv", 49, 24.5, True),
    ],
)
def test_headers_that_are_wrong(name, num_frames, fps, damaged):
    clip = read_clip(ODD / name)
    assert len(clip.frames) == num_frames
    assert clip.fps == pytest.approx(fps, rel=0.01)
    assert describe(ODD / name).fps == pytest.approx(fps, rel=0.01)
    assert (clip.warning is not None) == damaged
    if damaged:
        assert f"{name} is damaged: {num_frames} frames could be read; its end is missing" in clip.warning


def test_sound_that_is_longer_than_the_pictures_is_no_damage(tmp_path):
    for suffix, name in ((".mkv", "matroska"), (".mp4", "mp4")):
        path = tmp_path / f"a{suffix}"
        with av.open(str(path), "w", format=name) as container:
            sound = container.add_stream("aac", rate=44100, layout="mono")
            picture = add_video(container, "libx264", scenes(10, 48, 64), rate=10, options={"g": "1"})
            mux_pictures(container, picture, scenes(10, 48, 64), 10)
            for index in range(100):
                part = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
                part.sample_rate, part.pts, part.time_base = 44100, 1024 * index, Fraction(1, 44100)
                container.mux(sound.encode(part))
            container.mux(sound.encode(None))
        with av.open(str(path)) as container:
            assert container.duration > 2e6
        clip = read_clip(path)
        assert (len(clip.frames), clip.warning) == (10, None)
        # ... but a file of which a part of both is gone is damaged.
        if suffix == ".mkv":
            content = path.read_bytes()
            path.write_bytes(content[: len(content) // 2])
            assert "its end is missing" in read_clip(path).warning


def test_the_stream_that_the_file_marks_as_its_default_is_read(tmp_path):
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        levels = [torch.full((5, 1, 48, 64), level, dtype=torch.uint8) for level in (40, 200, 120)]
        streams = [add_video(container, "libx264", frames) for frames in levels]
        for stream in streams:
            stream.disposition = Disposition.default if stream is streams[1] else Disposition(0)
        for stream, frames in zip(streams, levels, strict=True):
            mux_pictures(container, stream, frames, 25)
    assert read_clip(path).frames.float().mean() == pytest.approx(200, abs=3)


def test_a_cover_picture_is_no_video():
    with pytest.raises(DataError, match="has no video stream, only sound; give"):
        read_clip(ODD / "cover.m4a")


def test_an_animated_webp_says_what_to_do():
    with pytest.raises(DataError, match="animated WebP, which this FFmpeg cannot read; convert it to a GIF or to MP4"):
        read_clip(ODD / "anim.webp")


# Display matrices.


@pytest.mark.parametrize(
    ("name", "shown"),
    [("hflip", lambda f: f.flip(-1)), ("vflip", lambda f: f.flip(-2)), ("rot90flip", lambda f: f.transpose(-1, -2))],
)
def test_files_that_mirror(name, shown):
    plain = read_clip(ODD / "plain.mp4").frames
    assert torch.equal(read_clip(ODD / f"{name}.mov").frames, shown(plain))
    height, width = shown(plain).shape[-2:]
    assert describe(ODD / f"{name}.mov").size == (height, width)


@pytest.mark.parametrize(
    "matrix", [(a, b, 0, 0) for a in (1, -1) for b in (1, -1)] + [(0, 0, a, b) for a in (1, -1) for b in (1, -1)]
)
def test_every_display_matrix_is_followed(tmp_path, matrix):
    a, d, b, c = matrix
    content = (ODD / "plain.mp4").read_bytes()
    identity = struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    track = content.index(b"tkhd")
    place = content.index(identity, track)
    written = struct.pack(">9i", a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)
    path = tmp_path / "a.mp4"
    path.write_bytes(content[:place] + written + content[place + len(identity) :])
    plain = read_clip(ODD / "plain.mp4").frames[5, 0].numpy()
    # ISO/IEC 14496-12: a pixel at (x, y) is shown at (a x + c y, b x + d y).
    y, x = np.mgrid[: plain.shape[0], : plain.shape[1]]
    to_x, to_y = a * x + c * y, b * x + d * y
    to_x, to_y = to_x - to_x.min(), to_y - to_y.min()
    shown = np.zeros((to_y.max() + 1, to_x.max() + 1), np.uint8)
    shown[to_y, to_x] = plain
    assert np.array_equal(read_clip(path).frames[5, 0].numpy(), shown)
    small = read_clip(path, size=(shown.shape[0] // 2, shown.shape[1] // 2)).frames
    assert small.shape[-2:] == (shown.shape[0] // 2, shown.shape[1] // 2)


# Rates.


def test_the_rate_is_that_of_the_time_stamps(tmp_path):
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        stream = add_video(container, "libx264", scenes(5), rate=10)
        mux_pictures(container, stream, scenes(5), 10, moments=(0, 10, 11, 12, 17))
    assert read_clip(path).fps == pytest.approx(5 / 1.8, rel=0.01)
    assert describe(path).fps == pytest.approx(5 / 1.8, rel=0.01)


@pytest.mark.parametrize("fps", [Fraction(30000, 1001), 25, 12.5, 60])
def test_the_rate_of_a_steady_file_is_exactly_what_its_header_says(tmp_path, fps):
    write_mp4(tmp_path / "a.mp4", scenes(7), float(fps))
    assert read_clip(tmp_path / "a.mp4").fps == pytest.approx(float(fps), rel=1e-6)


def test_time_stamps_that_tell_nothing_leave_the_header_its_word():
    for moments in ((), (1.0,), (0.0, 0.0, 0.1), (0.0, 0.1, 1e15)):
        times = Times()
        for moment in moments:
            times.add(moment, 0.0)
        assert times.fps(claimed=12.0) == 12.0
        assert times.fps(claimed=None) is None


@pytest.mark.parametrize(("num_equal", "is_told"), [(8, True), (4, False), (0, False)])
def test_time_stamps_that_are_equal_are_told(tmp_path, num_equal, is_told):
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        stream = add_video(container, "mjpeg", scenes(8), pixels="yuvj420p")
        for index, array in enumerate(scenes(8)[:, 0].numpy()):
            frame = av.VideoFrame.from_ndarray(array, format="gray").reformat(format="yuvj420p")
            frame.pts, frame.time_base = index, Fraction(1, 25)
            for packet in stream.encode(frame):
                packet.pts = packet.dts = max(0, index + 1 - num_equal)
                container.mux(packet)
    clip, resampled = read_clip(path), read_clip(path, fps=10)
    assert len(clip.frames) == 8
    for warning in (clip.warning, resampled.warning):
        if is_told:
            assert f"have the time stamp of another, which resampling drops: {num_equal - 1}" in warning
        else:
            assert warning is None
    assert (len(resampled.frames) == 1) == is_told


# Endings.


def test_every_ending_that_is_looked_for_can_be_read(tmp_path):
    formats = {
        "mp4": (".mp4 .m4v .f4v", "libx264"),
        "mov": (".mov .qt", "libx264"),
        "matroska": (".mkv", "libx264"),
        "3gp": (".3gp", "mpeg4"),
        "3g2": (".3g2", "mpeg4"),
        "avi": (".avi .divx", "mpeg4"),
        "nut": (".nut", "mpeg4"),
        "webm": (".webm", "libvpx"),
        "ogg": (".ogv", "libvpx"),
        "flv": (".flv", "flv"),
        "asf": (".asf .wmv", "wmv2"),
        "mpegts": (".ts .mts .m2ts", "mpeg2video"),
        "mpeg": (".mpg .mpeg .mpe", "mpeg1video"),
        "vob": (".vob", "mpeg2video"),
        "mpeg2video": (".m2v", "mpeg2video"),
        "mxf": (".mxf", "mpeg2video"),
        "gif": (".gif", "gif"),
        "apng": (".apng", "apng"),
        "dv": (".dv", "dvvideo"),
        "yuv4mpegpipe": (".y4m", "wrapped_avframe"),
    }
    pixels = {"gif": "gray", "apng": "gray"}
    tried = {".npz"}
    np.savez(tmp_path / "a.npz", frames=scenes(4).numpy())
    for name, (endings, codec) in formats.items():
        frames = scenes(10, 576, 720) if codec == "dvvideo" else scenes(10)
        content = encoded(name, codec, frames, pixels=pixels.get(codec, "yuv420p"))
        for ending in endings.split():
            (tmp_path / f"a{ending}").write_bytes(content)
            tried.add(ending)
    assert tried == SUFFIXES
    found = find_clips(tmp_path)
    assert {path.suffix for path in found} == {path.suffix for path in tmp_path.iterdir()}
    for path in found:
        assert len(read_clip(path, size=(32, 32)).frames) >= 4, path.name


def test_a_text_that_ends_as_a_transport_stream_is_no_clip(tmp_path):
    (tmp_path / "program.ts").write_text("export const answer: number = 42;\n" * 100)
    write_mp4(tmp_path / "a.mp4", scenes(3), 10)
    assert [path.name for path in find_clips(tmp_path)] == ["a.mp4"]
