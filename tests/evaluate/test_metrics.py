import math

import pytest
import torch
from sklearn import metrics as judge

from saccade.data.digits import schemes
from saccade.evaluate import metrics
from saccade.labels import Labels

PAIR, ORDERED, DIGITS = (schemes.create(name).labels for name in ("pair", "ordered", "digits"))
WORDS = Labels(("take2", "wave", "3 wheels"))
KINDS = {"argvalues": [PAIR, ORDERED, DIGITS, WORDS], "ids": ["pair", "ordered", "digits", "words"]}


def confident(labels, said, probabilities):
    """Make logits that give the class of each name its probability, and the others equal shares of the rest."""
    num = len(labels.names)
    rows = []
    for name, p in zip(said, probabilities, strict=True):
        row = torch.full((num,), (1 - p) / (num - 1), dtype=torch.float64)
        row[labels.names.index(name)] = p
        rows.append(row.log())
    return torch.stack(rows)


def classes(labels, *names):
    return torch.tensor([labels.names.index(name) for name in names])


def presence(*sets):
    return torch.tensor([[float(str(digit) in shown) for digit in range(10)] for shown in sets])


def random_case(labels, num=200):
    generator = torch.Generator().manual_seed(1)
    logits = 2 * torch.randn(num, len(labels.names), generator=generator)
    if not labels.exclusive:
        return logits, torch.randint(2, (num, 10), generator=generator).float()
    targets = torch.randint(len(labels.names), (num,), generator=generator)
    # A good part shall be right.
    return logits.scatter_add(1, targets.unsqueeze(1), torch.full((num, 1), 5.0)), targets


def test_accuracy_and_cross_entropy_of_known_probabilities():
    logits = confident(PAIR, ["01", "99", "23", "55"], [0.9, 0.8, 0.5, 0.25])
    targets = classes(PAIR, "01", "99", "23", "66")
    assert metrics.accuracy(logits, targets, PAIR) == 0.75
    missed = (1 - 0.25) / 54
    wanted = -(math.log(0.9) + math.log(0.8) + math.log(0.5) + math.log(missed)) / 4
    assert metrics.cross_entropy(logits, targets, PAIR) == pytest.approx(wanted, rel=1e-12)


def test_exact_sets_and_binary_cross_entropy():
    targets = presence("37", "3", "129")
    probability = presence("37", "37", "129") * 0.6 + 0.2  # 0.8 where said to be there, else 0.2
    logits = probability.double().logit()
    assert metrics.accuracy(logits, targets, DIGITS) == pytest.approx(2 / 3)
    # One of thirty presences is missed; all others were given 0.8.
    wanted = -(29 * math.log(0.8) + math.log(0.2)) / 30
    assert metrics.cross_entropy(logits, targets, DIGITS) == pytest.approx(wanted, rel=1e-6)


def test_uniform_logits_have_the_entropy_of_the_classes():
    targets = torch.arange(100)
    assert metrics.cross_entropy(torch.zeros(100, 100), targets, ORDERED) == pytest.approx(math.log(100))
    assert metrics.cross_entropy(torch.zeros(4, 10), torch.zeros(4, 10), DIGITS) == pytest.approx(math.log(2))


def test_top_five_counts_the_fifth_and_not_the_sixth():
    logits = torch.arange(55.0).repeat(3, 1)
    assert metrics.top_accuracy(logits, torch.tensor([54, 50, 49])) == pytest.approx(2 / 3)


@pytest.mark.parametrize("labels", **KINDS)
def test_scikit_learn_agrees(labels):
    logits, targets = random_case(labels)
    decided = labels.decide(logits)
    assert metrics.accuracy(logits, targets, labels) == pytest.approx(judge.accuracy_score(targets.long(), decided))
    confusion = metrics.confusion_matrix(logits, targets, labels).numpy()
    if not labels.exclusive:
        assert (confusion == judge.multilabel_confusion_matrix(targets.long(), decided)).all()
        recall = judge.recall_score(targets.long(), decided, average=None)
        assert metrics.recall(logits, targets, labels) == pytest.approx(dict(zip(labels.names, recall, strict=True)))
    else:
        kinds = range(len(labels.names))
        assert (confusion == judge.confusion_matrix(targets, decided, labels=kinds)).all()
        k = min(5, len(kinds) - 1)
        assert metrics.top_accuracy(logits, targets, k) == pytest.approx(
            judge.top_k_accuracy_score(targets, logits, k=k, labels=kinds)
        )
        assert metrics.cross_entropy(logits, targets, labels) == pytest.approx(
            judge.log_loss(targets, logits.double().softmax(-1), labels=kinds)
        )


def test_recall_of_classes_that_are_one_thing_each():
    logits, targets = random_case(WORDS)
    wanted = judge.recall_score(targets, WORDS.decide(logits), average=None)
    assert metrics.recall(logits, targets, WORDS) == pytest.approx(dict(zip(WORDS.names, wanted, strict=True)))


def test_confusion_has_what_is_shown_in_rows():
    logits = confident(PAIR, ["01", "01", "33"], [0.9] * 3)
    matrix = metrics.confusion_matrix(logits, classes(PAIR, "01", "06", "33"), PAIR)
    row, column = PAIR.names.index("06"), PAIR.names.index("01")
    assert matrix[row, column] == 1
    assert matrix[column, row] == 0
    assert matrix.diagonal().sum() == 2


def test_recall_asks_for_both_threes_of_a_double():
    logits = confident(PAIR, ["35", "33", "33", "69"], [0.9] * 4)
    targets = classes(PAIR, "33", "33", "35", "66")
    recall = metrics.recall(logits, targets, PAIR)
    # 3 is shown by three clips and missed in the first, which has two; 5 is missed in its one; of two 6 one is found.
    assert recall["3"] == pytest.approx(2 / 3)
    assert recall["5"] == 0.0
    assert recall["6"] == 0.0
    assert recall["9"] is None
    assert recall["0"] is None


def test_recall_ignores_the_order_of_an_ordered_pair():
    recall = metrics.recall(confident(ORDERED, ["30"], [0.9]), classes(ORDERED, "03"), ORDERED)
    assert (recall["0"], recall["3"]) == (1.0, 1.0)


def test_calibration_error_of_known_confidences():
    said = ["01", "02", "03", "04"]
    logits = confident(PAIR, said, [0.9, 0.9, 0.5, 0.5])
    targets = classes(PAIR, "01", "99", "03", "04")
    # Half the clips: confidence 0.9, accuracy 0.5; the other half: confidence 0.5, accuracy 1.
    assert metrics.calibration_error(logits, targets, PAIR) == pytest.approx(0.5 * 0.4 + 0.5 * 0.5, abs=1e-12)


def test_a_bin_is_closed_above():
    # 1/3 is the upper edge of bin 5: it shares a bin with 0.3, and their errors cancel.
    targets, other = presence("0123456789"), presence("")
    logits = torch.tensor([1 / 3, 0.3], dtype=torch.float64).logit().unsqueeze(1).expand(2, 10)
    error = metrics.calibration_error(logits, torch.cat((targets, other)), DIGITS)
    assert error == pytest.approx(abs((1 / 3 + 0.3) - 1) / 2, abs=1e-9)


@pytest.mark.parametrize("labels", **KINDS)
def test_calibration_error_is_the_definition(labels):
    logits, targets = random_case(labels)
    if not labels.exclusive:
        confidence, happened = logits.double().sigmoid().flatten().tolist(), targets.flatten().tolist()
    else:
        best, said = logits.double().softmax(-1).max(-1)
        confidence, happened = best.tolist(), (said == targets).double().tolist()
    error = 0.0
    for k in range(15):
        inside = [i for i, c in enumerate(confidence) if k / 15 < c <= (k + 1) / 15]
        if inside:
            mean_confidence = sum(confidence[i] for i in inside) / len(inside)
            mean_accuracy = sum(happened[i] for i in inside) / len(inside)
            error += len(inside) / len(confidence) * abs(mean_confidence - mean_accuracy)
    assert error > 0.01
    assert metrics.calibration_error(logits, targets, labels) == pytest.approx(error, abs=1e-9)


def test_certainty_is_calibrated_only_if_right():
    logits = torch.full((1, 55), -1e3)
    logits[0, 7] = 1e3
    assert metrics.calibration_error(logits, torch.tensor([7]), PAIR) == 0.0
    assert metrics.calibration_error(logits, torch.tensor([8]), PAIR) == 1.0


def test_right_looks_at_every_frame():
    logits = torch.zeros(2, 3, 55)
    logits[0, 1, 4] = logits[1, 1:, 5] = 1.0
    right = PAIR.right(logits, torch.tensor([4, 5]))
    assert right.tolist() == [[False, True, False], [False, True, True]]
    sets = presence("4", "5")
    by_frame = torch.stack((sets, 1 - sets), 1) - 0.5
    assert DIGITS.right(by_frame, sets).tolist() == [[True, False], [True, False]]
