"""Files in tar archives, as if they lay in a folder."""

import hashlib
import io
import os
import tarfile

import pytest
import torch

from saccade.data import members, video
from saccade.data.video_writing import write_mp4
from saccade.errors import DataError


@pytest.fixture
def archive(tmp_path):
    """Write an archive with a video, an `.npz`-like text, a link and a folder; return it and the video by itself."""
    plain = tmp_path / "one two.mp4"
    write_mp4(plain, torch.randint(0, 256, (9, 3, 48, 64), dtype=torch.uint8), 10.0)
    path = tmp_path / "a b:c.tar"
    with tarfile.open(path, "w") as written:
        note = tarfile.TarInfo("./note.txt")
        note.size = 5
        written.addfile(note, io.BytesIO(b"hello"))
        written.add(plain, "deep/000.mp4")
        link = tarfile.TarInfo("link.mp4")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        written.addfile(link)
    return path, plain


def test_members_have_the_bytes_of_their_files(archive):
    path, plain = archive
    inside = path / "deep" / "000.mp4"
    assert members.names(path) == ["note.txt", "deep/000.mp4"]
    assert members.is_file(inside)
    assert members.is_file(plain)
    assert members.state(inside)[0] == members.state(plain)[0] == plain.stat().st_size
    assert members.digest_of(inside) == members.digest_of(plain) == hashlib.sha256(plain.read_bytes()).hexdigest()
    with members.opened(inside) as file:
        assert file.read() == plain.read_bytes()
        assert file.seek(-3, os.SEEK_END) == plain.stat().st_size - 3
        assert file.read(10) == plain.read_bytes()[-3:]
        assert file.read() == b""
        file.seek(10**9)
        assert file.read(1) == b""
        with pytest.raises(OSError, match="before the beginning"):
            file.seek(-1)
    with members.opened(path / "note.txt") as file:
        assert file.read() == b"hello"  # and nothing of the padding behind it


def test_what_is_no_file_is_not_there(archive, tmp_path):
    path, _ = archive
    for name in ("link.mp4", "deep", "none.mp4", "../one two.mp4"):
        assert not members.is_file(path / name), name
    assert not members.is_file(tmp_path / "none.tar" / "a.mp4")
    with pytest.raises(OSError, match="directory"):
        members.opened(path / "link.mp4")


def test_a_video_in_an_archive_is_that_video(archive):
    path, plain = archive
    inside, alone = video.read_clip(path / "deep" / "000.mp4"), video.read_clip(plain)
    assert torch.equal(inside.frames, alone.frames)
    assert (inside.fps, inside.warning, inside.seconds) == (alone.fps, None, alone.seconds)
    assert torch.equal(video.read_clip(path / "deep" / "000.mp4", start_s=0.3).frames, alone.frames[3:])
    with pytest.raises(DataError, match="no clip at"):
        video.read_clip(path / "none.mp4")


def test_names_lead_nowhere_else(tmp_path):
    secret = tmp_path / "secret.json"
    secret.write_text("{}")
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as written:
        for name in (str(secret), "../secret.json", "in/../../secret.json", "good.json"):
            header = tarfile.TarInfo(name)
            header.size = 2
            written.addfile(header, io.BytesIO(b"{}"))
    assert members.names(path) == ["good.json"]


def test_an_archive_with_a_damaged_header_is_told(archive):
    path, _ = archive
    held = bytearray(path.read_bytes())
    held[1024] ^= 1  # in the header of the video
    path.write_bytes(held)
    with pytest.raises(DataError, match=r"cannot be read as a tar archive \(damaged at byte 1024"):
        members.names(path)


def test_an_archive_without_its_end_is_told(archive):
    path, _ = archive
    with tarfile.open(path) as read:
        end = max(member.offset_data + -(-member.size // 512) * 512 for member in read)
    path.write_bytes(path.read_bytes()[:end])
    with pytest.raises(DataError, match="cannot be read as a tar archive"):
        members.names(path)


def test_a_changed_archive_is_read_again(archive):
    path, plain = archive
    assert not members.is_file(path / "late.mp4")
    with tarfile.open(path, "a") as written:
        written.add(plain, "late.mp4")
    assert members.is_file(path / "late.mp4")


def test_a_cut_archive_is_told(archive, tmp_path):
    path, plain = archive
    cut = tmp_path / "cut.tar"
    cut.write_bytes(path.read_bytes()[: 2048 + plain.stat().st_size // 2])
    with pytest.raises(DataError, match=r"cut\.tar cannot be read as a tar archive \(unexpected end"):
        members.names(cut)


@pytest.mark.parametrize("content", [b"", b"no archive" * 100, b"\x1f\x8b" + bytes(600)])
def test_what_is_no_archive_is_told(content, tmp_path):
    path = tmp_path / "bad.tar"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"bad\.tar cannot be read as a tar archive"):
        members.names(path)
