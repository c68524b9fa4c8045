"""What stage 1 of the published protocol sees."""

import pytest
import torch
from torch import Tensor

from saccade.data.digits import Digits
from saccade.published.digit_batches import DigitBatches, augment, draw_generator, steps_per_epoch


@pytest.fixture
def seen_digits(uci: dict[str, Digits]) -> Digits:
    return uci["train"]


def lit_extents(zoomed: Tensor) -> tuple[Tensor, Tensor]:
    """Return size and centre in pixels of the lit rectangle, one per frame, along one axis."""
    mass = zoomed / zoomed.amax(1, keepdim=True)
    size = mass.sum(1)
    centre = (mass * (torch.arange(64) + 0.5)).sum(1) / size
    return size, centre


@pytest.mark.parametrize("axis", [2, 3])
def test_digits_are_shifted_then_zoomed_out(axis: int) -> None:
    frames = augment(torch.full((400, 28, 28), 255, dtype=torch.uint8), torch.Generator().manual_seed(0))
    size, centre = lit_extents(frames.sum(axis).squeeze(1))
    # A shifted image is cut by up to 0.2 at one edge, then everything shrinks by up to 2.5.
    assert 64 / 2.5 * 0.8 - 1 < size.min() < 64 / 2.5
    assert 60 < size.max() <= 64
    # Before the cut the centre moves by up to 0.2 / zoom of the frame: more than that never shows.
    assert (centre - 32).abs().max() < 0.2 * 64
    # At the largest zooms nothing reaches the frame's edge, and the shift is that of the whole image.
    far = size < 30
    assert (centre[far] - 32).abs().max() < 0.2 * 64 / 2.0


def test_zoom_and_shift_are_independent_in_x_and_y() -> None:
    frames = augment(torch.full((400, 28, 28), 255, dtype=torch.uint8), torch.Generator().manual_seed(0))
    height, y = lit_extents(frames.sum(3).squeeze(1))
    width, x = lit_extents(frames.sum(2).squeeze(1))
    for one, other in ((height, width), (y, x)):
        assert torch.corrcoef(torch.stack((one, other)))[0, 1].abs() < 0.15


def test_digits_are_not_turned() -> None:
    stripe = torch.zeros(20, 28, 28, dtype=torch.uint8)
    stripe[:, :, 14:] = 255
    for frame in augment(stripe, torch.Generator().manual_seed(1)).squeeze(1):
        lit_rows = frame[frame.sum(1) > 0.5 * frame.sum(1).max()]
        assert len(lit_rows) > 10
        lit_rows = lit_rows / lit_rows.amax(1, keepdim=True)  # rows at the border are darker, but alike
        assert (lit_rows - lit_rows[0]).abs().max() < 0.01


def test_augmented_frames_are_grey_levels_between_black_and_white(seen_digits: Digits) -> None:
    frames = augment(seen_digits.images[:50], torch.Generator())
    assert frames.shape == (50, 1, 64, 64)
    assert frames.min() == 0
    assert 0.9 < frames.max() <= 1.0001


def test_an_epoch_shows_every_digit_once(seen_digits: Digits) -> None:
    marked = Digits(seen_digits.images, torch.arange(len(seen_digits.labels)), "uci", "train")
    num_steps, batches = steps_per_epoch(marked), DigitBatches(marked, 0)
    first, second = (
        torch.cat([batches(step, 0).targets for step in range(begin, begin + num_steps)]) for begin in (0, num_steps)
    )
    assert torch.equal(first.sort().values, marked.labels)
    assert torch.equal(second.sort().values, marked.labels)
    assert not torch.equal(first, second)


def test_a_batch_is_a_function_of_seed_and_step(seen_digits: Digits) -> None:
    batch, again = (DigitBatches(seen_digits, 3)(40, 0) for _ in range(2))
    assert torch.equal(batch.frames, again.frames)
    assert torch.equal(batch.targets, again.targets)
    for seed, step in ((3, 41), (4, 40)):
        assert not torch.equal(batch.frames, DigitBatches(seen_digits, seed)(step, 0).frames)


def test_draws_for_different_purposes_differ() -> None:
    draws = [
        torch.rand((), generator=draw_generator(*counters)).item() for counters in ((0, 0), (0, 1), (1, 0), (0, 0, 1))
    ]
    assert len(set(draws)) == 4
