import pytest
import torch

from saccade.data import labels
from saccade.serve.verdict import is_right, verdict_of

DIGITS, PAIR, ORDERED = (labels.create(name) for name in ("digits", "pair", "ordered"))


def test_a_set_is_named_with_the_probability_of_exactly_this_set():
    logits = torch.full((10,), -4.0)
    logits[[3, 7]] = torch.tensor([2.0, 3.0])
    found = verdict_of(logits, DIGITS, 0.5)
    absent = torch.sigmoid(torch.tensor(4.0)) ** 8
    expected = torch.sigmoid(torch.tensor(2.0)) * torch.sigmoid(torch.tensor(3.0)) * absent
    assert found.digits == (3, 7)
    assert found.confidence == pytest.approx(float(expected))
    assert found.sure


def test_no_digit_can_be_a_verdict():
    found = verdict_of(torch.full((10,), -9.0), DIGITS, 0.5)
    assert found.digits == ()
    assert found.sure


@pytest.mark.parametrize("least", [0.0, 0.3, 0.6, 1.0])
def test_there_is_no_verdict_below_the_stated_confidence(least):
    logits = torch.full((10,), -5.0)
    logits[5] = 0.2
    found = verdict_of(logits, DIGITS, least)
    assert found.sure == (found.confidence >= least)
    assert 0.5 < found.confidence < 0.55


@pytest.mark.parametrize("scheme", [PAIR, ORDERED], ids=lambda scheme: scheme.name)
def test_a_pair_is_the_likeliest_class(scheme):
    logits = torch.zeros(scheme.num_classes)
    index = scheme.pairs.index((2, 6))
    logits[index] = 9.0
    found = verdict_of(logits, scheme, 0.5)
    assert found.digits == (2, 6)
    assert found.confidence == pytest.approx(float(logits.softmax(0)[index]))


@pytest.mark.parametrize(
    ("named", "shown", "scheme", "right"),
    [
        ((3, 7), (7, 3), DIGITS, True),
        ((3,), (3, 3, 3), DIGITS, True),
        ((3,), (7, 3), DIGITS, False),
        ((), (7,), DIGITS, False),
        ((3, 7), (7, None), DIGITS, None),
        ((3, 7), (), DIGITS, None),
        ((3, 7), (7, 3), PAIR, True),
        ((7, 7), (7, 7), PAIR, True),
        ((3, 7), (7, 3), ORDERED, False),
        ((7, 3), (7, 3), ORDERED, True),
        ((3, 7), (7, 3, 1), PAIR, None),
    ],
)
def test_right_is_what_the_labels_can_tell(named, shown, scheme, right):
    assert is_right(named, shown, scheme) is right
