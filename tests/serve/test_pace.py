from hypothesis import given
from hypothesis import strategies as st

from saccade.serve.allowance import Allowance
from saccade.serve.pace import Pace


class Clock:
    def __init__(self):
        self.s = 100.0

    def __call__(self):
        return self.s


def test_ticks_come_at_the_rate_and_none_is_missed_in_time():
    clock = Clock()
    pace = Pace(25, clock)
    for _ in range(50):
        assert pace.tick() == 0
        assert abs(pace.wait_s() - 0.04) < 1e-6
        clock.s += 0.04


def test_who_is_late_misses_what_was_due():
    clock = Clock()
    pace = Pace(10, clock)
    pace.tick()
    clock.s += 0.55
    assert pace.wait_s() == 0
    assert pace.tick() == 4
    assert abs(pace.wait_s() - 0.05) < 1e-6


@given(st.lists(st.floats(0.001, 0.3), min_size=1, max_size=60))
def test_shown_and_missed_are_all_that_were_due(delays):
    clock = Clock()
    pace = Pace(25, clock)
    taken = 0
    for delay in delays:
        clock.s += max(delay, pace.wait_s() + 1e-9)
        taken += pace.tick() + 1
    due = int((clock.s - 100.0) * 25 + 1e-4) + 1
    assert abs(taken - due) <= 1


def test_a_new_start_forgets_what_was_missed():
    clock = Clock()
    pace = Pace(10, clock)
    clock.s += 60
    pace.restart()
    assert pace.tick() == 0
    clock.s += 60
    pace.fps = 20
    assert pace.tick() == 0
    assert abs(pace.wait_s() - 0.05) < 1e-6


def test_an_allowance_refills_at_its_rate_and_never_beyond_what_may_come_at_once():
    clock = Clock()
    allowance = Allowance(10, 3, clock)

    def taken():
        return sum(allowance.take() for _ in range(5))

    assert taken() == 3
    clock.s += 0.21
    assert taken() == 2
    assert taken() == 0
    clock.s += 60
    assert taken() == 3


def test_what_is_taken_on_credit_is_paid_back_before_there_is_more():
    clock = Clock()
    allowance = Allowance(10, 3, clock)
    assert allowance.charge(3) == 0
    assert allowance.charge(5) == 0.5
    assert not allowance.take()
    clock.s += 0.25
    assert allowance.charge(0) == 0.25
    clock.s += 0.4
    assert allowance.charge(0) == 0
    assert allowance.take()
