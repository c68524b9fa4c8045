"""Scene cuts, in made pictures: what is one, and what is none."""

import torch

from saccade.stream.cut import Cuts


def textured(seed, num=10, *, shift=0):
    """A picture of blotches that moves by some pixels a frame."""
    torch.manual_seed(seed)
    small = torch.rand(1, 3, 10, 12)
    large = torch.nn.functional.interpolate(small, (100, 160), mode="bicubic").clamp(0, 1)[0]
    wide = (255 * large).to(torch.uint8)
    return [wide.roll(shift * number, 2)[:, :64, :96] for number in range(num)]


def cuts(frames):
    detector = Cuts()
    return [number for number, frame in enumerate(frames) if detector.push(frame)]


def test_a_cut_is_told_at_its_first_frame():
    assert cuts(textured(0) + textured(1) + textured(2)) == [10, 20]


def test_motion_noise_and_light_that_changes_are_none():
    assert cuts(textured(0, 40, shift=2)) == []
    torch.manual_seed(0)
    still = textured(0, 40)
    assert cuts([(f + torch.randint(-20, 21, f.shape)).clamp(0, 255).to(torch.uint8) for f in still]) == []
    assert cuts([(f * (1 - n / 60)).to(torch.uint8) for n, f in enumerate(still)]) == []


def test_a_cut_amid_motion_is_told():
    assert cuts(textured(0, shift=2) + textured(1, shift=2)) == [10]


def test_frames_of_a_new_size_are_compared_all_the_same():
    assert cuts([textured(0)[0], textured(0)[0][:, ::2, ::2], textured(1)[0]]) == [2]
