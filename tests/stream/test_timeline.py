"""The time of frames from stamps that cannot be trusted."""

import pytest

from saccade.stream.timeline import Timeline


def moments(timeline, stamps_s, *, every_s=0.1):
    """Add frames that arrive at equal intervals from 500 s on."""
    return [timeline.add(stamp_s, 500.0 + number * every_s) for number, stamp_s in enumerate(stamps_s)]


def test_stamps_that_grow_are_taken_as_they_are():
    found = moments(Timeline(leap_s=2.0), [7.0, 7.1, 7.15, 8.9])
    assert [moment.at_s for moment in found] == [7.0, 7.1, 7.15, 8.9]
    assert [moment.begins for moment in found] == [True, False, False, False]
    assert not any(moment.note for moment in found)


@pytest.mark.parametrize("jump_s", [-50.0, -0.5, 2.5, 4000.0])
def test_stamps_that_jump_begin_anew_and_are_told_once(jump_s):
    stamps_s = [10.0, 10.1, 10.1 + jump_s, 10.2 + jump_s]
    found = moments(Timeline(leap_s=2.0), stamps_s)
    assert [moment.begins for moment in found] == [True, False, True, False]
    assert f"{jump_s:+.1f} s" in found[2].note
    assert [moment.at_s for moment in found] == stamps_s


def test_rounded_stamps_that_go_back_a_little_are_no_jump():
    assert [moment.begins for moment in moments(Timeline(leap_s=2.0), [1.0, 1.1, 1.09, 1.2])] == [True, *[False] * 3]


def test_a_source_of_rare_frames_has_no_jumps_but_its_first():
    found = moments(Timeline(leap_s=2.0), [0.0, 5.0, 10.0, 15.0, 24.0], every_s=5.0)
    assert [moment.begins for moment in found] == [True, True, False, False, False]


def test_stamps_that_stand_still_are_given_up_for_arrival():
    found = moments(Timeline(leap_s=2.0), [3.0, 3.1, *[3.2] * 20])
    begun = [number for number, moment in enumerate(found) if moment.begins]
    assert len(begun) == 2
    assert "stand still" in found[begun[1]].note
    steps = [after.at_s - before.at_s for before, after in zip(found[begun[1] :], found[begun[1] + 1 :], strict=False)]
    assert steps == pytest.approx([0.1] * len(steps))


def test_a_stamp_that_comes_twice_is_no_reason_to_give_up():
    assert not any(m.note for m in moments(Timeline(leap_s=2.0), [number // 2 / 5 for number in range(50)]))


def test_stamps_that_jump_all_the_time_are_given_up():
    found = moments(Timeline(leap_s=2.0), [number * 1000.0 % 7000 for number in range(30)])
    assert "jump again and again" in "".join(moment.note or "" for moment in found)
    assert not any(moment.begins for moment in found[6:])


def test_frames_without_stamps_go_by_arrival_but_the_first_one_may_lack_it():
    assert moments(Timeline(leap_s=2.0), [None, 1.0, 1.1])[0] is None
    assert not moments(Timeline(leap_s=2.0), [None, 1.0, 1.1])[2].begins
    found = moments(Timeline(leap_s=2.0), [None] * 20)
    known = [moment for moment in found if moment is not None]
    assert len(known) > 10
    assert "without time stamps" in known[0].note
    assert known[-1].at_s == pytest.approx(500 + 0.1 * 19)


def test_arrival_alone_counts_where_stamps_are_invented():
    found = moments(Timeline(leap_s=2.0, by_arrival=True), [number / 25 for number in range(5)])
    assert [moment.at_s for moment in found] == pytest.approx([500 + 0.1 * number for number in range(5)])
