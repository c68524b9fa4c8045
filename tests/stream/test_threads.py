"""As few threads as keep the pace of a live source."""

import time

import pytest
import torch

from saccade.stream.threads import enough_threads


@pytest.fixture(autouse=True)
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def taking(seconds):
    """Return a step that takes a time by the number of threads."""
    return lambda: time.sleep(seconds[torch.get_num_threads() - 1])


@pytest.mark.parametrize(
    ("seconds", "num_threads"),
    [
        ((0.001, 0.0), 1),  # one thread keeps the pace
        ((0.12, 0.001), 2),
        ((0.12, 0.4), 1),  # threads wait for each other
    ],
)
def test_the_number_of_threads_follows_from_their_times(seconds, num_threads):
    with enough_threads(taking(seconds), fps=10) as found:
        assert (found, torch.get_num_threads()) == (num_threads, num_threads)
    assert torch.get_num_threads() == 2


def test_the_number_is_restored_after_an_error():
    with pytest.raises(ValueError, match="broken"), enough_threads(lambda: None, None):
        raise ValueError("broken")
    assert torch.get_num_threads() == 2
