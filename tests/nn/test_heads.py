from itertools import combinations_with_replacement

import pytest
import torch

from saccade.nn.heads import PairHead

PAIRS = list(combinations_with_replacement(range(10), 2))


@pytest.fixture
def head():
    torch.manual_seed(0)
    return PairHead(4, 10)


def test_a_pair_of_two_digits_is_the_sum_of_what_speaks_for_each(head):
    state = torch.randn(4)
    evidence, logits = head.evidence(state), head(state)
    for pair, logit in zip(PAIRS, logits, strict=True):
        first, second = pair
        if first != second:
            assert logit.item() == pytest.approx((evidence[first] + evidence[second]).item(), abs=1e-6)


def test_a_double_has_evidence_of_its_own(head):
    state = torch.randn(4)
    evidence, logits = head.evidence(state), head(state)
    for digit in range(10):
        assert logits[PAIRS.index((digit, digit))].item() == pytest.approx(evidence[10 + digit].item(), abs=1e-6)


@pytest.mark.parametrize("num_things", [1, 2, 7])
def test_pairs_of_any_number_of_things(num_things):
    head = PairHead(4, num_things)
    head.evidence.bias.data = torch.arange(2.0 * num_things)
    expected = [
        num_things + first if first == second else first + second
        for first, second in combinations_with_replacement(range(num_things), 2)
    ]
    assert head(torch.zeros(4)).tolist() == expected


def test_all_evidence_is_used(head):
    head(torch.randn(6, 4)).sum().backward()
    assert (head.evidence.weight.grad.abs().sum(1) > 0).all()
