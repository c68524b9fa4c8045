"""A thread that is shared by what each has had of it."""

import asyncio
import statistics
import time

import pytest

from saccade.serve.turns import Account, Turns, whole


def burn(seconds):
    """Use so much of a processor, however long that takes on a busy machine."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def steps(number, seconds, done):
    for _ in range(number):
        burn(seconds)
        done.append(1)
        yield
    return number


@pytest.fixture
def turns():
    made = Turns("test")
    yield made
    made.close()


def test_work_is_done_step_by_step_and_returned(turns):
    done = []
    assert asyncio.run(turns.do(Account(), steps(3, 0, done))) == 3
    assert len(done) == 3
    assert asyncio.run(turns.do(Account(), whole(max, 2, 3))) == 3


def test_what_goes_wrong_is_for_the_one_who_waits(turns):
    async def both():
        failing = turns.do(Account(), whole(int, "x"))
        return await asyncio.gather(failing, turns.do(Account(), whole(int, "7")), return_exceptions=True)

    failed, done = asyncio.run(both())
    assert isinstance(failed, ValueError)
    assert done == 7


def test_who_asks_for_little_does_not_wait_for_who_asks_for_much(turns):
    greedy_done, waited = [], []

    async def watch():
        greedy = asyncio.create_task(turns.do(Account(), steps(10**6, 0.004, greedy_done)))
        modest = Account()
        for _ in range(20):
            await asyncio.sleep(0.02)
            before = len(greedy_done)
            await turns.do(modest, steps(12, 0.0002, []))
            waited.append(len(greedy_done) - before)
        greedy.cancel()

    asyncio.run(watch())
    assert len(greedy_done) > 20  # it had the rest of the time
    # The step under way, and those that began before the work was there: in turns, step by step, it would be twelve.
    assert statistics.median(waited) < 6  # most of the time: another process may hold up one of them


def test_two_who_ask_for_much_have_the_same(turns):
    done = {"short": [], "long": []}

    async def watch():
        tasks = [
            asyncio.create_task(turns.do(Account(), steps(10**6, 0.001, done["short"]))),
            asyncio.create_task(turns.do(Account(), steps(10**6, 0.005, done["long"]))),
        ]
        while len(done["long"]) < 30:
            await asyncio.sleep(0.01)
        for task in tasks:
            task.cancel()

    asyncio.run(watch())
    # In turns, step by step, there would be as many short ones as long ones.
    assert len(done["short"]) > 3 * len(done["long"])


def test_who_paused_has_saved_nothing_up(turns):
    done = {"busy": [], "back": []}

    async def watch():
        busy = asyncio.create_task(turns.do(Account(), steps(10**6, 0.002, done["busy"])))
        while len(done["busy"]) < 100:
            await asyncio.sleep(0.01)
        back = asyncio.create_task(turns.do(Account(), steps(10**6, 0.002, done["back"])))
        before = len(done["busy"])
        while len(done["back"]) < 40:
            await asyncio.sleep(0.005)
        for task in (busy, back):
            task.cancel()
        return len(done["busy"]) - before

    assert asyncio.run(watch()) > 15


def test_work_that_nobody_waits_for_ends(turns):
    done = []

    async def watch():
        task = asyncio.create_task(turns.do(Account(), steps(10**6, 0.001, done)))
        while not done:
            await asyncio.sleep(0.001)
        task.cancel()
        await turns.do(Account(), steps(2, 0.001, []))
        number = len(done)
        await turns.do(Account(), steps(5, 0.001, []))
        return number

    assert asyncio.run(watch()) == len(done)


def test_a_thread_with_a_share_rests():
    turns = Turns("test", share=0.2)

    async def twice():
        await turns.do(Account(), whole(burn, 0.03))
        begin = time.monotonic()
        await turns.do(Account(), whole(burn, 0.0))
        return time.monotonic() - begin

    assert asyncio.run(twice()) > 3.9 * 0.03
    turns.close()
