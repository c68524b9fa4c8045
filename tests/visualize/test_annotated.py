"""Pictures of a stream: marks where the model looked, text below the frame."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from saccade.attention import Look
from saccade.stream import Moment, Prediction
from saccade.stream.live_frame import LiveFrame
from saccade.visualize import Annotator

GREY = 90
ORANGE, YELLOW, BLUE = (238, 119, 51), (255, 210, 63), (76, 201, 240)
GLIMPSE = (0, 119, 187)
AMBER, WHITE = (242, 184, 75), (255, 255, 255)


@pytest.fixture(scope="module")
def annotator():
    return Annotator()


def moment(look=None, *, size=(480, 640), verdict="wave", sure=True, dropped=5):
    pixels = torch.full((3, 48, 64), GREY, dtype=torch.uint8)
    picture = None if size is None else torch.full((*size, 3), GREY, dtype=torch.uint8)
    said = Prediction(verdict, 0.873, sure, (0.873, 0.127), 9)
    return Moment(LiveFrame(pixels, 12.4, 0.0, False, picture), said, 0.0234, dropped, False, look)


def looked(**parts):
    return Look(torch.zeros(1, 2), (48, 64), **parts)


def is_near(picture, colour, tolerance=12):
    """Return which pixels have about a colour."""
    return (picture.int() - torch.tensor(colour)).abs().amax(-1) <= tolerance


def middle(mask):
    """Return the mean (y, x) of the pixels of a mask."""
    return mask.nonzero().float().mean(0).tolist()


def frame_of(picture):
    """Return top, left, bottom and right of the frame in a picture without marks."""
    inside = is_near(picture, (GREY,) * 3, 0).nonzero()
    return *inside.amin(0).tolist(), *(inside.amax(0) + 1).tolist()


def test_a_picture_shows_the_whole_frame_and_text_below_it(annotator):
    picture = annotator.draw(moment())
    top, left, bottom, right = frame_of(picture)
    assert (bottom - top, right - left) == (480, 640)
    assert bool(is_near(picture[top:bottom, left:right], (GREY,) * 3, 0).all())
    below = is_near(picture[bottom:], WHITE)
    assert below.any()
    assert not below[:, : left - 1].any()
    assert not below[:, right + 1 :].any()


def test_marks_lie_where_the_model_looked(annotator):
    top, left, *_ = frame_of(annotator.draw(moment()))
    # A pixel of the model's frame is ten pixels of the picture; its centre is at whole coordinates.
    corners = torch.tensor([[[[9.5, 19.5], [9.5, 49.5], [39.5, 49.5], [39.5, 19.5]]]])
    outline = is_near(annotator.draw(moment(looked(quadrilateral_px=corners))), ORANGE)
    rows, columns = (outline.any(axis).nonzero().flatten() for axis in (1, 0))
    for found, start, first, last in ((rows, top, 100, 400), (columns, left, 200, 500)):
        assert found[0].item() == pytest.approx(start + first, abs=7)
        assert found[-1].item() == pytest.approx(start + last, abs=3)
    assert not outline[top + 150 : top + 350, left + 250 : left + 450].any()
    assert outline[top + 95 : top + 106, left + 195 : left + 206].float().mean() > 0.5  # the upper left corner


def test_several_outlines_have_colours_and_numbers(annotator):
    top, left, *_ = frame_of(annotator.draw(moment()))
    one = torch.tensor([[4.5, 9.5], [4.5, 29.5], [24.5, 29.5], [24.5, 9.5]])
    corners = torch.stack((one, one + torch.tensor([20.0, 25.0]))).unsqueeze(0)
    picture = annotator.draw(moment(looked(quadrilateral_px=corners)))
    for number, colour in enumerate((ORANGE, GLIMPSE)):
        y, x = (round(10 * (edge + 0.5)) for edge in corners[0, number, 0].tolist())
        assert is_near(picture[top + y + 100, left + x], colour, 40)
        dot = picture[top + y - 6 : top + y + 6, left + x - 5 : left + x + 5]
        assert is_near(dot, WHITE, 60).sum() > 5  # the number
        assert is_near(dot, colour, 40).sum() > 40


def test_points_are_larger_for_more_weight_and_coloured_by_unit(annotator):
    top, left, *_ = frame_of(annotator.draw(moment()))
    points = torch.tensor([[[[10.0, 10.0], [10.0, 30.0], [10.0, 40.0]], [[30.0, 10.0], [30.0, 30.0], [30.0, 40.0]]]])
    weight = torch.tensor([[[0.6, 0.2, 0.001], [0.1, 0.1, 0.001]]])
    look = looked(points_px=points, point_weight=weight, unit_px=torch.tensor([[[20.0, 55.0], [40.0, 55.0]]]))
    picture = annotator.draw(moment(look))
    sizes = {}
    for unit, colour in enumerate((YELLOW, BLUE)):
        for point, (y, x) in enumerate(points[0, unit].tolist()):
            at_y, at_x = round(top + 10 * y + 5), round(left + 10 * x + 5)
            near = is_near(picture[at_y - 12 : at_y + 12, at_x - 12 : at_x + 12], colour, 40)
            sizes[unit, point] = int(near.sum())
            if sizes[unit, point]:
                assert middle(near) == pytest.approx([11.5, 11.5], abs=1)
    assert sizes[0, 0] > sizes[0, 1] > sizes[1, 1] > 0
    assert sizes[0, 2] == sizes[1, 2] == 0  # too faint
    for (y, x), colour in zip([(20, 55), (40, 55)], (YELLOW, BLUE), strict=True):
        assert is_near(picture[top + 10 * y + 5, left + 10 * x + 5], colour, 40)


@pytest.mark.parametrize("size", [(640, 90), (36, 48), (90, 640), (480, 640)])
@pytest.mark.parametrize("verdict", ["wave", "a name of a class that is too long for any picture, however large"])
def test_text_never_leaves_its_place(annotator, size, verdict):
    wild = looked(quadrilateral_px=torch.tensor([[[[-50.0, -1e9], [-50.0, 90.0], [90.0, 90.0], [90.0, -50.0]]]]))
    plain = annotator.draw(moment(size=size, verdict=verdict, dropped=123456))
    marked = annotator.draw(moment(wild, size=size, verdict=verdict, dropped=123456))
    assert max(plain.shape) >= 640
    _, _, bottom, _ = frame_of(plain)
    assert torch.equal(plain[bottom + 16 :], marked[bottom + 16 :])  # marks stay above the text
    columns = is_near(plain[bottom:], WHITE).any(0).nonzero()
    assert columns.min() >= 15
    assert columns.max() < plain.shape[1] - 15
    # Between the name and the probability there is a gap.
    headline = is_near(plain[bottom + 16 : bottom + 46], WHITE, 100).any(0).nonzero().flatten()
    assert headline.diff().max() > 12


def test_an_unsure_verdict_looks_so(annotator):
    for sure in (True, False):
        picture = annotator.draw(moment(sure=sure))
        assert bool(is_near(picture, WHITE).any()) is sure
        assert bool(is_near(picture, AMBER).any()) is not sure


def test_names_from_outside_are_one_line(annotator):
    assert torch.equal(annotator.draw(moment(verdict="a\nb\x1b")), annotator.draw(moment(verdict="a\\x0ab\\x1b")))


def test_a_frame_without_a_picture_is_drawn_as_the_model_sees_it(annotator):
    top, left, bottom, right = frame_of(annotator.draw(moment(size=None)))
    assert (bottom - top, right - left) == (480, 640)


def test_a_jpeg_is_the_picture(annotator):
    said = moment()
    came = np.asarray(Image.open(io.BytesIO(annotator.jpeg(said))))
    assert came.shape == annotator.draw(said).shape
    assert np.abs(came.astype(int) - annotator.draw(said).numpy()).mean() < 2
