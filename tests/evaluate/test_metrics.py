import math

import pytest
import torch
from sklearn import metrics as judge

from saccade.data import labels as label_schemes
from saccade.evaluate import metrics

PAIR, ORDERED, DIGITS = (label_schemes.create(name) for name in ("pair", "ordered", "digits"))


def confident(scheme, said, probabilities):
    """Make logits that give the class of each name its probability, and the others equal shares of the rest."""
    num = scheme.num_classes
    rows = []
    for name, p in zip(said, probabilities, strict=True):
        row = torch.full((num,), (1 - p) / (num - 1), dtype=torch.float64)
        row[scheme.names.index(name)] = p
        rows.append(row.log())
    return torch.stack(rows)


def classes(scheme, *names):
    return torch.tensor([scheme.names.index(name) for name in names])


def presence(*sets):
    return torch.tensor([[float(str(digit) in shown) for digit in range(10)] for shown in sets])


def random_case(scheme, num=200):
    generator = torch.Generator().manual_seed(1)
    logits = 2 * torch.randn(num, scheme.num_classes, generator=generator)
    if scheme.multi_label:
        return logits, torch.randint(2, (num, 10), generator=generator).float()
    labels = torch.randint(scheme.num_classes, (num,), generator=generator)
    # A good part shall be right.
    return logits.scatter_add(1, labels.unsqueeze(1), torch.full((num, 1), 5.0)), labels


def test_accuracy_and_cross_entropy_of_known_probabilities():
    logits = confident(PAIR, ["01", "99", "23", "55"], [0.9, 0.8, 0.5, 0.25])
    labels = classes(PAIR, "01", "99", "23", "66")
    assert metrics.accuracy(logits, labels, PAIR) == 0.75
    missed = (1 - 0.25) / 54
    wanted = -(math.log(0.9) + math.log(0.8) + math.log(0.5) + math.log(missed)) / 4
    assert metrics.cross_entropy(logits, labels, PAIR) == pytest.approx(wanted, rel=1e-12)


def test_exact_sets_and_binary_cross_entropy():
    labels = presence("37", "3", "129")
    probability = presence("37", "37", "129") * 0.6 + 0.2  # 0.8 where said to be there, else 0.2
    logits = probability.double().logit()
    assert metrics.accuracy(logits, labels, DIGITS) == pytest.approx(2 / 3)
    # One of thirty presences is missed; all others were given 0.8.
    wanted = -(29 * math.log(0.8) + math.log(0.2)) / 30
    assert metrics.cross_entropy(logits, labels, DIGITS) == pytest.approx(wanted, rel=1e-6)


def test_uniform_logits_have_the_entropy_of_the_classes():
    labels = torch.arange(100)
    assert metrics.cross_entropy(torch.zeros(100, 100), labels, ORDERED) == pytest.approx(math.log(100))
    assert metrics.cross_entropy(torch.zeros(4, 10), torch.zeros(4, 10), DIGITS) == pytest.approx(math.log(2))


def test_top_five_counts_the_fifth_and_not_the_sixth():
    logits = torch.arange(55.0).repeat(3, 1)
    assert metrics.top_accuracy(logits, torch.tensor([54, 50, 49])) == pytest.approx(2 / 3)


@pytest.mark.parametrize("scheme", [PAIR, ORDERED, DIGITS], ids=lambda scheme: scheme.name)
def test_scikit_learn_agrees(scheme):
    logits, labels = random_case(scheme)
    decided = metrics.decide(logits, scheme)
    assert metrics.accuracy(logits, labels, scheme) == pytest.approx(judge.accuracy_score(labels.long(), decided))
    confusion = metrics.confusion_matrix(logits, labels, scheme).numpy()
    if scheme.multi_label:
        assert (confusion == judge.multilabel_confusion_matrix(labels.long(), decided)).all()
        recall = judge.recall_score(labels.long(), decided, average=None)
        assert metrics.digit_recall(logits, labels, scheme) == pytest.approx(recall.tolist())
    else:
        kinds = range(scheme.num_classes)
        assert (confusion == judge.confusion_matrix(labels, decided, labels=kinds)).all()
        assert metrics.top_accuracy(logits, labels) == pytest.approx(
            judge.top_k_accuracy_score(labels, logits, k=5, labels=kinds)
        )
        assert metrics.cross_entropy(logits, labels, scheme) == pytest.approx(
            judge.log_loss(labels, logits.double().softmax(-1), labels=kinds)
        )


def test_confusion_has_what_is_shown_in_rows():
    logits = confident(PAIR, ["01", "01", "33"], [0.9] * 3)
    matrix = metrics.confusion_matrix(logits, classes(PAIR, "01", "06", "33"), PAIR)
    row, column = PAIR.names.index("06"), PAIR.names.index("01")
    assert matrix[row, column] == 1
    assert matrix[column, row] == 0
    assert matrix.diagonal().sum() == 2


def test_recall_asks_for_both_threes_of_a_double():
    logits = confident(PAIR, ["35", "33", "33", "69"], [0.9] * 4)
    labels = classes(PAIR, "33", "33", "35", "66")
    recall = metrics.digit_recall(logits, labels, PAIR)
    # 3 is shown by three clips and missed in the first, which has two; 5 is missed in its one; of two 6 one is found.
    assert recall[3] == pytest.approx(2 / 3)
    assert recall[5] == 0.0
    assert recall[6] == 0.0
    assert recall[9] is None
    assert recall[0] is None


def test_recall_ignores_the_order_of_an_ordered_pair():
    recall = metrics.digit_recall(confident(ORDERED, ["30"], [0.9]), classes(ORDERED, "03"), ORDERED)
    assert (recall[0], recall[3]) == (1.0, 1.0)


def test_calibration_error_of_known_confidences():
    said = ["01", "02", "03", "04"]
    logits = confident(PAIR, said, [0.9, 0.9, 0.5, 0.5])
    labels = classes(PAIR, "01", "99", "03", "04")
    # Half the clips: confidence 0.9, accuracy 0.5; the other half: confidence 0.5, accuracy 1.
    assert metrics.calibration_error(logits, labels, PAIR) == pytest.approx(0.5 * 0.4 + 0.5 * 0.5, abs=1e-12)


def test_a_bin_is_closed_above():
    # 1/3 is the upper edge of bin 5: it shares a bin with 0.3, and their errors cancel.
    labels, other = presence("0123456789"), presence("")
    logits = torch.tensor([1 / 3, 0.3], dtype=torch.float64).logit().unsqueeze(1).expand(2, 10)
    error = metrics.calibration_error(logits, torch.cat((labels, other)), DIGITS)
    assert error == pytest.approx(abs((1 / 3 + 0.3) - 1) / 2, abs=1e-9)


@pytest.mark.parametrize("scheme", [PAIR, DIGITS], ids=lambda scheme: scheme.name)
def test_calibration_error_is_the_definition(scheme):
    logits, labels = random_case(scheme)
    if scheme.multi_label:
        confidence, happened = logits.double().sigmoid().flatten().tolist(), labels.flatten().tolist()
    else:
        best, said = logits.double().softmax(-1).max(-1)
        confidence, happened = best.tolist(), (said == labels).double().tolist()
    error = 0.0
    for k in range(15):
        inside = [i for i, c in enumerate(confidence) if k / 15 < c <= (k + 1) / 15]
        if inside:
            mean_confidence = sum(confidence[i] for i in inside) / len(inside)
            mean_accuracy = sum(happened[i] for i in inside) / len(inside)
            error += len(inside) / len(confidence) * abs(mean_confidence - mean_accuracy)
    assert error > 0.01
    assert metrics.calibration_error(logits, labels, scheme) == pytest.approx(error, abs=1e-9)


def test_certainty_is_calibrated_only_if_right():
    logits = torch.full((1, 55), -1e3)
    logits[0, 7] = 1e3
    assert metrics.calibration_error(logits, torch.tensor([7]), PAIR) == 0.0
    assert metrics.calibration_error(logits, torch.tensor([8]), PAIR) == 1.0


def test_right_looks_at_every_frame():
    logits = torch.zeros(2, 3, 55)
    logits[0, 1, 4] = logits[1, 1:, 5] = 1.0
    right = metrics.right(logits, torch.tensor([4, 5]), PAIR)
    assert right.tolist() == [[False, True, False], [False, True, True]]
    sets = presence("4", "5")
    by_frame = torch.stack((sets, 1 - sets), 1) - 0.5
    assert metrics.right(by_frame, sets, DIGITS).tolist() == [[True, False], [True, False]]
