"""What recipes compute by themselves."""

import pytest
import torch
from recipes.agreement import agreement
from torch.nn import functional as F


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
