import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from saccade.data.collection import Entry
from saccade.data.leaks import check_leak, metadata_features
from saccade.data.scan import Record


def records(num, *, seed=0, classes=("a", "b"), **changes):
    """Make records of clips of random length, with nothing else that differs."""
    random = np.random.default_rng(seed)
    found = []
    for number in range(num):
        duration_s = float(random.uniform(1, 5))
        entry = Entry(Path(f"{number}.mp4"), (classes[number % len(classes)],))
        found.append(
            Record(
                entry,
                digest=str(number),
                num_bytes=int(random.integers(10_000, 90_000)),
                num_frames=round(25 * duration_s),
                duration_s=duration_s,
                fps=25.0,
                size=(240, 320),
                codec="h264",
                bit_rate_bps=float(random.uniform(1e5, 9e5)),
                **changes,
            )
        )
    return found


def of_class(found, name, **changes):
    return [replace(r, **changes) if name in r.entry.classes else r for r in found]


def grouped(found, group_of):
    return [replace(r, entry=replace(r.entry, group=group_of(place))) for place, r in enumerate(found)]


def test_metadata_that_says_nothing_is_no_leak():
    results = [check_leak(records(80, seed=seed)) for seed in range(3)]
    assert sum(result.found for result in results) <= 1  # one in twenty would by chance
    for result in results:
        assert result.low < result.accuracy < result.high
        assert (result.largest_share, result.num_clips) == (0.5, 80)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("width", {"size": (240, 322)}),
        ("height", {"size": (242, 320)}),
        ("frame rate", {"fps": 24.0}),
        ("codec", {"codec": "vp9"}),
        ("bit rate", {"bit_rate_bps": 5e6}),
        ("file size", {"num_bytes": 5_000_000}),
        ("codec", {"codec": None}),
    ],
)
def test_a_field_that_tells_the_class_is_named(name, changes):
    found = check_leak(of_class(records(40), "b", **changes))
    assert found.found
    assert found.fields[0] == (name, 1.0)
    assert found.accuracy > 0.9


def test_twenty_clips_are_enough_for_a_clear_leak():
    assert check_leak(of_class(records(20), "b", fps=24.0)).found


def test_a_leak_within_groups_alone_is_none():
    # Each person has a camera of their own, and did only one of the actions: cameras tell people, not actions.
    found = [replace(r, fps=20.0 + place // 2 % 10) for place, r in enumerate(records(200))]
    people = grouped(found, lambda place: str(place // 2 % 10))
    by_camera = [replace(r, entry=replace(r.entry, classes=("ab"[int(r.entry.group) % 2],))) for r in people]
    without = [replace(r, entry=replace(r.entry, group=None)) for r in by_camera]
    assert check_leak(without).fields[0][1] == 1.0
    assert check_leak(by_camera).fields[0][1] < 0.7


def test_equal_files_do_not_count_as_others():
    found = records(40)
    assert not check_leak([*found, *found]).found


def test_it_is_a_function_of_the_seed():
    found = records(60)
    assert check_leak(found, 1) == check_leak(found, 1)


def test_rare_classes_and_unknown_properties_are_no_trouble():
    found = [*records(60, classes=("a", "b", "c")), *records(3, classes=("d", "e", "f"))]
    blank = [replace(r, duration_s=None, fps=None, size=None, bit_rate_bps=None) for r in found[::2]]
    assert check_leak([*blank, *found[1::2]]) is not None


def test_classes_that_are_present_together_are_one_class():
    found = [
        replace(r, fps=20.0 + place % 3, entry=replace(r.entry, classes=((), ("a",), ("a", "b"))[place % 3]))
        for place, r in enumerate(records(60))
    ]
    assert check_leak(found).accuracy == 1.0


@pytest.mark.parametrize("num_clips", [2, 3, 4])
def test_classes_of_fewer_clips_than_folds_are_checked(num_clips):
    names = [str(number) for number in range(6)]
    found = [replace(r, fps=20.0 + int(r.entry.classes[0])) for r in records(6 * num_clips, classes=names)]
    result = check_leak(found)
    assert (result.num_clips, result.largest_share) == (6 * num_clips, pytest.approx(1 / 6))
    assert result.found is (num_clips > 3)  # of fewer, too few are left to learn from


def test_too_little_to_tell():
    assert check_leak([]) is None
    assert check_leak(records(9)) is None
    assert check_leak(records(40, classes=("a",))) is None
    assert check_leak(records(40, error="cannot be read")) is None
    assert check_leak(grouped(records(40), lambda place: str(place % 2))) is None


def test_features_are_a_row_for_each_clip():
    names, rows = metadata_features([*records(2), Record(Entry(Path("x"), ("a",)))])
    assert rows.shape == (3, len(names))
    assert rows[0, names.index("height")] == 240
    assert np.isfinite(rows[:2]).all()
    assert math.isnan(rows[2, names.index("duration")])


def test_of_label_sets_the_most_frequent_set_is_compared():
    found = [replace(r, entry=replace(r.entry, classes=(*r.entry.classes, "c"))) for r in records(40)]
    assert (check_leak(found).most_frequent, check_leak(found).largest_share) == ("most frequent set of classes", 0.5)
    assert check_leak(records(40)).most_frequent == "largest class"
