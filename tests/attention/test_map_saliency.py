"""What places of a trunk's map add to a verdict, in pixels of the frame."""

import pytest
import torch

from saccade import models
from saccade.attention import look
from saccade.attention.attribution import map_saliency
from saccade.attention.geometry import Grid
from saccade.labels import Labels

from .stand_ins import random_frames

LABELS = Labels(("wave", "clap"))
GRID = Grid(start_px=(7.0, 3.0), step_px=(8.0, 8.0))


def shown(added, size=(40, 48)):
    """Return the saliency of one map whose places add some numbers to a score, half of each in either channel."""
    values = torch.tensor(added).float().expand(1, 2, -1, -1)
    return map_saliency(values, torch.full_like(values, 0.5), GRID, size)[0]


@pytest.mark.parametrize(("row", "column"), [(0, 0), (2, 1), (3, 4)])
def test_a_place_lies_where_the_grid_of_the_map_says(row, column):
    added = torch.zeros(4, 5)
    added[row, column] = 2.0
    found = shown(added.tolist(), size=(36, 40))
    y, x = 7 + 8 * row, 3 + 8 * column
    assert found[y, x] == found.max() > 1.9 * found[y, x - 4 if column else x + 4]
    assert found.sum() == pytest.approx(1, abs=1e-5)
    far = found.clone()
    far[max(0, 8 * row) : 8 * row + 15, max(0, 8 * column - 4) : 8 * column + 11] = 0
    # At the border of the map, its last places go on to the edge of the frame.
    assert far[8:28, 4:34].sum() == 0


def test_places_that_subtract_count_as_zero_and_others_by_how_much_they_add():
    found = shown([[3.0, -5.0, 1.0]], size=(8, 24))
    assert found[7, 11] == 0
    assert found[7, 3] == pytest.approx(3 * float(found[7, 19]))
    assert not shown([[-1.0, -2.0]]).any()


@pytest.mark.parametrize(("cell", "corner"), [(0, (0, 0)), (8, (1, 1)), (6, (1, 0))])
def test_a_head_that_reads_one_cell_of_the_map_looks_there(cell, corner):
    torch.manual_seed(0)
    model = models.create("lite0-memory", labels=LABELS, window=4).eval()
    frames = random_frames(3, (160, 160), channels=3)
    model.head.weight.data.zero_()
    with torch.no_grad():  # the mean over time of each channel of the frames, in that cell
        features = model.encoder(model.encoder_input(frames.unsqueeze(0))[0][0]).mean(0)
    places = torch.arange(cell, 9 * 320, 9)
    model.head.weight.data[0, places] = features[places].sign()
    found = look(model, frames, saliency=True)[0].saliency
    assert torch.allclose(found.sum((1, 2)), torch.ones(3), atol=1e-4)
    # The map has places at 31, 63, ..., 159 px; a cell averages two of them, and drawing spreads them by 32 px.
    rows, columns = (slice(0, 96) if last == 0 else slice(96, 160) for last in corner)
    assert found[:, rows, columns].sum() == pytest.approx(3, abs=1e-3)


def test_saliency_of_a_stream_goes_on_from_the_state():
    torch.manual_seed(0)
    model = models.create("lite0-memory", labels=LABELS, window=4).eval()
    frames, state = random_frames(3, (64, 96), channels=3), None
    for frame in frames:
        found, state = look(model, frame.unsqueeze(0), state, saliency=True)
    whole = look(model, frames, saliency=True)[0]
    assert torch.allclose(found.logits[-1], whole.logits[-1], rtol=1e-3, atol=1e-4)
    assert torch.allclose(found.saliency[-1], whole.saliency[-1], atol=1e-5)
