"""Stage 3 of the published protocol: many small recurrent parts, trained side by side."""

import pytest
import torch
from torch import Tensor, nn

from saccade.models.published import recurrent_part
from saccade.published.digit_batches import draw_generator
from saccade.published.retraining import retrain


def separable(num_classes: int, spread: float, seed: int) -> tuple[Tensor, Tensor]:
    """Return one sequence per class: the class's own mean and some noise."""
    means = torch.randn(num_classes, 1, 500, generator=torch.Generator().manual_seed(0))
    noise = torch.randn(num_classes, 6, 500, generator=torch.Generator().manual_seed(seed))
    return means + spread * noise, torch.arange(num_classes)


def by_hand(number: int, seed: int, train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor]) -> Tensor:
    """Return the logits of one retraining on the test clips."""
    features, labels = train
    generator = draw_generator(seed, 3, number)
    model = recurrent_part(num_classes=len(labels), num_frames=6)
    model.reset_parameters(generator)
    # Keras's RMSprop, spelled out.
    optimizer = torch.optim.RMSprop(model.parameters(), lr=1e-3, alpha=0.9, eps=1e-8)
    for _ in range(10):
        for chosen in torch.randperm(len(labels), generator=generator).split(50):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(features[chosen]), labels[chosen]).backward()
            optimizer.step()
    with torch.no_grad():
        logits: Tensor = model(test[0])
    return logits


def test_a_retraining_is_what_a_plain_loop_does() -> None:
    train, test = separable(60, 0.5, 1), separable(60, 0.5, 2)
    together = retrain(*train, *test, num_retrainings=3, num_classes=60, seed=5)
    for number in range(3):
        logits = by_hand(number, 5, train, test)
        torch.testing.assert_close(together.cross_entropy[number], nn.functional.cross_entropy(logits, test[1]))
        accuracy = (logits.argmax(1) == test[1]).float().mean()
        assert together.accuracy[number].item() == pytest.approx(accuracy.item(), abs=1 / 60)


def test_a_retraining_does_not_depend_on_how_many_there_are() -> None:
    train, test = separable(20, 0.5, 1), separable(20, 0.5, 2)
    some = retrain(*train, *test, num_retrainings=2, num_classes=20)
    more = retrain(*train, *test, num_retrainings=27, num_classes=20)  # 25 at once, and two
    torch.testing.assert_close(some.cross_entropy, more.cross_entropy[:2])
    last = nn.functional.cross_entropy(by_hand(26, 0, train, test), test[1])
    torch.testing.assert_close(more.cross_entropy[26], last)
    assert len(set(more.cross_entropy.tolist())) == 27  # each has a seed of its own
    other = retrain(*train, *test, num_retrainings=2, num_classes=20, seed=1)
    assert not torch.isclose(some.cross_entropy, other.cross_entropy).any()


def test_retraining_learns_what_can_be_learned() -> None:
    train = separable(20, 0.2, 1)
    easy = retrain(*train, *separable(20, 0.2, 2), num_retrainings=4, num_classes=20)
    assert easy.accuracy.min() > 0.5
    shuffled = separable(20, 0.2, 2)[1].roll(1)
    wrong = retrain(*train, train[0], shuffled, num_retrainings=4, num_classes=20)
    assert wrong.accuracy.max() < 0.1
