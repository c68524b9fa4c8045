"""Folders that several processes want, and what is left of processes that were killed."""

import json
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from saccade import checkpoint, files, run_folder
from saccade.cli import main
from saccade.data.digits import DigitsConfig
from saccade.errors import UsageError
from saccade.generate import GenerateConfig, generate
from saccade.train import TrainConfig, train

TINY = ("--digits", "uci", "--num-frames", "4", "--short-fraction", "0", "--batch-size", "2", "--precision", "float32")


@contextmanager
def running(*words, until, deadline_s=120):
    """Run `saccade` in a process of its own until something is there; kill it at the end."""
    command = [sys.executable, "-m", "saccade.cli", *map(str, words)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        try:
            end = time.monotonic() + deadline_s
            while not until():
                assert process.poll() is None, process.stderr.read().decode()
                assert time.monotonic() < end
                time.sleep(0.02)
            yield process
        finally:
            process.kill()


def test_a_live_run_is_not_joined(tmp_path, capsys):
    out = tmp_path / "run"
    with running(
        "train", *TINY, "--steps", 100_000, "--out", out, until=lambda: (out / "run.json").exists()
    ) as process:
        before = (out / "run.json").read_bytes()
        for words, told in ((["--resume"], "another process is writing to"), ([], "already holds a run")):
            assert main(["train", *TINY, "--steps", "100000", "--out", str(out), *words]) == 2
            err = capsys.readouterr().err
            assert told in err
            assert str(out) in err
        assert process.poll() is None
        assert (out / "run.json").read_bytes() == before
    # Whoever is killed holds no lock.
    with run_folder.held(out):
        pass


def test_a_second_generation_leaves_the_files_of_the_first_alone(tmp_path):
    out = tmp_path / "clips"
    words = ("generate", "--digits", "uci", "--num-clips", 3000, "--num-frames", 20, "--format", "npz", "--out", out)
    with running(*words, until=lambda: len(list(out.glob("*/0*.npz"))) > 20) as process:
        with pytest.raises(UsageError, match="another process is writing to"):
            generate(GenerateConfig(out, format="npz"), DigitsConfig("uci", num_clips=3000, num_frames=20))
        num = len(list(out.glob("*/0*.npz")))
        end = time.monotonic() + 60
        while len(list(out.glob("*/0*.npz"))) <= num and time.monotonic() < end:
            assert process.poll() is None, process.stderr.read().decode()
        assert len(list(out.glob("*/0*.npz"))) > num


def test_those_who_may_wait_get_the_folder_next(tmp_path):
    script = (
        "import sys, time; from pathlib import Path; from saccade import run_folder\n"
        "with run_folder.held(Path(sys.argv[1])):\n"
        "    (Path(sys.argv[1]) / 'begun').touch(); time.sleep(1); (Path(sys.argv[1]) / 'done').touch()"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(tmp_path)]):
        while not (tmp_path / "begun").exists():
            time.sleep(0.01)
        with run_folder.held(tmp_path, wait=True):
            assert (tmp_path / "done").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["begun", "done"]  # no lock stays


def test_a_folder_that_got_nothing_does_not_stay(tmp_path):
    with pytest.raises(UsageError, match="unknown"), run_folder.held(tmp_path / "new"):
        raise UsageError("unknown")
    assert not (tmp_path / "new").exists()


def test_a_run_that_was_killed_before_it_described_itself_can_be_resumed(tmp_path, capsys):
    config, digits = TrainConfig(steps=3, batch_size=2, precision="float32"), DigitsConfig("uci", num_frames=4)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    train(config, digits, whole)
    # The first checkpoint is written before `run.json`: what a process that was killed between them leaves.
    with running(
        *("train", *TINY, "--steps", 3, "--short-fraction", 0.5, "--labels", "pair", "--frames-per-setting", 5),
        *("--out", killed),
        until=lambda: (killed / checkpoint.NAME).exists(),
    ):
        pass
    (killed / "run.json").unlink(missing_ok=True)
    (killed / "log.jsonl").unlink(missing_ok=True)
    with pytest.raises(UsageError, match="already holds a run; add --resume to continue it"):
        train(config, digits, killed)
    assert main(["train", "--resume", "--out", str(killed)]) == 0
    described = json.loads((killed / "run.json").read_text())
    assert (described["finished"], described["steps"]) == (True, 3)
    tensors = [checkpoint.load(folder)[0].state_dict() for folder in (whole, killed)]
    assert all((tensors[0][name] == tensors[1][name]).all() for name in tensors[0])


def test_what_a_kill_leaves_half_written_is_removed_by_the_next_call(tmp_path):
    script = (
        "import os, signal, sys; from pathlib import Path; from saccade import files\n"
        "with files.whole(Path(sys.argv[1])) as temporary:\n"
        "    temporary.write_bytes(bytes(1_400_000)); os.kill(os.getpid(), signal.SIGKILL)"
    )
    out = tmp_path / "run"
    train(TrainConfig(steps=2, batch_size=2, precision="float32"), DigitsConfig("uci", num_frames=4), out)
    for name in (checkpoint.NAME, "run.json", "log.jsonl"):
        ended = subprocess.run([sys.executable, "-c", script, str(out / name)], check=False)
        assert ended.returncode == -signal.SIGKILL
    (out / ".mine-settings.json").touch()
    assert sum(path.stat().st_size > 1_000_000 for path in out.glob(".*")) == 3
    assert main(["train", "--resume", "--out", str(out)]) == 0
    assert [path.name for path in out.glob(".*")] == [".mine-settings.json"]


def test_the_error_of_a_full_disk_names_the_file(tmp_path):
    path = tmp_path / "a.txt"

    def write(target):
        with files.whole(path), target.open("wb", buffering=0) as full:
            full.write(b"x")

    with pytest.raises(OSError, match=r"No space left on device: .*a\.txt'$"):
        write(Path("/dev/full"))
    assert not list(tmp_path.iterdir())
