"""Files of digits whose headers, lengths and packing do not agree, or are unusual."""

import gzip
import struct
import subprocess
import sys
import tracemalloc
from itertools import pairwise

import numpy as np
import pytest

from saccade.data.digits.sources import load
from saccade.errors import DataError

IMAGES = "t10k-images-idx3-ubyte"
NUM = 20


def idx(values, *claimed):
    shape = claimed or values.shape
    return struct.pack(f">BBBB{len(shape)}I", 0, 0, 8, len(shape), *shape) + values.tobytes()


@pytest.fixture
def folder(tmp_path):
    """A source whose test split is images of one grey level each, to be written anew by a test."""
    for prefix in ("train", "t10k"):
        levels = np.arange(NUM, dtype=np.uint8)
        images = np.broadcast_to(levels[:, None, None], (NUM, 28, 28))
        (tmp_path / f"{prefix}-images-idx3-ubyte").write_bytes(idx(images))
        (tmp_path / f"{prefix}-labels-idx1-ubyte").write_bytes(idx(levels % 10))
    return tmp_path


def members(content, *cuts):
    """Pack a content as several gzip members, one after the other."""
    edges = [0, *cuts, len(content)]
    return b"".join(gzip.compress(content[first:last]) for first, last in pairwise(edges))


@pytest.mark.parametrize("cuts", [(5,), (16,), (3, 3, 10_000), (784, 15_695)])
@pytest.mark.parametrize("padding", [b"", bytes(512)])
def test_several_gzip_members_are_one_file(folder, cuts, padding):
    content = (folder / IMAGES).read_bytes()
    (folder / IMAGES).write_bytes(members(content, *cuts) + padding)
    assert load(str(folder), "test").images[:, 3, 5].tolist() == list(range(NUM))


def test_a_member_too_many_goes_on_after_the_file(folder):
    content = (folder / IMAGES).read_bytes()
    (folder / IMAGES).write_bytes(gzip.compress(content) + gzip.compress(b"more"))
    with pytest.raises(DataError, match="continues after the 20 x 28 x 28 = 15680 bytes"):
        load(str(folder), "test")


@pytest.mark.parametrize("lost", [1, 8, 9, 400])
def test_a_packed_file_without_its_end_is_truncated(folder, lost):
    noise = np.random.default_rng(0).integers(0, 256, (NUM, 28, 28), dtype=np.uint8)
    (folder / IMAGES).write_bytes(gzip.compress(idx(noise))[:-lost])
    with pytest.raises(DataError, match=rf"{IMAGES} is truncated: .*; download it again"):
        load(str(folder), "test")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda packed: packed + b"<html>", "Not a gzipped file"),
        (lambda packed: packed[:-8] + bytes(8), "CRC check failed"),
        (lambda packed: packed[:2] + b"\x01" + packed[3:], "Unknown compression method"),
        (lambda packed: packed[:10] + b"\xff" * 30, "invalid block type"),
    ],
)
def test_what_unpacking_finds_is_told_with_the_path(folder, change, told):
    (folder / IMAGES).write_bytes(change(gzip.compress((folder / IMAGES).read_bytes())))
    with pytest.raises(DataError, match=rf"cannot read {folder / IMAGES}: .*{told}") as caught:
        load(str(folder), "test")
    assert "\n" not in str(caught.value)


def peak_bytes(folder):
    """Return the most memory that a refused file took."""
    load(str(folder), "train")  # imports what reading needs
    tracemalloc.start()
    with pytest.raises(DataError, match=rf"{IMAGES} (is truncated|continues|claims|has images)"):
        load(str(folder), "test")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak


def test_a_file_longer_than_it_claims_takes_what_it_claims(folder):
    num = 40_000
    with (folder / IMAGES).open("wb") as file:
        file.write(idx(np.zeros(0, np.uint8), num, 28, 28))
        file.truncate(5 * num * 784)  # no bytes on the disk
    assert peak_bytes(folder) < 1.2 * num * 784


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_file_that_claims_more_than_it_can_hold_takes_no_more_than_it_can_hold(folder, pack):
    (folder / IMAGES).write_bytes(pack(idx(np.zeros(500, np.uint8), 1_300_000, 28, 28)))
    assert peak_bytes(folder) < 1 << 21


def test_images_of_another_size_are_told_before_they_are_read(folder):
    num = 1000
    with (folder / IMAGES).open("wb") as file:
        file.write(idx(np.zeros(0, np.uint8), num, 200, 200))
        file.truncate(16 + num * 200 * 200)
    assert peak_bytes(folder) < 1 << 21


PEAK = """
import re, sys
from pathlib import Path
from saccade.data.digits.sources import load
def peak():
    return 1024 * int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
load(sys.argv[1], "test")
before = peak()
print(len(load(sys.argv[1], "train").images), peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells the peak of a process alone")
def test_a_source_is_in_memory_once(folder):
    num = 200_000
    for kind, shape in (("images-idx3", (num, 28, 28)), ("labels-idx1", (num,))):
        with (folder / f"train-{kind}-ubyte").open("wb") as file:
            header = idx(np.zeros(0, np.uint8), *shape)
            file.write(header)
            file.truncate(len(header) + num * (784 if len(shape) == 3 else 1))
    found = subprocess.run([sys.executable, "-c", PEAK, folder], capture_output=True, text=True, check=True)
    length, peak = map(int, found.stdout.split())
    assert length == num - num // 6
    assert num * 784 * 0.9 < peak < num * 784 * 1.4
