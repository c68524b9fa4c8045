import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saccade.data.folds import folds, inner_validation
from saccade.errors import DataError, UsageError


@st.composite
def collections(draw):
    """Draw targets, groups (or None) and a number of folds, with at least two groups of each class."""
    num_classes, num_groups = draw(st.integers(2, 5)), draw(st.integers(8, 16))
    clips = [
        (target, group) for target in range(num_classes) for group in range(num_groups // 2 * (target % 2), num_groups)
    ]
    clips += draw(st.lists(st.tuples(st.integers(0, num_classes - 1), st.integers(0, num_groups - 1)), max_size=60))
    order = draw(st.permutations(range(len(clips))))
    targets, groups = zip(*[clips[place] for place in order], strict=True)
    return np.array(targets), draw(st.sampled_from([list(groups), None])), draw(st.integers(2, 5))


@given(collections(), st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_each_clip_is_tested_once_and_no_group_straddles(collection, seed):
    targets, groups, num_folds = collection
    found = folds(targets, groups, num_folds, seed)
    assert len(found) == num_folds
    assert sorted(np.concatenate([test for _, test in found])) == list(range(len(targets)))
    for train, test in found:
        assert sorted([*train, *test]) == list(range(len(targets)))
        assert len(test)
        assert set(targets[train]) == set(targets)
        if groups is not None:
            assert {groups[clip] for clip in train}.isdisjoint(groups[clip] for clip in test)


@given(collections(), st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_inner_validation_splits_the_training_part_only(collection, seed):
    targets, groups, num_folds = collection
    for train, _ in folds(targets, groups, num_folds, 0):
        fit, held = inner_validation(targets, groups, train, seed)
        assert sorted([*fit, *held]) == list(train)
        assert len(held)
        assert set(targets[fit]) == set(targets[train])
        if groups is not None:
            assert {groups[clip] for clip in fit}.isdisjoint(groups[clip] for clip in held)


def test_classes_are_spread_evenly():
    targets = np.repeat([0, 1, 2], [50, 30, 11])
    for _, test in folds(targets, None, 5, seed=3):
        assert np.bincount(targets[test], minlength=3).tolist() in ([10, 6, 2], [10, 6, 3])
    groups = [f"person {clip // 2}" for clip in range(len(targets))]  # two clips each
    for _, test in folds(targets, groups, 5, seed=3):
        counts = np.bincount(targets[test], minlength=3)
        assert (abs(counts - [10, 6, 2.2]) < 2.5).all()


def test_inner_validation_is_about_a_fifth_with_every_class():
    targets = np.repeat([0, 1, 2], [50, 30, 20])
    fit, held = inner_validation(targets, None, range(100), seed=0)
    assert len(held) == 20
    assert np.bincount(targets[held]).tolist() == [10, 6, 4]
    assert len(fit) == 80


def test_the_seed_decides():
    targets = np.arange(40) % 2
    groups = [clip // 4 for clip in range(40)]

    def tests(seed):
        return [test.tolist() for _, test in folds(targets, groups, 5, seed)]

    assert tests(1) == tests(1)
    assert tests(1) != tests(2)
    assert [part.tolist() for part in inner_validation(targets, groups, range(40), 1)] == [
        part.tolist() for part in inner_validation(targets, groups, range(40), 1)
    ]


def test_a_class_with_two_clips_is_always_learned():
    targets = [0] * 50 + [1] * 2
    for seed in range(20):
        assert all(set(train) & {50, 51} for train, _ in folds(targets, None, 5, seed))


def test_the_only_group_of_a_class_stays_in_the_fit():
    targets = np.array([0, 0, 0, 0, 0, 0, 1, 1])
    groups = ["a", "b", "c", "d", "e", "f", "g", "g"]
    for seed in range(10):
        fit, held = inner_validation(targets, groups, range(8), seed)
        assert {6, 7} <= set(fit)
        assert len(held)


def test_nothing_is_held_out_where_nothing_can_be_spared():
    fit, held = inner_validation([0, 1, 2], None, range(3), seed=0)
    assert (fit.tolist(), held.tolist()) == ([0, 1, 2], [])


def test_label_sets_keep_every_label_in_training():
    generator = np.random.default_rng(0)
    present = (generator.random((60, 4)) < [0.5, 0.3, 0.1, 0.0]).astype(float)
    present[:2, 3] = 1  # a label of two clips
    groups = [clip // 2 for clip in range(2, 62)]
    groups[1] = 99  # the two clips are in two groups
    for train, test in folds(present, groups, 5, seed=0):
        assert (present[train].sum(0) > 0).all()
        assert len(test)


@pytest.mark.parametrize(
    ("targets", "groups", "num_folds", "message"),
    [
        ([0, 1] * 2, None, 5, "5 folds need at least 5 clips; got 4"),
        ([0, 1] * 4, ["ann", "bob"] * 4, 3, "3 folds need at least 3 groups; got 2"),
        ([0, 0, 0, 1], None, 2, "the class 'clap' has 1 clip; cross-validation needs at least 2 clips"),
        ([0, 1, 2, 2], None, 2, "the class 'wave' has 1 clip, like 1 other class; cross-validation needs"),
        ([0, 0, 1, 1], ["a", "b", "c", "c"], 2, "the class 'clap' has clips of 1 group only (2 clips)"),
    ],
)
def test_what_cannot_be_cross_validated_is_said(targets, groups, num_folds, message):
    with pytest.raises(DataError, match=re.escape(message)):
        folds(targets, groups, num_folds, 0, names=("wave", "clap"))


def test_names_from_outside_are_escaped():
    with pytest.raises(DataError, match=re.escape("the class 'a\\x1b[31m' has 1 clip")):
        folds([0, 1, 1], None, 2, 0, names=("a\x1b[31m", "b"))


def test_an_impossible_order_is_said():
    # One of two folds tests two of the three groups, and so all clips of one class.
    with pytest.raises(DataError, match="2 folds of 3 groups leave some class out"):
        folds([0, 0, 1, 1, 2, 2], ["a", "b", "b", "c", "c", "a"], 2, 0)


def test_wrong_calls():
    with pytest.raises(UsageError, match="at least 2 folds; got 1"):
        folds([0, 1], None, 1, 0)
    with pytest.raises(UsageError, match="there are 3 targets, but 2 groups"):
        folds([0, 1, 1], ["a", "b"], 2, 0)
    with pytest.raises(UsageError, match="there are 3 targets, but 2 groups"):
        inner_validation([0, 1, 1], ["a", "b"], [0, 1], 0)
