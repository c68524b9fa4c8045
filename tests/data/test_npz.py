"""Archives of NumPy arrays that others wrote, whole and broken."""

import io
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest
import torch

from saccade.data.video import read_clip
from saccade.errors import DataError

FRAMES = np.random.default_rng(0).integers(0, 256, (6, 3, 40, 50), np.uint8)


def array_bytes(array=FRAMES):
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def archive(path, content, *, name="frames.npy", compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", compression) as written:
        written.writestr(name, content)
    return path


def patched(path, offset_local, offset_central, value):
    """Change a field of two bytes in both headers of an archive's only member."""
    content = bytearray(path.read_bytes())
    central = content.index(b"PK\x01\x02")
    struct.pack_into("<H", content, offset_local, value)
    struct.pack_into("<H", content, central + offset_central, value)
    path.write_bytes(content)
    return path


def header(shape, *, descr="|u1"):
    text = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode()


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_every_compression_is_read(tmp_path, method):
    path = archive(tmp_path / "a.npz", array_bytes(), compression=method)
    assert np.array_equal(read_clip(path, num_channels=3).frames.numpy(), FRAMES)


def test_order_and_dimensions(tmp_path):
    path = tmp_path / "a.npz"
    for array, channels in ((FRAMES, 3), (FRAMES[:, :1], 1), (FRAMES[:, 0], 1)):
        for order in (np.ascontiguousarray, np.asfortranarray):
            np.savez(path, other=np.zeros(3), frames=order(array))
            clip = read_clip(path, num_channels=channels)
            assert np.array_equal(clip.frames.numpy(), array if array.ndim == 4 else array[:, None])
            assert torch.equal(read_clip(path, num_channels=channels, max_frames=2).frames, clip.frames[:2])


def no_array(path):
    return archive(path, b"This is no array.")


def encrypted(path):
    return patched(archive(path, array_bytes()), 6, 8, 1)


def compressed_otherwise(path):
    return patched(archive(path, array_bytes()), 8, 10, 9)


def damaged(method):
    def write(path):
        archive(path, array_bytes(), compression=method)
        content = bytearray(path.read_bytes())
        middle = len(content) // 2
        content[middle : middle + 200] = bytes(200)
        path.write_bytes(content)
        return path

    return write


BROKEN = {
    "no array": no_array,
    "encrypted": encrypted,
    "compressed otherwise": compressed_otherwise,
    "damaged, stored": damaged(zipfile.ZIP_STORED),
    "damaged deflate": damaged(zipfile.ZIP_DEFLATED),
    "damaged bzip2": damaged(zipfile.ZIP_BZIP2),
    "damaged LZMA": damaged(zipfile.ZIP_LZMA),
    "93 GiB in time": lambda path: archive(path, header((10**6, 1, 316, 316)) + bytes(5000)),
    "93 GiB in a frame": lambda path: archive(path, header((1, 1, 316_000, 316_000)) + bytes(5000)),
    "more than a number holds": lambda path: archive(path, header((1, 1, 10**30, 10**30)) + bytes(5000)),
    "a negative size": lambda path: archive(path, header((-3, -1, 40, 40)) + bytes(5000)),
    "a header within brackets": lambda path: archive(path, header("(" * 3000 + ")" * 3000)),
    "another kind of header": lambda path: archive(path, b"\x93NUMPY\x09\x00" + bytes(100)),
    "a header that is cut": lambda path: archive(path, header((6, 3, 40, 50))[:40]),
    "no shape": lambda path: archive(path, header("None")),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_archive_is_told_in_a_line_with_its_path(tmp_path, kind):
    path = BROKEN[kind](tmp_path / "a.npz")
    tracemalloc.start()
    try:
        with pytest.raises(DataError) as told:
            read_clip(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert str(path) in str(told.value)
    assert "\n" not in str(told.value)
    assert "ends within a frame" in str(told.value) or kind != "93 GiB in time"
    assert peak < 20e6  # no memory for what is only claimed


def test_only_the_frames_that_are_asked_for_are_unpacked(tmp_path):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, frames=np.zeros((2000, 1, 200, 200), np.uint8))
    tracemalloc.start()
    try:
        assert len(read_clip(path, max_frames=3).frames) == 3
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 5e6


def test_a_checksum_that_does_not_fit_is_seen(tmp_path):
    path = archive(tmp_path / "a.npz", array_bytes(), compression=zipfile.ZIP_STORED)
    content = bytearray(path.read_bytes())
    content[-200] ^= 1  # a pixel, before the directory of 56 bytes and its end of 22
    path.write_bytes(content)
    with pytest.raises(DataError, match="not a complete"):
        read_clip(path)
