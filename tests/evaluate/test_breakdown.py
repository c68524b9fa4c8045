"""Figures by class and by group, the interval of the accuracy, and the most wrong clips."""

import json

import pytest
import torch
from sklearn.metrics import precision_score, recall_score

from saccade.data import StoredClips
from saccade.evaluate import ClipVerdict, Share, evaluate, most_wrong
from saccade.intervals import bootstrap_interval, wilson_interval
from saccade.labels import Labels

from .stand_ins import Canned

LABELS = Labels(("a", "b", "c", "never"))
TOGETHER = Labels(("a", "b", "c"), exclusive=False)


def stored(targets, labels=LABELS, **named):
    frames = [torch.zeros(2, 1, 8, 8, dtype=torch.uint8)] * len(targets)
    return StoredClips(frames, torch.as_tensor(targets), labels, **named)


def evaluated(targets, said, labels=LABELS, **named):
    said = torch.as_tensor(said)
    logits = torch.nn.functional.one_hot(said, len(labels.names)) * 4.0 if labels.exclusive else said * 6.0 - 3
    return evaluate(Canned(logits), stored(targets, labels, **named))


def random_classes(num=60, seed=0):
    generator = torch.Generator().manual_seed(seed)
    targets = torch.randint(3, (num,), generator=generator)
    said = torch.where(
        torch.rand(num, generator=generator) < 0.4, torch.randint(4, (num,), generator=generator), targets
    )
    return targets, said


def test_recall_and_precision_are_those_of_scikit_learn():
    targets, said = random_classes()
    found = evaluated(targets, said).by_class()
    for function, name in ((recall_score, "recall"), (precision_score, "precision")):
        wanted = function(targets, said, labels=range(4), average=None, zero_division=0)
        values = [getattr(one, name) for one in found]
        assert [0.0 if share is None else share.value for share in values] == pytest.approx(wanted.tolist())
    assert [one.num_clips for one in found] == torch.bincount(targets, minlength=4).tolist()
    assert found[3].recall is None


def test_recall_and_precision_of_classes_that_occur_together():
    generator = torch.Generator().manual_seed(1)
    targets = (torch.rand(50, 3, generator=generator) < 0.4).float()
    said = (torch.rand(50, 3, generator=generator) < 0.5).long()
    found = evaluated(targets, said, TOGETHER).by_class()
    for function, name in ((recall_score, "recall"), (precision_score, "precision")):
        wanted = function(targets, said, average=None)
        assert [getattr(one, name).value for one in found] == pytest.approx(wanted.tolist())


def test_parts_of_classes_count_as_often_as_they_occur():
    pairs = Labels(("33", "35", "55"), parts=(("3", "3"), ("3", "5"), ("5", "5")))
    found = evaluated([0, 0, 1], [0, 1, 0], pairs)
    three, five = found.by_class()
    # "35" for "33" misses one three; "33" for "35" claims one three too many.
    assert (three.num_clips, three.recall, three.precision) == (3, Share(2, 3), Share(2, 3))
    assert (five.num_clips, five.recall, five.precision) == (1, Share(0, 1), Share(0, 1))
    assert {one.name: one.recall.value for one in found.by_class()} == found.recall


@pytest.mark.parametrize(("num", "of"), [(0, 3), (2, 3), (3, 3)])
def test_the_interval_of_a_share_holds_it(num, of):
    share = Share(num, of)
    low, high = share.interval
    assert (low, high) == wilson_interval(num, of)
    assert 0 <= low <= share.value <= high <= 1


def test_groups_come_with_the_worst_first_and_add_up():
    targets, said = [0, 0, 1, 1, 2, 2], [0, 1, 1, 1, 0, 0]
    found = evaluated(targets, said, groups=["ann", "ann", "bob", "bob", "cy", "cy"])
    groups = found.by_group()
    assert [(one.name, one.accuracy) for one in groups] == [
        ("cy", Share(0, 2)),
        ("ann", Share(1, 2)),
        ("bob", Share(2, 2)),
    ]
    assert sum(one.accuracy.num for one in groups) / found.num_clips == found.accuracy


def test_clips_of_a_group_count_together_in_the_interval():
    targets, said = random_classes()
    groups = [str(index // 20) for index in range(60)]
    right = (targets == said).tolist()
    grouped, single = evaluated(targets, said, groups=groups), evaluated(targets, said)
    assert grouped.interval == (*bootstrap_interval(right, groups), "bootstrap, 3 groups")
    assert single.interval == (*wilson_interval(sum(right), 60), "Wilson, 60 clips")
    assert single.by_group() == []


def test_groups_of_one_clip_each_are_no_groups():
    targets, said = random_classes(10)
    alone = evaluated(targets, said, groups=list(map(str, range(10))))
    assert alone.by_group() == []
    assert alone.interval == evaluated(targets, said).interval


def test_clips_have_their_names_and_groups_or_none():
    named = evaluated([0, 1], [0, 1], names=["x/1.mp4", "y/2.mp4"], groups=["p", "p"])
    assert [(clip.name, clip.group) for clip in named.clips] == [("x/1.mp4", "p"), ("y/2.mp4", "p")]
    assert [(clip.name, clip.group) for clip in evaluated([0, 1], [0, 1]).clips] == [(None, None)] * 2


def test_the_first_clips_keep_their_names():
    clips = stored([0, 1, 2], names=["a", "b", "c"])
    found = evaluate(Canned(torch.zeros(3, 4)), clips, num_clips=2)
    assert [clip.name for clip in found.clips] == ["a", "b"]


def test_probabilities_are_those_of_the_verdict_and_of_the_truth():
    logits = torch.tensor([[2.0, 0.0, 1.0, -1.0]])
    (clip,) = evaluate(Canned(logits), stored([2])).clips
    said = logits.softmax(-1)[0].tolist()
    assert (clip.verdict, clip.target, clip.right) == (0, 2, False)
    assert (clip.probability, clip.target_probability) == pytest.approx((said[0], said[2]))


def test_the_probability_of_a_set_is_that_of_exactly_this_set():
    logits = torch.tensor([[2.0, -1.0, 0.5]])
    (clip,) = evaluate(Canned(logits), stored([[1.0, 1.0, 0.0]], TOGETHER)).clips
    a, b, c = logits.sigmoid()[0].tolist()
    assert (clip.verdict, clip.target) == ([1, 0, 1], [1, 1, 0])
    assert (clip.probability, clip.target_probability) == pytest.approx((a * (1 - b) * c, a * b * (1 - c)))


def test_the_most_wrong_come_first_and_the_least_sure_of_the_right_follow():
    def clip(right, probability):
        return ClipVerdict(None, None, 0, 0 if right else 1, right, probability, probability if right else 0.1)

    clips = [clip(True, 0.9), clip(False, 0.4), clip(True, 0.3), clip(False, 0.8)]
    assert most_wrong(clips) == [3, 1, 2, 0]
    assert most_wrong(clips, 1) == [3]


def test_all_of_it_is_json():
    found = evaluated([0, 0, 1, 2], [0, 3, 1, 1], groups=["p", "p", "q", "q"])
    told = json.loads(json.dumps([one.as_json() for one in (*found.by_class(), *found.by_group())], allow_nan=False))
    assert told[0]["recall"] == {"value": 0.5, "num": 1, "num_clips": 2} | dict(
        zip(("low", "high"), wilson_interval(1, 2), strict=True)
    )
    assert told[2]["precision"] is None
    assert json.loads(json.dumps(found.as_json(), allow_nan=False))["clips"][1]["verdict"] == 3
