import pytest
import torch

from saccade.data.digits.schemes import SCHEMES
from saccade.labels import Labels
from saccade.serve.verdict import is_right, task_of, verdict_of

DIGITS, PAIR, ORDERED = (SCHEMES[name].labels for name in ("digits", "pair", "ordered"))


def test_a_set_is_named_with_the_probability_of_exactly_this_set():
    logits = torch.full((10,), -4.0)
    logits[[3, 7]] = torch.tensor([2.0, 3.0])
    found = verdict_of(logits, DIGITS, 0.5)
    absent = torch.sigmoid(torch.tensor(4.0)) ** 8
    expected = torch.sigmoid(torch.tensor(2.0)) * torch.sigmoid(torch.tensor(3.0)) * absent
    assert (found.name, found.classes) == ("3-7", (3, 7))
    assert found.confidence == pytest.approx(float(expected))
    assert found.sure


def test_no_digit_can_be_a_verdict():
    found = verdict_of(torch.full((10,), -9.0), DIGITS, 0.5)
    assert (found.name, found.classes) == ("no digit", ())
    assert found.sure


@pytest.mark.parametrize("least", [0.0, 0.3, 0.6, 1.0])
def test_there_is_no_verdict_below_the_stated_confidence(least):
    logits = torch.full((10,), -5.0)
    logits[5] = 1.0
    found = verdict_of(logits, DIGITS, least)
    assert found.sure == (2 * torch.sigmoid(torch.tensor(1.0)).item() - 1 >= least)
    one = verdict_of(logits, Labels(DIGITS.names), least)
    assert one.sure == (one.confidence >= least)


@pytest.mark.parametrize("labels", [PAIR, ORDERED], ids=["pair", "ordered"])
def test_a_pair_is_the_likeliest_class(labels):
    logits = torch.zeros(len(labels.names))
    index = labels.names.index("26")
    logits[index] = 9.0
    found = verdict_of(logits, labels, 0.5)
    assert (found.name, found.classes) == ("26", (index,))
    assert found.confidence == pytest.approx(float(logits.softmax(0)[index]))


def test_a_class_whose_name_holds_a_digit_is_named_whole():
    labels = Labels(("take2", "wave", "3 wheels"))
    for index, name in enumerate(labels.names):
        found = verdict_of(6 * torch.eye(3)[index], labels, 0.5)
        assert (found.name, found.classes, found.sure) == (name, (index,), True)


@pytest.mark.parametrize(
    ("named", "shown", "labels", "right"),
    [
        ("37", "73", DIGITS, True),
        ("3", "333", DIGITS, True),
        ("3", "73", DIGITS, False),
        ("", "7", DIGITS, False),
        ("37", "7?", DIGITS, None),
        ("37", "", DIGITS, None),
        (["37"], "73", PAIR, True),
        (["77"], "77", PAIR, True),
        (["37"], "73", ORDERED, False),
        (["73"], "73", ORDERED, True),
        (["37"], "731", PAIR, None),
        (["take2"], ["take2"], Labels(("take2", "wave")), True),
        (["take2"], ["wave"], Labels(("take2", "wave")), False),
        (["take2"], "2", Labels(("take2", "wave")), None),
        (["take2"], ["wave", "take2"], Labels(("take2", "wave")), None),
    ],
)
def test_right_is_what_the_labels_can_tell(named, shown, labels, right):
    classes = [labels.names.index(name) for name in named]
    assert is_right(classes, [None if thing == "?" else thing for thing in shown], labels) is right


def test_a_card_says_what_its_model_names():
    assert [task_of(labels) for labels in (DIGITS, PAIR, ORDERED)] == [
        "",
        "Names two digits.",
        "Names two digits in order.",
    ]
    # Ten classes called by numbers are no digits.
    assert task_of(Labels.numbered(10)) == "Names one of 10 classes."
    assert task_of(Labels(("a", "b"), exclusive=False)) == "Names any of 2 classes."
