"""Clips joined to a stream, and how the events found in it are counted."""

import random
from itertools import pairwise

import pytest

from saccade.labels import MIN_CONFIDENCE, Labels
from saccade.stream.joined import THRESHOLDS, Span, Stream, best_threshold, joined, score, spans

LABELS = Labels(("none", "wave", "clap"), none="none")
LENGTHS = [20, 30, 25, 40, 15]
IS_EVENT = [True, False, True, False, True]
FPS = 10
WAVE, CLAP, NOTHING = (0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (1.0, 0.0, 0.0)


def stream(seed=0, num=600):
    return joined(LENGTHS, IS_EVENT, num_background=num, rng=random.Random(seed))


def test_each_event_comes_once_and_whole_with_background_around_it():
    segments = stream()
    events = [segment for segment in segments if segment.is_event]
    assert sorted(segment.clip for segment in events) == [0, 2, 4]
    assert all((segment.first, segment.last) == (0, LENGTHS[segment.clip]) for segment in events)
    assert not segments[0].is_event
    assert not segments[-1].is_event
    assert not any(a.is_event and b.is_event for a, b in pairwise(segments))


def test_background_is_as_long_as_asked_and_made_of_all_its_clips():
    segments = stream(num=2000)
    background = [segment for segment in segments if not segment.is_event]
    assert {segment.clip for segment in background} == {1, 3}
    assert 1000 <= sum(map(len, background)) <= 3000
    assert all(0 <= segment.first < segment.last <= LENGTHS[segment.clip] for segment in background)


def test_streams_differ_by_seed_only():
    assert stream(1) == stream(1)
    assert stream(1) != stream(2)


def test_events_or_background_alone_make_no_stream():
    for is_event in ([True] * 5, [False] * 5):
        with pytest.raises(ValueError, match="both are needed"):
            joined(LENGTHS, is_event, num_background=10, rng=random.Random(0))


def test_spans_are_where_the_events_are():
    segments = stream()
    names = ["wave", "none", "clap", "none", "wave"]
    frame = 0
    expected = []
    for segment in segments:
        if segment.is_event:
            expected.append(Span(names[segment.clip], frame / FPS, (frame + len(segment)) / FPS))
        frame += len(segment)
    assert spans(segments, names, FPS) == expected


def said(*runs):
    return [values for values, num in runs for _ in range(num)]


HAPPENS = [Span("wave", 2.0, 4.0), Span("clap", 6.0, 8.0)]
RIGHT = said((NOTHING, 20), (WAVE, 20), (NOTHING, 20), (CLAP, 20), (NOTHING, 40))


def test_a_model_that_is_right_finds_all_and_nothing_else():
    found = score([Stream(RIGHT, HAPPENS)], LABELS, FPS, 0.5)
    assert (found.num_found, found.num_false, found.recall) == (2, 0, 1.0)
    assert found.minutes == pytest.approx(0.2)
    assert 0 < found.delay_s < 0.4


def test_what_is_said_of_nothing_or_by_another_name_is_a_false_alarm():
    other = score([Stream(said((NOTHING, 20), (CLAP, 20), (NOTHING, 80)), HAPPENS)], LABELS, FPS, 0.5)
    assert (other.num_found, other.num_false) == (0, 1)
    early = score([Stream(said((WAVE, 10), (NOTHING, 110)), HAPPENS)], LABELS, FPS, 0.5)
    assert (early.num_found, early.num_false, early.false_per_minute) == (0, 1, pytest.approx(5.0))


def test_a_notice_after_the_end_counts_for_a_second():
    soon = said((NOTHING, 42), (WAVE, 10), (NOTHING, 68))
    late = said((NOTHING, 55), (WAVE, 10), (NOTHING, 55))
    assert score([Stream(soon, HAPPENS)], LABELS, FPS, 0.5).num_found == 1
    assert score([Stream(late, HAPPENS)], LABELS, FPS, 0.5).num_found == 0


def test_two_notices_of_one_event_count_once_and_are_not_false():
    twice = said((NOTHING, 20), (WAVE, 6), (NOTHING, 7), (WAVE, 6), (NOTHING, 81))
    found = score([Stream(twice, HAPPENS)], LABELS, FPS, 0.5)
    assert (found.num_found, found.num_false) == (1, 0)


def test_several_streams_count_together():
    once = score([Stream(RIGHT, HAPPENS)], LABELS, FPS, 0.5)
    silent = Stream(said((NOTHING, 120)), HAPPENS)
    both = score([Stream(RIGHT, HAPPENS), silent], LABELS, FPS, 0.5)
    assert (both.num_events, both.num_found, both.minutes) == (4, 2, 2 * once.minutes)
    assert both.delay_s == once.delay_s


def test_the_lowest_threshold_with_at_most_one_false_alarm_a_minute_is_chosen():
    # Half sure of nothing at all, quite sure of what is there.
    doubtful, clear = (0.35, 0.65, 0.0), (0.1, 0.9, 0.0)
    values = said((NOTHING, 20), (clear, 20), (NOTHING, 20), (doubtful, 20), (NOTHING, 40))
    found = best_threshold([Stream(values, HAPPENS[:1])], LABELS, FPS)
    assert found.threshold == 0.65  # smoothed, it stays below 0.65
    assert found.num_found == 1
    below = THRESHOLDS[THRESHOLDS.index(found.threshold) - 1]
    assert score([Stream(values, HAPPENS[:1])], LABELS, FPS, below).false_per_minute > 1


def test_where_no_threshold_is_high_enough_the_highest_is_taken():
    assert best_threshold([Stream(said((WAVE, 100)), [])], LABELS, FPS).threshold == THRESHOLDS[-1]


def test_a_stream_without_any_false_alarm_gives_the_standard_threshold_and_none_below():
    assert best_threshold([Stream(RIGHT, HAPPENS)], LABELS, FPS).threshold == MIN_CONFIDENCE
