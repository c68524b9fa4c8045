"""The report as a picture or a video, and the command that writes all of them."""

import re
import sys
from dataclasses import replace

import pytest
import torch

from saccade import cli
from saccade.data.video import read_clip
from saccade.data.video_writing import write_mp4
from saccade.errors import DataError, MissingExtraError
from saccade.explain import ExplainConfig, explain, explain_clip, pictures

from .stand_ins import noise, save_model, save_npz

pytest.importorskip("matplotlib")
pyplot = pytest.importorskip("matplotlib.pyplot")
ORANGE = torch.tensor([238, 119, 51]).view(3, 1, 1)


def made(clip, models, out, **options):
    return explain(ExplainConfig(clip, tuple(models), out, device="cpu", **options))


def width_of(path):
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG")
    return int.from_bytes(content[16:20]), int.from_bytes(content[20:24])


@pytest.mark.parametrize("suffix", ["gif", "mp4"])
def test_moving_pictures_have_a_frame_a_frame_and_a_column_a_model(clip, three_models, tmp_path, suffix):
    one, three = (
        read_clip(made(clip, three_models[:num], tmp_path / f"{num}.{suffix}"), num_channels=3) for num in (1, 3)
    )
    assert one.fps == three.fps == 10
    assert len(one.frames) == len(three.frames) == 8
    assert three.frames.shape[-1] == 3 * one.frames.shape[-1]
    assert all(edge % 2 == 0 for edge in three.frames.shape[-2:])
    assert (three.frames[1:] != three.frames[:-1]).flatten(1).any(1).all()  # no frame is the one before
    assert {path.name for path in tmp_path.iterdir()} == {f"1.{suffix}", f"3.{suffix}"}


def test_moving_pictures_say_where_a_verdict_is_unsure(clip, three_models):
    sure, unsure = (
        pictures.moving(explain_clip(ExplainConfig(clip, three_models[:1], device="cpu", min_confidence=least)))
        for least in (0.0, 1.0)
    )
    verdicts = slice(36, 64)  # the rows of the words above the frame
    assert (sure[:, :, verdicts] != unsure[:, :, verdicts]).flatten(1).any(1).all()


def test_a_strip_has_a_part_a_model(clip, three_models, tmp_path):
    one, three = (width_of(made(clip, three_models[:num], tmp_path / f"{num}.png")) for num in (1, 3))
    assert three[0] == one[0]
    assert 2.5 * one[1] < three[1] < 3 * one[1]


def test_the_clip_plays_in_it_with_what_the_transformer_samples(clip, three_models):
    explanation = explain_clip(ExplainConfig(clip, three_models[1:2], device="cpu"))
    frames = pictures.moving(explanation).int()
    drawn = ((frames - ORANGE).abs().amax(1) < 12).flatten(1).sum(1)
    assert (drawn > 300).all()
    # The frame is 2.16 inches wide with its rim, and begins at (0.76, 0.12): look for pixels where they have to be.
    pixels = explanation.columns[0].clip.frames[:, 0].int()

    def fits(rim):
        zoom = 216 / (64 * (1 + 2 * rim))
        left, top = 12 + rim * 64 * zoom, 76 + rim * 64 * zoom
        shown = [frames[:, 0, round(top + (y + 0.5) * zoom), round(left + (x + 0.5) * zoom)] for y, x in places]
        return torch.equal(torch.stack(shown), torch.stack([pixels[:, y, x] for y, x in places]))

    places = [(30, 33), (20, 40), (40, 25)]
    assert any(fits(rim / 1000) for rim in range(30, 201))


def box_of(pixels):
    """Return height and width of what most of the rows and columns with such pixels span."""
    rows, columns = (pixels.sum(axis) > 10 for axis in (1, 0))
    return [int(found.nonzero().max() - found.nonzero().min()) + 1 for found in (rows, columns)]


def explained_with(path, frames, model, **look):
    """Explain a clip, with known values in the place of what its only model saw."""
    explanation = explain_clip(ExplainConfig(save_npz(path, frames), (model,), device="cpu"))
    (column,) = explanation.columns
    return replace(explanation, columns=(replace(column, look=replace(column.look, **look)),))


@pytest.mark.parametrize("size", [(32, 64), (64, 40)])
def test_frames_and_crops_keep_their_proportions(three_models, tmp_path, size):
    height, width = size
    frames = torch.full((2, 1, *size), 60, dtype=torch.uint8)
    frames[..., height // 2 :, : width // 2] = 180
    crop = torch.full((2, 1, 1, 30, 30), 128 / 255)
    nowhere = torch.full((2, 1, 4, 2), 20.0)
    explanation = explained_with(tmp_path / "clip.npz", frames, three_models[1], crop=crop, quadrilateral_px=nowhere)
    grey = pictures.moving(explanation)[0].int()
    grey = torch.where(grey.amax(0) == grey.amin(0), grey[0], -1)
    frame, aside = grey[:, :235], grey[:, 235:]
    wanted = pytest.approx(height / width, rel=0.04)
    for part in ((frame == 60) | (frame == 180), frame == 180, aside == 128):
        found = box_of(part)
        assert found[0] / found[1] == wanted
    assert 180 < box_of((frame == 60) | (frame == 180))[1] <= 216
    assert 90 < box_of(aside == 128)[1] <= 110
    # The part that differs is the lower left one.
    rows, columns = (frame == 180).nonzero().float().mean(0) - (frame == 60).nonzero().float().mean(0)
    assert rows > 0 > columns


def test_beside_a_plain_models_frame_stands_its_saliency(three_models, tmp_path):
    frames = torch.zeros(1, 1, 40, 40, dtype=torch.uint8)
    saliency = torch.zeros(1, 40, 40)
    saliency[:, :20] = 1 / 800
    explanation = explained_with(tmp_path / "clip.npz", frames, three_models[0], saliency=saliency)
    (picture,) = pictures.moving(explanation).int()
    warm = picture[0] - picture[2] > 100
    assert box_of(warm[:290, 235:]) == pytest.approx([54, 108], abs=3)
    assert not warm[:200, :235].any()


def test_there_is_room_for_a_quadrilateral_that_reaches_beyond_a_tall_frame(three_models, tmp_path):
    frames = torch.zeros(1, 1, 64, 32, dtype=torch.uint8)
    beyond = torch.tensor([[[[-5.0, 2.0], [-5.0, 29.0], [60.0, 29.0], [60.0, 2.0]]]])
    explanation = explained_with(tmp_path / "clip.npz", frames, three_models[1], quadrilateral_px=beyond)
    (picture,) = pictures.moving(explanation).int()
    lines = ((picture - ORANGE).abs().amax(0) < 12)[:, :235].sum(1) > 100
    assert lines.nonzero().flatten().diff().max() > 300  # one line above, one below
    frame = (picture.amax(0) == 0)[:, :235].sum(1) > 100
    assert lines.nonzero().min() < frame.nonzero().min()


def test_above_each_frame_stands_what_was_said_there(three_models, tmp_path):
    frames = torch.zeros(3, 1, 40, 40, dtype=torch.uint8)
    some = torch.nn.functional.one_hot(torch.tensor([3, 3, 3]), 55).float()
    other = torch.nn.functional.one_hot(torch.tensor([3, 8, 3]), 55).float()
    one, two = (
        pictures.moving(explained_with(tmp_path / "clip.npz", frames, three_models[0], logits=logits))[..., :70, :]
        for logits in (some, other)
    )
    assert (one != two).flatten(1).any(1).tolist() == [False, True, False]


@pytest.mark.parametrize(
    ("size", "suffix"),
    [((1, 1), "mp4"), ((2, 2), "png"), ((33, 47), "mp4"), ((40, 160), "png"), ((160, 40), "mp4"), ((160, 40), "png")],
)
def test_any_size_and_a_single_frame(three_models, tmp_path, size, suffix):
    path = save_npz(tmp_path / "clip.npz", noise(1, *size, channels=3))
    out = made(path, three_models[1:2], tmp_path / f"out.{suffix}")
    if suffix == "mp4":
        assert len(read_clip(out).frames) == 1
    else:
        assert min(width_of(out)) > 100


def test_a_model_that_speaks_at_the_end(tmp_path):
    model = save_model(tmp_path, "lenet-lstm-published", labels="ordered", num_frames=3)
    clip = save_npz(tmp_path / "clip.npz", noise(3, 64, 64))
    for suffix in ("png", "gif"):
        made(clip, [model], tmp_path / f"out.{suffix}")
    assert len(read_clip(tmp_path / "out.gif").frames) == 3


@pytest.mark.parametrize("fps", [0.5, 60, 1000])
def test_any_rate(three_models, tmp_path, fps):
    write_mp4(tmp_path / "clip.mp4", noise(2, 32, 32), fps)
    for suffix in ("gif", "mp4", "html"):
        out = made(tmp_path / "clip.mp4", three_models[:1], tmp_path / f"out.{suffix}")
        if suffix == "gif":
            assert read_clip(out).fps <= 50


def test_colours_and_names_stand_in_the_strip(clip, three_models, tmp_path):
    pixels = torch.from_numpy(pyplot.imread(made(clip, three_models, tmp_path / "out.png"))[..., :3] * 255).int()
    assert ((pixels - ORANGE.flatten()).abs().amax(-1) < 12).sum() > 300


def test_drawing_leaves_no_figure_open(clip, three_models, tmp_path):
    pyplot.close("all")
    for suffix in ("png", "gif"):
        made(clip, three_models[:1], tmp_path / f"out.{suffix}")
    assert pyplot.get_fignums() == []


# The command.


def test_without_matplotlib_pages_are_written_and_pictures_name_the_extra(clip, three_models, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    made(clip, three_models, tmp_path / "report.html")
    with pytest.raises(MissingExtraError, match=r"pip install 'saccade\[plot\]'"):
        made(clip, three_models, tmp_path / "report.png")
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


@pytest.mark.parametrize("suffix", ["html", "gif", "mp4", "png"])
def test_what_goes_wrong_leaves_the_old_file(tmp_path, three_models, suffix):
    out = tmp_path / f"report.{suffix}"
    out.write_text("old")
    with pytest.raises(DataError, match="no clip at"):
        made(tmp_path / "none.mp4", three_models, out)
    assert out.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == [out.name]


def test_a_place_that_cannot_be_written_is_told_before_the_work(clip, three_models, tmp_path, monkeypatch):
    monkeypatch.setattr("saccade.explain.command.explain_clip", lambda _config: pytest.fail("it worked first"))
    (tmp_path / "report.html").mkdir()
    with pytest.raises(OSError, match="is not a regular file"):
        made(clip, three_models, tmp_path / "report.html")


def test_the_command_line(clip, three_models, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["explain", str(clip), "--model", *map(str, three_models), "-o", "a.html", "--device", "cpu"]) == 0
    assert re.search(r"wrote a\.html, \d+ kB", capsys.readouterr().err)
    assert "dcn-lstm" in (tmp_path / "a.html").read_text()
    assert cli.main(["explain", str(clip), "--model", str(three_models[0]), "--format", "png", "--device", "cpu"]) == 0
    path = tmp_path / f"{clip.stem}-explained.png"
    before = path.read_bytes()
    capsys.readouterr()
    assert cli.main(["explain", str(clip), "--model", str(three_models[0]), "--format", "png"]) == 2
    assert f"{path.name} exists; name another file with --out" in capsys.readouterr().err
    assert path.read_bytes() == before
    assert cli.main(["explain", str(clip), "--model", str(three_models[0]), "--out", path.name]) == 0
    assert cli.main(["explain", str(clip), "--model", str(three_models[0]), "--out", "a.txt"]) == 2
    assert cli.main(["explain", "none.mp4", "--model", str(three_models[0])]) == 1
    assert cli.main(["explain", str(clip), "--model", "none"]) == 1


def test_the_page_names_the_command_that_made_it(clip, three_models, tmp_path, monkeypatch):
    words = ["explain", str(clip), "--model", str(three_models[0]), "-o", str(tmp_path / "a page.html")]
    monkeypatch.setattr(sys, "argv", ["bin/saccade", *words])
    assert cli.main(words) == 0
    text = (tmp_path / "a page.html").read_text()
    assert f"saccade explain {clip} --model {three_models[0]} -o &#x27;{tmp_path / 'a page.html'}&#x27;" in text
    assert re.search(r"Made \d{4}-\d\d-\d\d.* with saccade \d", text)
