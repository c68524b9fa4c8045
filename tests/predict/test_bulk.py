"""Predictions of large collections: Parquet files by two engines, whatever goes wrong."""

import errno
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.own_clips import write_npz

from saccade import checkpoint, predict
from saccade.cli import main
from saccade.errors import UsageError
from saccade.labels import Labels
from saccade.models import create
from saccade.predict import PredictConfig, bulk
from saccade.predict.parquet import MANIFEST

parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed: saccade[ray] has it")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    torch.manual_seed(0)
    labels = Labels(("a", "b", "c"))
    path = tmp_path_factory.mktemp("model") / "checkpoint.safetensors"
    checkpoint.save(path, create("lenet-lstm", labels=labels), checkpoint.Header("lenet-lstm", {}, labels))
    return path


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Seven clips, the fourth of which is no video."""
    root = tmp_path_factory.mktemp("clips")
    for number in (0, 1, 2, 4, 5, 6):
        write_npz(root / f"{number}.npz", 30 * number)
    (root / "3.mp4").write_bytes(b"no video")
    return root


def config_of(clips, model, out, **changes):
    return PredictConfig((clips,), model, device="cpu", out=out, per_file=2, workers=1, **changes)


def made(config):
    return list(bulk.Call.of(config).each())


def rows(out):
    return parquet.read_table(out).to_pylist()


def test_files_hold_what_predict_says(clips, model, tmp_path):
    config = config_of(clips, model, tmp_path / "out")
    done = made(config)
    assert [(one.number, one.num_clips, one.num_failed) for one in done] == [(0, 2, 0), (1, 2, 1), (2, 2, 0), (3, 1, 0)]
    found = rows(config.out)
    assert [Path(row["clip"]).name for row in found] == [
        *("0.npz", "1.npz", "2.npz", "3.mp4", "4.npz", "5.npz", "6.npz")
    ]
    good = [row for row in found if row["error"] is None]
    said = predict.predict(replace(config, clips=tuple(Path(row["clip"]) for row in good), out=None))
    for row, one in zip(good, said, strict=True):
        assert (row["verdict"], row["classes"], row["sure"]) == (one.verdict, list(one.classes), one.sure)
        assert row["probabilities"] == pytest.approx(list(one.probabilities.values()), rel=1e-6)
        assert (row["num_frames"], row["decided_at_s"], row["warning"]) == (one.num_frames, one.decided_at_s, None)
    (bad,) = [row for row in found if row["error"] is not None]
    assert "cannot be read as a video" in bad["error"]
    assert all(value is None for name, value in bad.items() if name not in ("clip", "error"))
    assert json.loads(parquet.read_schema(config.out / "part-000000.parquet").metadata[b"saccade.classes"]) == [
        "a",
        "b",
        "c",
    ]


def test_a_second_call_makes_what_is_missing_and_refuses_what_differs(clips, model, tmp_path):
    config = config_of(clips, model, tmp_path / "out")
    made(config)
    before = {path.name: path.read_bytes() for path in config.out.iterdir()}
    (config.out / "part-000001.parquet").unlink()
    assert [one.number for one in made(config)] == [1]
    assert {path.name: path.read_bytes() for path in config.out.iterdir()} == before
    assert made(config) == []
    with pytest.raises(UsageError, match="was made with per_file=2, now 3; give the same, or choose another --out"):
        made(replace(config, per_file=3))
    with pytest.raises(UsageError, match="was made with other clips"):
        made(replace(config, clips=(clips / "0.npz", clips / "1.npz")))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").touch()
    with pytest.raises(UsageError, match=r"holds notes\.txt, but no _predictions\.json"):
        made(replace(config, out=tmp_path / "mine"))


def test_a_clip_that_needs_too_much_memory_is_named_and_costs_itself(clips, model, tmp_path):
    large = tmp_path / "clips"
    large.mkdir()
    np.savez_compressed(large / "b.npz", frames=np.zeros((2, 6000, 6000), np.uint8))
    for name in ("a.npz", "c.npz"):
        write_npz(large / name, 90)
    config = config_of(large, model, tmp_path / "out", memory_gb=0.1)
    made(config)
    errors = {Path(row["clip"]).name: row["error"] for row in rows(config.out)}
    assert errors["a.npz"] is errors["c.npz"] is None
    assert "raise --memory-gb" in errors["b.npz"]


def test_what_a_killed_process_had_begun_to_write_is_removed(clips, model, tmp_path):
    config = config_of(clips, model, tmp_path / "out")
    wanted = {MANIFEST, *(part.name for part in bulk.Call.of(config).parts)}
    (config.out / f".{32 * '0'}.part-").write_bytes(b"half")
    (config.out / ".mine").touch()
    call = bulk.Call.of(config)
    (config.out / f".{32 * '1'}.part-").write_bytes(b"another process writes this")
    list(call.each())
    assert {path.name for path in config.out.iterdir()} == wanted | {".mine", f".{32 * '1'}.part-"}


def test_a_full_disk_keeps_no_half_file(clips, model, tmp_path, monkeypatch):
    config = config_of(clips, model, tmp_path / "out")
    output = bulk.Call.of(config).out
    there = sorted(config.out.iterdir())

    def full(path, content):
        Path(path).write_bytes(content[:10])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(output._system, "pipe_file", full)
    with pytest.raises(OSError, match=r"No space left on device: .*part-000000"):
        output.write(bulk.Call.of(config).parts[0], [])
    assert sorted(config.out.iterdir()) == there


def test_clips_and_files_may_be_remote(clips, model, tmp_path):
    fsspec = pytest.importorskip("fsspec")
    system = fsspec.filesystem("memory")
    for path in clips.iterdir():
        system.pipe_file(f"/bucket/{path.name}", path.read_bytes())
    local, remote = config_of(clips, model, tmp_path / "out"), "memory://bucket"
    made(local)
    # A worker in another process would not see this one's memory.
    config = config_of(remote, model, "memory://found")
    call = bulk.Call.of(config)
    assert [Path(clip).name for part in call.parts for clip in part.clips] == sorted(
        path.name for path in clips.iterdir()
    )
    work = replace(call.work, memory_bytes=None)()  # which would hold for the tests too
    for part in call.left:
        call.out.write(part, [work(clip) for clip in part.clips])
    assert bulk.Call.of(config).left == []
    found = [
        row for name in system.glob("/found/*.parquet") for row in parquet.read_table(system.open(name)).to_pylist()
    ]
    same = ("verdict", "probability", "num_frames")
    assert [[row[name] for name in same] for row in found] == [[row[name] for name in same] for row in rows(local.out)]
    assert found[0]["clip"].startswith("memory://")


def test_an_interrupted_call_writes_no_part_with_gaps(model, tmp_path):
    clips = tmp_path / "clips"
    write_npz(clips / "a.npz", 50, num_frames=30_000)  # the slow one comes first
    for number in range(8):
        write_npz(clips / f"b{number}.npz", 20 * number)
    words = ["predict", clips, "--model", model, "--device", "cpu", "--per-file", "2", "--workers", "2"]
    command = [sys.executable, "-m", "saccade", *map(str, words), "--out", str(tmp_path / "out")]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        while not (tmp_path / "out" / MANIFEST).exists() and process.poll() is None:
            time.sleep(0.01)
        time.sleep(5)  # the short ones are done, the long one is not
        process.send_signal(signal.SIGINT)
        told = process.stderr.read()
    assert process.returncode in (0, 130), told
    if process.returncode:
        assert re.search(r"interrupted: the rows of \d+ of 9 clips are in ", " ".join(told.split())), told
        assert "continue with: saccade predict" in told
    config = config_of(clips, model, tmp_path / "out")
    made(config)
    made(replace(config, out=tmp_path / "whole"))
    assert rows(config.out) == rows(tmp_path / "whole")
    assert [Path(row["clip"]).name for row in rows(config.out)] == ["a.npz", *(f"b{number}.npz" for number in range(8))]


def test_names_stay_as_they_were_given(model, tmp_path, monkeypatch):
    blob = write_npz(tmp_path / "store" / "blob.npz", 40).rename(tmp_path / "store" / "blob")
    clips = tmp_path / "clips"
    clips.mkdir()
    (clips / "link.npz").symlink_to(blob)
    odd = os.fsencode(clips / "odd") + b"\xe9.npz"
    Path(os.fsdecode(odd)).write_bytes(blob.read_bytes())
    monkeypatch.chdir(tmp_path)
    for out in (f"file://{tmp_path}/one", "a::b"):
        made(config_of(Path("clips"), model, out))
    found = rows(tmp_path / "one")
    assert {row["clip"] for row in found} == {f"{clips}/odd\\udce9.npz", f"{clips}/link.npz"}
    assert [row["error"] for row in found] == [None, None]
    assert rows(tmp_path / "a::b") == found


@pytest.mark.parametrize("address", ["nosuch://a/b", "s3://bucket/clips"])
def test_addresses_that_cannot_be_reached_are_told(address, clips, model, monkeypatch):
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(UsageError, match="cannot be reached"):
        made(config_of(clips, model, address))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--engine", "ray"], "--engine ray writes files; name their folder with --out"),
        (["--engine", "spark", "--out", "x"], "no engine is called 'spark'"),
        (["--out", "x", "--csv", "y"], "--out writes Parquet files of last verdicts"),
        (["--out", "x", "--json"], "--out writes Parquet files; leave out --json"),
        (["--out", "x", "--per-file", "0"], "per_file must be at least 1; got 0"),
        (["--out", "x", "--memory-gb", "0"], "memory_gb must be at least 0.1; got 0"),
    ],
)
def test_calls_that_cannot_be_are_refused(words, told, clips, model, capsys):
    assert main(["predict", str(clips), "--model", str(model), *words]) == 2
    assert told in capsys.readouterr().err


def test_the_command_tells_what_it_made(clips, model, tmp_path, capsys):
    words = ["predict", str(clips), "--model", str(model), "--out", str(tmp_path / "out"), "--per-file", "4"]
    assert main([*words, "--workers", "1"]) == 1
    told = capsys.readouterr().err
    assert f"wrote 2 of 2 files to {tmp_path / 'out'}, for 7 of 7 clips" in told
    assert "1 clip could not be classified; the column error says why" in told
    assert main(words) == 1  # the clip is still one that failed
    assert "continuing: 7 of 7 clips are done" in capsys.readouterr().err


# --- On Ray


@pytest.mark.slow
def test_ray_makes_the_same_files_also_if_an_actor_is_killed(clips, model, tmp_path):
    pytest.importorskip("ray", reason="ray is not installed: saccade[ray] has it")
    made(config_of(clips, model, tmp_path / "local"))
    words = [clips, "--model", model, "--device", "cpu", "--engine", "ray", "--out", tmp_path / "ray"]
    command = [sys.executable, "-m", "saccade", "predict", *map(str, words), "--per-file", "2", "--workers", "2"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        killed = False
        end = time.monotonic() + 300
        while process.poll() is None and time.monotonic() < end:
            if not killed and list((tmp_path / "ray").glob("*.parquet")):
                killed = kill_an_actor()
            time.sleep(0.05)
        told = process.stderr.read()
    assert process.returncode == 1, told  # one clip is no video
    assert killed
    assert "1 clip could not be classified" in told
    assert rows(tmp_path / "ray") == rows(tmp_path / "local")


def kill_an_actor():
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            named = (folder / "cmdline").read_text()
        except OSError:
            continue
        if named.startswith("ray::MapWorker"):
            os.kill(int(folder.name), signal.SIGKILL)
            return True
    return False


@pytest.mark.slow
def test_more_memory_than_a_machine_of_the_cluster_has_is_refused(clips, model, tmp_path):
    pytest.importorskip("ray", reason="ray is not installed: saccade[ray] has it")
    words = [clips, "--model", model, "--device", "cpu", "--engine", "ray", "--memory-gb", "90000"]
    command = [sys.executable, "-m", "saccade", "predict", *map(str, words), "--out", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 2, done.stderr
    assert "saccade: an actor is to have 90000 GB (--memory-gb), and the largest machine" in done.stderr
