"""Events: where they begin and end, and what does not make one."""

import pytest

from saccade.labels import Labels
from saccade.stream import Events

OWN = Labels(("none", "wave", "clap"), none="none")
WITHOUT = Labels(("wave", "clap"))
TAGS = Labels(("person", "dog"), exclusive=False)


def found(events, said, fps=10):
    return [event for number, p in enumerate(said) for event in events.push(number / fps, p)]


def named(events):
    return [(event.name, None if event.end_s is None else round(event.end_s, 2)) for event in events]


NOTHING, WAVE, CLAP = (0.98, 0.01, 0.01), (0.02, 0.96, 0.02), (0.02, 0.02, 0.96)


def test_an_event_begins_and_ends_with_its_peak():
    got = found(Events(OWN), [NOTHING] * 5 + [WAVE] * 10 + [NOTHING] * 10)
    assert [event.name for event in got] == ["wave", "wave"]
    begun, ended = got
    assert 0.5 <= begun.start_s <= 0.8
    assert begun.end_s is None
    assert ended.start_s == begun.start_s
    assert 1.5 <= ended.end_s <= 1.9
    assert ended.peak_probability > 0.9
    assert ended.peak_s == pytest.approx(1.4)


def test_one_frame_makes_no_event_and_one_frame_ends_none():
    assert found(Events(OWN), [NOTHING] * 5 + [WAVE] + [NOTHING] * 5) == []
    assert len(found(Events(OWN), [WAVE] * 10 + [NOTHING] + [WAVE] * 10)) == 1
    # Without smoothing, they do.
    assert len(found(Events(OWN, smoothing_s=0), [NOTHING] * 5 + [WAVE] + [NOTHING] * 5)) == 2
    assert len(found(Events(OWN, smoothing_s=0), [WAVE] * 10 + [NOTHING] + [WAVE] * 10)) == 3


def test_a_first_frame_that_is_sure_is_no_event():
    assert found(Events(OWN), [WAVE]) == []


def test_a_probability_between_the_two_thresholds_neither_begins_nor_ends_an_event():
    between = (0.6, 0.4, 0.0)
    assert found(Events(OWN, threshold=0.5), [between] * 30) == []
    assert named(found(Events(OWN, threshold=0.5), [WAVE] * 10 + [between] * 30)) == [("wave", None)]
    below = (0.75, 0.25, 0.0)
    assert [e.end_s is None for e in found(Events(OWN, threshold=0.5), [WAVE] * 10 + [below] * 30)] == [True, False]


def test_one_event_ends_where_another_begins():
    got = found(Events(OWN), [WAVE] * 10 + [CLAP] * 10)
    assert [(event.name, event.end_s is None) for event in got] == [("wave", True), ("wave", False), ("clap", True)]
    assert got[1].end_s == got[2].start_s


def test_the_class_none_is_no_event_whatever_its_name_is():
    assert found(Events(OWN), [NOTHING] * 20) == []
    idle = Labels(("idle", "wave", "clap"), none="idle")
    assert found(Events(idle), [NOTHING] * 20) == []
    assert len(found(Events(Labels(OWN.names)), [NOTHING] * 20)) == 1  # not said to mean nothing


def test_without_such_a_class_the_threshold_alone_decides():
    assert found(Events(WITHOUT, threshold=0.9), [(0.8, 0.2)] * 20) == []
    assert named(found(Events(WITHOUT, threshold=0.7), [(0.8, 0.2)] * 20)) == [("wave", None)]


def test_the_threshold_is_that_of_the_labels():
    said = [(0.8, 0.2)] * 20
    assert found(Events(Labels(WITHOUT.names, min_confidence=0.9)), said) == []
    assert len(found(Events(Labels(WITHOUT.names, min_confidence=0.7)), said)) == 1


def test_classes_that_do_not_exclude_each_other_have_events_of_their_own():
    both, one, neither = (0.95, 0.95), (0.95, 0.05), (0.05, 0.05)
    got = found(Events(TAGS), [one] * 10 + [both] * 10 + [one] * 10 + [neither] * 10)
    assert [(e.name, e.end_s is None) for e in got] == [
        ("person", True),
        ("dog", True),
        ("dog", False),
        ("person", False),
    ]


@pytest.mark.parametrize("fps", [5, 10, 50])
def test_what_counts_is_time_and_not_frames(fps):
    (begun, _) = found(Events(OWN), [NOTHING] * fps + [WAVE] * fps + [NOTHING] * fps, fps)
    assert 1.0 <= begun.start_s <= 1.41


def test_reset_ends_what_lasts_and_forgets_it():
    events = Events(OWN)
    found(events, [WAVE] * 10)
    (ended,) = events.reset()
    assert (ended.name, ended.end_s) == ("wave", 0.9)
    assert events.reset() == []
    assert events.push(1.0, WAVE) == []


def test_wrong_numbers_are_refused():
    with pytest.raises(ValueError, match="threshold"):
        Events(OWN, threshold=1.5)
    with pytest.raises(ValueError, match="smoothing_s"):
        Events(OWN, smoothing_s=-1)
    with pytest.raises(ValueError, match="zip"):
        Events(OWN).push(0.0, (0.5, 0.5))
