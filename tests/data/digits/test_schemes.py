import pytest
import torch

from saccade.data.digits import schemes
from saccade.errors import UsageError


@pytest.mark.parametrize(("name", "num_classes"), [("pair", 55), ("ordered", 100), ("digits", 10)])
def test_schemes_have_as_many_names_as_classes(name, num_classes):
    scheme = schemes.create(name)
    assert scheme.name == name
    assert len(set(scheme.labels.names)) == len(scheme.labels.names) == num_classes
    assert scheme.labels.exclusive == (name != "digits")


def test_pairs_are_unordered_and_ordered_ones_are_all_of_00_to_99():
    assert schemes.create("pair").labels.names == tuple(f"{a}{b}" for a in range(10) for b in range(a, 10))
    assert schemes.create("ordered").labels.names == tuple(f"{n:02}" for n in range(100))


def test_the_things_of_every_scheme_are_the_ten_digits():
    for name in ("pair", "ordered", "digits"):
        labels = schemes.create(name).labels
        assert labels.things == tuple("0123456789")
        assert labels.unordered_pairs == (name == "pair")


def test_a_verdict_of_digits_lists_them_or_says_that_there_is_none():
    labels = schemes.create("digits").labels
    logits = torch.full((3, 10), -1.0)
    logits[0, [2, 7]] = logits[1, 4] = 1.0
    assert [verdict.name for verdict in labels.verdicts(logits)] == ["2-7", "4", "no digit"]


@pytest.mark.parametrize("name", ["pair", "ordered"])
def test_a_clip_shows_the_digits_that_its_class_names(name):
    scheme = schemes.create(name)
    names = scheme.labels.names
    indices = torch.tensor([0, 1, 54, 55, 99, 100, 2**37])
    digits = scheme.choose(indices, torch.full((7, 2), 9))
    classes = scheme.encode(digits, indices)
    assert classes.tolist() == [i % len(names) for i in indices.tolist()]
    assert [f"{a}{b}" for a, b in digits.tolist()] == [names[c] for c in classes.tolist()]


def test_presence_of_digits_counts_a_repeated_digit_once():
    scheme = schemes.create("digits")
    drawn = torch.tensor([[3, 3, 0], [9, 8, 7]])
    assert torch.equal(scheme.choose(torch.arange(2), drawn), drawn)
    present = scheme.encode(drawn, torch.arange(2))
    assert present.dtype == torch.float32
    assert [row.nonzero().flatten().tolist() for row in present] == [[0, 3], [7, 8, 9]]
    assert set(present.flatten().tolist()) == {0.0, 1.0}


@pytest.mark.parametrize("name", ["pair", "ordered"])
def test_pairs_are_of_two_digits(name):
    assert schemes.create(name).check_num_digits(2) == (2, 2)
    for num_digits in (1, 3):
        with pytest.raises(UsageError, match=f"'{name}' name two digits; got {num_digits}; use labels='digits'"):
            schemes.create(name).check_num_digits(num_digits)


def test_one_to_five_digits():
    for num_digits in range(1, 6):
        assert schemes.create("digits").check_num_digits(num_digits) == (num_digits, num_digits)
    assert schemes.create("digits").check_num_digits((1, 5)) == (1, 5)
    for num_digits in (-1, 0, 6):
        with pytest.raises(UsageError, match=f"1 to 5 digits; got {num_digits}"):
            schemes.create("digits").check_num_digits(num_digits)
    with pytest.raises(UsageError, match="num_digits must not decrease; got 3 to 2"):
        schemes.create("digits").check_num_digits((3, 2))


def test_an_unknown_scheme_names_the_nearest():
    with pytest.raises(UsageError, match="no label scheme is called 'pairs'; did you mean 'pair'"):
        schemes.create("pairs")
