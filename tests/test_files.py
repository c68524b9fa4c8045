import hashlib
import json
import os
import resource
import signal
import stat
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from saccade import files


def contents(folder):
    return {path.name for path in folder.iterdir()}


def test_a_file_appears_with_its_content_only(tmp_path):
    path = tmp_path / "deep" / "er" / "a.txt"
    with files.whole(path) as temporary:
        assert temporary.parent == path.parent
        assert temporary.suffix == ".txt"
        temporary.write_text("half")
        assert not path.exists()
        temporary.write_text("whole")
    assert path.read_text() == "whole"
    assert contents(path.parent) == {"a.txt"}


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_error_leaves_what_was_there(tmp_path, error):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def write():
        with files.whole(path) as temporary:
            temporary.write_text("half of the n")
            raise error

    with pytest.raises(error):
        write()
    assert path.read_text() == "old"
    assert contents(tmp_path) == {"a.txt"}


def test_a_writer_may_replace_the_temporary_file(tmp_path):
    path = tmp_path / "a.bin"
    with files.whole(path) as temporary:
        (tmp_path / "other").write_bytes(b"new")
        (tmp_path / "other").replace(temporary)
    assert path.read_bytes() == b"new"


def test_a_lock_that_another_keeps_is_told(tmp_path):
    again = files.locked(tmp_path / "a.csv", timeout_s=0.1)
    with files.locked(tmp_path / "a.csv"), pytest.raises(OSError, match=r"\.a\.csv\.lock"), again:
        raise AssertionError
    with files.locked(tmp_path / "a.csv"), files.locked(tmp_path / "b.csv"):
        pass


def test_files_are_as_readable_as_any_other(tmp_path):
    (tmp_path / "plain").write_text("")
    files.write_text(tmp_path / "whole", "")
    modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("plain", "whole")}
    assert len(modes) == 1


def test_text_and_json_are_utf_8(tmp_path):
    files.write_text(tmp_path / "a.md", "±90°\n")
    assert (tmp_path / "a.md").read_bytes() == "±90°\n".encode()
    files.write_json(tmp_path / "a.json", {"name": "§", "path": Path("x"), "rows": [1, None]})
    assert json.loads((tmp_path / "a.json").read_bytes()) == {"name": "§", "path": "x", "rows": [1, None]}
    assert "§" in (tmp_path / "a.json").read_text(encoding="utf-8")


def test_json_that_cannot_be_written_leaves_the_old(tmp_path):
    files.write_json(tmp_path / "a.json", {"a": 1})
    circle = {}
    circle["a"] = circle
    with pytest.raises(ValueError, match="Circular"):
        files.write_json(tmp_path / "a.json", circle)
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": 1}


def test_a_full_disk_leaves_what_was_there(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(OSError, match="too large"):
            files.write_text(path, "x" * 100_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert path.read_text() == "old"
    assert contents(tmp_path) == {"a.txt"}


def test_a_killed_writer_leaves_what_was_there(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    script = (
        "import os, signal, sys, pathlib; from saccade import files\n"
        "with files.whole(pathlib.Path(sys.argv[1])) as temporary:\n"
        "    temporary.write_text('half'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    ended = subprocess.run([sys.executable, "-c", script, str(path)], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert path.read_text() == "old"


def test_a_folder_in_the_place_of_the_file_is_left_alone(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b").write_text("kept")
    with pytest.raises(OSError, match="a"):
        files.write_text(tmp_path / "a", "new")
    assert (tmp_path / "a" / "b").read_text() == "kept"
    assert contents(tmp_path) == {"a"}


def test_asking_whether_a_file_can_be_written_leaves_nothing(tmp_path):
    (tmp_path / "old.csv").write_text("kept")
    for name in ("old.csv", "new.csv"):
        files.check_writable(tmp_path / name)
    assert (tmp_path / "old.csv").read_text() == "kept"
    assert contents(tmp_path) == {"old.csv"}
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name in ("folder", "pipe"):
        with pytest.raises(OSError, match="is not a regular file"):
            files.check_writable(tmp_path / name)


def test_a_digest_follows_the_content_and_an_unchanged_file_is_not_read_again(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"abc")
    first = files.digest_of(path)
    assert first == hashlib.sha256(b"abc").hexdigest()
    before = path.stat()
    path.write_bytes(b"xyz")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert files.digest_of(path) == first
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert files.digest_of(path) == hashlib.sha256(b"xyz").hexdigest()
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"a\.bin"):
        files.digest_of(path)


def test_fields_as_json_has_them():
    @dataclass
    class Config:
        out: Path
        models: tuple[Path, ...]
        num_digits: int | tuple[int, int]
        seed: int | None = None

    found = files.json_fields(Config(Path("runs/a"), (Path("b"),), (1, 5)))
    assert found == {"out": "runs/a", "models": ["b"], "num_digits": [1, 5], "seed": None}
    assert found == json.loads(json.dumps(found))
