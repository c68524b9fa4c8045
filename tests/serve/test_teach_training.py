"""Trainings that pages start: one at a time, found again, and then the new model beside the one before."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from saccade import files
from saccade.errors import UsageError
from saccade.labels import Labels
from saccade.serve import training

from .conftest import RGB, write_checkpoint
from .talk import Page
from .test_teach import Lessons

linux = pytest.mark.skipif(sys.platform != "linux", reason="processes are listed in /proc only on Linux")
ENDED = {"classes": ["none", "wave"], "right": 7, "tested": 8, "by_session": False, "stream": None, "seconds": 3}


@pytest.fixture
def folder(tmp_path):
    """Make a folder with enough clips, by their names, for a training; what is in them is no video."""
    for name in ("none", "wave"):
        (tmp_path / "clips" / name).mkdir(parents=True)
        for number in range(3):
            (tmp_path / "clips" / name / f"{name}_r20261129-180500_{number:02}.mp4").write_text(
                f"no video {name} {number}"
            )
    return tmp_path / "clips"


def write_run(folder, number, *rows, classes=None):
    """Write what a training leaves: its log, and its model if classes are given."""
    run = folder.with_name("clips-models") / f"model-{number}"
    run.mkdir(parents=True)
    if classes is not None:
        own = {"labels": Labels(classes), "frame_format": RGB, "input": "both"}
        write_checkpoint(run / training.CHECKPOINT, "stn-lstm", **own)
    (run / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return run


def wait_for(found, seconds=120):
    end = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < end
        time.sleep(0.1)
    return value


def processes_of(folder):
    """Return the numbers of the training processes on a folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it has ended meanwhile
            words = path.read_bytes().split(b"\0")
            found += [int(path.parent.name)] * (b"saccade.serve.training_process" in words and bytes(folder) in words)
    return found


def test_nothing_is_known_before_the_first_training(folder):
    trainings = training.Trainings(folder)
    assert (trainings.latest(), trainings.finished(), trainings.is_running()) == (None, [], False)
    assert not trainings.runs.exists()


def test_the_training_of_an_earlier_server_is_found(folder):
    run = write_run(folder, 2, {"stage": "features", "done": 3, "total": 24}, {"said": "left out: a.mp4"})
    write_run(folder, 1, {"ended": ENDED}, classes=("none", "wave"))
    with files.locked(run.parent / training.LOCK):
        latest = training.Trainings(folder).latest()
        assert (latest.name, latest.running, latest.stage, latest.done, latest.total) == (
            "model-2",
            True,
            "features",
            3,
            24,
        )
        assert latest.said == ("left out: a.mp4",)
    assert training.Trainings(folder).is_running()  # perhaps it has just begun
    long_ago = time.time() - 120
    os.utime(run / "log.jsonl", (long_ago, long_ago))
    stopped = training.Trainings(folder).latest()
    assert not stopped.running
    assert stopped.error == "the training was stopped before its end; train again"
    later = time.time() + 3600  # the clock was set back
    os.utime(run / "log.jsonl", (later, later))
    assert not training.Trainings(folder).latest().running
    assert [one.name for one in training.Trainings(folder).finished()] == ["model-1"]


def test_runs_are_in_the_order_of_their_numbers(folder):
    for number in (9, 10):
        write_run(folder, number, {"ended": ENDED}, classes=("none", "wave"))
    (folder.with_name("clips-models") / "model-of-mine").mkdir()
    assert [one.name for one in training.Trainings(folder).finished()] == ["model-9", "model-10"]


def test_a_log_that_breaks_off_is_read_as_far_as_it_goes(folder):
    run = write_run(folder, 1, {"stage": "features", "done": 3, "total": 24})
    with (run / "log.jsonl").open("ab") as log:
        log.write(b'[1]\n"x"\n\xff\n{"stage": "simple cl')
    with files.locked(run.parent / training.LOCK):
        assert training.Trainings(folder).latest().done == 3


def test_one_training_at_a_time(make_server, folder):
    lessons = Lessons(make_server("--port", 0, "--teach", folder), folder)
    lessons.server.wait_for("(no model yet)")
    run = write_run(folder, 1, {"stage": "features", "done": 3, "total": 24})
    with files.locked(run.parent / training.LOCK):
        status, answer = lessons.ask("train")
        assert (status, answer["message"]) == (409, "a training is under way already; wait until it has ended")
        status, answer = lessons.ask("delete", name="wave")
        assert (status, answer["message"]) == (409, "a training reads the clips; delete after it has ended")
        assert lessons.state()["training"]["running"]
    assert len(lessons.clips("wave")) == 3
    os.utime(run / "log.jsonl", (1, 1))
    # Now the second one begins, goes on without any page, and fails: these clips are none.
    assert lessons.ask("train")[1]["training"]["name"] == "model-2"
    assert lessons.ask("train")[0] == 409
    ended = wait_for(lambda: (told := lessons.state()["training"])["error"] and told)
    assert not ended["running"]
    assert "\n" not in ended["error"]
    assert "no clip" in ended["error"]
    assert str(folder.parent) not in ended["error"]
    assert len(lessons.clips("wave")) == 3
    assert lessons.ask("train")[1]["training"]["name"] == "model-3"  # and can be tried again


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_training_outlives_the_server(make_server, folder, number):
    lessons = Lessons(make_server("--port", 0, "--teach", folder), folder)
    lessons.server.wait_for("(no model yet)")
    assert lessons.ask("train")[0] == 200
    lessons.server.process.send_signal(number)
    lessons.server.process.wait(60)
    trainings = training.Trainings(folder)
    ended = wait_for(lambda: (latest := trainings.latest()).error and latest)
    assert "stopped" not in ended.error  # it came to its end, which is an error about these clips


@linux
def test_of_several_servers_one_trains(folder):
    def started(trainings):
        try:
            trainings.start()
        except UsageError as error:
            return str(error)

    several = [training.Trainings(folder) for _ in range(4)]
    with ThreadPoolExecutor(len(several)) as pool:
        told = list(pool.map(started, several))
    assert sorted(told, key=str) == [None] + 3 * ["a training is under way already; wait until it has ended"]
    assert [path.name for path in several[0].runs.glob("model-*")] == ["model-1"]
    wait_for(lambda: several[0].latest().error and not processes_of(folder))
    assert not any(one.latest().running for one in several)


@linux
def test_a_killed_training_is_told_by_later_servers_too(folder):
    trainings = training.Trainings(folder)
    with files.locked(trainings.runs / training.LOCK):  # so that it waits
        trainings.start()
        assert trainings.latest().running
        (pid,) = processes_of(folder)
        os.kill(pid, signal.SIGKILL)
        ended = wait_for(lambda: (latest := trainings.latest()).error and latest)
    told = "the training was ended by the signal SIGKILL (perhaps for lack of memory); train again"
    assert (ended.error, training.Trainings(folder).latest().error) == (told, told)


@linux
def test_an_ended_training_does_not_remain_in_the_system(folder):
    trainings = training.Trainings(folder)
    trainings.start()
    (pid,) = processes_of(folder)
    wait_for(lambda: not Path(f"/proc/{pid}").exists())  # without a look at it


def test_a_training_that_cannot_begin_leaves_no_run(folder, monkeypatch):
    trainings = training.Trainings(folder)
    monkeypatch.setattr(sys, "executable", str(folder / "missing"))
    with pytest.raises(OSError, match="missing"):
        trainings.start()
    assert (trainings.latest(), list(trainings.runs.glob("model-*"))) == (None, [])


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is on Linux")
def test_a_training_whose_log_has_no_room_ends_without_a_traceback(folder):
    run = write_run(folder, 1)
    command = [sys.executable, "-m", "saccade.serve.training_process", str(folder), str(run)]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (1, "")


def test_the_new_model_is_shown_beside_the_one_before(make_server, folder):
    server = make_server("--port", 0, "--teach", folder)
    lessons = Lessons(server, folder)
    server.wait_for("(no model yet)")
    with Page(server) as page:
        assert page.take_until("hello")["models"] == []
        write_run(folder, 1, {"ended": ENDED}, classes=("none", "wave"))
        page.take_until("replaced")
    with Page(server) as page:
        (model,) = page.take_until("hello")["models"]
        assert (model["name"], model["classes"]) == ("stn-lstm", ["none", "wave"])
        write_run(folder, 2, {"ended": ENDED | {"classes": ["clap", "none"]}}, classes=("clap", "none"))
        page.take_until("replaced")
    with Page(server) as page:
        models = page.take_until("hello")["models"]
        assert [model["name"] for model in models] == ["stn-lstm (model-2)", "stn-lstm (model-1)"]
        page.say("show", models=["stn-lstm (model-2)"], saliency=[], clean=False)
        page.socket.send(bytes([64, 96, 0, 0, 0, 0]) + bytes(64 * 96 * 3))
        assert page.take_until("frame")["models"].keys() == {"stn-lstm (model-2)"}
    told = "the model does not know wave, recorded since; it still names clap, deleted since. Train again"
    assert lessons.state()["news"] == told
    write_run(folder, 3, {"error": "no clip can be read"})
    assert lessons.state()["news"] == told  # the model that shows is the one before
    assert server.interrupt() == 0
    again = make_server("--port", 0, "--teach", folder)
    again.wait_for(r"models loaded: (stn-lstm \(model-2\), stn-lstm \(model-1\))")


def test_a_model_that_needs_other_frames_is_not_beside(make_server, folder, own_models, untrained):
    write_run(folder, 1, {"ended": ENDED}, classes=("none", "wave"))
    for model, shown in ((own_models[0], 2), (untrained[0], 1)):
        server = make_server("--port", 0, "--teach", folder, "--model", model)
        server.wait_for("models (loaded)")
        with Page(server) as page:
            assert len(page.take_until("hello")["models"]) == shown
        problem = Lessons(server, folder).state()["problem"]
        assert (problem is None) == (shown == 2)
    assert problem.startswith("the model before is not shown: ")


def test_a_model_that_cannot_be_read_leaves_the_one_before(make_server, folder):
    write_run(folder, 1, {"ended": ENDED}, classes=("none", "wave"))
    server = make_server("--port", 0, "--teach", folder)
    server.wait_for("models (loaded)")
    run = write_run(folder, 2)
    (run / training.CHECKPOINT).write_bytes(b"no checkpoint")
    (run / "log.jsonl").write_text(json.dumps({"ended": ENDED}) + "\n")
    problem = wait_for(lambda: Lessons(server, folder).state()["problem"])
    assert problem.startswith("the new model cannot be shown: ")
    with Page(server) as page:
        assert len(page.take_until("hello")["models"]) == 1
