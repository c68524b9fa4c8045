import json
import math
from itertools import combinations_with_replacement

import pytest
import torch

from saccade.labels import IGNORED, Labels, Verdict

EXCLUSIVE = Labels(("wave", "clap", "take2"))
PRESENT = Labels(("wave", "clap", "take2"), exclusive=False)


def logits_of(*shape, seed=0):
    return 2 * torch.randn(*shape, 3, generator=torch.Generator().manual_seed(seed))


def targets_of(labels, clips):
    if labels.exclusive:
        return torch.arange(clips) % 3
    return torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0], [1.0, 1.0, 1.0], [0.0, 0.0, 0.0]])[:clips]


def softmax(row):
    largest = max(row)
    powers = [math.exp(value - largest) for value in row]
    return [power / sum(powers) for power in powers]


def loss_of_frame(labels, row, target):
    """Compute by hand what one frame costs."""
    said = softmax(row)
    if labels.exclusive:
        return -math.log(said[target])
    present = [1 / (1 + math.exp(-value)) for value in row]
    binary = [-math.log(p if there else 1 - p) for p, there in zip(present, target, strict=True)]
    shared = -sum(there * math.log(p) for p, there in zip(said, target, strict=True)) / max(sum(target), 1)
    return sum(binary) / len(binary) + shared


def loss_by_hand(labels, logits, targets, lengths):
    clips = [
        sum(loss_of_frame(labels, row, target) for row in rows[:length]) / length
        for rows, target, length in zip(logits.tolist(), targets.tolist(), lengths, strict=True)
    ]
    return sum(clips) / len(clips)


# --- Learning


def test_frames_have_targets_of_their_own_or_do_not_count():
    logits = logits_of(3, 5)
    targets = torch.tensor([[0, 0, 1, 1, IGNORED], [2, 2, 2, 2, 2], [IGNORED, IGNORED, 0, 1, IGNORED]])
    clips = []
    for rows, own in zip(logits.tolist(), targets.tolist(), strict=True):
        counted = [(row, target) for row, target in zip(rows, own, strict=True) if target != IGNORED]
        clips.append(sum(loss_of_frame(EXCLUSIVE, row, target) for row, target in counted) / len(counted))
    expected = pytest.approx(sum(clips) / 3, rel=1e-5)
    assert EXCLUSIVE.loss(logits, targets).item() == expected
    assert EXCLUSIVE.loss(logits, targets, torch.ones(3, 5, dtype=torch.bool)).item() == expected
    whole = torch.tensor([[0, 0, 1, 1, 2], [2] * 5, [1] * 5])
    by_frame = [
        loss_of_frame(EXCLUSIVE, row, to)
        for row, to in zip(logits.flatten(0, 1).tolist(), whole.flatten().tolist(), strict=True)
    ]
    assert EXCLUSIVE.loss(logits, whole).item() == pytest.approx(sum(by_frame) / 15, rel=1e-5)


@pytest.mark.parametrize("labels", [EXCLUSIVE, PRESENT])
def test_the_loss_is_the_mean_over_frames_and_clips(labels):
    logits, targets = logits_of(4, 5), targets_of(labels, 4)
    expected = pytest.approx(loss_by_hand(labels, logits, targets, [5] * 4), rel=1e-5)
    assert labels.loss(logits, targets).item() == expected
    assert labels.loss(logits, targets, torch.ones(4, 5, dtype=torch.bool)).item() == expected


@pytest.mark.parametrize("labels", [EXCLUSIVE, PRESENT])
@pytest.mark.parametrize("padding", [7.0, torch.nan])
def test_each_padded_clip_counts_by_its_own_frames(labels, padding):
    logits, targets, lengths = logits_of(4, 5), targets_of(labels, 4), [5, 1, 3, 2]
    valid = torch.arange(5) < torch.tensor(lengths).unsqueeze(1)
    logits[~valid] = padding
    found = labels.loss(logits, targets, valid)
    assert found.item() == pytest.approx(loss_by_hand(labels, logits, targets, lengths), rel=1e-5)


@pytest.mark.parametrize("labels", [EXCLUSIVE, PRESENT])
def test_padding_gets_no_gradient(labels):
    logits = logits_of(2, 4).requires_grad_()
    valid = torch.tensor([[True, True, False, False], [True, True, True, True]])
    labels.loss(logits, targets_of(labels, 2), valid).backward()
    assert not logits.grad[0, 2:].any()
    assert logits.grad[valid].abs().min() > 0


# --- Reading logits


def test_probabilities():
    logits = logits_of(2, 3)
    assert torch.allclose(
        EXCLUSIVE.probabilities(logits), torch.tensor([list(map(softmax, c)) for c in logits.tolist()])
    )
    assert torch.allclose(PRESENT.probabilities(logits), 1 / (1 + (-logits).exp()))


def test_a_verdict_of_exclusive_classes_is_the_likeliest():
    logits = torch.tensor([[1.0, 3.0, 2.0], [0.0, 0.0, 5.0]])
    assert EXCLUSIVE.decide(logits).tolist() == [1, 2]
    assert EXCLUSIVE.chosen(logits).tolist() == [[False, True, False], [False, False, True]]
    first, second = EXCLUSIVE.verdicts(logits)
    assert (first.classes, first.name) == ((1,), "clap")
    assert first.probability == pytest.approx(softmax([1.0, 3.0, 2.0])[1])
    assert (second.classes, second.name) == ((2,), "take2")


def test_a_verdict_of_other_classes_is_what_is_present():
    logits = torch.tensor([[1.0, -2.0, 3.0], [-1.0, -2.0, -3.0], [-1.0, 2.0, -3.0]])
    assert PRESENT.decide(logits).tolist() == PRESENT.chosen(logits).tolist() == (logits > 0).tolist()
    both, none, one = PRESENT.verdicts(logits)
    assert (both.classes, both.name) == ((0, 2), "wave + take2")
    assert (none.classes, none.name) == ((), "none of them")
    assert (one.classes, one.name) == ((1,), "clap")
    for verdict, row in zip((both, none, one), logits.abs().tolist(), strict=True):
        assert verdict.probability == pytest.approx(math.prod(1 / (1 + math.exp(-value)) for value in row))


def test_names_are_never_parsed():
    names = ("take2", "10", "2 + 3", "0-7")
    for labels in (Labels(names), Labels(names, exclusive=False)):
        assert labels.things == names
        for index, name in enumerate(names):
            logits = torch.full((1, 4), -9.0)
            logits[0, index] = 9.0
            assert labels.verdicts(logits) == [Verdict((index,), name, pytest.approx(1, abs=1e-3))]


def test_own_words_for_nothing_and_between_names():
    labels = Labels(("a", "b"), exclusive=False, nothing="silence", separator=" and ")
    assert [labels.name_of(classes) for classes in ((), (1,), (0, 1))] == ["silence", "b", "a and b"]


def test_right_is_asked_of_clips_and_of_every_frame():
    logits = torch.tensor([[[3.0, 1, 1], [1, 3, 1]], [[1, 1, 3], [1, 1, 3]], [[1, 3, 1], [3, 1, 1]]])
    targets = torch.tensor([0, 2, 0])
    assert EXCLUSIVE.right(logits, targets).tolist() == [[True, False], [True, True], [False, True]]
    assert EXCLUSIVE.right(logits[:, 0], targets).tolist() == [True, True, False]


def test_right_means_the_exact_set_of_classes_present():
    targets = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    logits = torch.tensor([[[1.0, -1, 1], [1, 1, 1]], [[-1, -1, -1], [-1, -1, 1]], [[1, 1, -1], [-1, 1, -1]]])
    assert PRESENT.right(logits, targets).tolist() == [[True, False], [True, False], [False, True]]
    assert PRESENT.right(logits[:, 0], targets).tolist() == [True, True, False]


def test_the_score_is_of_what_the_verdict_names():
    logits = torch.tensor([[3.0, -1.0, 2.0], [-3.0, -1.0, -2.0]])
    assert EXCLUSIVE.score(logits).tolist() == [3.0, -1.0]
    assert PRESENT.score(logits).tolist() == [5.0, -1.0]
    assert PRESENT.score(logits.unsqueeze(1)).tolist() == [[5.0], [-1.0]]
    # Ten exclusive classes are no ten presences.
    assert Labels.numbered(10).score(torch.ones(10)).item() == 1


# --- What classes consist of


def pairs_of(things):
    pairs = tuple(combinations_with_replacement(things, 2))
    return Labels(tuple(f"{a} with {b}" for a, b in pairs), parts=pairs)


def test_things_are_the_parts_or_the_classes():
    assert EXCLUSIVE.things == EXCLUSIVE.names
    assert pairs_of(("cup", "bowl", "take2")).things == ("cup", "bowl", "take2")
    assert Labels(("x", "y"), parts=(("b", "a"), ("a", "c"))).things == ("b", "a", "c")


def test_unordered_pairs_are_known_by_their_parts():
    assert pairs_of(("cup", "bowl", "take2")).unordered_pairs
    assert pairs_of(("cup",)).unordered_pairs
    pairs = tuple(combinations_with_replacement("012", 2))
    names = tuple(a + b for a, b in pairs)
    assert not Labels(names).unordered_pairs
    assert not Labels(names[:-1], parts=pairs[:-1]).unordered_pairs
    assert not Labels(names, parts=(*pairs[1:], pairs[0])).unordered_pairs
    ordered = tuple((a, b) for a in "01" for b in "01")
    assert not Labels(tuple(a + b for a, b in ordered), parts=ordered).unordered_pairs
    assert not Labels(("a", "b"), parts=(("a",), ("b",))).unordered_pairs


# --- There and back, and what is refused


@pytest.mark.parametrize(
    "labels",
    [
        EXCLUSIVE,
        pairs_of(("cup", "bowl")),
        Labels(("a", "b"), exclusive=False, nothing="silence", separator="/"),
        Labels.numbered(4),
    ],
)
def test_labels_come_back_from_json(labels):
    assert Labels.from_json(json.loads(json.dumps(labels.as_json()))) == labels


def test_what_json_leaves_out_is_as_by_default():
    assert Labels.from_json({"names": ["a", "b"]}) == Labels(("a", "b"))


@pytest.mark.parametrize(
    ("described", "message"),
    [
        ({"names": []}, "each class needs a distinct name; got"),
        ({"names": ["a", "b", "a"]}, r"a distinct name; got \('a', 'b', 'a'\)"),
        ({"names": ["a", "b"], "parts": [["x", "y"]]}, "there are 2 classes, but parts for 1"),
    ],
)
def test_impossible_labels_are_refused(described, message):
    with pytest.raises(ValueError, match=message):
        Labels.from_json(described)


def test_unknown_fields_are_refused():
    with pytest.raises(TypeError, match="exclusiv"):
        Labels.from_json({"names": ["a"], "exclusiv": False})


def test_classes_that_hold_together_have_no_parts():
    with pytest.raises(ValueError, match="have no parts; leave parts out"):
        Labels(("ab",), exclusive=False, parts=(("a", "b"),))


# --- Streams


def test_the_class_that_means_nothing_is_one_that_excludes_the_others():
    labels = Labels(("idle", "wave"), none="idle")
    assert Labels.from_json(labels.as_json()) == labels
    with pytest.raises(ValueError, match="'rest' cannot mean that nothing happens"):
        Labels(("idle", "wave"), none="rest")
    with pytest.raises(ValueError, match="excludes the others"):
        Labels(("idle", "wave"), exclusive=False, none="idle")


def test_the_threshold_is_kept_and_makes_no_other_labels():
    labels = Labels(("a", "b"), min_confidence=0.7)
    assert Labels.from_json(labels.as_json()).min_confidence == 0.7
    assert labels == Labels(("a", "b"))
    with pytest.raises(ValueError, match="min_confidence"):
        Labels(("a", "b"), min_confidence=1.1)


def test_labels_without_either_are_written_as_before_there_were_streams():
    assert set(Labels(("a", "b")).as_json()) == {"names", "exclusive", "parts", "nothing", "separator"}
