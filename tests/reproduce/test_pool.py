import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest
import torch

from saccade.errors import DataError, Interrupted, UsageError
from saccade.reproduce import pool

WORK = """
import os, signal, time
from saccade.errors import Interrupted, UsageError

def double(job, progress):
    progress({"step": 1, "num_steps": 1, "threads": __import__("torch").get_num_threads()})
    return 2 * job

def refuse_three(job, progress):
    if job == 3:
        raise UsageError("three is refused")
    return until_stopped(job, progress)

def test_or_train(job, progress):
    # Testing holds nothing back, as training does.
    if job == "testing":
        for clips in range(1, 600):
            progress({"clips": clips, "num_clips": 600})
            time.sleep(0.05)
    return train(job, progress)

def train(job, progress):
    from saccade.train.interrupts import held_back
    with held_back() as interrupted:
        for step in range(1, 600):
            time.sleep(0.2)
            progress({"step": step, "num_steps": 600, "pid": os.getpid()})
            if interrupted():
                time.sleep(0.5)
                open(f"{job}.stopped", "w").close()
                raise Interrupted("stopped")

def train_beside_one_that_dies(job, progress):
    open(f"{job}.begun", "w").close()
    if job == "dies":
        while not (os.path.exists("a.begun") and os.path.exists("idle.begun")):
            time.sleep(0.05)
        time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGKILL)
    return None if job == "idle" else train(job, progress)

def until_stopped(job, progress):
    stopped = []
    signal.signal(signal.SIGTERM, lambda *_: stopped.append(1))
    for _ in range(600):
        progress({"step": 1, "num_steps": 2, "pid": os.getpid()})
        if stopped:
            open(f"{job}.stopped", "w").close()
            raise Interrupted("stopped")
        time.sleep(0.05)
"""


@pytest.fixture
def work(tmp_path, monkeypatch):
    """Functions that other processes can import."""
    (tmp_path / "pool_work.py").write_text(WORK)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    sys.modules.pop("pool_work", None)
    import pool_work

    return pool_work


@pytest.mark.parametrize(("num_processes", "threads"), [(1, 1), (2, 3), (4, 2)])
def test_every_job_is_done_with_its_share_of_the_cores_and_its_progress_told_before(
    work, monkeypatch, num_processes, threads
):
    if num_processes > 1:
        monkeypatch.setattr(pool, "num_processors", lambda: 8)
        monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    told, results, order = [], {}, []
    jobs = [5, 6, 7] if num_processes < 4 else [5]
    pool.run_all(
        work.double,
        jobs,
        num_processes=num_processes,
        take=lambda number, row: (told.append((number, row["threads"])), order.append(number)),
        done=lambda number, result: (results.__setitem__(number, result), order.append(-1 - number)),
    )
    assert results == {number: 2 * job for number, job in enumerate(jobs)}
    assert sorted(told) == [(number, threads) for number in range(len(jobs))]
    for number in range(len(jobs)):
        assert order.index(number) < order.index(-1 - number)


def test_an_error_stops_the_other_jobs_and_is_passed_on(work, tmp_path):
    with pytest.raises(UsageError, match="three is refused"):
        pool.run_all(work.refuse_three, [1, 3], num_processes=2, take=lambda *_: None)
    assert (tmp_path / "1.stopped").exists()


def test_sigterm_stops_all_jobs_and_begins_no_more(work, tmp_path):
    pressed = []

    def press(_number, _row):
        if not pressed:
            pressed.append(True)
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(Interrupted, match="saved its state"):
        pool.run_all(work.until_stopped, ["a", "b", "c", "d"], num_processes=2, take=press)
    stopped = {path.stem for path in tmp_path.glob("*.stopped")}
    assert stopped <= {"a", "b"}
    assert stopped


def test_what_is_being_tested_ends_alone_and_lets_trainings_save(work, tmp_path):
    seen = set()

    def press(number, _row):
        seen.add(number)
        if len(seen) == 3:
            seen.add("pressed")
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(Interrupted, match="saved its state"):
        pool.run_all(work.test_or_train, ["testing", "a", "b"], num_processes=3, take=press)
    assert {path.stem for path in tmp_path.glob("*.stopped")} == {"a", "b"}


def test_a_training_between_one_that_was_killed_and_one_that_waits_for_work_saves(work, tmp_path):
    with pytest.raises(DataError, match=r"died without a message: memory ran out \(train fewer at once with --jobs\)"):
        pool.run_all(work.train_beside_one_that_dies, ["dies", "a", "idle"], num_processes=3, take=lambda *_: None)
    assert {path.stem for path in tmp_path.glob("*.stopped")} == {"a"}


def test_nothing_outlives_a_parent_that_was_killed_while_it_began(work, tmp_path):
    script = """
        import multiprocessing, os, signal, threading, time
        import pool_work
        from saccade.reproduce import pool

        def kill():
            while len(multiprocessing.active_children()) < 2:
                time.sleep(0.01)
            print(*(child.pid for child in multiprocessing.active_children()), flush=True)
            os.kill(os.getpid(), signal.SIGKILL)

        if __name__ == "__main__":
            threading.Thread(target=kill).start()
            pool.run_all(pool_work.until_stopped, ["a", "b"], num_processes=2, take=lambda *_: None)
    """
    (tmp_path / "parent.py").write_text(textwrap.dedent(script))
    ended = subprocess.run([sys.executable, "parent.py"], stdout=subprocess.PIPE, text=True, cwd=tmp_path, check=False)
    assert ended.returncode == -signal.SIGKILL
    assert_gone({int(pid) for pid in ended.stdout.split()})


def test_nothing_outlives_a_parent_that_was_killed(work, tmp_path):
    script = """
        import pool_work
        from saccade.reproduce import pool
        if __name__ == "__main__":
            show = lambda number, row: print(int(row["pid"]), flush=True)
            pool.run_all(pool_work.until_stopped, ["a", "b"], num_processes=2, take=show)
    """
    (tmp_path / "parent.py").write_text(textwrap.dedent(script))
    parent = subprocess.Popen([sys.executable, "parent.py"], stdout=subprocess.PIPE, text=True, cwd=tmp_path)
    pids = set()
    while len(pids) < 2:
        pids.add(int(parent.stdout.readline()))
    parent.kill()
    parent.wait()
    parent.stdout.close()
    assert_gone(pids)


def assert_gone(pids):
    assert len(pids) == 2
    deadline = time.monotonic() + 20
    while pids and time.monotonic() < deadline:
        pids = {pid for pid in pids if _runs(pid)}
        time.sleep(0.1)
    assert not pids


def _runs(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
