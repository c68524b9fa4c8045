import io
import os
import resource
import signal
import wave
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from saccade.data.video import SUFFIXES, read_clip
from saccade.data.video_writing import write_gif, write_mp4, write_png
from saccade.errors import DataError

REPOSITORY = Path(__file__).parents[2]
REAL = Path(os.environ.get("SACCADE_VIDEO", REPOSITORY.parent / "shared" / "data" / "video"))
real_files = pytest.mark.skipif(
    not (REAL / "odd").is_dir(), reason=f"no real video at {REAL}; set SACCADE_VIDEO to the folder that holds odd/"
)


def blobs(num_frames=12, height=64, width=64, channels=1, seed=0):
    """Make smooth frames that use the whole range, each different."""
    coarse = torch.rand(num_frames, channels, 6, 6, generator=torch.Generator().manual_seed(seed)) * 355 - 50
    return F.interpolate(coarse, (height, width), mode="bilinear").clamp(0, 255).round().to(torch.uint8)


def worst(a, b):
    return int((a.int() - b.int()).abs().max())


def save_npz(path, **arrays):
    np.savez_compressed(path, **arrays)
    return path


# What is written can be read back.


@pytest.mark.parametrize(("height", "width"), [(64, 64), (33, 57), (1, 1), (28, 200)])
def test_gif_keeps_every_grey_level(tmp_path, height, width):
    frames = torch.randint(0, 256, (7, 1, height, width), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    write_gif(tmp_path / "a.gif", frames, fps=20)
    clip = read_clip(tmp_path / "a.gif")
    assert torch.equal(clip.frames, frames)
    assert (clip.fps, clip.warning) == (20, None)


def test_gif_keeps_frames_that_repeat(tmp_path):
    frames = blobs(3)[[0, 0, 0, 1, 1, 2, 2, 2]]
    write_gif(tmp_path / "a.gif", frames, fps=10)
    assert torch.equal(read_clip(tmp_path / "a.gif").frames, frames)


def test_gif_keeps_a_few_colours(tmp_path):
    palette = torch.randint(0, 256, (200, 3), generator=torch.Generator().manual_seed(2)).to(torch.uint8)
    choice = torch.randint(0, 200, (5, 31, 45), generator=torch.Generator().manual_seed(3))
    frames = palette[choice].permute(0, 3, 1, 2)
    write_gif(tmp_path / "a.gif", frames, fps=10)
    assert worst(read_clip(tmp_path / "a.gif", num_channels=3).frames, frames) <= 1


def test_gif_repeats_without_end(tmp_path):
    write_gif(tmp_path / "a.gif", blobs(2), fps=10)
    assert b"NETSCAPE2.0\x03\x01\x00\x00" in (tmp_path / "a.gif").read_bytes()


@pytest.mark.parametrize(("height", "width"), [(64, 64), (96, 48), (63, 61)])
def test_mp4_is_close(tmp_path, height, width):
    frames = blobs(20, height, width)
    write_mp4(tmp_path / "a.mp4", frames, fps=12.5)
    clip = read_clip(tmp_path / "a.mp4")
    assert clip.frames.shape == frames.shape
    assert worst(clip.frames, frames) <= 4
    assert (clip.fps, clip.warning) == (12.5, None)


def test_mp4_is_what_every_player_knows(tmp_path):
    write_mp4(tmp_path / "a.mp4", blobs(5), fps=10)
    with av.open(str(tmp_path / "a.mp4")) as container:
        codec = container.streams.video[0].codec_context
        assert (codec.name, codec.format.name) == ("h264", "yuvj420p")
        assert codec.profile in ("Constrained Baseline", "Baseline", "Main", "High")


def test_mp4_keeps_smooth_colour(tmp_path):
    frames = blobs(5, channels=3)
    write_mp4(tmp_path / "a.mp4", frames, fps=10)
    error = (read_clip(tmp_path / "a.mp4", num_channels=3).frames.int() - frames.int()).abs().float()
    assert error.mean() < 5


def test_same_frames_give_the_same_bytes(tmp_path):
    for write, suffix in ((write_mp4, "mp4"), (write_gif, "gif")):
        contents = set()
        for name in "ab":
            write(tmp_path / f"{name}.{suffix}", blobs(), 10)
            contents.add((tmp_path / f"{name}.{suffix}").read_bytes())
        assert len(contents) == 1


@pytest.mark.parametrize("channels", [1, 3])
def test_png_is_exact(tmp_path, channels):
    image = torch.randint(0, 256, (channels, 37, 50), generator=torch.Generator().manual_seed(4)).to(torch.uint8)
    write_png(tmp_path / "a.png", image)
    assert torch.equal(read_clip(tmp_path / "a.png", num_channels=channels).frames, image[None])


@pytest.mark.parametrize("channels", [1, 3])
def test_npz_is_exact(tmp_path, channels):
    frames = blobs(6, 30, 40, channels)
    clip = read_clip(save_npz(tmp_path / "a.npz", frames=frames.numpy()), num_channels=channels)
    assert torch.equal(clip.frames, frames)
    assert clip.fps is None


def test_npz_may_leave_out_the_channel(tmp_path):
    frames = blobs(6, 30, 40)
    assert torch.equal(read_clip(save_npz(tmp_path / "a.npz", frames=frames[:, 0].numpy())).frames, frames)


@pytest.mark.parametrize(
    ("frames", "fps"),
    [
        (torch.zeros(0, 1, 8, 8, dtype=torch.uint8), 10),
        (torch.zeros(2, 1, 8, 8), 10),
        (torch.zeros(2, 2, 8, 8, dtype=torch.uint8), 10),
        (torch.zeros(2, 8, 8, dtype=torch.uint8), 10),
        (torch.zeros(2, 1, 8, 8, dtype=torch.uint8), 0),
        (torch.zeros(2, 1, 8, 8, dtype=torch.uint8), float("nan")),
    ],
)
def test_what_cannot_be_written_is_refused(tmp_path, frames, fps):
    for write, name in ((write_mp4, "a.mp4"), (write_gif, "a.gif")):
        with pytest.raises(ValueError, match="is needed"):
            write(tmp_path / name, frames, fps)
    assert not list(tmp_path.iterdir())


def test_gif_refuses_a_rate_that_no_gif_shows(tmp_path):
    with pytest.raises(ValueError, match="at most 50"):
        write_gif(tmp_path / "a.gif", blobs(2), fps=60)


# Size, channels, number of frames.


@pytest.mark.parametrize("suffix", ["mp4", "npz"])
def test_frames_are_resized(tmp_path, suffix):
    frames = torch.full((3, 1, 40, 80), 77, dtype=torch.uint8)
    frames[:, :, :, 40:] = 200
    path = tmp_path / f"a.{suffix}"
    if suffix == "mp4":
        write_mp4(path, frames, 10)
    else:
        save_npz(path, frames=frames.numpy())
    small = read_clip(path, size=(20, 64)).frames
    assert small.shape == (3, 1, 20, 64)
    assert worst(small[..., :28], torch.tensor(77)) <= 2
    assert worst(small[..., 36:], torch.tensor(200)) <= 2


def test_shrinking_averages(tmp_path):
    board = (torch.arange(64).view(-1, 1) + torch.arange(64)) % 2 * 255
    path = save_npz(tmp_path / "a.npz", frames=board.to(torch.uint8).numpy()[None])
    assert worst(read_clip(path, size=(16, 16)).frames[..., 2:-2, 2:-2], torch.tensor(127)) <= 3


def test_grey_becomes_three_equal_channels(tmp_path):
    frames = blobs(3)
    three = read_clip(save_npz(tmp_path / "a.npz", frames=frames.numpy()), num_channels=3).frames
    assert worst(three, frames.expand(-1, 3, -1, -1)) <= 1


def test_colour_becomes_luma(tmp_path):
    pure = torch.eye(3, dtype=torch.uint8).mul(255).view(3, 3, 1, 1).expand(-1, -1, 16, 16)
    grey = read_clip(save_npz(tmp_path / "a.npz", frames=pure.numpy())).frames
    for frame, weight in zip(grey, (0.299, 0.587, 0.114), strict=True):
        assert worst(frame, torch.tensor(round(255 * weight))) <= 1


@pytest.mark.parametrize("suffix", ["gif", "npz"])
def test_reading_stops_after_max_frames(tmp_path, suffix):
    frames = blobs(9)
    path = tmp_path / f"a.{suffix}"
    write_gif(path, frames, 10) if suffix == "gif" else save_npz(path, frames=frames.numpy())
    clip = read_clip(path, max_frames=4)
    assert torch.equal(clip.frames, frames[:4])
    assert clip.warning is None
    assert len(read_clip(path, max_frames=20).frames) == 9


def test_arguments_are_checked(tmp_path):
    path = save_npz(tmp_path / "a.npz", frames=blobs(2).numpy())
    with pytest.raises(ValueError, match="num_channels is 2"):
        read_clip(path, num_channels=2)
    with pytest.raises(ValueError, match="max_frames is 0"):
        read_clip(path, max_frames=0)


# Frames stand as a player would show them.


def turned(path, quarter_turns_clockwise):
    """Tell players, in the header of an mp4, to turn every frame; pixels stay."""
    cos, sin = [(1, 0), (0, 1), (-1, 0), (0, -1)][quarter_turns_clockwise]
    matrix = [cos << 16, sin << 16, 0, -sin << 16, cos << 16, 0, 0, 0, 1 << 30]
    content = bytearray(path.read_bytes())
    start = content.index(b"tkhd") + 4 + 40
    content[start : start + 36] = b"".join(value.to_bytes(4, "big", signed=True) for value in matrix)
    path.write_bytes(content)


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_rotation_in_the_header_is_applied(tmp_path, turns):
    path, frames = tmp_path / "a.mp4", blobs(4, 48, 64)
    write_mp4(path, frames, 10)
    turned(path, turns)
    shown = frames.rot90(-turns, (-2, -1))
    clip = read_clip(path)
    assert clip.frames.shape == shown.shape
    assert worst(clip.frames, shown) <= 4
    assert read_clip(path, size=(32, 80)).frames.shape == (4, 1, 32, 80)


def test_a_file_name_may_hold_a_colon_and_a_percent_sign(tmp_path):
    for name in ("http:a%03d.gif", "concat:b.gif"):
        write_gif(tmp_path / name, blobs(2), 10)
        assert len(read_clip(tmp_path / name).frames) == 2


# Foreign and damaged files.


def with_sound_only():
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes(bytes(16000))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.mp4", b"", "cannot be read as a video"),
        ("text.mp4", b"Not a video at all.\n" * 50, "cannot be read as a video"),
        ("notes.txt", b"Not a video at all.\n" * 50, "is a text file"),
        ("list.mp4", b"ffconcat version 1.0\nfile beside.mp4\n", "is a list of other files"),
        ("sound.mp4", with_sound_only(), "no video stream, only sound"),
        ("empty.npz", b"", "not a complete"),
        ("text.npz", b"Not an archive.\n" * 50, "not a complete"),
    ],
)
def test_what_is_no_video_is_refused(tmp_path, name, content, message):
    write_mp4(tmp_path / "beside.mp4", blobs(3), fps=10)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=f"{name}.*{message}"):
        read_clip(tmp_path / name)


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    for path in (tmp_path / "none.mp4", tmp_path):
        with pytest.raises(DataError, match="no clip at"):
            read_clip(path)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"video": np.zeros((2, 8, 8), np.uint8)}, "no array called frames"),
        ({"frames": np.zeros((2, 8, 8), np.float32)}, "float32"),
        ({"frames": np.zeros((2, 8, 8, 3), np.uint8)}, r"\(2, 8, 8, 3\)"),
        ({"frames": np.zeros((0, 8, 8), np.uint8)}, r"\(0, 8, 8\)"),
        ({"frames": np.zeros((2, 8), np.uint16)}, "uint16"),
        ({"frames": np.array(["a", "b"])}, "<U1"),
        ({"frames": np.array([{}, {}], object)}, "frames of object"),
    ],
)
def test_an_npz_of_something_else_is_refused(tmp_path, arrays, message):
    with pytest.raises(DataError, match=message):
        read_clip(save_npz(tmp_path / "a.npz", **arrays))


def test_a_truncated_npz_is_refused(tmp_path):
    path = save_npz(tmp_path / "a.npz", frames=blobs().numpy())
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match="not a complete"):
        read_clip(path)


def test_a_truncated_mp4_is_refused(tmp_path):
    write_mp4(tmp_path / "a.mp4", blobs(), 10)
    whole = (tmp_path / "a.mp4").read_bytes()
    (tmp_path / "a.mp4").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="cannot be read as a video"):
        read_clip(tmp_path / "a.mp4")


def test_damage_in_the_middle_leaves_the_rest_and_a_warning(tmp_path):
    frames = blobs(30)
    write_mp4(tmp_path / "a.mp4", frames, 10)
    content = bytearray((tmp_path / "a.mp4").read_bytes())
    start, end = content.index(b"mdat"), content.index(b"moov")
    middle = slice(start + (end - start) // 3, start + 2 * (end - start) // 3)
    content[middle] = bytes(middle.stop - middle.start)
    (tmp_path / "a.mp4").write_bytes(content)
    clip = read_clip(tmp_path / "a.mp4")
    assert 5 <= len(clip.frames) < 30
    assert worst(clip.frames[:5], frames[:5]) <= 4
    assert f"a.mp4 is damaged: {len(clip.frames)} of 30 frames" in clip.warning


def test_nothing_left_to_decode_is_refused(tmp_path):
    write_mp4(tmp_path / "a.mp4", blobs(), 10)
    content = bytearray((tmp_path / "a.mp4").read_bytes())
    start, end = content.index(b"mdat") + 4, content.index(b"moov") - 4
    content[start:end] = bytes(end - start)
    (tmp_path / "a.mp4").write_bytes(content)
    with pytest.raises(DataError, match="h264 video, but no frame of it can be decoded"):
        read_clip(tmp_path / "a.mp4")


def test_files_are_closed_whatever_comes(tmp_path):
    write_mp4(tmp_path / "good.mp4", blobs(), 10)
    (tmp_path / "sound.mp4").write_bytes(with_sound_only())
    (tmp_path / "notes.txt").write_bytes(b"Not a video at all.\n" * 50)
    before = set(Path("/proc/self/fd").iterdir())
    read_clip(tmp_path / "good.mp4")
    read_clip(tmp_path / "good.mp4", max_frames=2)
    for name in ("sound.mp4", "notes.txt"):
        with pytest.raises(DataError):
            read_clip(tmp_path / name)
    assert set(Path("/proc/self/fd").iterdir()) == before


@contextmanager
def full_disk(free_bytes):
    """Let no file grow beyond so many bytes, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (free_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


@pytest.mark.parametrize(("write", "name"), [(write_mp4, "a.mp4"), (write_gif, "a.gif")])
def test_a_full_disk_leaves_the_old_file(tmp_path, write, name):
    old = blobs(3, seed=1)
    write(tmp_path / name, old, 10)
    content = (tmp_path / name).read_bytes()
    with full_disk(1000), pytest.raises(OSError, match="too large"):
        write(tmp_path / name, blobs(30, seed=2), 10)
    assert (tmp_path / name).read_bytes() == content
    assert [path.name for path in tmp_path.iterdir()] == [name]


# Real files.


@real_files
@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("rotated/nasa_13013_rotated.mp4", (17, 480, 270)),
        ("rotated/video_90.mov", (3, 568, 320)),
        ("rotated/video_180.mov", (3, 320, 568)),
        ("depth/h264_10bits.mp4", (30, 200, 200)),
        ("shape/bitmap.mp4", (5, 1, 1)),
        ("shape/mjpeg.avi", (3, 3, 5)),
        ("shape/testsrc2_odd_height_and_width_vp9.mp4", (25, 241, 321)),
        ("shape/video_colr_nclx_rgb.mp4", (3, 2, 2)),
        ("streams/metadata.mp4", (1, 240, 320)),
        ("streams/test.mp4", (182, 240, 320)),
        ("vfr/nasa_13013_vfr.mp4", (50, 270, 480)),
        ("one_frame/testsrc2_mpeg4.mp4", (1, 64, 64)),
    ],
)
def test_odd_real_files_are_read_whole(name, shape):
    for num_channels in (1, 3):
        clip = read_clip(REAL / "odd" / name, num_channels=num_channels)
        assert clip.frames.shape == (shape[0], num_channels, *shape[1:])
        assert clip.warning is None


@real_files
def test_damaged_real_files_give_frames_with_a_warning_or_one_clear_line():
    clips, lines = [], []
    for path in sorted((REAL / "odd" / "corrupt").iterdir()):
        try:
            clips.append(read_clip(path, size=(64, 64)))
        except DataError as error:
            lines.append(str(error))
    assert (len(clips), len(lines)) == (6, 8)
    assert not any("\n" in line for line in lines)
    for clip in clips:
        assert clip.warning is None or f"damaged: {len(clip.frames)} " in clip.warning


@real_files
def test_a_chain_of_ogg_streams_repeats_its_headers_without_damage():
    assert read_clip(REAL / "odd" / "corrupt" / "chained-video.ogv").warning is None


@real_files
def test_sound_only_real_files_say_so():
    for path in sorted((REAL / "odd" / "audio_only").iterdir()):
        with pytest.raises(DataError, match="no video stream, only sound"):
            read_clip(path)


@real_files
def test_the_common_containers_are_read():
    paths = [path for path in (REAL / "clips").iterdir() if path.suffix in SUFFIXES]
    assert {path.suffix for path in paths} >= {".mp4", ".mkv", ".avi", ".webm", ".mpg", ".ogv", ".3gp"}
    for path in paths:
        assert read_clip(path, size=(64, 64), num_channels=3, max_frames=3).frames.shape == (3, 3, 64, 64)


def test_a_gif_without_its_end_is_damaged(tmp_path):
    frames = torch.randint(0, 255, (30, 1, 32, 32), dtype=torch.uint8)
    write_gif(tmp_path / "whole.gif", frames, fps=10)
    assert read_clip(tmp_path / "whole.gif").warning is None
    content = (tmp_path / "whole.gif").read_bytes()
    (tmp_path / "padded.gif").write_bytes(content + bytes(3))
    assert read_clip(tmp_path / "padded.gif").warning is None
    (tmp_path / "cut.gif").write_bytes(content[: len(content) // 2])
    cut = read_clip(tmp_path / "cut.gif")
    assert 5 < len(cut.frames) < 25
    assert f"cut.gif is damaged: {len(cut.frames)} frames could be read" in cut.warning


# --- At another rate, by time stamps


@pytest.mark.parametrize(
    ("fps", "wanted", "shown"),
    [
        (10.0, 10.0, list(range(12))),
        (10.0, 5.0, [0, 2, 4, 6, 8, 10]),
        (10.0, 4.0, [0, 2, 5, 7, 10]),
        (10.0, 20.0, [t for t in range(12) for _ in range(2)]),
        (30.0, 15.0, [0, 2, 4, 6, 8, 10]),
    ],
)
def test_frames_are_those_that_a_player_shows_at_each_moment(tmp_path, fps, wanted, shown):
    frames = torch.arange(12, dtype=torch.uint8).mul(20).view(12, 1, 1, 1).expand(12, 1, 32, 32).contiguous()
    write_gif(tmp_path / "a.gif", frames, fps) if fps <= 10 else write_mp4(tmp_path / "a.mp4", frames, fps)
    (path,) = tmp_path.iterdir()
    clip = read_clip(path, fps=wanted)
    assert clip.fps == wanted
    assert clip.frames[:, 0, 0, 0].float().div(20).round().int().tolist() == shown


def test_frames_of_a_damaged_file_count_before_they_are_left_out(tmp_path):
    write_mp4(tmp_path / "a.mp4", blobs(24), 24.0)
    assert read_clip(tmp_path / "a.mp4", fps=6.0).warning is None
    assert len(read_clip(tmp_path / "a.mp4", fps=6.0).frames) == 6


def test_time_stamps_that_leap_do_not_fill_the_gap(tmp_path):
    path = tmp_path / "leap.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for t, pts in enumerate((0, 100, 10_000_000, 10_000_100, 10_000_200)):
            frame = av.VideoFrame.from_ndarray(np.full((64, 64), 40 * t, np.uint8), format="gray").reformat(
                format="yuv420p"
            )
            frame.pts, frame.time_base = pts, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    assert len(read_clip(path, fps=10.0).frames) == 5
