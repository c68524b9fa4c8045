from dataclasses import replace

import pytest
import torch

from saccade.data.digits import Digits, DigitStream, StreamSettings
from saccade.errors import UsageError

STILL = StreamSettings(num_digits=1, max_angle_deg=0, scale_range=(1.0, 1.0), speed_px=0)


def frames_of(stream, num):
    return torch.stack([stream.next_frame()[0] for _ in range(num)])


def test_frames_follow_from_seed_and_settings(uci):
    settings = StreamSettings(num_digits=3, clutter=2, noise=10)
    first, same, other = (DigitStream(uci["test"], settings, seed=seed) for seed in (4, 4, 5))
    frames = frames_of(first, 30)
    assert torch.equal(frames, frames_of(same, 30))
    assert not torch.equal(frames, frames_of(other, 30))
    assert first.digits_shown != other.digits_shown or not torch.equal(frames[0], frames_of(other, 1)[0])


def test_frames_after_skipped_ones_are_those_after_drawn_ones(uci):
    settings = StreamSettings(num_digits=3, speed_px=4, clutter=2, noise=10)
    drawn, skipped = (DigitStream(uci["test"], settings, seed=4) for _ in range(2))
    frames_of(drawn, 25)
    for _ in range(25):
        skipped.skip_frame()
    assert torch.equal(frames_of(drawn, 10), frames_of(skipped, 10))


def test_a_digit_at_rest_is_its_image(uci):
    stream = DigitStream(uci["test"], STILL)
    frame, truth = stream.next_frame()
    top, left = (int(c) - 13 for c in truth.centre_px[0] - 0.5)
    shown = frame[0, top : top + 28, left : left + 28]
    candidates = uci["test"].images[uci["test"].labels == truth.digit[0]]
    assert bool((candidates == shown).flatten(1).all(1).any())
    assert int(frame.long().sum()) == int(shown.long().sum())
    assert torch.equal(stream.next_frame()[0], frame)


def test_boxes_hold_the_ink(uci):
    stream = DigitStream(uci["test"], StreamSettings(num_digits=1, max_angle_deg=180, scale_range=(0.4, 1.2)), seed=2)
    for _ in range(60):
        frame, truth = stream.next_frame()
        rows, columns = ((frame[0] > 0).any(dim).nonzero().flatten() for dim in (1, 0))
        assert truth.box_px[0].tolist() == [rows[0], columns[0], rows[-1] + 1, columns[-1] + 1]


def test_digits_stay_in_the_frame_and_reach_all_its_walls(uci):
    stream = DigitStream(uci["test"], replace(STILL, speed_px=8), seed=1)
    centres = torch.stack([stream.next_frame()[1].centre_px[0] for _ in range(200)])
    assert centres.amin() >= 13.5 - 0.5
    assert centres.amax() <= 49.5 + 0.5
    assert bool((centres.amin(0) < 18).all())
    assert bool((centres.amax(0) > 45).all())


def test_a_digit_goes_as_fast_as_it_is_told(uci):
    stream = DigitStream(uci["test"], replace(STILL, speed_px=2.0), seed=3)
    centres = torch.stack([stream.next_frame()[1].centre_px[0] for _ in range(400)]).double()
    travelled = (centres[10:] - centres[:-10]).norm(dim=1)
    assert travelled.amax() == pytest.approx(20, abs=1.5)  # ten frames without a wall; places are whole pixels


def test_angle_and_scale_swing_over_their_whole_range(uci):
    stream = DigitStream(uci["test"], StreamSettings(num_digits=2, max_angle_deg=90, scale_range=(0.5, 1.1)))
    truths = [stream.next_frame()[1] for _ in range(400)]
    for values, low, high in (
        (torch.stack([t.angle_deg for t in truths]), -90, 90),
        (torch.stack([t.scale for t in truths]), 0.5, 1.1),
    ):
        assert values.amin().item() == pytest.approx(low, abs=0.02 * (high - low))
        assert values.amax().item() == pytest.approx(high, abs=0.02 * (high - low))
        assert (values[1:] - values[:-1]).abs().amax() < 0.06 * (high - low)  # and never jump
        assert not torch.equal(values[:, 0], values[:, 1])


def test_all_together_turn_alike(uci):
    stream = DigitStream(uci["test"], StreamSettings(num_digits=3, per_digit=False))
    for _ in range(20):
        _, truth = stream.next_frame()
        assert len(truth.angle_deg.unique()) == len(truth.scale.unique()) == 1


def test_a_slider_takes_effect_at_once_and_without_a_jump(uci):
    stream = DigitStream(uci["test"], StreamSettings(num_digits=2, speed_px=1), seed=6)
    _, before = [stream.next_frame() for _ in range(40)][-1]
    stream.settings = StreamSettings(num_digits=4, speed_px=3)
    _, after = stream.next_frame()
    assert len(after.digit) == 4
    assert torch.equal(after.digit[:2], before.digit)
    assert (after.centre_px[:2] - before.centre_px).abs().amax() <= 2
    assert (after.angle_deg[:2] - before.angle_deg).abs().amax() < 10


def test_clutter_and_noise_add_to_the_frame(uci):
    base = StreamSettings(num_digits=2)
    plain, cluttered, noisy = (
        frames_of(DigitStream(uci["test"], settings), 20)
        for settings in (base, replace(base, clutter=4), replace(base, noise=20))
    )
    assert bool((cluttered >= plain).all())
    assert bool((cluttered > plain).flatten(1).any(1).all())
    assert (noisy != plain).float().mean() > 0.3
    assert not torch.equal(noisy[0] - plain[0], noisy[1] - plain[1])


def test_a_drawing_takes_the_place_of_a_digit(uci):
    stream = DigitStream(uci["test"], replace(STILL, num_digits=2), seed=1)
    _, before = stream.next_frame()
    cross = torch.zeros(28, 28, dtype=torch.uint8)
    cross[13:15], cross[:, 13:15] = 255, 255
    stream.replace_digit(1, cross, label=None)
    frame, after = stream.next_frame()
    top, left = (int(c) - 13 for c in after.centre_px[1] - 0.5)
    assert bool((frame[0, top : top + 28, left : left + 28] >= cross).all())
    assert stream.digits_shown == (int(before.digit[0]), None)
    assert torch.equal(after.centre_px, before.centre_px)
    stream.replace_digit(1, cross, label=4)
    assert stream.digits_shown[1] == 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_digits": 0}, "num_digits must lie in 1 to 5; got 0"),
        ({"num_digits": 2.5}, "num_digits must be a whole number; got 2.5"),
        ({"num_digits": 2.0}, "num_digits must be a whole number; got 2.0"),
        ({"max_angle_deg": 181}, "max_angle_deg must lie in 0 to 180; got 181"),
        ({"scale_range": (0.9, 0.5)}, "scale_range must rise within 0.3 to 1.2; got 0.9 to 0.5"),
        ({"speed_px": float("nan")}, "speed_px must lie in 0 to 8; got nan"),
        ({"clutter": 9}, "clutter must lie in 0 to 8; got 9"),
        ({"noise": 65}, "noise must lie in 0 to 64; got 65"),
        ({"tempo": -1}, "tempo must lie in 0 to 5; got -1"),
    ],
)
def test_settings_outside_their_range_are_refused(changes, message):
    with pytest.raises(UsageError, match=message):
        StreamSettings(**changes)


@pytest.mark.parametrize(
    ("slot", "image", "label", "message"),
    [
        (5, torch.zeros(28, 28, dtype=torch.uint8), None, "digits 0 to 4; got 5"),
        (0, torch.zeros(27, 28, dtype=torch.uint8), None, "uint8 of 28x28"),
        (0, torch.zeros(28, 28), None, "uint8 of 28x28"),
        (0, torch.zeros(28, 28, dtype=torch.uint8), 10, "0 to 9 or None; got 10"),
    ],
)
def test_a_drawing_that_does_not_fit_is_refused(uci, slot, image, label, message):
    with pytest.raises(UsageError, match=message):
        DigitStream(uci["test"]).replace_digit(slot, image, label)


def test_digits_of_all_ten_classes_are_needed(uci):
    few = uci["test"].labels == 3
    with pytest.raises(UsageError, match="ten digits are needed"):
        DigitStream(Digits(uci["test"].images[few], uci["test"].labels[few], "threes", "test"))
