"""What is drawn with Matplotlib lies where it should: the same cases as for the drawing code in JavaScript."""

from types import SimpleNamespace

import pytest
import torch

from saccade import visualize
from saccade.attention import Look
from saccade.attention.geometry import quadrilateral

pyplot = pytest.importorskip("matplotlib.pyplot")

ZOOM = 8
SIZE = 16
ORANGE = torch.tensor([238, 119, 51])


def look_of(**parts):
    """Stand for what a model saw in frames of 16x16, with the parts that a test is about."""
    return Look(torch.zeros(1, 2), (SIZE, SIZE), **{name: torch.tensor(value).float() for name, value in parts.items()})


def drawn(look, frames=None, *, num_frames=1, **options):
    """Draw on a figure that is all frame, `ZOOM` pixels to a pixel; return (time, height, width, 3) levels."""
    frames = torch.zeros(num_frames, 1, SIZE, SIZE, dtype=torch.uint8) if frames is None else frames
    height, width = frames.shape[-2:]
    figure = pyplot.figure(figsize=(width * ZOOM / 100, height * ZOOM / 100), dpi=100)
    axis = figure.add_axes((0, 0, 1, 1))
    axis.set_xlim(-0.5, width - 0.5)
    axis.set_ylim(height - 0.5, -0.5)
    axis.set_axis_off()
    picture = visualize.LookPicture(axis, frames, look, **options)
    return visualize.animate(figure, [picture], len(frames)).permute(0, 2, 3, 1).int()


def near(pixels, colour, by=14):
    return (pixels - colour).abs().amax(-1) <= by


def at(y, x):
    return round((y + 0.5) * ZOOM), round((x + 0.5) * ZOOM)


BORDER = quadrilateral(torch.eye(2, 3).view(1, 1, 2, 3), (SIZE, SIZE)).tolist()


@pytest.mark.parametrize("size", [(SIZE, SIZE), (8, 20), (20, 8)])
def test_frames_keep_their_pixels(size):
    frames = torch.randint(0, 256, (3, 3, *size), dtype=torch.uint8)
    pixels = drawn(None, frames)
    assert (pixels[:, ZOOM // 2 :: ZOOM, ZOOM // 2 :: ZOOM] == frames.permute(0, 2, 3, 1)).all()


def test_an_identity_transformer_draws_the_frames_border():
    (pixels,) = drawn(look_of(quadrilateral_px=BORDER), layers=("quad",), line_pt=3)
    for edge in (pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]):
        assert near(edge[16:], ORANGE).all()
    assert (pixels[16:-16, 16:-16] == 0).all()


def test_the_quadrilateral_lies_where_its_corners_are_and_marks_the_first():
    turned = [[12.0, 4.0], [4.0, 4.0], [4.0, 12.0], [12.0, 12.0]]
    (pixels,) = drawn(look_of(quadrilateral_px=[[turned]]), layers=("quad",))
    for y, x in ((4, 8), (12, 8), (8, 4), (8, 12)):
        assert near(pixels[at(y, x)], ORANGE)
    assert (pixels[at(8, 8)] == 0).all()
    aside = [pixels[at(y, x)[0] - 4, at(y, x)[1] - 4].sum().item() > 0 for y, x in turned]
    assert aside == [True, False, False, False]


def test_several_glimpses_have_colours_dashes_and_numbers():
    first = [[1.0, 1.0], [1.0, 10.0], [10.0, 10.0], [10.0, 1.0]]
    second = [[y + 4.0, x + 4.0] for y, x in first]
    (pixels,) = drawn(look_of(quadrilateral_px=[[first, second]]), layers=("quad",))
    blue = torch.tensor([0, 119, 187])
    # The first is a solid line, the second has gaps; neither lies where the other does.
    (top, start), (_, end) = at(1, 3), at(1, 9)
    assert near(pixels[top, start:end], ORANGE).all()
    (bottom, start), (_, end) = at(14, 4), at(14, 14)
    dashes = near(pixels[bottom, start:end], blue, 40)
    assert 0.2 < dashes.float().mean() < 0.9
    for corner, colour in ((first[0], ORANGE), (second[0], blue)):
        y, x = at(*corner)
        around = pixels[y - 6 : y + 6, x - 6 : x + 6]
        assert near(around, colour, 40).sum() > 20
        assert near(around, torch.tensor([255, 255, 255]), 60).sum() > 3  # the number


def test_below_the_frames_stand_the_crops_of_all_glimpses():
    levels = torch.tensor([0.2, 0.4, 0.6]).view(1, 3, 1, 1, 1).expand(6, 3, 1, 8, 8)
    _, lower = strips_drawn(strip_of(crop=levels.tolist()))
    grey = torch.where(lower.amax(-1) == lower.amin(-1), lower[..., 0], -1)
    places = [(grey == round(255 * level)).nonzero().float().amin(0) for level in (0.2, 0.4, 0.6)]
    assert places[0][0] == places[1][0] < places[2][0]  # two in a row, the third below
    assert places[0][1] == places[2][1] < places[1][1]


def test_every_frame_has_its_own():
    frames = [[[0.0, 0.0], [0.0, 8.0], [8.0, 8.0], [8.0, 0.0]], [[7.0, 7.0], [7.0, 14.0], [14.0, 14.0], [14.0, 7.0]]]
    first, second = drawn(look_of(quadrilateral_px=[[frame] for frame in frames]), num_frames=2, layers=("quad",))
    assert near(first[at(4, 8)], ORANGE)
    assert not near(second[at(4, 8)], ORANGE)
    assert near(second[at(10, 14)], ORANGE)


def test_points_have_their_units_colour_and_the_size_of_their_weight():
    look = look_of(
        points_px=[[[[4.0, 4.0], [4.0, 11.0]], [[11.0, 4.0], [11.0, 11.0]]]],
        point_weight=[[[0.45, 0.02], [0.45, 0.0]]],
        unit_px=[[[-90.0, -90.0], [-90.0, -90.0]]],
    )
    (pixels,) = drawn(look, layers=("points",), line_pt=3)
    assert near(pixels[at(4, 4)], torch.tensor([255, 210, 63]))
    assert near(pixels[at(11, 4)], torch.tensor([76, 201, 240]))

    def area(y, x):
        middle = at(y, x)
        return (pixels[middle[0] - 12 : middle[0] + 12, middle[1] - 12 : middle[1] + 12].amax(-1) > 60).sum().item()

    assert area(4, 4) > 4 * area(4, 11) > 0
    assert area(11, 11) <= 4


def test_units_of_little_weight_have_small_points():
    look = look_of(
        points_px=[[[[4.0, 4.0]], [[11.0, 11.0]]]], point_weight=[[[0.9], [0.1]]], unit_px=[[[-90.0, -90.0]] * 2]
    )
    (pixels,) = drawn(look, layers=("points",), line_pt=3)
    inked = pixels.amax(-1) > 60
    half = SIZE * ZOOM // 2
    assert inked[:half, :half].sum() > 2 * inked[half:, half:].sum() > 0


def test_arrows_go_from_start_to_end_and_have_a_head_there():
    (pixels,) = drawn(look_of(arrows_px=[[[[[8.0, 2.0], [8.0, 13.0]]]]]), layers=("arrows",))
    inked = pixels.amax(-1) > 60
    assert inked[at(8, 0)[0], at(8, 3)[1] : at(8, 12)[1]].all()
    assert inked[:, at(8, 11)[1]].sum() > inked[:, at(8, 5)[1]].sum()


def test_saliency_warms_just_its_pixels():
    levels = torch.zeros(1, SIZE, SIZE)
    levels[0, 3, 5], levels[0, 10, 10] = 0.8, 0.2
    (pixels,) = drawn(look_of(saliency=levels.tolist()), layers=("saliency",))
    warm = pixels[ZOOM // 2 :: ZOOM, ZOOM // 2 :: ZOOM, 0] > 0
    assert (warm == (levels[0] > 0)).all()
    strong, weak = pixels[at(3, 5)][0], pixels[at(10, 10)][0]
    assert strong > weak > strong / 3  # a quarter of the most is half as opaque


def test_faint_saliency_fades_away():
    levels = (torch.arange(SIZE) / (2 * SIZE)).expand(1, SIZE, SIZE).clone()
    levels[0, 0, 0] = 1.0
    (pixels,) = drawn(look_of(saliency=levels.tolist()), layers=("saliency",))
    steps = pixels[at(8, 0)[0], ZOOM // 2 :: ZOOM, 0].diff()
    assert (steps >= 0).all()
    assert steps[0] < steps[7] / 3


def test_the_faintest_points_are_left_out_as_in_the_browser():
    points = {"points_px": [[[[4.0, 4], [11, 11]]]], "unit_px": [[[-9.0, -9]]]}
    for weight, is_drawn in ((0.02, True), (0.005, False)):
        (pixels,) = drawn(look_of(point_weight=[[[1.0, weight]]], **points), layers=("points",), line_pt=4)
        y, x = at(11, 11)
        assert bool(pixels[y - 2 : y + 2, x - 2 : x + 2].amax() > 60) == is_drawn


def test_each_frames_saliency_is_scaled_by_its_own_largest():
    levels = torch.zeros(2, SIZE, SIZE)
    levels[0, 3, 5], levels[1, 3, 5] = 0.9, 0.003
    look = Look(torch.zeros(2, 2), (SIZE, SIZE), saliency=levels)
    first, second = drawn(look, num_frames=2, layers=("saliency",))
    assert first[at(3, 5)][0] > 150
    assert torch.equal(first, second)


def test_a_receptive_field_is_blue_where_saliency_is_red():
    levels = torch.zeros(1, SIZE, SIZE)
    levels[0, 3, 5], levels[0, 10, 10] = 0.8, 0.2
    (pixels,) = drawn(look_of(receptive_field=levels.tolist()), layers=("field",))
    blue = pixels[ZOOM // 2 :: ZOOM, ZOOM // 2 :: ZOOM, 2] > 0
    assert (blue == (levels[0] > 0)).all()
    assert pixels[at(3, 5)][2] > pixels[at(10, 10)][2] > pixels[at(10, 10)][0]


def test_no_saliency_at_all_draws_nothing():
    assert (drawn(look_of(saliency=torch.zeros(1, SIZE, SIZE).tolist()), layers=("saliency",)) == 0).all()


def test_boxes_enclose_their_pixels():
    box = torch.tensor([[[4, 6, 8, 12]]])
    (pixels,) = drawn(look_of(), layers=("boxes",), boxes_px=box, line_pt=1)
    inked = pixels.amax(-1) > 60
    rows, columns = (inked.any(axis).nonzero().flatten() for axis in (1, 0))
    found = [rows.min(), columns.min(), rows.max(), columns.max()]
    assert [value.item() for value in found] == pytest.approx([4 * ZOOM, 6 * ZOOM, 8 * ZOOM, 12 * ZOOM], abs=2)
    assert not inked[5 * ZOOM : 7 * ZOOM, 7 * ZOOM : 11 * ZOOM].any()


def test_a_model_without_a_part_draws_nothing_for_it():
    assert (drawn(look_of(), layers=visualize.LAYERS) == 0).all()


def test_an_origin_moves_everything():
    look = look_of(quadrilateral_px=[[[[0.0, 0.0], [0.0, 4.0], [4.0, 4.0], [4.0, 0.0]]]])
    frames = torch.full((1, 1, SIZE, SIZE), 50, dtype=torch.uint8)
    (pixels,) = drawn(look, frames, layers=("quad",), origin=(8.0, 6.0))
    assert near(pixels[at(8, 8)], ORANGE)
    assert (pixels[: 7 * ZOOM] == 255).all()  # above the frame there is nothing but paper
    assert (pixels[at(14, 14)] == 50).all()


@pytest.mark.parametrize("turn", [1, -1])
def test_what_lies_higher_is_drawn_above(turn):
    figure = pyplot.figure(figsize=(0.4, 0.4), dpi=100)
    axis = figure.add_axes((0, 0, 1, 1))
    spans = [axis.axvspan(0, 1, color=colour, zorder=height) for colour, height in (("red", 5), ("blue", 4))]
    moving = SimpleNamespace(artists=spans[::turn], show=lambda t: None)
    assert visualize.animate(figure, [moving], 1)[0, :, 20, 20].tolist() == [255, 0, 0]


# The pairs of strips


def strip_of(num_frames=6, **parts):
    frames = torch.zeros(num_frames, 1, SIZE, SIZE, dtype=torch.uint8)
    frames[:, 0, 8, 8] = torch.arange(num_frames, dtype=torch.uint8) * 20 + 100
    return visualize.LookStrip("a title", frames, look_of(**parts), "#ee7733", num_shown=4)


def size_of(path):
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG")
    return int.from_bytes(content[16:20]), int.from_bytes(content[20:24])


def test_strips_show_first_to_last_frame():
    assert strip_of().times == [0, 2, 3, 5]
    assert strip_of(1).times == [0, 0, 0, 0]


def test_pairs_of_strips_stand_below_each_other(tmp_path):
    visualize.draw_looks(tmp_path / "one.png", [strip_of()])
    visualize.draw_looks(tmp_path / "two.png", [strip_of(), strip_of()])
    one, two = size_of(tmp_path / "one.png"), size_of(tmp_path / "two.png")
    assert two[0] == one[0]
    assert two[1] == pytest.approx(2 * one[1], abs=2)
    assert {path.name for path in tmp_path.iterdir()} == {"one.png", "two.png"}


def spans(there):
    """Return first and last of each run of what is there along a line."""
    changes = torch.nn.functional.pad(there.int(), (1, 1)).diff()
    return list(
        zip((changes == 1).nonzero().flatten().tolist(), (changes == -1).nonzero().flatten().tolist(), strict=True)
    )


@pytest.mark.parametrize("size", [(16, 40), (40, 16)])
@pytest.mark.parametrize("crop", [None, torch.full((4, 1, 1, 4, 4), 100 / 255)], ids=["frames", "crops"])
def test_frames_of_strips_keep_their_proportions(size, crop):
    frames = torch.full((4, 1, *size), 100, dtype=torch.uint8)
    strip = visualize.LookStrip("", frames, Look(torch.zeros(1, 2), size, crop=crop), "#ee7733", num_shown=4)
    grey = (strip.picture() == 100).all(0)
    rows, columns = (spans(grey.sum(axis) > 10) for axis in (1, 0))
    assert (len(rows), len(columns)) == (2, 4)
    for top, bottom in rows:
        for left, right in columns:
            assert (bottom - top) / (right - left) == pytest.approx(size[0] / size[1], rel=0.02)
    assert columns[-1][1] - columns[0][0] == pytest.approx(960 - 2 * 0.06 * 120, abs=4)


def strips_drawn(strip):
    """Draw a pair and return the pixels of both strips."""
    figure = pyplot.figure(figsize=(6, 3.2), dpi=100)
    upper, lower = (figure.add_axes((0, y, 1, 0.48)) for y in (0.5, 0.0))
    strip.draw(upper, lower)
    pixels = visualize.animate(figure, [], 1)[0].permute(1, 2, 0).int()
    return pixels[:160], pixels[160:]


def test_below_a_transformers_frames_stand_its_crops():
    quad = [[[[2.0, 2.0], [2.0, 13.0], [13.0, 13.0], [13.0, 2.0]]]] * 6
    upper, lower = strips_drawn(strip_of(quadrilateral_px=quad, crop=torch.full((6, 1, 1, 4, 4), 0.5).tolist()))
    assert near(upper, ORANGE).sum() > 100
    assert near(lower, torch.tensor([128, 128, 128]), by=1).float().mean() > 0.5


def test_below_a_deformable_models_frames_stand_its_points():
    points = {"points_px": [[[[8.0, 3.0]]]] * 6, "point_weight": [[[1.0]]] * 6, "unit_px": [[[3.0, 3.0]]] * 6}
    upper, lower = strips_drawn(strip_of(saliency=torch.ones(6, SIZE, SIZE).tolist(), **points))
    yellow = torch.tensor([255, 210, 63])
    assert near(lower, yellow).sum() > 20
    assert near(upper, yellow).sum() == 0


def test_below_a_plain_models_frames_stands_saliency():
    upper, lower = strips_drawn(strip_of(saliency=torch.ones(6, SIZE, SIZE).tolist()))
    assert (lower[..., 0] - lower[..., 2] > 100).float().mean() > 0.4
    assert (upper[..., 0] == upper[..., 2]).all()


def test_marks_do_not_reach_into_the_next_frame():
    far = [[[0.0, 0.0], [0.0, 90.0], [9.0, 90.0], [9.0, 0.0]]] + [[[-90.0, -90.0]] * 4] * 5
    upper, _ = strips_drawn(strip_of(quadrilateral_px=[[one] for one in far]))
    columns = near(upper, ORANGE).any(0).nonzero().flatten()
    assert len(columns) > 0
    assert columns.max() < 600 / 4


def test_drawing_leaves_no_figure_open(tmp_path):
    pyplot.close("all")
    visualize.draw_looks(tmp_path / "looks.png", [strip_of()])
    drawn(look_of())
    assert pyplot.get_fignums() == []
