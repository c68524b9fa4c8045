from collections import Counter

import pytest
import torch

from saccade.data.digits import Mixture, Motion, MovingDigits
from saccade.errors import UsageError

CONDITIONS = ("normal", "rotation", "rotation_scaling", "rotation_scaling")


def parts_of(digits, conditions=CONDITIONS, num_frames=3, **options):
    return [MovingDigits(digits, Motion(name, num_frames, 1), **options) for name in conditions]


@pytest.fixture(scope="module")
def mixture(uci):
    return Mixture(parts_of(uci["train"], seed=5))


def test_each_clip_is_that_of_its_part(mixture):
    indices = torch.tensor([9, 0, 123456, 7, 7, 2])
    batch = mixture.batch(indices)
    for index, frames, target in zip(indices, batch.frames, batch.targets, strict=True):
        part = mixture.parts[mixture.part(index.view(1)).item()]
        alone = part.batch(index.view(1))
        assert torch.equal(frames, alone.frames[0])
        assert target == alone.targets[0]


def test_a_clip_depends_on_its_index_alone(mixture):
    indices = torch.arange(40)
    whole = mixture.batch(indices)
    for part in (indices.flip(0), indices[3:11], indices[:1]):
        batch = mixture.batch(part)
        assert torch.equal(batch.frames, whole.frames[part])
        assert torch.equal(batch.targets, whole.targets[part])


def test_a_condition_that_is_named_twice_comes_twice_as_often(mixture):
    drawn = Counter(mixture.conditions[part] for part in mixture.part(torch.arange(40_000)).tolist())
    for name, share in (("normal", 0.25), ("rotation", 0.25), ("rotation_scaling", 0.5)):
        assert drawn[name] / 40_000 == pytest.approx(share, abs=0.01)


@pytest.mark.parametrize("num_classes", [55, 100, 10])
def test_the_condition_tells_nothing_of_the_class(mixture, num_classes):
    # Clip i shows class i % num_classes: a condition that followed from i as simply would give the class away.
    indices = torch.arange(200 * num_classes)
    part = mixture.part(indices)
    counts = torch.zeros(num_classes, len(CONDITIONS))
    counts.index_put_((indices % num_classes, part), torch.ones(len(indices)), accumulate=True)
    chi_squared = ((counts - 50) ** 2 / 50).sum()
    freedom = 3 * num_classes
    assert abs(chi_squared - freedom) < 5 * (2 * freedom) ** 0.5


def test_a_mixture_of_one_is_that_one(uci):
    (alone,) = parts_of(uci["train"], ["rotation"])
    indices = torch.arange(5)
    assert torch.equal(Mixture([alone]).batch(indices).frames, alone.batch(indices).frames)


def test_seeds_mix_differently(uci):
    first, second = (Mixture(parts_of(uci["train"], seed=seed)).part(torch.arange(200)) for seed in (0, 1))
    assert 0.1 < (first == second).float().mean() < 0.5


def test_parts_that_make_no_batch_are_refused(uci):
    with pytest.raises(UsageError, match="got 0 kinds of parts"):
        Mixture([])
    for other in (
        parts_of(uci["test"], ["normal"]),
        parts_of(uci["train"], ["normal"], num_frames=4),
        parts_of(uci["train"], ["normal"], labels="ordered"),
        parts_of(uci["train"], ["normal"], seed=1),
    ):
        with pytest.raises(UsageError, match="got 2 kinds of parts"):
            Mixture([*parts_of(uci["train"], ["normal"]), *other])


def test_it_can_be_moved(mixture):
    moved = mixture.to("cpu")
    assert torch.equal(moved.batch(torch.arange(4)).frames, mixture.batch(torch.arange(4)).frames)
