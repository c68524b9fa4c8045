"""The drawing code of the report and the live page, in the browser: what is drawn lies where it should."""

import base64
import json
import re
from pathlib import Path

import numpy as np
import pytest

from saccade import visualize
from saccade.visualize import look_picture, probability_chart

OVERLAY = Path(visualize.__file__).parent / "overlay.js"
ZOOM = 4  # CSS pixels per pixel of the frame
ORANGE, BLACK, WHITE = (238, 119, 51), (0, 0, 0), (255, 255, 255)
BORDER = [[-0.5, -0.5], [-0.5, 15.5], [15.5, 15.5], [15.5, -0.5]]


@pytest.fixture(scope="module", params=[1, 2], ids=["plain screen", "fine screen"])
def drawn(chromium, request):
    """Give a function that runs JavaScript on a canvas for frames of 16x16 and returns its pixels."""
    page = chromium.new_page(device_scale_factor=request.param, viewport={"width": 600, "height": 600})
    errors = []
    page.on("pageerror", lambda error: errors.append(error))
    page.add_script_tag(content=f"{OVERLAY.read_text()}\nwindow.overlay = {{{EXPORTS}}};".replace("\nexport ", "\n"))

    def run(script, **given):
        """Return the pixels of the canvas, one per CSS pixel, at the middle of each."""
        width, data = page.evaluate(FRAME.replace("SCRIPT", script), given)
        pixels = np.frombuffer(base64.b64decode(data), dtype=np.uint8).reshape(-1, width, 4)
        assert not errors
        return pixels[request.param // 2 :: request.param, request.param // 2 :: request.param]

    yield run
    page.close()


FRAME = """(given) => {
  document.body.innerHTML = "<canvas style='width: 64px'></canvas>";
  const canvas = document.querySelector("canvas");
  SCRIPT
  const { data, width } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  let text = "";
  for (let i = 0; i < data.length; i += 32768) text += String.fromCharCode(...data.subarray(i, i + 32768));
  return [width, btoa(text)];
}"""
EXPORTS = ", ".join(re.findall(r"^export function (\w+)", OVERLAY.read_text(), re.M))
LOOK = """
  const { ctx, zoom } = overlay.prepare(canvas, [16, 16]);
  overlay.drawFrame(ctx, new Uint8Array(given.grey ?? 256), [16, 16], zoom);
  overlay.drawLook(ctx, given.look, zoom, given.layers);
"""


def near(pixel, colour, by=12):
    return np.abs(pixel[..., :3].astype(int) - colour).max(-1) <= by


def at(y, x):
    """Return where the centre of a pixel of the frame is drawn."""
    return round((y + 0.5) * ZOOM), round((x + 0.5) * ZOOM)


def picture(levels):
    grey = np.asarray(levels, dtype=np.uint8)
    return {"size": list(grey.shape), "grey": base64.b64encode(grey.tobytes()).decode()}


def test_what_the_interface_promises_is_exported():
    wanted = {"drawFrame", "drawLook", "drawProbabilities", "palette", "prepare", "drawBoxes", "bytesOf"}
    assert set(EXPORTS.split(", ")) == wanted


def test_a_frame_keeps_its_pixels_sharp(drawn):
    grey = np.zeros((16, 16), dtype=np.uint8)
    grey[3, 5], grey[0, 0], grey[15, 15] = 255, 100, 37
    pixels = drawn(LOOK, grey=grey.flatten().tolist(), look={}, layers={})
    assert pixels.shape[:2] == (64, 64)
    assert (pixels[..., 0] == grey.repeat(ZOOM, 0).repeat(ZOOM, 1)).all()
    assert (pixels[..., 3] == 255).all()


def test_a_frame_in_colour(drawn):
    colour = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    pixels = drawn(LOOK, grey=colour.flatten().tolist(), look={}, layers={})
    assert (pixels[..., :3] == colour.repeat(ZOOM, 0).repeat(ZOOM, 1)).all()


def test_a_frame_that_is_not_square_keeps_its_proportions(drawn):
    grey = np.random.default_rng(0).integers(0, 256, (8, 16), dtype=np.uint8)
    script = LOOK.replace("[16, 16]", "[8, 16]")
    pixels = drawn(script, grey=grey.flatten().tolist(), look={}, layers={})
    assert pixels.shape[:2] == (32, 64)
    assert (pixels[..., 0] == grey.repeat(ZOOM, 0).repeat(ZOOM, 1)).all()
    pixels = drawn(script, look={"saliency": picture(grey)}, layers={"saliency": True})
    drawn_there = pixels[..., 0] > 0
    assert drawn_there[(grey > 30).repeat(ZOOM, 0).repeat(ZOOM, 1)].all()
    assert not drawn_there[(grey == 0).repeat(ZOOM, 0).repeat(ZOOM, 1)].any()


def test_an_identity_transformer_draws_the_frames_border(drawn):
    pixels = drawn(LOOK, look={"quad": BORDER}, layers={"quad": True})
    for edge in (pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]):
        assert near(edge[10:], ORANGE).all()
    assert near(pixels[10:-10, 10:-10], BLACK).all()


def test_the_quadrilateral_lies_where_its_corners_are_and_marks_the_first(drawn):
    turned = [[12, 4], [4, 4], [4, 12], [12, 12]]  # a quarter turn: the crop's upper left corner is down left
    pixels = drawn(LOOK, look={"quad": turned}, layers={"quad": True})
    for y, x in ((4, 8), (12, 8), (8, 4), (8, 12)):
        assert near(pixels[at(y, x)], ORANGE)
    assert near(pixels[at(8, 8)], BLACK)
    beside = {corner: pixels[at(*corner)[0] - 4, at(*corner)[1] - 4] for corner in map(tuple, turned)}
    assert [bool(near(pixel, BLACK)) for pixel in beside.values()] == [False, True, True, True]


def test_several_glimpses_have_colours_dashes_and_numbers(drawn):
    first = [[1, 1], [1, 11], [11, 11], [11, 1]]
    second = [[y + 3, x + 3] for y, x in first]
    pixels = drawn(LOOK, look={"quad": first + second}, layers={"quad": True})
    blue = (0, 119, 187)
    (top, start), (_, end) = at(1, 4), at(1, 10)
    assert near(pixels[top, start:end], ORANGE).all()
    (bottom, start), (_, end) = at(14, 5), at(14, 13)
    dashes = near(pixels[bottom, start:end], blue, 40)
    assert 0.2 < dashes.mean() < 0.9
    for (y, x), colour in ((at(1, 1), ORANGE), (at(4, 4), blue)):
        around = pixels[max(0, y - 6) : y + 6, max(0, x - 6) : x + 6]
        assert near(around, colour, 40).sum() > 20
        assert near(around, WHITE, 60).sum() > 3  # the number
    # One alone has a solid line and no number.
    alone = drawn(LOOK, look={"quad": second}, layers={"quad": True})
    assert near(alone[bottom, start:end], ORANGE).all()
    assert near(alone[at(4, 4)], ORANGE)


def test_layers_are_drawn_only_where_asked_for_and_there(drawn):
    look = {"quad": BORDER, "points": [[8, 8, 1]], "units": [[8, 8]], "arrows": [[2, 2, 8, 12]]}
    look["saliency"] = look["field"] = picture(np.full((16, 16), 255))
    blank = drawn(LOOK, look={}, layers={})
    assert (drawn(LOOK, look=look, layers={}) == blank).all()
    nothing = dict.fromkeys(("quad", "points", "units", "arrows", "saliency", "field", "crop"))
    shown = dict.fromkeys(("quad", "points", "arrows", "saliency", "field"), True)
    assert (drawn(LOOK, look=nothing, layers=shown) == blank).all()
    for layer in shown:
        assert (drawn(LOOK, look=look, layers={layer: True}) != blank).any(), layer


def test_points_are_drawn_in_their_units_colour_and_sized_by_weight(drawn):
    points = [[4, 4, 0.9], [4, 11, 0.001], [11, 4, 0.9], [11, 11, 0.0]]
    pixels = drawn(LOOK, look={"points": points, "units": [[-9, -9], [-9, -9]]}, layers={"points": True})
    assert near(pixels[at(4, 4)], (255, 210, 63))
    assert near(pixels[at(11, 4)], (76, 201, 240))
    assert near(pixels[at(11, 11)], BLACK)

    def area(y, x):
        middle = at(y, x)
        return (pixels[middle[0] - 8 : middle[0] + 8, middle[1] - 8 : middle[1] + 8, :3].max(-1) > 60).sum()

    assert area(4, 4) > 4 * area(4, 11)
    points[1][2] = 0.3
    pixels = drawn(LOOK, look={"points": points, "units": [[-9, -9], [-9, -9]]}, layers={"points": True})
    assert area(4, 4) < 3 * area(4, 11)


@pytest.mark.parametrize("edge", [16, 64])
def test_points_are_as_large_on_frames_of_any_size(drawn, edge):
    middle = edge / 2 - 0.5
    script = LOOK.replace("[16, 16]", f"[{edge}, {edge}]")
    look = {"points": [[middle, middle, 1]], "units": [[-99, -99]]}
    pixels = drawn(script, grey=[0] * edge**2, look=look, layers={"points": True})
    assert near(pixels[32, 30:34], (255, 210, 63), by=40).all()  # a radius of 3 CSS pixels, less a pixel of rounding
    assert near(pixels[32], BLACK).sum() < 60


def test_arrows_go_from_start_to_end_and_have_a_head_there(drawn):
    pixels = drawn(LOOK, look={"arrows": [[8, 2, 8, 13]]}, layers={"arrows": True})
    inked = pixels[..., :3].max(-1) > 60
    y, _ = at(8, 0)
    assert inked[y, at(8, 3)[1] : at(8, 12)[1]].all()
    assert inked[:, at(8, 12)[1]].sum() > inked[:, at(8, 4)[1]].sum()
    assert not inked[: y - 6].any()


def test_saliency_warms_just_its_pixels(drawn):
    levels = np.zeros((16, 16))
    levels[3, 5], levels[10, 10] = 255, 60
    pixels = drawn(LOOK, look={"saliency": picture(levels)}, layers={"saliency": True})
    warm = pixels[..., 0] > 0
    assert (warm == (levels > 0).repeat(ZOOM, 0).repeat(ZOOM, 1)).all()
    strong, weak = pixels[at(3, 5)].astype(int), pixels[at(10, 10)].astype(int)
    assert strong[0] > weak[0] > strong[2] >= weak[2]
    assert weak[0] > strong[0] / 3  # a quarter of the most is half as opaque


def test_faint_saliency_fades_away(drawn):
    levels = np.tile(np.arange(0, 128, 8), (16, 1))
    pixels = drawn(LOOK, look={"saliency": picture(levels)}, layers={"saliency": True})
    red = pixels[30, ZOOM // 2 :: ZOOM, 0].astype(int)
    steps = np.diff(red)
    assert (steps >= 0).all()
    assert red[1] < 5  # no edge where it begins
    assert steps[0] < steps[7] / 3


def test_saliency_leaves_the_frame_visible(drawn):
    grey = np.zeros((16, 16), dtype=np.uint8)
    grey[:, 8:] = 255
    look = {"saliency": picture(np.full((16, 16), 255))}
    pixels = drawn(LOOK, grey=grey.flatten().tolist(), look=look, layers={"saliency": True})
    left, right = pixels[at(8, 4)].astype(int), pixels[at(8, 12)].astype(int)
    assert (right[:3] - left[:3] > 50).all()


def test_a_receptive_field_is_blue_where_saliency_is_red(drawn):
    levels = np.zeros((16, 16))
    levels[3, 5], levels[10, 10] = 255, 60
    pixels = drawn(LOOK, look={"field": picture(levels)}, layers={"field": True})
    blue = pixels[..., 2] > 0
    assert (blue == (levels > 0).repeat(ZOOM, 0).repeat(ZOOM, 1)).all()
    strong, weak = pixels[at(3, 5)].astype(int), pixels[at(10, 10)].astype(int)
    assert strong[2] > weak[2] > weak[0]
    assert strong[2] > strong[0]


def test_boxes_enclose_their_pixels(drawn):
    script = """
      const { ctx, zoom } = overlay.prepare(canvas, [16, 16]);
      overlay.drawBoxes(ctx, [[4, 6, 8, 12], [0, 0, 0, 0]], undefined, zoom);
    """
    inked = drawn(script)[..., 3] > 128
    rows, columns = (np.flatnonzero(inked.any(axis)) for axis in (1, 0))
    assert abs(rows[0] - 4 * ZOOM) <= 2
    assert abs(rows[-1] - 8 * ZOOM) <= 2
    assert abs(columns[0] - 6 * ZOOM) <= 2
    assert abs(columns[-1] - 12 * ZOOM) <= 2
    assert not inked[5 * ZOOM : 7 * ZOOM, 7 * ZOOM : 11 * ZOOM].any()


def test_a_margin_moves_the_frame_inwards(drawn):
    script = """
      const { ctx, zoom } = overlay.prepare(canvas, [16, 16], 8);
      given.zoom = zoom;
      overlay.drawFrame(ctx, new Uint8Array(256).fill(255), [16, 16], zoom);
    """
    filled = drawn(script)[..., 3] == 255
    assert filled[16:48, 16:48].all()
    assert filled.sum() == 32 * 32


CHART = """
  canvas.style.width = "300px";
  canvas.style.height = "150px";
  overlay.drawProbabilities(canvas, given.rows, given.names, given.options);
"""


def test_probabilities_are_lines_at_their_height(drawn):
    rows = [[0.9, 0.1]] * 10
    pixels = drawn(CHART, rows=rows, names=["yes", "no"], options={"strongest": 1})
    first = tuple(int(part, 16) for part in re.findall("..", probability_chart.SERIES_COLOURS[0][1:]))
    rows_with_line = np.flatnonzero(near(pixels[:, 100], first, by=40) & (pixels[:, 100, 3] > 128))
    top, bottom = 14, 130
    assert rows_with_line.mean() == pytest.approx(bottom - 0.9 * (bottom - top), abs=2)


def test_the_last_frame_counts_as_much_as_all_others(drawn):
    colours = [tuple(int(part, 16) for part in re.findall("..", c[1:])) for c in probability_chart.SERIES_COLOURS[:2]]
    for last, named in (([0.2, 0.8], 1), ([0.4, 0.6], 0)):
        pixels = drawn(CHART, rows=[[0.9, 0.1]] * 3 + [last], names=["a", "b"], options={"strongest": 1})
        there = [bool((near(pixels, colour) & (pixels[..., 3] > 200)).any()) for colour in colours]
        assert there == [named == 0, named == 1]


@pytest.mark.parametrize("rows", [[], [[0.2, 0.8]], [[0.5, 0.5]] * 300])
def test_a_chart_of_any_length_is_drawn(drawn, rows):
    options = {"now": len(rows) - 1, "decidedAt": 0, "threshold": 0.7, "dark": True, "first": 1234}
    pixels = drawn(CHART, rows=rows, names=["a", "b"], options=options)
    assert pixels[..., 3].any()


def test_a_chart_tells_the_frame_under_the_pointer(drawn):
    script = CHART.replace("overlay.draw", "const frameAt = overlay.draw") + "if (given.wanted) "
    script += (
        "for (const [x, t] of [[-5, 0], [34, 0], [299, 9]]) if (frameAt(x) !== t) throw Error(`${x} ${frameAt(x)}`);"
    )
    drawn(script, rows=[[1.0]] * 10, names=["a"], options={}, wanted=True)


def test_later_rows_stand_where_they_start(drawn):
    pixels = drawn(CHART, rows=[[0.5]], names=["a"], options={"start": 9})
    coloured = (pixels[..., :3].max(-1).astype(int) - pixels[..., :3].min(-1) > 60) & (pixels[..., 3] > 200)
    assert np.flatnonzero(coloured.any(0)).min() > 200


# Keeps what is written on a canvas.
WRITTEN = """
  const written = [];
  const { fillText } = CanvasRenderingContext2D.prototype;
  CanvasRenderingContext2D.prototype.fillText = function (text, ...at) {
    written.push(text);
    fillText.call(this, text, ...at);
  };
"""


def test_long_names_are_shortened_and_leave_room_for_the_lines(drawn):
    check = "for (const text of given.wanted) if (!written.some((one) => text.test(one))) throw Error(written.join());"
    script = WRITTEN + CHART + check.replace("given.wanted", "[/^wave$/, /^somebody.*…$/]")
    names = ["wave", "somebody puts a red ball into a blue cup"]
    pixels = drawn(script, rows=[[0.6, 0.4]] * 10, names=names, options={})
    first = tuple(int(part, 16) for part in re.findall("..", probability_chart.SERIES_COLOURS[0][1:]))
    columns = np.flatnonzero((near(pixels[:130], first, by=40) & (pixels[:130, :, 3] > 128)).any(0))
    assert (np.diff(columns[:150]) == 1).all()  # the line goes on over at least half of the 300 pixels
    assert len(columns) > 150


def test_the_axes_have_their_units(drawn):
    check = 'for (const text of ["frame", "100 %"]) if (!written.includes(text)) throw Error(written.join());'
    drawn(WRITTEN + CHART + check, rows=[[1.0]] * 10, names=["a"], options={})


def test_a_class_that_never_shows_leaves_no_line(drawn):
    options = {"strongest": 1}
    charts = [drawn(CHART, rows=[[0.9, low]] * 10, names=["a", "b"], options=options) for low in (0, 0.001, 0.1)]
    assert (charts[0] == charts[1]).all()
    assert (charts[0] != charts[2]).any()


def test_python_and_javascript_draw_in_the_same_colours():
    text = OVERLAY.read_text()
    same = [*look_picture.UNIT_COLOURS, look_picture.ARROW_COLOUR, look_picture.BOX_COLOUR]
    for colour in (*same, *probability_chart.SERIES_COLOURS, *visualize.COLOURS.values()):
        assert json.dumps(colour) in text
