import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from saccade.data import frame_cache
from saccade.data.frame_cache import FrameCache, default_folder, default_max_bytes
from saccade.data.video import read_clip
from saccade.data.video_writing import write_gif, write_mp4
from saccade.errors import DataError

MEGABYTE = 10**6


@pytest.fixture
def path(tmp_path):
    coarse = torch.rand(20, 3, 6, 6, generator=torch.Generator().manual_seed(0)) * 255
    write_mp4(tmp_path / "a.mp4", F.interpolate(coarse, (48, 64), mode="bilinear").to(torch.uint8), fps=20)
    return tmp_path / "a.mp4"


@pytest.fixture
def cache(tmp_path):
    return FrameCache(tmp_path / "cache", 10 * MEGABYTE)


@pytest.fixture
def decoded(monkeypatch):
    """Collect the names of the files that are decoded, and not read from the cache."""
    names = []

    def noted(path, **how):
        names.append(path.name)
        return read_clip(path, **how)

    monkeypatch.setattr(frame_cache, "read_clip", noted)
    return names


def same(a, b):
    return torch.equal(a.frames, b.frames) and all(
        getattr(a, name) == getattr(b, name) for name in ("fps", "warning", "seconds", "source")
    )


def entries(folder):
    return sorted(folder.glob("??/*.safetensors"))


@pytest.mark.parametrize(
    "form",
    [
        {},
        {"size": (24, 32), "num_channels": 3},
        {"fps": 7.0},
        {"start_s": 0.2, "end_s": 0.6},
        {"size": lambda size: (size[0] // 2, size[1] // 2), "num_channels": 3, "fps": 10.0},
    ],
)
def test_what_the_cache_gives_is_what_the_file_gives(path, cache, decoded, form):
    wanted = read_clip(path, **form)
    for _ in range(3):
        assert same(cache.read(path, **form), wanted)
    assert decoded == ["a.mp4"]
    assert cache.warning is None


def test_each_format_has_its_own_entry(path, cache, decoded):
    forms = [{}, {"num_channels": 3}, {"size": (8, 8)}, {"fps": 5.0}, {"start_s": 0.5}, {"end_s": 0.5}]
    for _ in range(2):
        for form in forms:
            assert same(cache.read(path, **form), read_clip(path, **form))
    assert len(decoded) == len(forms)


def test_the_content_counts_and_not_the_name_or_the_time(path, cache, decoded, tmp_path):
    first = cache.read(path)
    os.utime(path, (1, 1))
    shutil.copy(path, tmp_path / "b.mp4")
    assert same(cache.read(path), first)
    assert same(cache.read(tmp_path / "b.mp4"), first)
    assert decoded == ["a.mp4"]
    write_mp4(path, torch.full((5, 1, 48, 64), 99, dtype=torch.uint8), fps=20)
    assert same(cache.read(path), read_clip(path))
    assert decoded == ["a.mp4", "a.mp4"]


def test_an_unchanged_file_is_not_read_again(path, cache):
    first = cache.read(path)
    status = path.stat()
    path.write_bytes(bytes(status.st_size))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert same(cache.read(path), first)


def test_damage_is_told_by_the_name_of_the_file_that_was_asked_for(tmp_path, cache, decoded):
    frames = torch.randint(0, 255, (30, 1, 32, 32), dtype=torch.uint8)
    write_gif(tmp_path / "whole.gif", frames, fps=10)
    content = (tmp_path / "whole.gif").read_bytes()
    for name in ("a.gif", "b.gif"):
        (tmp_path / name).write_bytes(content[: len(content) // 2])
        assert f"{tmp_path / name} is damaged" in cache.read(tmp_path / name).warning
    assert decoded == ["a.gif"]


def test_what_cannot_be_read_raises_as_without_a_cache(tmp_path, cache):
    (tmp_path / "text.mp4").write_text("no video\n" * 99)
    for name in ("text.mp4", "none.mp4"):
        for _ in range(2):
            with pytest.raises(DataError, match=name):
                cache.read(tmp_path / name)
    assert not entries(tmp_path / "cache")


@pytest.mark.parametrize("damage", ["cut", "empty", "noise", "header"])
def test_a_damaged_entry_costs_only_the_cache(path, cache, decoded, tmp_path, damage):
    wanted = cache.read(path)
    (entry,) = entries(tmp_path / "cache")
    content = entry.read_bytes()
    entry.write_bytes(
        {
            "cut": content[:-100],
            "empty": b"",
            "noise": random.Random(0).randbytes(len(content)),
            "header": content.replace(b'\\"fps\\"', b'\\"spf\\"'),
        }[damage]
    )
    wanted = read_clip(path)
    assert same(cache.read(path), wanted)
    assert len(decoded) == 2
    assert str(tmp_path / "cache") in cache.warning
    assert "\n" not in cache.warning
    assert same(cache.read(path), wanted)
    assert len(decoded) == 2  # it was written again


def test_a_folder_that_cannot_be_written_costs_only_the_cache(path, tmp_path):
    (tmp_path / "cache").write_text("a file")
    cache = FrameCache(tmp_path / "cache", MEGABYTE)
    for _ in range(2):
        assert same(cache.read(path), read_clip(path))
    assert "cannot be written" in cache.warning
    assert cache.warning.endswith("; clips are decoded again: free space on its disk, or remove the folder")


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="no users as in POSIX")
def test_a_folder_without_permission_is_not_told_to_need_space(path):
    frames = read_clip(path)
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(path, folder)
        Path(folder).chmod(0o555)
        is_root = not os.geteuid()
        if is_root:
            os.seteuid(65534)
        try:
            cache = FrameCache(Path(folder) / "cache", MEGABYTE)
            assert same(cache.read(Path(folder) / path.name), frames)
        finally:
            if is_root:
                os.seteuid(0)
            Path(folder).chmod(0o755)
    assert "Permission denied" in cache.warning
    assert "let this user write there" in cache.warning
    assert "space" not in cache.warning


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


def test_a_full_disk_costs_only_the_cache(path, tmp_path, cache):
    wanted = read_clip(path)
    for _ in range(2):
        with full_disk(1000):
            clip = cache.read(path)
        assert same(clip, wanted)
    assert "cannot be written" in cache.warning
    assert "File too large" in cache.warning
    assert "free space on its disk" in cache.warning
    assert not [found for found in (tmp_path / "cache").rglob("*") if found.stat().st_size > 1000 and found.is_file()]


def test_the_least_recently_used_entries_are_removed(tmp_path, decoded):
    cache = FrameCache(tmp_path / "cache", MEGABYTE)
    for number in range(20):
        write_gif(tmp_path / f"{number}.gif", torch.full((10, 1, 100, 100), number, dtype=torch.uint8), fps=10)
        cache.read(tmp_path / f"{number}.gif")
        for entry in entries(tmp_path / "cache"):  # time passes
            os.utime(entry, (entry.stat().st_atime, entry.stat().st_mtime - 100))
        cache.read(tmp_path / "0.gif")
        assert sum(found.stat().st_size for found in (tmp_path / "cache").rglob("*.*")) < 1.05 * MEGABYTE
    assert 5 <= len(entries(tmp_path / "cache")) <= 10
    assert len(decoded) == 20
    for name, is_kept in (("0.gif", True), ("19.gif", True), ("1.gif", False)):
        decoded.clear()
        cache.read(tmp_path / name)
        assert (decoded == []) == is_kept, name


def test_a_clip_that_would_fill_the_cache_is_not_kept(path, tmp_path):
    cache = FrameCache(tmp_path / "cache", 1000)
    assert same(cache.read(path), read_clip(path))
    assert not entries(tmp_path / "cache")
    assert re.search(
        r"keeps no clip above 0\.00025 MB, such as .*a\.mp4 with .*; such clips are decoded", cache.warning
    )


READ_ALL = """
import random, sys
from pathlib import Path
from saccade.data.frame_cache import FrameCache

folder, cache = Path(sys.argv[1]), FrameCache(Path(sys.argv[1]) / "cache", 500_000)
names = [f"{number}.gif" for number in range(8)] * 5
random.Random(sys.argv[2]).shuffle(names)
for name in names:
    assert int(cache.read(folder / name).frames.float().mean()) == int(name[0])
assert cache.warning is None, cache.warning
"""


def test_several_processes_share_a_cache_that_has_room_for_half(tmp_path):
    for number in range(8):
        write_gif(tmp_path / f"{number}.gif", torch.full((10, 1, 100, 100), number, dtype=torch.uint8), fps=10)
    processes = [
        subprocess.Popen([sys.executable, "-c", READ_ALL, str(tmp_path), str(seed)], stderr=subprocess.PIPE, text=True)
        for seed in range(2)
    ]
    assert [process.communicate()[1] for process in processes] == ["", ""]


def test_frames_can_be_changed_without_changing_the_cache(path, cache):
    wanted = read_clip(path)
    for _ in range(2):
        clip = cache.read(path)
        assert same(clip, wanted)
        clip.frames.zero_()


def test_clips_from_the_cache_keep_no_file_open(path, cache):
    cache.read(path)
    before = len(list(Path("/proc/self/fd").iterdir()))
    clips = [cache.read(path) for _ in range(50)]
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert len(clips) == 50


def test_the_default_folder_follows_the_desktop_standard(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_folder() == tmp_path / "saccade" / "frames"
    for unset in ("", "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", unset)
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        assert default_folder() == tmp_path / "home" / ".cache" / "saccade" / "frames"
    free_bytes = shutil.disk_usage(tmp_path).free
    assert default_max_bytes(tmp_path / "not" / "there") <= min(10**10, free_bytes / 9)
