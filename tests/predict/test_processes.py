"""Jobs in several processes. The jobs are expressions that each process evaluates."""

import os
import signal
from functools import partial

import pytest

from saccade.errors import DataError
from saccade.predict.processes import in_order

from ..limits import open_files_limited

EVALUATE = partial(partial, eval)  # `prepare`: returns a function of a job
PID = "__import__('os').getpid()"
DIE = "__import__('os').kill(__import__('os').getpid(), 9)"


def lost(job, why):
    return f"lost: {why}"


def until(flag, pause_s):
    """Return an expression that waits for a file, and then for a pause."""
    there = f"lambda: __import__('os').path.exists({str(flag)!r})"
    return f"[__import__('time').sleep({pause_s}) for _ in iter({there}, True)]"


def run(jobs, num_processes=2, prepare=EVALUATE, lost=lost):
    return in_order(prepare, jobs, num_processes=num_processes, lost=lost)


def test_results_come_in_the_order_of_the_jobs(tmp_path):
    # The first job ends only when the last has been done.
    flag = tmp_path / "done"
    jobs = [
        f"len({until(flag, 0.01)}) * 0",
        *(f"{number} * 10" for number in range(1, 9)),
        f"open({str(flag)!r}, 'w').close() or 90",
    ]
    assert list(run(jobs)) == list(range(0, 100, 10))


def test_a_process_that_dies_costs_its_job_only():
    jobs = ["1", DIE, "2", "__import__('os')._exit(3)", "3", DIE, DIE]
    found = [1, "lost: SIGKILL", 2, "lost: exit status 3", 3, "lost: SIGKILL", "lost: SIGKILL"]
    assert list(run(jobs)) == found
    assert list(run(jobs, num_processes=1)) == found


def test_each_process_prepares_once_and_has_one_thread():
    jobs = [f"({PID}, __import__('os').environ['OMP_NUM_THREADS'])"] * 20
    pids = {pid for pid, threads in run(jobs) if threads == "1"}
    assert 1 <= len(pids) <= 2
    assert os.getpid() not in pids


def test_an_error_of_a_job_is_raised_with_the_place_where_it_arose():
    results = run(["1", "1 / 0", "3"], num_processes=1)
    assert next(results) == 1
    with pytest.raises(ZeroDivisionError) as caught:
        next(results)
    assert "in serve" in "".join(caught.value.__notes__)
    with pytest.raises(ZeroDivisionError):
        list(run(["1"], prepare=partial(divmod, 1, 0)))


def test_processes_that_cannot_start_are_told():
    with pytest.raises(DataError, match=r"no process for the work could start \(exit status 4\).*--workers 1"):
        list(run(["1", "2"], prepare=partial(os._exit, 4)))


def test_where_no_more_files_may_be_open_fewer_processes_work():
    with open_files_limited(5):  # of the two that each process needs in this one, and while it starts
        assert list(run(["1", "2", "3"])) == [1, 2, 3]
    with open_files_limited(0), pytest.raises(DataError, match=r"could start \(Too many open files\).*--workers 1"):
        list(run(["1", "2"]))


def test_after_ctrl_c_what_is_done_is_kept_and_the_processes_end(tmp_path):
    # The second job is lost before the first one interrupts this process.
    pids, flag = tmp_path / "pid", tmp_path / "flag"
    interrupt = f"__import__('os').kill({os.getpid()}, {int(signal.SIGINT)})"
    told = f"open({str(pids)!r}, 'w').write(str({PID}))"
    endless = f"[{told}, {until(flag, 0.3)}, {interrupt}, __import__('time').sleep(600)]"
    results = run([endless, DIE, "3"], lost=lambda job, why: flag.touch() or "kept")
    kept = []
    with pytest.raises(KeyboardInterrupt):
        kept.extend(results)
    assert kept[0] == "kept"
    with pytest.raises(ProcessLookupError):
        os.kill(int(pids.read_text()), 0)


def test_processes_end_when_their_results_are_no_longer_wanted(tmp_path):
    results = run([PID, "__import__('time').sleep(600)", "3"])
    pid = next(results)
    results.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
