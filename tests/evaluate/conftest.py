import pytest

from saccade.data import digits
from saccade.data.digits.motion import Motion
from saccade.data.digits.moving_digits import MovingDigits


@pytest.fixture(scope="session")
def test_digits():
    return digits.load("uci", "test")


@pytest.fixture
def make_clips(test_digits):
    def make(num_clips=12, num_frames=3, condition="rotation", **options):
        return MovingDigits(test_digits, Motion(condition, num_frames), num_clips=num_clips, **options)

    return make
