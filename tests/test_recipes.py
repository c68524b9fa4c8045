"""What recipes compute by themselves."""

import pytest
import torch
from recipes.agreement import agreement
from recipes.distil import Taught
from torch import nn
from torch.nn import functional as F

from saccade.clips import ClipBatch


def test_agreement_counts_the_errors_that_all_models_make():
    said = torch.tensor([[0, 1, 2, 2], [0, 1, 1, 2], [0, 2, 2, 2]])  # models, clips
    targets = torch.tensor([0, 1, 0, 1])
    probabilities = 0.1 + 0.7 * F.one_hot(said, 3).double()
    found = agreement(probabilities, targets)
    assert found["wrong_of_each"] == pytest.approx(7 / 3)  # two, two, three
    assert (found["wrong_of_all"], found["same_wrong_verdict"]) == (2, 1)
    assert found["accuracy"] == 0.5
    of_targets = torch.tensor([0.8, (0.8 + 0.8 + 0.1) / 3, 0.1, 0.1], dtype=torch.double)
    assert found["cross_entropy"] == pytest.approx(-of_targets.log().mean().item())


class Fixed(nn.Module):
    def __init__(self, logits):
        super().__init__()
        self.logits = logits

    def forward(self, frames):
        return self.logits


def test_a_student_learns_the_mean_of_its_teachers_beside_the_classes():
    torch.manual_seed(0)
    one, other, own = torch.randn(3, 2, 4, 5)  # clips, frames, classes
    batch = ClipBatch(torch.zeros(2, 4, 1, 8, 8), torch.tensor([1, 4]))
    teachers = nn.ModuleList([Fixed(one), Fixed(other)])
    mean = (one.softmax(-1) + other.softmax(-1)) / 2
    taught = Taught(teachers, 0.0, torch.float32)
    assert taught(mean.log(), batch).item() == pytest.approx(torch.special.entr(mean).sum(-1).mean().item())
    classes = batch.targets[:, None].expand(-1, 4)
    hard = F.cross_entropy(own.flatten(0, 1), classes.flatten())
    assert Taught(teachers, 1.0, torch.float32)(own, batch).item() == pytest.approx(hard.item())
    half = (taught(own, batch) + hard) / 2
    assert Taught(teachers, 0.5, torch.float32)(own, batch).item() == pytest.approx(half.item())
