import pytest
import torch
from torch import nn

from saccade.evaluate import metrics
from saccade.labels import Labels
from saccade.nn import PairHead
from saccade.nn.memory import temperature_after
from saccade.train import temperature

THREE = Labels(("a", "b", "c"))
SETS = Labels(("a", "b", "c"), exclusive=False)


def said(labels, sureness, num=400):
    """Logits that are right in most clips, and `sureness` times as large as they should be."""
    generator = torch.Generator().manual_seed(0)
    honest = 2 * torch.randn(num, 3, generator=generator)
    if labels.exclusive:
        targets = torch.multinomial(honest.softmax(1), 1, generator=generator)[:, 0]
    else:
        targets = (torch.rand(num, 3, generator=generator) < honest.sigmoid()).float()
    return sureness * honest, targets


@pytest.mark.parametrize("labels", [THREE, SETS], ids=["classes", "sets"])
@pytest.mark.parametrize("sureness", [0.3, 1.0, 4.0])
def test_a_model_becomes_as_sure_as_it_is_right(labels, sureness):
    logits, targets = said(labels, sureness)
    found = temperature.fitted(logits, targets, labels)
    assert found == pytest.approx(sureness, rel=0.15)
    before, after = (metrics.cross_entropy(some, targets, labels) for some in (logits, logits / found))
    assert after <= before + 1e-3
    assert metrics.calibration_error(logits / found, targets, labels) < 0.08


@pytest.mark.parametrize("num", [3, 30])
def test_a_model_that_is_always_right_is_not_taken_for_certain(num):
    targets = torch.arange(num) % 3
    logits = 20 * torch.eye(3)[targets]
    probability = (logits / temperature.fitted(logits, targets, THREE)).softmax(1).amax(1)
    assert torch.allclose(probability, torch.tensor(1 - 1 / (num + 2)), atol=0.01)


def said_over_time(labels, early, decay, num=400):
    """Logits at moments of clips, too sure at the beginning, and the number of frames seen."""
    logits, targets = said(labels, 1.0, num)
    seen = torch.tensor([1, 3, 6, 12, 30]) + torch.arange(num).unsqueeze(1) % 3
    temperature = 1 + (early - 1) * torch.exp((1 - seen) / decay)
    return logits.unsqueeze(1) * temperature.unsqueeze(2), seen.float(), targets


@pytest.mark.parametrize("labels", [THREE, SETS], ids=["classes", "sets"])
@pytest.mark.parametrize(("early", "decay"), [(6.0, 3.0), (3.0, 10.0), (20.0, 6.0)])
def test_first_frames_become_as_sure_as_they_are_right(labels, early, decay):
    logits, seen, targets = said_over_time(labels, early, decay)
    honest, _ = said(labels, 1.0)
    temperatures = temperature_after(seen, *temperature.fitted_early(logits, seen, targets, labels))
    for found in (logits / temperatures.unsqueeze(2)).unbind(1):
        assert metrics.calibration_error(found, targets, labels) < 0.1
        assert metrics.cross_entropy(found, targets, labels) == pytest.approx(
            metrics.cross_entropy(honest, targets, labels), abs=0.02
        )


def test_first_frames_that_are_not_sure_enough_stay_as_they_are():
    logits, seen, targets = said_over_time(THREE, 1.0, 1.0)
    found = temperature_after(seen, *temperature.fitted_early(0.5 * logits, seen, targets, THREE))
    assert torch.allclose(found, torch.tensor(1.0), atol=0.01)


@pytest.mark.parametrize("head", [nn.Linear(5, 3), PairHead(5, 3)], ids=["linear", "pairs"])
def test_it_becomes_part_of_a_head(head):
    states = torch.randn(4, 5)
    before = head(states)
    temperature.fold(head, 2.5)
    assert torch.allclose(head(states), before / 2.5, atol=1e-6)


def test_a_head_that_is_not_linear_is_refused():
    with pytest.raises(TypeError, match="a Sequential is no linear head"):
        temperature.fold(nn.Sequential(nn.Linear(2, 2), nn.ReLU()), 2.0)
