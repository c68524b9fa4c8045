"""Pictures of a camera, made from frames whose truth is known."""

import pytest
import torch

from saccade.data import digits
from saccade.data.digits import DigitStream, StreamSettings
from saccade.serve.camera import light_on_dark


@pytest.fixture(scope="module")
def frames():
    """Frames of the generator: light strokes on black, no noise."""
    stream = DigitStream(digits.load("strokes", "test"), StreamSettings(num_digits=2), seed=3)
    return [stream.next_frame()[0] for _ in range(60)][::6]


def on_paper(frame, *, shade=0.0, tilt=0.0, noise=0.0, ink=30.0, paper=210.0):
    """Photograph a frame: dark ink on paper, corners in the shade, light from one side, noise of the sensor."""
    height, width = frame.shape[-2:]
    y, x = torch.linspace(-1, 1, height).view(-1, 1), torch.linspace(-1, 1, width).view(1, -1)
    light = (1 - shade * (x.square() + y.square()) / 2) * (1 + tilt * x)
    reflected = paper + (ink - paper) * frame.float() / 255
    chance = torch.Generator().manual_seed(0)
    grains = noise * torch.randn(frame.shape, generator=chance)
    return (reflected * light + grains).round().clamp(0, 255).to(torch.uint8)


def overlap(seen, truth):
    """Return the share of ink that both have (intersection over union)."""
    ink, true_ink = seen > 127, truth > 127
    return float((ink & true_ink).sum() / (ink | true_ink).sum())


@pytest.mark.parametrize(
    "light",
    [
        {},
        {"shade": 0.5},
        {"tilt": 0.3},
        {"noise": 6.0},
        {"shade": 0.5, "tilt": 0.2, "noise": 5.0},
        {"paper": 120.0, "ink": 40.0, "noise": 3.0},
    ],
    ids=str,
)
def test_dark_on_paper_becomes_what_the_generator_draws(frames, light):
    for frame in frames:
        seen = light_on_dark(on_paper(frame, **light))
        assert overlap(seen, frame) > 0.8
        nothing = (torch.nn.functional.max_pool2d(frame.float(), 5, 1, 2) == 0).squeeze(0)
        assert float(seen[0][nothing].float().mean()) < 2


def test_light_on_dark_stays_as_it_is(frames):
    for frame in frames:
        difference = (light_on_dark(frame).float() - frame.float()).abs()
        assert float(difference.mean()) < 1
        assert float(difference.max()) < 30


def test_a_chalk_board_is_taken_for_light_on_dark(frames):
    for frame in frames:
        board = (40 + frame.float() * (200 - 40) / 255).round().to(torch.uint8)
        assert overlap(light_on_dark(board), frame) > 0.85


@pytest.mark.parametrize("level", [0, 12, 128, 255])
def test_an_empty_picture_is_black(level):
    assert light_on_dark(torch.full((1, 64, 64), level, dtype=torch.uint8)).max() == 0


def test_noise_without_a_digit_is_not_blown_up():
    chance = torch.Generator().manual_seed(1)
    picture = (150 + 5 * torch.randn(1, 64, 64, generator=chance)).clamp(0, 255).to(torch.uint8)
    assert float(light_on_dark(picture).float().mean()) < 2


@pytest.mark.parametrize("size", [(28, 28), (28, 128), (128, 128), (64, 85), (65, 90), (61, 61)])
def test_every_size_that_a_page_may_send_keeps_its_size(size):
    picture = torch.randint(0, 256, (1, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))
    seen = light_on_dark(picture)
    assert seen.shape == picture.shape
    assert seen.dtype == torch.uint8
