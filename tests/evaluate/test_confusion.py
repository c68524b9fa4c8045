"""The confusion matrix as a picture, for any number of classes and names of any kind."""

import math
import re
from xml.etree import ElementTree

import pytest
import torch

from saccade.data import StoredClips
from saccade.evaluate import confusion_svg, evaluate
from saccade.labels import Labels

from .stand_ins import Canned

SVG = "{http://www.w3.org/2000/svg}"


def evaluation(names, targets, said, exclusive=True):
    labels = Labels(tuple(names), exclusive)
    frames = [torch.zeros(1, 1, 8, 8, dtype=torch.uint8)] * len(targets)
    logits = torch.nn.functional.one_hot(torch.as_tensor(said), len(names)).float() if exclusive else said * 2.0 - 1
    return evaluate(Canned(logits), StoredClips(frames, torch.as_tensor(targets), labels))


def of_size(num, name="class {}"):
    generator = torch.Generator().manual_seed(num)
    targets, said = torch.randint(num, (2, 5 * num), generator=generator)
    return evaluation([name.format(index) for index in range(num)], targets, said)


def drawn(found, **options):
    return ElementTree.fromstring(confusion_svg(found, **options))


def cells(picture):
    """Return the words of each cell and its rectangle."""
    return {group.find(f"{SVG}title").text: group.find(f"{SVG}rect") for group in picture.iter(f"{SVG}g")}


def test_every_cell_with_clips_is_drawn_and_no_other():
    found = evaluation("abc", [0, 0, 0, 1, 2], [0, 0, 1, 1, 1])
    told = cells(drawn(found))
    assert set(told) == {
        "a: a, 2 of 3 clips",
        "a: b, 1 of 3 clips",
        "b: b, 1 of 1 clips",
        "c: b, 1 of 1 clips",
    }
    assert {words: rect.get("class") for words, rect in told.items()} == {
        "a: a, 2 of 3 clips": "right",
        "a: b, 1 of 3 clips": "wrong",
        "b: b, 1 of 1 clips": "right",
        "c: b, 1 of 1 clips": "wrong",
    }


def test_colour_is_the_share_of_the_row_and_place_that_of_the_classes():
    found = evaluation("ab", [0] * 4 + [1] * 2, [0, 0, 0, 1, 0, 1])
    rects = cells(drawn(found))
    opacity = {words: float(rect.get("fill-opacity")) for words, rect in rects.items()}
    assert opacity["a: a, 3 of 4 clips"] > opacity["b: b, 1 of 2 clips"] > opacity["a: b, 1 of 4 clips"] > 0
    assert opacity["b: b, 1 of 2 clips"] == opacity["b: a, 1 of 2 clips"]
    x, y = (
        {words: float(rect.get(axis)) for words, rect in rects.items()} for axis in ("x", "y")
    )  # predicted classes run to the right, true ones down
    assert x["a: b, 1 of 4 clips"] == x["b: b, 1 of 2 clips"] > x["b: a, 1 of 2 clips"]
    assert y["b: a, 1 of 2 clips"] == y["b: b, 1 of 2 clips"] > y["a: b, 1 of 4 clips"]


@pytest.mark.parametrize("num", [2, 3, 10, 30, 60, 100])
@pytest.mark.parametrize("name", ["{}", "class {}", "a name that is much longer than any picture has room for {}"])
def test_names_do_not_overlap_and_stay_in_the_picture(num, name):
    picture = drawn(of_size(num, name))
    width, height, font = (float(picture.get(name)) for name in ("width", "height", "font-size"))
    named = [text for text in picture.iter(f"{SVG}text") if text.find(f"{SVG}title") is not None]
    rows, columns = named[:num], named[num:]
    assert len(columns) == num
    apart = float(rows[1].get("y")) - float(rows[0].get("y"))
    assert apart >= font  # between lines of writing
    turn_deg = float(re.match(r"rotate\((-?[\d.]+)", columns[0].get("transform"))[1])
    assert apart * abs(math.sin(math.radians(turn_deg))) >= font
    assert width <= 1400
    for text in named:
        assert len(text.find(f"{SVG}title").tail) <= 28
    for rect in cells(picture).values():
        assert 0 < float(rect.get("x")) < width
        assert 0 < float(rect.get("y")) < height


def test_numbers_are_written_where_they_fit():
    def written(picture):
        return [text for group in picture.iter(f"{SVG}g") for text in group.iter(f"{SVG}text")]

    assert len(written(drawn(of_size(10)))) == len(cells(drawn(of_size(10))))
    assert not written(drawn(of_size(100)))


def test_names_cannot_be_markup():
    names = ("<b>x</b>", "a&b\"'", "two\nlines", "]]>")
    picture = drawn(evaluation(names, [0, 1, 2, 3], [1, 1, 1, 0]))
    assert not list(picture.iter(f"{SVG}b"))
    assert "<b>x</b>: a&b\"', 1 of 1 clips" in cells(picture)
    assert "two\\x0alines: a&b\"', 1 of 1 clips" in cells(picture)


def test_classes_that_occur_together_have_four_cells_each():
    targets = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0]])
    told = cells(drawn(evaluation("ab", targets, torch.tensor([[1, 1], [0, 1], [0, 0]]), exclusive=False)))
    assert {words: rect.get("class") for words, rect in told.items()} == {
        "a: shown and predicted, 1 of 2 clips": "right",
        "a: shown, but missed, 1 of 2 clips": "wrong",
        "a: absent and not predicted, 1 of 1 clips": "right",
        "b: shown and predicted, 1 of 1 clips": "right",
        "b: absent, but predicted, 1 of 2 clips": "wrong",
        "b: absent and not predicted, 1 of 2 clips": "right",
    }


def test_the_axes_are_named_for_what_they_hold():
    def axes(found):
        return [text.text for text in drawn(found).iter(f"{SVG}text") if text.get("class") == "axis"]

    assert axes(of_size(3)) == ["predicted →", "← shown"]
    together = evaluation("ab", torch.ones(2, 2), torch.ones(2, 2), exclusive=False)
    assert axes(together) == ["clips that show the class or not →", "← class"]


def test_a_page_leaves_the_style_out():
    found = of_size(3)
    assert drawn(found).find(f"{SVG}style") is not None
    assert drawn(found, style="").find(f"{SVG}style") is None
