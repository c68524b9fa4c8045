"""`saccade train` in processes that torchrun starts: what a user has at the end, also if a process fails."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest
from tests.own_clips import write_folder

from saccade import checkpoint, run_folder
from saccade.cli import main, processes
from saccade.data.digits import TRAINING
from saccade.evaluate import read_rows
from saccade.train import TrainConfig
from saccade.train.end_to_end import start
from saccade.train.trainer import save

TINY = ("--digits", "uci", "--num-frames", "4", "--short-fraction", "0", "--batch-size", "5", "--precision", "float32")


@contextmanager
def launched(*words, num=2, restarts=0):
    """Start `saccade` in several processes; kill what is left of them at the end."""
    launcher = ["torch.distributed.run", "--nproc-per-node", num, "--max-restarts", restarts, "-m", "saccade"]
    command = [sys.executable, "-m", *map(str, (*launcher, *words))]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    ) as agent:
        started = []
        try:
            yield agent, started
        finally:
            for number in {*workers(agent), *started}:
                end(number, signal.SIGKILL)
            agent.kill()


def workers(agent):
    """Return the processes that torchrun has started, in the order of their ranks."""
    path = Path(f"/proc/{agent.pid}/task/{agent.pid}/children")
    numbers = [int(number) for number in path.read_text().split()] if path.exists() else []
    return sorted(number for number in numbers if "saccade" in Path(f"/proc/{number}/cmdline").read_text())


def end(number, how):
    with suppress(ProcessLookupError):
        os.kill(number, how)


def wait(until, deadline_s=120):
    stop = time.monotonic() + deadline_s
    while not until():
        assert time.monotonic() < stop
        time.sleep(0.05)


def trained(*words, num=2):
    with launched("train", *words, num=num) as (agent, _):
        told, _ = agent.communicate(timeout=300)
    assert agent.returncode == 0, told
    return told


def steps(out):
    return [row["step"] for row in run_folder.read_log(out / "log.jsonl")]


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A training in two processes, of which the second got SIGTERM."""
    out = tmp_path_factory.mktemp("stopped") / "run"
    with launched("train", *TINY, "--steps", 100_000, "--out", out) as (agent, _):
        wait(lambda: steps(out) and len(workers(agent)) == 2)
        end(workers(agent)[1], signal.SIGTERM)
        told, _ = agent.communicate(timeout=60)
    return out, agent.returncode, told


def test_a_signal_to_one_process_ends_all_with_a_checkpoint(stopped):
    out, status, told = stopped
    assert status != 0
    step = checkpoint.read_header(out).training["step"]
    assert 0 < step < 100_000
    assert f"interrupted: saved at step {step} of 100000" in told
    assert told.count("interrupted: saved") == 1  # one process tells
    assert "continue with: torchrun --nproc-per-node 2 -m saccade train --digits uci" in told


@pytest.mark.parametrize("num", [1, 3])
def test_a_run_continues_in_another_number_of_processes(num, stopped, tmp_path):
    out = tmp_path / "run"
    out.mkdir()
    for path in stopped[0].iterdir():
        if path.is_file():
            (out / path.name).write_bytes(path.read_bytes())
    # The schedule is that of the run, so that a few steps more are taken by hand.
    header = json.loads((out / "checkpoint.json").read_text())
    step = header["training"]["step"]
    assert step > 0
    with launched("train", "--resume", "--out", out, num=num) as (agent, _):
        wait(lambda: steps(out) and steps(out)[-1] > step)
        end(agent.pid, signal.SIGTERM)
        agent.communicate(timeout=60)
    assert checkpoint.read_header(out).training["step"] > step


def test_a_restart_does_not_continue_the_run_of_another_launch(stopped):
    out = stopped[0]
    before = (out / "checkpoint.safetensors").read_bytes()
    with launched("train", *TINY, "--steps", 3, "--out", out, restarts=1) as (agent, _):
        told, _ = agent.communicate(timeout=100)
    assert agent.returncode != 0
    assert (
        told.count("already holds a run; add --resume to continue it") == 2
    )  # at the beginning, and after the restart
    assert (out / "checkpoint.safetensors").read_bytes() == before


def test_own_clips_give_one_run(tmp_path):
    clips, out = write_folder(tmp_path / "clips", per_class=10), tmp_path / "run"
    words = ("--data", clips, "--trunk", "small", "--steps", 6, "--batch-size", 3, "--out", out)
    told = trained(*words)
    assert told.count("wrote ") == 1
    header = checkpoint.read_header(out)
    assert header.training["validation"]["num_clips"] == 4
    assert run_folder.read(out)["finished"]
    # Looked at in two parts or together, by two processes or by one, the clips give the same figures.
    found = header.training["validation"]
    assert main(["evaluate", "--model", str(out), "--split", "validation", "--out", str(tmp_path / "rows.csv")]) == 0
    (row,) = read_rows(tmp_path / "rows.csv")
    assert row["accuracy"] == pytest.approx(found["accuracy"])
    assert row["cross_entropy"] == pytest.approx(found["cross_entropy"], rel=1e-4)


def test_a_killed_process_is_started_again_and_resumes(tmp_path):
    out = tmp_path / "run"
    with launched("train", *TINY, "--steps", 300, "--out", out, restarts=1) as (agent, _):
        wait(lambda: steps(out) and len(workers(agent)) == 2)
        end(workers(agent)[1], signal.SIGKILL)
        told, _ = agent.communicate(timeout=200)
    assert agent.returncode == 0, told
    assert checkpoint.read_header(out).training["step"] == 300
    assert steps(out) == sorted(set(steps(out)))
    assert run_folder.read(out)["finished"]


@pytest.mark.parametrize(("step", "status"), [(0, 0), (1, 2)])
def test_a_process_killed_before_run_json_is_started_again_and_begins(step, status, tmp_path, monkeypatch, capsys):
    # Between the first checkpoint and run.json lies a moment; what it leaves is made here.
    config, data = (
        TrainConfig("lenet-lstm", steps=2, precision="float32", batch_size=5),
        replace(TRAINING, num_frames=4),
    )
    trainer = start(config, replace(data, short_fraction=0.0))
    trainer.num_steps, trainer.step = 2, step
    save(trainer, tmp_path)
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert main(["train", "--model", "lenet-lstm", *TINY, "--steps", "2", "--out", str(tmp_path)]) == status
    assert checkpoint.read_header(tmp_path).training["step"] == (2 if status == 0 else step)
    assert status == 0 or "already holds a run" in capsys.readouterr().err


def test_processes_do_not_outlive_their_launcher(tmp_path):
    out = tmp_path / "run"
    with launched("train", *TINY, "--steps", 100_000, "--out", out) as (agent, started):
        wait(lambda: steps(out) and len(workers(agent)) == 2)
        started += workers(agent)
        agent.kill()
        wait(lambda: not any(Path(f"/proc/{number}").exists() for number in started), deadline_s=30)
    assert checkpoint.read_header(out).training["step"] > 0
    with run_folder.held(out):
        pass


def test_processes_end_if_their_launcher_is_killed_while_they_import(tmp_path):
    # They would wait ten minutes for one another, at an address that is gone.
    with launched("train", *TINY, "--steps", 100_000, "--out", tmp_path / "run") as (agent, started):
        wait(lambda: len(workers(agent)) == 2)
        started += workers(agent)
        agent.kill()
        wait(lambda: not any(Path(f"/proc/{number}").exists() for number in started), deadline_s=60)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("evaluate", "--model", "lenet-lstm"), "saccade evaluate runs in one process; start it without torchrun"),
        (
            ("train", *TINY, "--steps", "1", "--batch-size", "1"),
            "a batch of 1 clips cannot be divided among 2 processes",
        ),
    ],
)
def test_what_cannot_be_divided_is_refused(words, told, tmp_path):
    with launched(*words, "--out", tmp_path / "run") as (agent, _):
        found, _ = agent.communicate(timeout=100)
    assert agent.returncode != 0
    assert told in found


@pytest.mark.parametrize(("rank", "waits"), [("0", 0), ("1", 1)])
def test_the_first_process_tells_before_the_others_end(rank, waits, monkeypatch, capsys):
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", "2")
    waited = []
    monkeypatch.setattr(processes, "_wait", lambda: waited.append("a while"))
    assert main(["evaluate"]) == 2
    assert len(waited) == waits
    # No launcher has ended it meanwhile: then nobody else may know.
    assert "saccade evaluate runs in one process" in capsys.readouterr().err


def test_a_training_without_a_launcher_outlives_the_shell_that_started_it(tmp_path):
    out = tmp_path / "run"
    command = [sys.executable, "-m", "saccade", "train", *TINY, "--steps", "100000", "--out", str(out)]
    with subprocess.Popen(["sh", "-c", '"$@" & echo $!; wait', "sh", *command], stdout=subprocess.PIPE) as shell:
        training = int(shell.stdout.readline())
        try:
            wait(lambda: steps(out))
            shell.kill()
            shell.wait()
            reached = steps(out)[-1]
            wait(lambda: steps(out)[-1] > reached + 1)
        finally:
            end(training, signal.SIGKILL)
