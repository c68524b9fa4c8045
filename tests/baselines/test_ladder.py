import numpy as np
import pytest
import torch

from saccade.baselines import difference, judged, ladder
from saccade.data.folds import folds
from saccade.errors import UsageError

NUM = 32


def noise(num=NUM, size=(24, 30), time=4):
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(0, 256, (time, 1, *size), generator=generator, dtype=torch.uint8) for _ in range(num)]


def accuracies(rungs):
    return {rung.name: rung.accuracy for rung in rungs}


def run(clips, targets, groups=None, **features):
    return ladder(clips, targets, groups, folds(targets, groups, 2, 0), **features)


def test_each_rung_learns_what_it_sees():
    targets = np.arange(NUM) % 2
    bright = [clip // 2 + 90 * int(target) for clip, target in zip(noise(), targets, strict=True)]
    still = [clip[:1].expand(4, -1, -1, -1) for clip in noise()]
    moving = [clip if target else clip[:1].expand(4, -1, -1, -1) for clip, target in zip(noise(), targets, strict=True)]
    assert accuracies(run(bright, targets))["mean frame"] == 1
    found = accuracies(run(moving, targets))
    assert found["motion energy and gradients"] == 1
    features = np.random.default_rng(0).normal(size=(NUM, 4, 6))
    features[:, 1] += 4 * targets[:, None]
    found = accuracies(
        run(still, targets, metadata=np.stack([targets * 0.5, targets * np.nan], 1), pretrained=features)
    )
    assert found["metadata"] == 1
    assert found["pretrained features"] > 0.9
    assert max(found["mean frame"], found["motion energy and gradients"]) < 0.9


def test_rungs_stand_in_order_with_their_intervals():
    targets = np.arange(15) % 3
    rungs = run(noise(15), targets, metadata=np.ones((15, 2)), pretrained=np.zeros((15, 4, 3)))
    names = ["largest class", "metadata", "mean frame", "motion energy and gradients", "pretrained features"]
    assert [rung.name for rung in rungs] == names
    for rung in rungs:
        assert rung.accuracy == (rung.predictions == targets).mean()
        assert rung.low < rung.accuracy < rung.high


def test_the_ladder_is_reproducible():
    targets = np.arange(15) % 3
    for one, other in zip(run(noise(15), targets), run(noise(15), targets), strict=True):
        assert (one.predictions == other.predictions).all()
        assert (one.low, one.high) == (other.low, other.high)


def test_many_classes_of_few_clips_are_no_doubt():
    # Scikit-learn warns of them, as if the targets were numbers to regress.
    targets = np.arange(66) % 22
    rungs = ladder(noise(66), targets, None, folds(targets, None, 3, 0), metadata=np.arange(66.0)[:, None])
    assert [rung.name for rung in rungs][1] == "metadata"


def test_the_largest_class_is_that_of_the_training_part():
    targets = np.array([0] * 20 + [1] * 12)
    rung = run(noise(), targets)[0]
    assert (rung.predictions == 0).all()
    assert rung.accuracy == 20 / 32


def test_a_group_that_gives_the_class_away_does_not_help():
    """The mean frame tells the person; persons have a class each by chance, so new persons are guessed."""
    groups = np.repeat(np.arange(8), 4)
    targets = np.array([0, 1, 1, 0, 1, 0, 0, 1])[groups]
    generator = torch.Generator().manual_seed(1)
    faces = torch.randint(0, 256, (8, 3, 16, 16), generator=generator, dtype=torch.uint8)
    clips = [faces[group].expand(4, -1, -1, -1) for group in groups]
    leaking = accuracies(run(clips, targets))
    honest = accuracies(run(clips, targets, groups.tolist()))
    assert leaking["mean frame"] == 1
    assert honest["mean frame"] < 0.9


def test_settings_are_right_for_new_groups():
    """The means tell the person, the deviations tell the class a little; to choose by clips would take the means."""
    generator = np.random.default_rng(0)
    groups = np.repeat(np.arange(12), 6)
    targets = groups % 2
    features = np.zeros((72, 4, 8))
    features[:, 0] = generator.normal(size=(12, 8))[groups]
    features[:, 1] = targets[:, None] + generator.normal(size=(72, 8)) * 1.5
    black = [torch.zeros(1, 1, 8, 8, dtype=torch.uint8)] * 72
    split = folds(targets, groups.tolist(), 4, 0)
    assert accuracies(ladder(black, targets, groups.tolist(), split, pretrained=features))["pretrained features"] > 0.7


def test_test_clips_are_not_looked_at():
    """Predictions for the test part of a fold do not depend on the targets of that part."""
    targets = np.arange(NUM) % 2
    split = folds(targets, None, 4, 0)
    changed = targets.copy()
    changed[split[0][1]] = 1 - changed[split[0][1]]
    for one, other in zip(
        ladder(noise(), targets, None, split[:1], metadata=np.arange(NUM)[:, None]),
        ladder(noise(), changed, None, split[:1], metadata=np.arange(NUM)[:, None]),
        strict=True,
    ):
        assert (one.predictions == other.predictions).all()


def test_a_single_split_tests_its_clips_in_order():
    targets = np.arange(NUM) % 2
    bright = [clip // 2 + 90 * int(target) for clip, target in zip(noise(), targets, strict=True)]
    test = np.array([30, 3, 8])
    (rung,) = [
        rung
        for rung in ladder(bright, targets, list("ab" * 16), [(np.setdiff1d(np.arange(NUM), test), test)])
        if rung.name == "mean frame"
    ]
    assert rung.predictions.tolist() == [1, 0, 0]
    assert rung.groups == ["b", "a", "a"]


def test_label_sets_are_right_only_as_a_whole():
    present = np.array([[0, 0], [0, 1], [1, 0], [1, 1]] * 8).astype(float)
    clips = [clip // 4 for clip in noise()]
    for clip, (top, bottom) in zip(clips, present, strict=True):
        clip[:, :, :12] += round(120 * top)
        clip[:, :, 12:] += round(120 * bottom)
    rungs = run(clips, present, pretrained=np.repeat(present[:, None], 4, axis=1))
    assert (rungs[0].name, rungs[0].accuracy <= 0.25) == ("most frequent set", True)
    assert accuracies(rungs)["mean frame"] == 1
    assert accuracies(rungs)["pretrained features"] == 1
    assert judged("half", [[1, 0]], [[1, 1]]).accuracy == 0


def test_few_clips_of_a_class_are_no_obstacle():
    targets = np.array([0] * 6 + [1] * 2 + [2] * 2)
    found = run(noise(10), targets, metadata=np.full((10, 1), np.nan))
    assert all(rung.low < rung.high for rung in found)


def test_clips_are_read_once_and_counted():
    told = []
    targets = np.arange(8) % 2
    ladder(
        iter(noise(8)), targets, None, folds(targets, None, 2, 0), progress=lambda done, num: told.append((done, num))
    )
    assert told == [(done, 8) for done in range(1, 9)]


def test_a_difference_is_of_the_same_clips():
    a, b = judged("a", [1] * 20, [1] * 20), judged("b", [0] * 10 + [1] * 10, [1] * 20)
    assert difference(a, b).mean == 0.5
    with pytest.raises(UsageError, match="a has 20 clips, c 19"):
        difference(a, judged("c", [1] * 19, [1] * 19))


def test_wrong_calls_are_said():
    targets = np.arange(8) % 2
    split = folds(targets, None, 2, 0)
    with pytest.raises(UsageError, match="there are 7 clips, but 8 targets"):
        ladder(noise(7), targets, None, split)
    with pytest.raises(UsageError, match="metadata has 3 rows; 8 are needed"):
        ladder(noise(8), targets, None, split, metadata=np.ones((3, 1)))
    with pytest.raises(UsageError, match="groups has 2 rows; 8 are needed"):
        ladder(noise(8), targets, ["a", "b"], split)
    with pytest.raises(UsageError, match="no fold"):
        ladder(noise(8), targets, None, [])
    with pytest.raises(UsageError, match="is in two test parts"):
        ladder(noise(8), targets, None, [split[0], split[0]])
    with pytest.raises(UsageError, match=r"predictions of m have shape \(2,\), targets \(3,\)"):
        judged("m", [1, 2], [1, 2, 3])
