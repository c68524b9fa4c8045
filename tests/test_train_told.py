"""What `saccade train` says of a model that follows streams."""

import pytest

from saccade.cli import train_told
from saccade.stream.joined import Found


@pytest.mark.parametrize(
    ("num_found", "num_false", "said"),
    [(20, 2, None), (2, 0, "the model notices few events"), (20, 60, "no threshold gives one false alarm a minute")],
)
def test_a_model_that_notices_little_or_too_much_comes_with_advice(capsys, num_found, num_false, said):
    train_told.events(Found(0.5, 24, num_found, num_false, minutes=11.0, delay_s=1.0))
    told = " ".join(capsys.readouterr().err.split())
    assert f"{num_found} of 24 events found" in told
    for advice in ("the model notices few events", "no threshold gives one false alarm a minute"):
        assert (advice in told) == (advice == said)
