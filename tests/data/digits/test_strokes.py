import numpy as np
import pytest
import torch

from saccade.data import digits
from saccade.data.digits import strokes
from saccade.errors import UsageError

SUMS_OF_VALIDATION = [25634, 13947, 31644, 15706, 17102, 21735, 27826, 19891, 36658, 29905]


def test_strokes_are_a_source_like_any_other():
    found = digits.load("strokes", "test")
    assert found.images.shape == (4000, 28, 28)
    assert found.images.dtype == torch.uint8
    assert torch.bincount(found.labels).tolist() == [400] * 10
    assert found.source == "strokes"
    assert digits.resolve("strokes").folder is None


def test_the_splits_share_no_image():
    test, validation = (digits.load("strokes", split).images.flatten(1) for split in ("test", "validation"))
    seen = {bytes(image.numpy()) for image in test}
    assert len(seen) == len(test)
    assert not any(bytes(image.numpy()) in seen for image in validation)


def test_images_never_change():
    """The weights of the package learned from them; another library's sine may change a pixel by a level."""
    images = digits.load("strokes", "validation").images
    sums = images[:10].long().sum((1, 2)).tolist()
    assert sums == pytest.approx(SUMS_OF_VALIDATION, rel=1e-3)
    strokes.images.cache_clear()
    assert torch.equal(digits.load("strokes", "validation").images, images)


def test_they_look_like_digits_to_somebody_who_knows_others():
    """A nearest neighbour among scikit-learn's handwritten digits names most of them."""
    known, drawn = digits.load("uci", "train"), digits.load("strokes", "validation")
    reference, asked = (images.flatten(1).float() for images in (known.images, drawn.images[:500]))
    nearest = torch.cdist(asked / asked.norm(dim=1, keepdim=True), reference / reference.norm(dim=1, keepdim=True))
    right = known.labels[nearest.argmin(1)] == drawn.labels[:500]
    assert right.float().mean() > 0.6


def test_several_sources_are_joined(uci):
    both = digits.load("uci+strokes", "test")
    assert both.source == "uci+strokes"
    assert len(both.images) == len(uci["test"].images) + 4000
    assert torch.equal(both.images[: len(uci["test"].images)], uci["test"].images)
    assert digits.resolve("uci+strokes").reason == "bundled with scikit-learn; drawn when they are needed"


def test_an_unknown_part_is_named():
    with pytest.raises(UsageError, match="stroks"):
        digits.load("uci+stroks", "test")


# --- A drawing becomes an image


def test_a_vertical_line_stands_in_the_middle_and_is_as_wide_as_asked():
    image = strokes.draw([np.array([[10.0, 0.0], [10.0, 300.0]])], width_px=3.0).double() / 255
    assert image[14].sum() == pytest.approx(3.0, abs=0.05)
    rows = image.sum(1).nonzero().flatten()
    assert 18 <= len(rows) <= 22
    centre = (image.sum(0) * torch.arange(28)).sum() / image.sum()
    assert centre == pytest.approx(13.5, abs=0.05)


@pytest.mark.parametrize("unit", [1e-3, 1.0, 1e4])
@pytest.mark.parametrize("shift", [0.0, 777.0])
def test_place_and_unit_of_a_drawing_do_not_matter(unit, shift):
    points = np.array([[0.0, 0.0], [1.0, 0.0], [0.4, 2.0]])
    expected = strokes.draw([points]).int()
    assert (strokes.draw([points * unit + shift * unit]).int() - expected).abs().amax() <= 1


def test_proportions_are_kept():
    image = strokes.draw([np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 2.0], [0.0, 2.0], [0.0, 0.0]])])
    height, width = ((image > 127).any(dim).sum().item() for dim in (1, 0))
    assert height / width == pytest.approx(2.0, rel=0.25)


def test_a_dot_is_a_dot():
    image = strokes.draw([np.array([[5.0, 5.0]])], width_px=4.0)
    assert 8 <= (image > 127).sum() <= 20
    assert image[13:15, 13:15].amin() > 200


def test_a_hook_far_off_does_not_push_the_digit_out_of_the_image():
    dense = np.stack((np.zeros(200), np.tile([0.0, 1.0], 100)), -1)
    image = strokes.draw([dense, np.array([[0.0, 0.5], [10.0, 0.5]])])
    assert image[:, 0].sum() == 0
    assert image[:, -1].sum() == 0


def test_an_empty_stroke_is_left_out():
    line = np.array([[0.0, 0.0], [0.0, 1.0]])
    assert torch.equal(strokes.draw([np.empty((0, 2)), line]), strokes.draw([line]))


@pytest.mark.parametrize(
    ("drawing", "message"),
    [
        ([], "no point"),
        ([np.empty((0, 2))], "no point"),
        ([np.array([[0.0, np.nan]])], "not finite"),
        ([np.array([[-1e308, 0.0], [1e308, 0.0]])], "wide or high"),
        ([np.array([[0.0, 0.0], [1e-320, 0.0]])], "wide or high"),
    ],
)
def test_what_is_no_drawing_is_refused(drawing, message):
    with pytest.raises(ValueError, match=message):
        strokes.draw(drawing)
