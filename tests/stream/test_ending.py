"""How `saccade stream` ends: by a signal, by whoever reads its lines, and by a full disk."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from saccade import checkpoint
from saccade.checkpoint import Header
from saccade.cli import main
from saccade.clips import FrameFormat
from saccade.labels import Labels

from .sources import encoded


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    """Return a command that follows half a minute of one event."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "clip.ts").write_bytes(encoded("mpegts", num_frames=600))
    labels = Labels(("none", "wave"), none="none")
    header = Header("lenet-lstm", labels=labels, frame_format=FrameFormat(1, (32, 32), fps=10))
    model = header.create_model()
    with torch.no_grad():
        model.head.weight.zero_()
        model.head.bias.copy_(torch.tensor([0.0, 4.0]))
    checkpoint.save(folder / checkpoint.NAME, model, header)
    return [sys.executable, "-m", "saccade.cli", "stream", str(folder / "clip.ts"), "--model", str(folder)]


def test_sigterm_ends_it_and_the_event_that_lasts(command):
    """As service managers and containers send it."""
    words = [*command, "--realtime", "--events"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert json.loads(process.stdout.readline())["event"] == "begins"
        process.terminate()
        left, errors = process.communicate()
    (ended,) = left.splitlines()
    assert json.loads(ended)["event"] == "ended"
    assert (process.returncode, errors) == (-signal.SIGTERM, "")


TWICE = """
import signal
from saccade.stream.ending import terminated_like_interrupted
with terminated_like_interrupted():
    try:
        signal.raise_signal(signal.SIGTERM)
    except KeyboardInterrupt:
        signal.raise_signal(signal.SIGTERM)
        print("told", flush=True)
"""


def test_a_sigterm_that_comes_twice_lets_it_end_what_lasts():
    """As `timeout` sends it: to the process, and then to its group."""
    done = subprocess.run([sys.executable, "-c", TWICE], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGTERM, "told\n", "")


def test_a_reader_that_has_enough_ends_it_without_a_word(command):
    """As `head -1`."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert json.loads(process.stdout.readline())["class"] == "wave"
        process.stdout.close()
        assert process.wait() == 1
        assert process.stderr.read() == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a full disk is played by /dev/full")
def test_a_full_disk_is_told_in_one_line(command):
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "saccade: standard output: No space left on device\n"


@pytest.mark.parametrize(
    "words",
    [
        ["rtsp://me:secret@127.0.0.1:9/a", "rtsp://me:secret@127.0.0.1:9/b"],
        ["rtsp://me:secret@127.0.0.1:9/a", "--port", "rtsp://me:secret@127.0.0.1:9/a"],
        ["--source=rtsp://me:secret@127.0.0.1:9/a"],
        ["clip.mp4", "--source", "rtsp://me:secret@127.0.0.1:9/a"],
        ["clip.mp4", "rtsp://me:secret@127.0.0.1:9/a"],
        ["rtsp//me:secret@127.0.0.1:9/a"],
        ["rtsp://me:secret@127.0.0.1:9/a"],
        ["rtsp://me:secret@127.0.0.1:9/a", "--debug"],
    ],
)
def test_no_message_of_the_command_shows_a_password(capsys, words):
    try:
        status = main(["stream", *words, "--model", "lenet-lstm"])
    except SystemExit as ended:  # of the parser
        status = ended.code
    assert status in (1, 2)
    found = capsys.readouterr()
    assert "secret" not in found.out + found.err
    assert found.err
