"""A linear head that is fitted exactly: what it separates, what it leaves alone, and how sure it is."""

import itertools

import pytest
import torch

from saccade.labels import Labels
from saccade.train import ridge

LABELS = Labels(("a", "b", "c"))
MULTIPLE = Labels(("a", "b", "c"), exclusive=False)
NUM_BLOCKS, SIZE = 4, 25


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def problem(num=90, *, noise=1.0, telling=(1,), seed=0):
    """Return states and targets; only some of the blocks tell the class, in the same direction in every problem."""
    targets = torch.arange(num) % 3
    states = torch.randn(num, NUM_BLOCKS, SIZE, generator=generator(seed))
    means = 3 * torch.randn(3, SIZE, generator=generator(99))
    for block in telling:
        states[:, block] = means[targets] + noise * states[:, block]
    return states.flatten(1), targets


def fit(states, targets, labels=LABELS, **options):
    return ridge.fit(states, targets, labels, block_sizes=(SIZE,) * NUM_BLOCKS, **options)


def logits_of(head, states):
    return states @ head.weight.T + head.bias


def loss_of(head, states, targets, labels=LABELS):
    return float(labels.loss(logits_of(head, states).unsqueeze(1), targets))


def test_clips_that_were_not_seen_are_classified():
    head = fit(*problem())
    states, targets = problem(seed=1)
    assert (head.weight.shape, head.bias.shape) == ((3, NUM_BLOCKS * SIZE), (3,))
    assert head.weight.dtype == head.bias.dtype == torch.float32
    assert LABELS.right(logits_of(head, states), targets).float().mean() > 0.98


@pytest.mark.parametrize("telling", [(0,), (2,), (1, 3)])
def test_blocks_that_tell_nothing_get_small_weights(telling):
    weights = torch.tensor(fit(*problem(telling=telling)).block_weights)
    assert weights.sum() == pytest.approx(1)
    assert set(weights.topk(len(telling)).indices.tolist()) == set(telling)
    assert weights[list(telling)].sum() > 0.6
    others = [block for block in range(NUM_BLOCKS) if block not in telling]
    assert weights[others].max() < 0.4 * weights[list(telling)].min()


def test_weights_of_blocks_help_with_clips_that_were_not_seen():
    learned, (states, targets) = problem(noise=8), problem(600, noise=8, seed=1)
    with_blocks, as_one = fit(*learned), ridge.fit(*learned, LABELS, block_sizes=[NUM_BLOCKS * SIZE])
    assert as_one.block_weights == (1,)
    assert loss_of(with_blocks, states, targets) < 0.95 * loss_of(as_one, states, targets)


def test_a_block_that_repeats_counts_as_much_as_it_tells():
    states, targets = problem()
    blocks = states.view(-1, NUM_BLOCKS, SIZE)[:, [1, 1, 2, 3]].flatten(1)
    first, second, *_ = fit(blocks, targets).block_weights
    assert first == pytest.approx(second)


def test_scale_and_offset_of_states_change_no_probability():
    states, targets = problem(noise=6)
    scale = torch.logspace(-2, 3, states.shape[1])
    offset = 10 * scale * torch.randn(states.shape[1], generator=generator(5))
    plain, moved = (logits_of(fit(some, targets), some) for some in (states, scale * states + offset))
    assert torch.allclose(LABELS.probabilities(moved), LABELS.probabilities(plain), atol=1e-3)


def test_the_seed_is_that_of_the_inner_folds():
    states, targets = problem(noise=6)
    once, again = fit(states, targets, seed=1), fit(states, targets, seed=1)
    assert torch.equal(once.weight, again.weight)
    gains = {round(fit(states, targets, seed=seed).weight.norm().item(), 4) for seed in range(4)}
    assert len(gains) > 1


def test_probabilities_fit_clips_that_were_not_seen():
    # Hard enough for errors; no other temperature would be much better on other clips.
    head = fit(*problem(150, noise=12))
    states, targets = problem(600, noise=12, seed=1)
    logits = logits_of(head, states)
    right = LABELS.right(logits, targets).float().mean()
    assert 0.5 < right < 0.95
    assert LABELS.probabilities(logits).amax(1).mean() == pytest.approx(float(right), abs=0.1)
    losses = [float(LABELS.loss(factor * logits.unsqueeze(1), targets)) for factor in (0.3, 1, 3)]
    assert losses[1] == min(losses)


def test_groups_are_not_split_by_the_inner_folds():
    # States name the group exactly and the class not at all: only folds that split groups could hope for more.
    num_groups, per_group = 12, 5
    groups = torch.arange(num_groups).repeat_interleave(per_group)
    targets = groups % 3
    states = torch.randn(num_groups, NUM_BLOCKS * SIZE, generator=generator())[groups]
    states = states + 0.01 * torch.randn(states.shape, generator=generator(1))
    grouped, alone = (fit(states, targets, groups=some) for some in (groups.tolist(), None))
    said = {
        name: LABELS.probabilities(logits_of(head, states)).amax(1).mean()
        for name, head in (("grouped", grouped), ("alone", alone))
    }
    assert said["alone"] > 0.95
    assert said["grouped"] < 0.7


def several(num=120, *, noise=1.0, seed=0):
    """Return states and the presence of three classes, each by itself."""
    sets = torch.tensor(list(itertools.product((0.0, 1.0), repeat=3)))
    present = sets[torch.arange(num) % len(sets)]
    states = torch.randn(num, NUM_BLOCKS, SIZE, generator=generator(seed))
    states[:, 1] = present @ (3 * torch.randn(3, SIZE, generator=generator(99))) + noise * states[:, 1]
    return states.flatten(1), present


def test_classes_that_do_not_exclude_each_other_are_found_one_by_one():
    head = fit(*several(), MULTIPLE)
    states, present = several(seed=1)
    assert MULTIPLE.right(logits_of(head, states), present).float().mean() > 0.95
    nothing = present.sum(1) == 0
    assert not MULTIPLE.decide(logits_of(head, states))[nothing].any()


def test_presence_may_be_whole_numbers():
    states, present = several(40)
    assert torch.equal(fit(states, present.long(), MULTIPLE).weight, fit(states, present, MULTIPLE).weight)


def test_a_class_with_one_clip_is_learned_all_the_same():
    states, targets = problem(31)
    targets = torch.where(targets == 2, targets % 2, targets)
    targets[7] = 2
    head = fit(states, targets)
    assert head.weight.isfinite().all()
    assert head.bias.isfinite().all()
    assert LABELS.right(logits_of(head, states), targets).float().mean() > 0.9


def test_a_class_that_is_absent_is_not_predicted():
    states, targets = problem()
    kept = targets < 2
    head = fit(states[kept], targets[kept])
    assert head.weight.isfinite().all()
    assert not (LABELS.decide(logits_of(head, problem(seed=1)[0])) == 2).any()


@pytest.mark.parametrize("constant", [slice(None), slice(0, SIZE), 3])
def test_constant_states_say_nothing_and_do_no_harm(constant):
    states, targets = problem()
    states[:, constant] = 7.0
    head = fit(states, targets)
    assert head.weight.isfinite().all()
    assert torch.tensor(head.block_weights).sum() == pytest.approx(1)
    assert not head.weight[:, constant].any()
    if constant == slice(None):
        assert torch.allclose(LABELS.probabilities(head.bias + 0 * states[:, :3]), torch.tensor(1 / 3), atol=0.05)


def test_targets_that_states_do_not_tell_give_the_shares_of_the_classes():
    states = torch.randn(120, NUM_BLOCKS * SIZE, generator=generator())
    targets = torch.randint(3, (120,), generator=generator(1))
    other = torch.randn(500, NUM_BLOCKS * SIZE, generator=generator(2))
    said = LABELS.probabilities(logits_of(fit(states, targets), other))
    assert said.amax(1).mean() < 0.5


def test_a_class_with_one_clip_leaves_the_choice_of_the_penalty_as_it_was():
    generator = torch.Generator().manual_seed(0)
    targets = torch.tensor([0, 1] * 20)
    states = torch.randn(40, 60, generator=generator)  # mostly noise, so that a strong penalty is best
    states[:, 0] += targets
    names = Labels(("a", "b", "c"))
    without = ridge.fit(states, targets, Labels(("a", "b")), block_sizes=(30, 30))
    one_more = ridge.fit(
        torch.cat((states, torch.randn(1, 60, generator=generator))),
        torch.cat((targets, torch.tensor([2]))),
        names,
        block_sizes=(30, 30),
    )
    assert without.penalty > 0.03
    assert one_more.penalty == without.penalty


@pytest.mark.parametrize("num", [60, 2001])
def test_the_solution_is_that_of_ridge_regression_however_many_clips_there_are(num):
    states, targets = problem(num, noise=6)
    head = ridge.fit(states, targets, LABELS, block_sizes=[states.shape[1]])
    known = states.double() - states.double().mean(0)
    scale = known.std(0, correction=0) * known.shape[1] ** 0.5  # so that the mean square of a row is 1
    known = known / scale
    wanted = torch.nn.functional.one_hot(targets, 3).double()
    solved = torch.linalg.solve(
        known.T @ known + head.penalty * torch.eye(known.shape[1]), known.T @ (wanted - wanted.mean(0))
    )
    expected = (solved / scale.unsqueeze(1)).T
    found = head.weight.double() * (expected.norm() / head.weight.double().norm())
    assert torch.allclose(found, expected, atol=1e-3 * float(expected.abs().max()))


def test_blocks_may_have_any_sizes():
    states, targets = problem(telling=(1,))
    sizes = (SIZE, SIZE - 5, 5, 2 * SIZE)
    weights = ridge.fit(states, targets, LABELS, block_sizes=sizes).block_weights
    assert len(weights) == 4
    assert sum(weights) == pytest.approx(1)
    assert weights[1] + weights[2] > 0.6


def test_earlier_states_teach_what_the_last_ones_lack_and_change_little_else():
    # In the beginning, the second block tells the class, and the first misleads.
    def clips(seed):
        last, targets = problem(telling=(0, 1), noise=2, seed=seed)
        misled = last.clone()
        misled[:, :SIZE] = last[torch.randperm(len(last), generator=generator(seed)), :SIZE]
        return last, misled, targets

    def right(head, states, targets):
        return float(LABELS.right(logits_of(head, states), targets).float().mean())

    last, beginning, targets = clips(0)
    others = clips(1)
    alone, both = fit(last, targets), fit(last, targets, earlier=[beginning])
    assert right(both, others[1], others[2]) > right(alone, others[1], others[2]) + 0.1
    assert right(both, others[0], others[2]) > 0.98
    assert right(alone, others[0], others[2]) > 0.98


def test_earlier_states_of_a_clip_are_held_out_with_it():
    # All states are noise, and the earlier one repeats the last: its clip's own class would be found again.
    states = torch.randn(60, NUM_BLOCKS * SIZE, generator=generator())
    targets = torch.arange(60) % 3
    head = fit(states, targets, earlier=[states] * 20)
    other = torch.randn(200, NUM_BLOCKS * SIZE, generator=generator(2))
    assert LABELS.probabilities(logits_of(head, other)).amax(1).mean() < 0.5


def test_an_earlier_state_counts_as_much_as_its_weight_says():
    states, targets = problem(60, noise=6)
    earlier = problem(60, noise=6, seed=3)[0]
    head = ridge.fit(states, targets, LABELS, block_sizes=[states.shape[1]], earlier=[earlier])
    mean, deviation = states.double().mean(0), states.double().std(0, correction=0)
    scale = deviation * states.shape[1] ** 0.5
    known = torch.cat((states, earlier)).double().sub(mean) / scale
    weight = torch.tensor([1.0] * 60 + [ridge.EARLIER_WEIGHT] * 60).double().unsqueeze(1)
    wanted = torch.nn.functional.one_hot(targets, 3).double()
    wanted = (wanted - wanted.mean(0)).repeat(2, 1)
    solved = torch.linalg.solve(
        known.T @ (weight * known) + head.penalty * torch.eye(known.shape[1]), known.T @ (weight * wanted)
    )
    expected = (solved / scale.unsqueeze(1)).T
    found = head.weight.double() * (expected.norm() / head.weight.double().norm())
    assert torch.allclose(found, expected, atol=1e-3 * float(expected.abs().max()))


def test_logits_of_clips_that_were_held_out_tell_how_good_the_head_is_on_others_at_each_moment():
    states, targets = problem(150, noise=6)
    blurred = states + 20 * torch.randn(states.shape, generator=generator(7))
    head = fit(states, targets, earlier=[blurred], further=[states, blurred])
    assert head.held_out.shape == (150, 4, 3)
    assert torch.allclose(head.held_out[:, 2:], head.held_out[:, :2], atol=1e-4)
    others, their_targets = problem(600, noise=6, seed=1)
    for moment, noise in ((0, 0), (1, 20)):
        seen = others + noise * torch.randn(others.shape, generator=generator(8))
        found = float(LABELS.loss(head.held_out[:, [moment]], targets))
        assert found == pytest.approx(loss_of(head, seen, their_targets), rel=0.4)
    # The head itself has learned the clips.
    assert loss_of(head, states, targets) < 0.5 * float(LABELS.loss(head.held_out[:, :1], targets))


def test_nothing_is_learned_from_further_moments():
    states, targets = problem(noise=6)
    alone, beside = fit(states, targets), fit(states, targets, further=[problem(noise=6, seed=3)[0]])
    assert torch.equal(alone.weight, beside.weight)
    assert torch.equal(alone.bias, beside.bias)


@pytest.mark.parametrize("num_classes", [2, 29])
def test_probabilities_are_modest_where_no_clip_can_be_held_out(num_classes):
    labels = Labels(tuple(map(str, range(num_classes))))
    states, targets = torch.randn(num_classes, 2 * SIZE, generator=generator()), torch.arange(num_classes)
    head = ridge.fit(states, targets, labels, block_sizes=(SIZE, SIZE), further=[states])
    assert not head.is_calibrated
    said = labels.probabilities(logits_of(head, states))
    assert labels.right(logits_of(head, states), targets).all()
    # Halfway between chance and 1, less what the penalty takes.
    halfway = (1 + 1 / num_classes) / 2
    assert (said.amax(1) <= halfway).all()
    assert said.amax(1).mean() > 0.8 * halfway
    assert torch.allclose(labels.probabilities(head.held_out), torch.tensor(1 / num_classes))


def test_probabilities_of_classes_by_themselves_are_modest_where_no_clip_can_be_held_out():
    states = torch.randn(3, NUM_BLOCKS * SIZE, generator=generator())
    head = fit(states, torch.eye(3), MULTIPLE)
    assert not head.is_calibrated
    said = MULTIPLE.probabilities(logits_of(head, states))
    assert ((said > 0.25) & (said < 0.75)).all()
    assert (said.argmax(1) == torch.arange(3)).all()


@pytest.mark.parametrize(
    ("per_class", "num_alone", "is_calibrated"),
    [(30, 0, True), (4, 0, False), (30, 40, True), (5, 16, False), (2, 0, False)],
)
def test_the_scale_is_fitted_only_to_enough_held_out_clips(per_class, num_alone, is_calibrated):
    # Two classes with many clips, and further ones with one clip each.
    num = 2 * per_class
    targets = torch.cat((torch.arange(num) % 2, 2 + torch.arange(num_alone)))
    labels = Labels(tuple(map(str, range(2 + num_alone))))
    states = torch.randn(len(targets), NUM_BLOCKS * SIZE, generator=generator())
    assert fit(states, targets, labels).is_calibrated == is_calibrated
