"""The report in a real browser."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from saccade.data.video import read_clip
from saccade.explain import ExplainConfig, explain, explain_clip, page
from saccade.explain.truth import truth_of
from saccade.labels import Labels

from .stand_ins import noise, save_model, save_npz

expect = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: saccade[dev] has it").expect
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed: saccade[dev] has it")
LAPTOP, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}
HOSTILE = "<img src=x onerror=document.title='hacked'><script>document.title='hacked'<&script>\"'.npz"


@pytest.fixture(scope="module")
def report(generated, three_models, tmp_path_factory):
    out = tmp_path_factory.mktemp("report") / "report.html"
    return explain(ExplainConfig(generated, three_models, out, device="cpu"))


@pytest.fixture
def opened(chromium):
    """Give a function that opens a report; in the end nothing may have gone wrong, and nothing been asked for."""
    contexts, faults = [], []

    def visit(path, fragment="#frame=1", **options):
        context = chromium.new_context(**{"viewport": LAPTOP} | options)
        contexts.append(context)
        tab = context.new_page()
        tab.on("console", lambda message: faults.append(f"{message.type}: {message.text}"))
        tab.on("pageerror", lambda error: faults.append(str(error)))
        tab.on("request", lambda request: request.url.startswith("file:") or faults.append(request.url))
        tab.goto(f"{path.as_uri()}{fragment}")
        expect(tab.locator(".now").first).not_to_be_empty()
        assert tab.locator("#trouble").is_hidden()
        return tab

    yield visit
    for context in contexts:
        context.close()
    assert faults == []


def position(tab):
    return tab.locator("#position").inner_text()


def shown(tab, name, index=0):
    """Return what a model's canvas shows, as text that is the same only for the same pixels."""
    return tab.locator("article").nth(index).locator(f"canvas.{name}").evaluate("canvas => canvas.toDataURL()")


def test_it_shows_every_model(opened, report):
    tab = opened(report, "#frame=4")
    assert position(tab) == "frame 4 of 8"
    assert tab.locator("article").count() == 3
    assert tab.locator("canvas.crop").count() == 1
    assert len({shown(tab, "frame", index) for index in range(3)}) == 3
    assert len({shown(tab, "chart", index) for index in range(3)}) == 3


def test_its_pixels_are_those_of_the_clip(opened, tmp_path, three_models, clip):
    path = explain(ExplainConfig(clip, three_models[:1], tmp_path / "report.html", device="cpu"))
    tab = opened(path, "#frame=6")
    tab.locator("input[name=saliency]").uncheck()
    grey = tab.locator("canvas.frame").evaluate(
        """canvas => {
          const { data, width } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
          const middles = [...Array(64).keys()].map((i) => Math.floor(((i + 0.5) * width) / 64));
          return middles.map((y) => middles.map((x) => data[4 * (y * width + x)]));
        }"""
    )
    assert (np.array(grey) == read_clip(clip).frames[5, 0].numpy()).all()


def test_the_scrubber_moves_the_frame(opened, report):
    tab = opened(report)
    before = [shown(tab, name) for name in ("frame", "chart")]
    said = tab.locator(".now").first.inner_text()
    tab.locator("#scrubber").fill("6")
    assert position(tab).startswith("frame 7 of 8")
    assert all(shown(tab, name) != was for name, was in zip(("frame", "chart"), before, strict=True))
    assert said.startswith("frame 1: ")
    assert tab.locator(".now").first.inner_text().startswith("frame 7: ")
    told = tab.locator("#scrubber").get_attribute("aria-valuetext")
    assert told.startswith("frame 7 of 8")
    assert "stn-lstm frame 7" in told
    assert "Input frame 7 of stn-lstm; samples the quadrilateral" in tab.locator("canvas.frame").nth(1).get_attribute(
        "aria-label"
    )


@pytest.mark.parametrize(
    ("layer", "model"), [("quad", 1), ("points", 2), ("arrows", 2), ("saliency", 0), ("field", 1), ("boxes", 0)]
)
def test_each_layer_can_be_switched(opened, report, layer, model):
    tab = opened(report, "#frame=3")
    box = tab.locator(f"input[name={layer}]")
    before = shown(tab, "frame", model)
    box.set_checked(not box.is_checked())
    assert shown(tab, "frame", model) != before
    box.set_checked(not box.is_checked())
    assert shown(tab, "frame", model) == before


def test_the_keyboard_is_enough(opened, report):
    tab = opened(report)
    for key, frame in (
        ("ArrowRight", 2),
        ("ArrowRight", 3),
        ("ArrowLeft", 2),
        ("End", 8),
        ("ArrowRight", 8),
        ("Home", 1),
    ):
        tab.keyboard.press(key)
        assert position(tab).startswith(f"frame {frame} of"), key
    reached = []
    for _ in range(12):
        tab.keyboard.press("Tab")
        reached.append(tab.evaluate("document.activeElement.id || document.activeElement.name"))
    layers = ["quad", "points", "arrows", "saliency", "field", "boxes"]
    assert reached[:10] == ["back", "play", "step", "scrubber", *layers]
    tab.locator("#step").focus()
    tab.keyboard.press("Space")
    assert position(tab).startswith("frame 2 of")
    tab.locator("#scrubber").focus()
    tab.keyboard.press("ArrowRight")
    assert position(tab).startswith("frame 3 of")  # once, by the scrubber itself
    tab.locator("input[name=arrows]").focus()
    tab.keyboard.press("Space")
    assert tab.locator("input[name=arrows]").is_checked()
    assert tab.locator("#play").get_attribute("aria-label") == "Play"


def test_it_plays_and_pauses(opened, report):
    tab = opened(report)
    tab.keyboard.press("Space")
    assert tab.locator("#play").get_attribute("aria-label") == "Pause"
    expect(tab.locator("#scrubber")).not_to_have_value("0")
    tab.locator("#play").click()
    assert tab.locator("#play").get_attribute("aria-label") == "Play"
    before = position(tab)
    tab.wait_for_timeout(300)
    assert position(tab) == before


def test_it_plays_by_itself_unless_less_motion_is_wanted(opened, report):
    tab = opened(report, "")
    expect(tab.locator("#scrubber")).not_to_have_value("0")
    still = opened(report, "", reduced_motion="reduce")
    still.wait_for_timeout(300)
    assert position(still).startswith("frame 1 of")


def rendered_with(path, frames, model, *, fps=None, **look):
    """Write the report of a clip, with known values in the place of what its only model saw."""
    explanation = explain_clip(ExplainConfig(save_npz(path.with_suffix(".npz"), frames), (model,), device="cpu"))
    (column,) = explanation.columns
    known = replace(column, clip=replace(column.clip, fps=fps), look=replace(column.look, **look))
    path.write_text(page.render(replace(explanation, columns=(known,)), command="", provenance=""))
    return path, known


def test_frames_of_a_second_and_percentages_are_told(opened, three_models, tmp_path):
    path, column = rendered_with(tmp_path / "report.html", noise(8, 40, 40), three_models[0], fps=4.0)
    tab = opened(path, "#frame=7")
    assert position(tab) == "frame 7 of 8 · 1.5 s"
    said = column.verdicts[6]
    shown = tab.locator(".now").inner_text().replace("\u00a0", " ")
    unsure = "" if column.sure[6] else "unsure: "
    assert shown == f"frame 7: {unsure}{said.name} {100 * said.probability:.1f} %"


@pytest.mark.parametrize(("least", "unsure"), [(0.0, ""), (1.0, "unsure: ")])
def test_the_present_frame_is_unsure_below_the_minimum(opened, three_models, clip, tmp_path, least, unsure):
    config = ExplainConfig(clip, three_models[:1], tmp_path / "report.html", device="cpu", min_confidence=least)
    tab = opened(explain(config), "#frame=2")
    name = tab.locator(".now b").inner_text()
    assert tab.locator(".now").inner_text().startswith(f"frame 2: {unsure}{name} ")
    assert tab.locator(".verdict strong").inner_text().startswith(unsure)


@pytest.mark.parametrize(("exclusive", "line"), [(True, 0.9), (False, 0.5)])
def test_a_chart_marks_the_probability_that_a_verdict_needs(opened, clip, tmp_path, exclusive, line):
    model = save_model(tmp_path, labels=Labels(("a", "b", "c"), exclusive=exclusive))
    config = ExplainConfig(clip, (model,), tmp_path / "report.html", device="cpu", min_confidence=0.9)
    tab = opened(explain(config))
    tab.evaluate(
        """() => {
          window.rules = {};
          const stroke = CanvasRenderingContext2D.prototype.stroke;
          const lineTo = CanvasRenderingContext2D.prototype.lineTo;
          CanvasRenderingContext2D.prototype.lineTo = function (x, y) {
            this.lastY = y;
            lineTo.call(this, x, y);
          };
          CanvasRenderingContext2D.prototype.stroke = function (...given) {
            if (this.canvas.className === "chart" && this.lineWidth === 1) {
              (rules[this.getLineDash().join(" ")] ??= []).push(this.lastY);
            }
            stroke.call(this, ...given);
          };
        }"""
    )
    tab.keyboard.press("End")
    rules = tab.evaluate("rules")
    zero, _, one = rules[""][:3]
    assert (rules["2 4"][0] - zero) / (one - zero) == pytest.approx(line)


@pytest.mark.parametrize(
    ("corners", "margin_px"),
    [
        ([[2.0, 3.0], [2.0, 60.0], [30.0, 60.0], [30.0, 3.0]], 0),
        ([[2.0, 3.0], [2.0, 30.0], [36.0, 30.0], [36.0, 3.0]], 0.15 * 64),
        ([[2.0, 3.0], [2.0, 900.0], [30.0, 900.0], [30.0, 3.0]], 0.2 * 64),
    ],
    ids=["inside", "an eighth and a rim below", "far away"],
)
def test_around_a_frame_is_room_for_what_reaches_beyond(opened, three_models, tmp_path, corners, margin_px):
    quad = torch.tensor([[corners]])
    path, _ = rendered_with(tmp_path / "report.html", noise(1, 32, 64), three_models[1], quadrilateral_px=quad)
    frame = opened(path).locator("canvas.frame")
    wanted = (32 + 2 * margin_px) / (64 + 2 * margin_px)
    assert frame.evaluate("canvas => canvas.height / canvas.width") == pytest.approx(wanted, abs=0.01)
    told = ", ".join(f"({y:.0f}, {x:.0f})" for y, x in corners).replace("), (", ") (")
    assert frame.get_attribute("aria-label").endswith(f"samples the quadrilateral with corners (y, x) {told}")


def test_a_crop_keeps_its_own_proportions(opened, three_models, tmp_path):
    crop = torch.full((1, 1, 1, 20, 60), 128 / 255)
    path, _ = rendered_with(tmp_path / "report.html", noise(1, 32, 64), three_models[1], crop=crop)
    proportion, least, most = (
        opened(path)
        .locator("canvas.crop")
        .evaluate(
            """canvas => {
          const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
          return [canvas.height / canvas.width, Math.min(...data), Math.max(...data.filter((_, i) => i % 4 < 3))];
        }"""
        )
    )
    assert proportion == pytest.approx(20 / 60, abs=0.01)
    assert (least, most) == (128, 128)


def test_true_places_have_the_names_of_their_digits(opened, generated, report):
    tab = opened(report)
    tab.locator("input[name=boxes]").check()
    tab.evaluate(
        """() => {
          window.written = [];
          const write = CanvasRenderingContext2D.prototype.fillText;
          CanvasRenderingContext2D.prototype.fillText = function (text, x, y) {
            if (this.canvas.className === "frame") written.push([text, x]);
            write.call(this, text, x, y);
          };
        }"""
    )
    tab.locator("#scrubber").fill("7")
    written = tab.evaluate("written")
    truth = truth_of(generated)
    left = truth.poses.box_px[0, -1, :, 1].tolist()
    assert [text for text, _ in written[-2:]] == [str(digit) for digit in truth.digits]
    assert (written[-2][1] < written[-1][1]) == (left[0] < left[1])


def test_it_plays_at_the_clips_pace(opened, three_models, tmp_path):
    path, _ = rendered_with(tmp_path / "report.html", noise(40, 28, 28), three_models[0], fps=20.0)
    tab = opened(path)
    tab.clock.install(time=0)
    tab.clock.pause_at(1000)
    tab.keyboard.press("Space")
    tab.clock.run_for(1000)
    assert int(tab.locator("#scrubber").input_value()) in range(17, 21)


def test_the_axis_of_a_chart_counts_frames_as_the_words_do(opened, report):
    tab = opened(report)
    tab.evaluate(
        """() => {
          window.written = [];
          const write = CanvasRenderingContext2D.prototype.fillText;
          CanvasRenderingContext2D.prototype.fillText = function (text, x, y) {
            if (this.canvas.className === "chart" && this.textAlign === "center") written.push(Number(text));
            write.call(this, text, x, y);
          };
        }"""
    )
    tab.keyboard.press("End")
    assert max(tab.evaluate("written")) == 8
    assert min(tab.evaluate("written")) >= 1


def test_a_chart_is_a_scrubber_too(opened, report):
    tab = opened(report)
    chart = tab.locator("canvas.chart").first
    chart.click(position={"x": chart.bounding_box()["width"] - 1, "y": 60})
    assert position(tab).startswith("frame 8 of")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [LAPTOP, PHONE], ids=["laptop", "phone"])
def test_axe_finds_nothing_serious(opened, report, scheme, viewport):
    tab = opened(report, viewport=viewport, color_scheme=scheme)
    tab.locator("summary").click()
    found = axe.Axe().run(tab).response["violations"]
    assert [(rule["id"], rule["nodes"][0]["html"]) for rule in found if rule["impact"] in ("serious", "critical")] == []


@pytest.mark.parametrize("viewport", [LAPTOP, PHONE], ids=["laptop", "phone"])
def test_the_page_is_no_wider_than_the_screen(opened, report, viewport):
    tab = opened(report, viewport=viewport)
    assert tab.evaluate("document.documentElement.scrollWidth") <= viewport["width"]


def test_light_and_dark_differ_and_follow_the_system(opened, report):
    tab = opened(report, color_scheme="light")
    ground = "getComputedStyle(document.body).backgroundColor"
    light, chart = tab.evaluate(ground), shown(tab, "chart")
    tab.emulate_media(color_scheme="dark")
    tab.wait_for_timeout(50)
    assert tab.evaluate(ground) != light
    assert shown(tab, "chart") != chart


def test_drawings_are_as_fine_as_the_screen(opened, report):
    widths = [
        opened(report, device_scale_factor=density).locator("canvas.frame").first.evaluate("canvas => canvas.width")
        for density in (1, 2)
    ]
    assert widths[1] == pytest.approx(2 * widths[0], abs=1)


def test_a_hostile_name_is_only_a_name(opened, clip, tmp_path):
    folder = tmp_path / HOSTILE.replace("/", "")
    folder.mkdir()
    shutil.copy(clip, folder / HOSTILE)
    odd = {"digits": HOSTILE, "condition": "</script><script>document.title='hacked'</script>"}
    models = tuple(save_model(folder / name, data=odd) for name in ("<b>one", "<b>two"))
    path = explain(ExplainConfig(folder / HOSTILE, models, tmp_path / "report.html", device="cpu"))
    tab = opened(path)
    assert tab.locator("h1").inner_text() == HOSTILE
    assert tab.title().startswith(HOSTILE)
    assert tab.locator("h2").first.inner_text() == "lenet-lstm (<b>one)"
    assert tab.locator("img").count() == 0
    assert tab.locator("b:not(.now b)").count() == 0


def test_names_of_classes_are_only_names(opened, clip, tmp_path):
    labels = Labels((f"{HOSTILE}1", f"</script>{HOSTILE}2", "<b>x</b>"))
    model = save_model(tmp_path, labels=labels)
    tab = opened(explain(ExplainConfig(clip, (model,), tmp_path / "report.html", device="cpu")), "#frame=8")
    said = tab.locator(".now b").inner_text()
    assert said in labels.names
    assert tab.locator(".verdict strong").inner_text() == said
    for name in labels.names:
        assert name in tab.locator("table").first.inner_text()
    assert tab.title().startswith("clip.npz")
    assert tab.locator("img").count() == 0
    assert tab.locator("b:not(.now b)").count() == 0


def test_one_frame_and_a_frame_that_is_not_there(opened, three_models, tmp_path):
    clip = save_npz(tmp_path / "clip.npz", noise(1, 2, 2))
    path = explain(ExplainConfig(clip, three_models, tmp_path / "report.html", device="cpu"))
    tab = opened(path, "#frame=99")
    assert position(tab) == "frame 1 of 1"


WHOLE = torch.tensor([[[-0.5, -0.5], [-0.5, 63.5], [31.5, 63.5], [31.5, -0.5]]])


@pytest.mark.parametrize(("shift_px", "is_idle"), [(0.0, True), (0.9, True), (1.2, False)])
def test_a_window_that_changes_nothing_is_called_so(opened, three_models, tmp_path, shift_px, is_idle):
    quad = (WHOLE + torch.tensor([0.0, shift_px])).unsqueeze(1)
    path, _ = rendered_with(tmp_path / "report.html", noise(1, 32, 64), three_models[1], quadrilateral_px=quad)
    caption = opened(path).locator("figcaption").inner_text()
    assert caption.startswith("Quadrilateral: the area of the frame")
    assert ("attention changes nothing" in caption) == is_idle


def test_several_glimpses_are_told_with_their_numbers(opened, three_models, tmp_path):
    whole = WHOLE.unsqueeze(1)
    both = torch.cat((whole, whole / 2), 1)
    seen = {"quadrilateral_px": both, "crop": torch.full((1, 2, 1, 20, 40), 0.5)}
    path, _ = rendered_with(tmp_path / "report.html", noise(1, 32, 64), three_models[1], **seen)
    tab = opened(path)
    caption = tab.locator("figcaption").inner_text()
    assert caption.startswith("2 quadrilaterals: the areas of the frame that the glimpses")
    assert "attention changes nothing" not in caption
    assert "Several glimpses." in tab.locator("body").text_content()
    label = tab.locator("canvas.frame").get_attribute("aria-label")
    assert label.count("the quadrilateral with corners") == 2
    assert tab.locator("canvas.crop").evaluate("c => c.height / c.width") == pytest.approx(20 / 81, abs=0.01)
    seen["quadrilateral_px"] = torch.cat((whole, whole), 1)
    path, _ = rendered_with(tmp_path / "idle.html", noise(1, 32, 64), three_models[1], **seen)
    assert "every area is the whole frame within a pixel" in opened(path).locator("figcaption").inner_text()


@pytest.mark.parametrize(("length_px", "is_idle"), [(0.05, True), (0.15, False)])
def test_offsets_that_change_nothing_are_called_so(opened, three_models, tmp_path, length_px, is_idle):
    arrows = torch.tensor([[[[[8.0, 8.0], [8.0, 8.0 + length_px]]]]])
    points = torch.tensor([[[[8.0, 8.0], [8.0, -9.0], [4.0, 4.0], [40.0, 8.0]]]])
    seen = {"arrows_px": arrows, "points_px": points, "point_weight": torch.full((1, 1, 4), 0.25)}
    path, _ = rendered_with(tmp_path / "report.html", noise(1, 32, 64), three_models[2], **seen)
    legend = opened(path).locator(".legend").inner_text().replace("\u00a0", " ")
    assert ("attention changes nothing" in legend) == is_idle
    assert "50 % of these points lie outside the frame" in legend


def test_a_published_model_speaks_at_the_end(opened, tmp_path):
    model = save_model(tmp_path, "lenet-lstm-published", labels="ordered", num_frames=3)
    clip = save_npz(tmp_path / "clip.npz", noise(3, 64, 64))
    tab = opened(explain(ExplainConfig(clip, (model,), tmp_path / "report.html", device="cpu")))
    assert tab.locator(".now").inner_text() == "no verdict yet"
    tab.keyboard.press("End")
    assert tab.locator(".now").inner_text().startswith("frame 3: ")


def test_an_old_browser_is_told_so_and_keeps_the_figures(chromium, report):
    context = chromium.new_context(viewport=LAPTOP)
    context.add_init_script("delete window.DecompressionStream")
    tab = context.new_page()
    tab.goto(report.as_uri())
    tab.locator("#trouble").wait_for(state="visible")
    assert "cannot be played here" in tab.locator("#trouble").inner_text()
    assert tab.locator("table").first.is_visible()
    context.close()
