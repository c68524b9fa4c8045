"""Collections in tar archives: written, read by others, and learned from."""

import importlib.util
import json
import signal
import subprocess
import sys
import tarfile
import time

import pytest
import torch
from tests.own_clips import write_folder, write_npz

from saccade.cli import main
from saccade.data import Folder, archives
from saccade.errors import DataError, Interrupted, UsageError
from saccade.shard import ShardConfig, shard

SMALL = {"shard_mb": 0.02}
READ_BY_OTHERS = """
import hashlib, json, sys, webdataset
print(json.dumps([
    {"url": s["__url__"], "key": s["__key__"], "json": s["json"], "sha256": hashlib.sha256(s["mp4"]).hexdigest()}
    for s in webdataset.WebDataset(sys.argv[1:], shardshuffle=False).decode()
]))
"""


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("own") / "clips", per_class=12)


@pytest.fixture(scope="module")
def sharded(clips, tmp_path_factory):
    out = tmp_path_factory.mktemp("shards") / "out"
    return out, shard(ShardConfig(clips, out, group="_([0-9]+)_", split_seed=3, **SMALL))


def content(out):
    return {path.name: path.read_bytes() for path in sorted(out.glob("[!.]*"))}


def test_archives_hold_each_clip_once_with_its_split(clips, sharded):
    out, written = sharded
    folder, again = Folder(clips, group="_([0-9]+)_", seed=3), Folder(out / "*.tar")
    assert len(written.archives) >= 4
    assert all(path.stat().st_size < 60_000 for path in written.archives)
    for split in ("train", "validation", "test"):
        one, other = folder.of_split(split), again.of_split(split)
        assert written.num_clips[split] == len(one) == len(other) > 0
        assert {(c.digest, c.classes, c.group) for c in one} == {(c.digest, c.classes, c.group) for c in other}
    assert again.labels == folder.labels
    assert again.frame_format == folder.frame_format
    of = {clip.digest: index for index, clip in enumerate(folder.of_split("test"))}
    for index, clip in enumerate(again.of_split("test")):
        assert torch.equal(again.clips("test").frames[index], folder.clips("test").frames[of[clip.digest]])


def test_the_folder_of_archives_names_them_too(sharded):
    out, _ = sharded
    assert [clip.name for clip in Folder(out).files] == [clip.name for clip in Folder(out / "*.tar").files]
    assert [path.name for path in archives.named_by(out / "test-*.tar")] == ["test-000000.tar"]


def test_webdataset_reads_them(sharded):
    if importlib.util.find_spec("webdataset") is None:
        pytest.skip("webdataset is not installed: saccade[dev] has it")
    out, written = sharded
    command = [sys.executable, "-c", READ_BY_OTHERS, *map(str, written.archives)]  # it leaves files open
    samples = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    folder = Folder(out)
    assert len(samples) == len(folder.files)
    by_name = {f"{clip.path.parent.name}/{clip.path.stem}": clip for clip in folder.files}
    for sample in samples:
        clip = by_name[f"{sample['url'].rpartition('/')[2]}/{sample['key']}"]
        assert (sample["json"]["class"], sample["sha256"]) == (clip.classes[0], clip.digest)


def test_the_same_call_gives_the_same_bytes_and_writes_what_is_missing(clips, sharded, tmp_path):
    out, written = sharded
    config = ShardConfig(clips, tmp_path / "again", group="_([0-9]+)_", split_seed=3, **SMALL)
    shard(config)
    before = content(tmp_path / "again")
    assert before == content(out)
    (tmp_path / "again" / written.archives[1].name).unlink()
    (tmp_path / "again" / ".train-000001.tar.part-x").write_bytes(b"left by a killed process")
    assert shard(config).num_before == len(written.archives) - 1
    assert content(tmp_path / "again") == before
    with pytest.raises(UsageError, match="holds archives of other clips or options; choose another --out"):
        shard(ShardConfig(clips, tmp_path / "again", split_seed=4, **SMALL))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").touch()
    with pytest.raises(UsageError, match=r"holds mine\.txt, but no shards\.json"):
        shard(ShardConfig(clips, tmp_path / "other"))


def test_broken_clips_are_left_out_and_named(tmp_path, capsys):
    root = write_folder(tmp_path / "clips", per_class=5)
    (root / "down" / "bad.mp4").write_bytes(b"no video")
    assert main(["shard", "--data", str(root), "--out", str(tmp_path / "out")]) == 0
    told = capsys.readouterr().err
    assert "left out: down/bad.mp4: " in told
    assert "wrote 3 archives" in told
    assert len(Folder(tmp_path / "out").files) == 10


def test_what_is_missing_or_hidden_is_told_or_left_out(clips, tmp_path):
    out = tmp_path / "out"
    written = shard(ShardConfig(clips, out, **SMALL))
    num = len(Folder(out).files)
    (out / ".train-000000.part-x.tar").write_bytes(b"of a call that runs")
    (out / ".hidden").mkdir()
    assert len(Folder(out).files) == len(Folder(out / "*.tar").files) == num
    train = next(path for path in written.archives if path.name.startswith("train"))
    held = train.read_bytes()
    train.unlink()
    with pytest.raises(DataError, match=r"train-000000\.tar is missing, which shards\.json names"):
        _ = Folder(out / "*.tar").files
    assert archives.rows(out / "test-*.tar")
    shorter = tmp_path / "shorter.tar"
    with tarfile.open(shorter, "w") as fewer, tarfile.open(written.archives[-1]) as other:
        for member in other.getmembers()[:2]:
            fewer.addfile(member, other.extractfile(member))
    train.write_bytes(shorter.read_bytes())
    with pytest.raises(DataError, match=r"holds 1 clips, shards\.json says"):
        _ = Folder(out / "*.tar").files
    train.write_bytes(held)
    assert len(Folder(out).files) == num


def test_clips_without_an_ending_are_written_with_one(clips, tmp_path):
    files = sorted(clips.rglob("*.mp4"))
    rows = ["path,class"]
    for number, path in enumerate(files):
        (tmp_path / f"clip{number}").write_bytes(path.read_bytes())
        rows.append(f"clip{number},{path.relative_to(clips).parts[0]}")
    (tmp_path / "clips.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    shard(ShardConfig(tmp_path / "clips.csv", tmp_path / "out"))
    assert len(Folder(tmp_path / "out").files) == len(files)


def test_training_and_evaluation_read_archives_in_place(sharded, tmp_path, capsys):
    out, _ = sharded
    run = tmp_path / "run"
    words = ["--trunk", "small", "--steps", "2", "--batch-size", "2", "--precision", "float32"]
    assert main(["train", "--data", str(out / "*.tar"), *words, "--out", str(run)]) == 0
    assert main(["evaluate", "--model", str(run)]) == 0
    assert main(["train", "--resume", "--out", str(run)]) == 0
    assert "is finished" in capsys.readouterr().err


def test_a_killed_call_leaves_whole_archives_and_is_continued(clips, sharded, tmp_path):
    out = tmp_path / "out"
    words = ["shard", "--data", clips, "--out", out, "--group", "_([0-9]+)_", "--split-seed", 3, "--shard-mb", 0.02]
    command = [sys.executable, "-m", "saccade", *map(str, words)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while not list(out.glob("*.tar")) and process.poll() is None:
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
    done = {name: held for name, held in content(out).items() if name.endswith(".tar")}
    assert done == {name: held for name, held in content(sharded[0]).items() if name in done}
    shard(ShardConfig(clips, out, group="_([0-9]+)_", split_seed=3, **SMALL))
    assert content(out) == content(sharded[0])
    assert not list(out.glob(".*part*"))


def test_an_interrupted_call_says_what_is_written_and_how_to_continue(clips, sharded, tmp_path):
    out = tmp_path / "out"

    def begin(stage):
        def counted(done, total):
            if stage == "clips written" and done:
                raise KeyboardInterrupt

        return counted

    with pytest.raises(Interrupted) as told:
        shard(ShardConfig(clips, out, group="_([0-9]+)_", split_seed=3, **SMALL), begin=begin)
    (written,) = out.glob("*.tar")
    with tarfile.open(written) as archive:
        num = sum(name.endswith(".mp4") for name in archive.getnames())
    assert str(told.value) == f"{num} of 24 clips are in archives in {out}"
    shard(ShardConfig(clips, out, group="_([0-9]+)_", split_seed=3, **SMALL))
    assert content(out) == content(sharded[0])


# --- Archives that others wrote


def write_tar(path, contents):
    with tarfile.open(path, "w") as written:
        for name, source in contents.items():
            if isinstance(source, bytes):
                source = write_bytes(path.with_suffix(".member"), source)
            written.add(source, name)
    return path


def write_bytes(path, held):
    path.write_bytes(held)
    return path


@pytest.fixture
def grey(tmp_path):
    return [write_npz(tmp_path / f"{level}.npz", level) for level in range(10, 250, 20)]


def test_classes_of_others_are_read(tmp_path, grey):
    contents = {}
    for number, path in enumerate(grey):
        contents |= {f"a/{number}.npz": path, f"a/{number}.cls": b"%d\n" % (number % 2)}
    folder = Folder(write_tar(tmp_path / "data.tar", contents))
    assert folder.labels.names == ("0", "1")
    assert [clip.classes for clip in folder.files][:2] == [("0",), ("1",)]
    assert folder.facts["data"] == "data.tar"


@pytest.mark.parametrize(
    ("contents", "told"),
    [
        ({"a.txt": b"x"}, "the sample 'a' has no clips"),
        ({"a.npz": "clip"}, "the sample 'a' has no class"),
        ({"a.npz": "clip", "a.json": b"{"}, "the sample 'a' cannot be read"),
        ({"a.npz": "clip", "a.json": b"[1]"}, "the sample 'a' cannot be read"),
        ({"a.npz": "clip", "a.json": b'{"class": null}'}, "the sample 'a' cannot be read"),
        ({"a.npz": "clip", "a.json": b'{"class": {"x": 1}}'}, "the sample 'a' cannot be read"),
        ({"a.npz": "clip", "a.json": b'{"class": "x", "start_s": "soon"}'}, "the sample 'a' cannot be read"),
        ({"a.npz": "clip", "a.json": b'{"class": "x", "split": "rest"}'}, "has the split 'rest'"),
        ({"a.npz": "clip", "a.mp4": b"x", "a.cls": b"1"}, "the sample 'a' has 2 clips"),
        ({}, "holds no samples"),
        (
            {"a.npz": "clip", "a.json": b'{"class": "x", "split": "test"}', "b.npz": "clip", "b.cls": b"y"},
            "names its split",
        ),
    ],
)
def test_what_is_no_sample_is_told(contents, told, tmp_path, grey):
    contents = {name: grey[0] if held == "clip" else held for name, held in contents.items()}
    with pytest.raises(DataError, match=told):
        _ = Folder(write_tar(tmp_path / "data.tar", contents)).files


def test_archives_that_are_missing_are_told(tmp_path):
    with pytest.raises(DataError, match=r"there is no archive at .*give a pattern such as 'shards/"):
        _ = Folder(tmp_path / "*.tar").files
    with pytest.raises(UsageError, match="shard_mb must be above 0; got 0"):
        ShardConfig(tmp_path, tmp_path, shard_mb=0)
