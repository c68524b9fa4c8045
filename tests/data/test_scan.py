import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from saccade.data import collection
from saccade.data.collection import Collection, Entry
from saccade.data.scan import cache_warning, read_small, scan
from saccade.data.video import Clip, Source
from saccade.errors import DataError, UsageError

from ..limits import open_files_limited
from ..own_clips import CLASSES, write_folder


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    root = write_folder(tmp_path_factory.mktemp("clips"), per_class=2)
    (root / CLASSES[0] / "a broken.mp4").write_bytes(b"no video")
    cut = (root / CLASSES[1] / f"{CLASSES[1]}_00_0.mp4").read_bytes()
    (root / CLASSES[1] / "z cut.mp4").write_bytes(cut[:-1])
    return root


@pytest.fixture(scope="module")
def found(clips):
    return scan(collection.read(clips), workers=2)


def entries(folder, *names):
    """Make a collection of files that hold only their names."""
    for name in names:
        (folder / name).write_text(name)
    return Collection(folder, tuple(Entry(folder / name, ("any",)) for name in names))


def test_there_is_a_record_of_each_clip_in_their_order(clips, found):
    assert [record.entry for record in found] == list(collection.read(clips).entries)


def test_a_record_says_what_was_decoded(clips, found):
    record = next(record for record in found if record.entry.path.name == f"{CLASSES[0]}_00_0.mp4")
    content = record.entry.path.read_bytes()
    assert (record.digest, record.num_bytes) == (hashlib.sha256(content).hexdigest(), len(content))
    assert (record.num_frames, record.fps, record.size, record.codec) == (12, 10.0, (48, 64), "h264")
    assert record.duration_s == pytest.approx(1.2)
    assert 0 < record.bit_rate_bps < 8 * len(content) / 1.2
    assert (record.warning, record.error) == (None, None)


def test_a_file_that_is_no_video_costs_only_itself(found):
    (failed,) = [record for record in found if record.error is not None]
    assert failed.entry.path.name == "a broken.mp4"
    assert "cannot be read as a video" in failed.error
    assert (failed.num_bytes, failed.num_frames, failed.fingerprint) == (8, None, None)
    assert sum(record.fingerprint is not None for record in found) == len(found) - 1


def test_damage_is_a_warning(found):
    (damaged,) = [record for record in found if record.warning is not None]
    assert damaged.entry.path.name == "z cut.mp4"
    assert damaged.num_frames


def test_a_part_of_a_file_is_read_alone(clips):
    path = clips / CLASSES[0] / f"{CLASSES[0]}_00_0.mp4"
    whole, part = read_small(Entry(path, ("a",))), read_small(Entry(path, ("a",), start_s=0.5, end_s=1.0))
    assert len(part.frames) < len(whole.frames)
    assert part.source.duration_s == pytest.approx(0.5, abs=0.11)


# --- Files of which a process dies; defined at the top level, since other processes import them.


def by_name(entry):
    """Do what the name of the file says."""
    match entry.path.stem:
        case "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        case "hang":
            time.sleep(60)
        case "huge":
            np.ones(1 << 29).sum()
        case "raises":
            raise ZeroDivisionError("of\nthe decoder")
        case "vanishes":
            raise FileNotFoundError(2, "No such file or directory", str(entry.path))
    return Clip(torch.zeros(2, 1, 4, 4, dtype=torch.uint8), source=Source(2, 0.5, 4.0, (4, 4), entry.path.stem, None))


def test_no_file_ends_the_scan(tmp_path):
    names = ["a", "crash", "b", "killed", "hang", "c", "raises", "vanishes", "d"]
    told = []
    found = scan(
        entries(tmp_path, *names),
        read=by_name,
        workers=2,
        time_limit_s=1.0,
        progress=lambda done, total: told.append((done, total)),
    )
    errors = {record.entry.path.name: record.error for record in found}
    assert {name for name, error in errors.items() if error is None} == set("abcd")
    assert [record.codec for record in found if record.error is None] == list("abcd")
    assert "crash ended the process that read it (SIGSEGV: its decoder crashed)" in errors["crash"]
    assert "(SIGKILL: perhaps the memory ran out)" in errors["killed"]
    assert "hang took longer than 1 s to read" in errors["hang"]
    assert "raises cannot be read (ZeroDivisionError: of the decoder)" in errors["raises"]
    assert "vanishes cannot be read (No such file or directory)" in errors["vanishes"]
    assert told == [(number, len(names)) for number in range(1, len(names) + 1)]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux keeps the limit")
def test_memory_is_limited(tmp_path):
    limit = 256 << 20
    huge, small = scan(entries(tmp_path, "huge", "small"), read=by_name, workers=1, memory_limit_bytes=limit)
    assert "huge needs more memory than a clip may take" in huge.error
    assert small.error is None


SCAN_WITH_A_LIMIT = """
import resource, sys
from pathlib import Path
from saccade.data.collection import Collection, Entry
from saccade.data.scan import scan

resource.setrlimit(resource.RLIMIT_DATA, (3 << 30, 3 << 30))
print([record.error for record in scan(Collection(Path(), (Entry(Path(sys.argv[1]), ("any",)),)), workers=1)])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux keeps the limit")
def test_a_limit_of_the_shell_is_kept(clips):
    script = [sys.executable, "-c", SCAN_WITH_A_LIMIT, clips / CLASSES[1] / "z cut.mp4"]
    ended = subprocess.run(script, capture_output=True, text=True)
    assert (ended.stdout, ended.stderr) == ("[None]\n", "")


def test_where_no_more_files_may_be_open_that_is_told(clips):
    found = collection.read(clips)
    with open_files_limited(0), pytest.raises(DataError, match=r"could not start \(Too many open files\).*ulimit"):
        scan(found, workers=2)


def test_a_file_that_is_gone_is_named(tmp_path):
    gone = Collection(tmp_path, (Entry(tmp_path / "gone.mp4", ("a",)),))
    (record,) = scan(gone, workers=1)
    assert record.error == f"{tmp_path / 'gone.mp4'} cannot be read (No such file or directory)"


def test_no_clip_needs_no_process(tmp_path):
    assert scan(Collection(tmp_path, ())) == []


def test_no_process_is_left_over(clips, found):
    import multiprocessing

    assert multiprocessing.active_children() == []


@pytest.mark.slow
def test_a_script_without_a_guard_is_told(tmp_path, clips):
    script = tmp_path / "script.py"
    script.write_text(
        "from pathlib import Path\nfrom saccade.data import collection\nfrom saccade.data.scan import scan\n"
        f"scan(collection.read(Path({str(clips)!r})), workers=1)\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120)
    assert DataError.__name__ in done.stderr.splitlines()[-1]
    assert 'if __name__ == "__main__"' in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(("wrong", "message"), [({"workers": 0}, "workers"), ({"time_limit_s": 0.0}, "time_limit_s")])
def test_wrong_numbers(tmp_path, wrong, message):
    with pytest.raises(UsageError, match=message):
        scan(Collection(Path(tmp_path), ()), **wrong)


SCAN = """
import sys
from functools import partial
from pathlib import Path
from saccade.data import collection
from saccade.data.scan import cache_warning, read_cached, scan

if __name__ == "__main__":
    read = partial(read_cached, size=(24, 32), num_channels=1, fps=None)
    records = scan(collection.read(Path(sys.argv[1])), read=read, workers=1)
    print(sum(record.num_frames or 0 for record in records), cache_warning())
"""


def test_a_cache_that_the_processes_of_a_scan_cannot_write_is_told(clips, found, tmp_path):
    assert cache_warning() is None
    (tmp_path / "scan.py").write_text(SCAN)
    (tmp_path / "saccade").write_text("where the folder of the cache belongs")
    command = [sys.executable, str(tmp_path / "scan.py"), str(clips)]
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    num, told = done.stdout.split(maxsplit=1)
    assert int(num) == sum(record.num_frames or 0 for record in found)
    assert f"the frame cache {tmp_path}/saccade/frames cannot be written" in told
