from dataclasses import replace

import pytest
import torch

from saccade import checkpoint, models, weights
from saccade.checkpoint import Header
from saccade.clips import FrameFormat
from saccade.data.digits import DigitsConfig, schemes
from saccade.data.video import read_clip
from saccade.data.video_writing import write_gif, write_mp4
from saccade.errors import DataError, UsageError
from saccade.explain import ExplainConfig, explain_clip
from saccade.explain.figures import figures_of
from saccade.generate import GenerateConfig, generate
from saccade.predict import PredictConfig, predict

from .stand_ins import MATCHED, noise, save_model, save_npz


def explained(clip, models, **options):
    return explain_clip(ExplainConfig(clip, tuple(models), device="cpu", **options))


def figure(explanation, name):
    found = [f for group in figures_of(explanation).values() for f in group if f.name == name]
    return found[0].values if found else None


def test_models_say_what_predict_says(clip, three_models):
    explanation = explained(clip, three_models)
    assert [column.name for column in explanation.columns] == list(MATCHED)
    for column, path in zip(explanation.columns, three_models, strict=True):
        (said,) = predict(PredictConfig((clip,), path, device="cpu"))
        assert column.prediction.verdict == said.verdict
        assert column.prediction.probability == pytest.approx(said.probability, abs=1e-5)
        assert column.prediction.decided_at == said.decided_at
        assert column.verdicts[-1].name == said.verdict
        assert column.probabilities.shape == (8, 55)


def test_each_model_has_the_parts_of_its_kind(clip, three_models):
    plain, transformer, deformable = explained(clip, three_models).columns
    assert all(column.look.saliency is not None for column in (plain, transformer, deformable))
    assert all(column.look.receptive_field is not None for column in (plain, transformer, deformable))
    assert plain.look.quadrilateral_px is None
    assert plain.look.points_px is None
    assert transformer.look.quadrilateral_px is not None
    assert deformable.look.points_px is not None


def test_a_long_clip_is_cut_and_that_is_told(clip, three_models):
    whole, cut = (explained(clip, three_models[:1], max_frames=num) for num in (8, 7))
    assert (whole.num_frames, whole.cut) == (8, False)
    assert (cut.num_frames, cut.cut) == (7, True)
    assert cut.columns[0].prediction.num_frames == 7


@pytest.mark.parametrize("labels", ["pair", "ordered", "digits"])
def test_every_label_scheme(tmp_path, clip, labels):
    model = save_model(tmp_path, labels=labels)
    (column,) = explained(clip, [model]).columns
    assert column.labels == schemes.create(labels).labels
    total = column.probabilities.sum(-1)
    assert labels == "digits" or total.allclose(torch.ones(8), atol=1e-5)
    for verdict in column.verdicts:
        assert 0 <= verdict.probability <= 1
        known = {"no digit", *column.labels.names}
        assert verdict.name in known or set(verdict.name.split("-")) <= known


@pytest.mark.parametrize(
    ("height", "width", "seen"),
    [
        (1, 1, (64, 64)),
        (2, 2, (64, 64)),
        (2, 300, (64, 256)),
        (33, 47, (33, 47)),
        (120, 160, (64, 85)),
        (300, 300, (64, 64)),
    ],
)
def test_frames_of_any_size_are_seen_as_predict_sees_them(tmp_path, three_models, height, width, seen):
    path = save_npz(tmp_path / "clip.npz", noise(3, height, width))
    explanation = explained(path, three_models)
    assert explanation.file_size == (height, width)
    for column in explanation.columns:
        assert column.frame_size == seen
        assert column.clip.frames.shape[-2:] == seen
        assert column.look.saliency.shape[-2:] == seen


@pytest.mark.parametrize("suffix", ["mp4", "gif", "npz"])
@pytest.mark.parametrize("num_frames", [1, 5])
def test_colour_of_any_length_in_any_file(tmp_path, three_models, suffix, num_frames):
    frames, path = noise(num_frames, 40, 52, channels=3), tmp_path / f"clip.{suffix}"
    if suffix == "npz":
        save_npz(path, frames)
    else:
        {"mp4": write_mp4, "gif": write_gif}[suffix](path, frames, 10)
    explanation = explained(path, three_models)
    assert explanation.num_frames == num_frames
    assert explanation.fps == (None if suffix == "npz" else 10)


def test_a_model_of_colour_gets_colour(tmp_path):
    path = save_npz(tmp_path / "clip.npz", noise(3, 40, 40, channels=3))
    grey, colour = save_model(tmp_path / "grey"), save_model(tmp_path / "colour", frame_format=FrameFormat(3))
    columns = explained(path, [grey, colour]).columns
    assert [column.clip.frames.shape[1] for column in columns] == [1, 3]
    assert torch.equal(columns[1].clip.frames, read_clip(path, num_channels=3).frames)


def damaged(path, num_frames=30):
    write_mp4(path, torch.randint(0, 256, (num_frames, 1, 64, 64), dtype=torch.uint8), 10)
    content = bytearray(path.read_bytes())
    start, end = content.index(b"mdat"), content.index(b"moov")
    content[(start + end) // 2 : end - 4] = bytes(end - 4 - (start + end) // 2)
    path.write_bytes(content)
    return path


def test_a_damaged_clip_is_told_of_once(tmp_path, three_models):
    explanation = explained(damaged(tmp_path / "clip.mp4"), three_models)
    assert 0 < explanation.num_frames < 30
    (warning,) = explanation.warnings
    assert "clip.mp4 is damaged" in warning


def test_what_cannot_be_read_is_refused(tmp_path, three_models):
    (tmp_path / "a.mp4").write_bytes(b"not a video")
    for path, message in ((tmp_path / "a.mp4", "cannot be read"), (tmp_path / "b.mp4", "no clip at")):
        with pytest.raises(DataError, match=message):
            explained(path, three_models)


def test_what_no_one_can_explain_is_refused(tmp_path, clip, three_models):
    with pytest.raises(DataError, match="no checkpoint at"):
        explained(clip, [tmp_path])
    with pytest.raises(UsageError, match="device"):
        explain_clip(ExplainConfig(clip, three_models, device="gpu"))
    checkpoint.save(tmp_path / checkpoint.NAME, models.create("lenet-lstm"), Header("lenet-lstm"))
    with pytest.raises(DataError, match="does not say what its classes are"):
        explained(clip, [tmp_path])


# Models of the published sizes read clips of one length, and speak once.


def test_a_published_model(tmp_path):
    model = save_model(tmp_path, "stn-lstm-published", labels="ordered", num_frames=4)
    path = save_npz(tmp_path / "clip.npz", noise(4, 50, 70))
    (column,) = explained(path, [model]).columns
    assert column.frame_size == (64, 64)
    assert column.prediction.decided_at is None
    assert len(column.verdicts) == 1
    assert column.look.crop.shape == (4, 1, 1, 32, 32)
    assert column.colour == "#ee7733"


def test_a_published_model_does_not_read_other_lengths(tmp_path):
    model = save_model(tmp_path, "lenet-lstm-published", labels="ordered", num_frames=4)
    with pytest.raises(DataError, match=r"clip\.npz does not fit the model: the clip has 5 frames"):
        explained(save_npz(tmp_path / "clip.npz", noise(5, 64, 64)), [model])


# Beside the truth.


def test_a_generated_clip_is_measured_against_its_truth(generated, three_models):
    explanation = explained(generated, three_models)
    assert figure(explanation, "True class") == ("03",) * 3
    for column in explanation.columns:
        assert column.boxes_px.shape == (8, 2, 4)
        ink = column.attended["ink"].ratio[0]
        assert (ink > 2).all()  # all brightness lies in the boxes
    assert [" on 0" in value for value in figure(explanation, "Sampled area")] == [False, True, False]
    assert [" on 0" in value for value in figure(explanation, "Sampling points")] == [False, False, True]
    assert all(" on 3" in value for value in figure(explanation, "Saliency"))


def test_a_clip_of_which_nothing_is_known_is_not_measured(clip, three_models):
    explanation = explained(clip, three_models)
    assert explanation.truth is None
    assert figure(explanation, "True class") is None
    assert figure(explanation, "Saliency") is None
    assert all(column.boxes_px is None for column in explanation.columns)


def test_boxes_follow_the_size_that_a_model_gets(generated, tmp_path, three_models):
    published = save_model(tmp_path, "lenet-lstm-published", labels="ordered", num_frames=8)
    large = tmp_path / "large"
    generate(GenerateConfig(large, format="npz"), DigitsConfig("uci", num_clips=1, num_frames=8, canvas=160))
    matched, squeezed = explained(large / "00" / "000000.npz", [three_models[0], published]).columns
    truth = explained(large / "00" / "000000.npz", [three_models[0]]).truth
    assert matched.frame_size == squeezed.frame_size == (64, 64)
    assert torch.allclose(matched.boxes_px, truth.poses.box_px[0] * 64 / 160)


def test_cut_clips_have_the_truth_of_their_frames(generated, three_models):
    (column,) = explained(generated, three_models[:1], max_frames=3).columns
    assert column.boxes_px.shape == (3, 2, 4)


# Figures of what is known.


def with_changes(explanation, *, look=None, prediction=None, attended=None):
    """Put known values in the place of what the only model saw, said and attended to."""
    (column,) = explanation.columns
    told = {name: replace(column.attended[name], **values) for name, values in (attended or {}).items()}
    changed = replace(
        column,
        look=replace(column.look, **(look or {})),
        prediction=replace(column.prediction, **(prediction or {})),
        attended={**column.attended, **told},
    )
    return replace(explanation, columns=(changed,))


def test_area_and_turn_are_those_of_the_sampled_quadrilateral(tmp_path, three_models):
    explanation = explained(save_npz(tmp_path / "clip.npz", noise(5, 32, 64)), three_models[1:2])
    height, width, crop_height, crop_width = 32, 64, 16, 48
    areas = torch.tensor([0.36, 0.04, 0.25, 1.0, 0.09])
    turns = torch.tensor([20.0, -40.0, 35.0, 30.0, -10.0]).deg2rad()
    # Positions are (x, y), y down: this turns counter-clockwise on the screen.
    turned = torch.stack((turns.cos(), turns.sin(), -turns.sin(), turns.cos()), -1).view(5, 2, 2)
    stretched = torch.tensor([[1.3, 0.3], [0.3, 0.7]])
    zooms = (areas * height * width / (crop_height * crop_width * stretched.det())).sqrt().view(5, 1, 1)
    edges = torch.tensor([[width / crop_width, width / crop_height], [height / crop_width, height / crop_height]])
    theta = torch.cat((zooms * turned @ stretched / edges, torch.zeros(5, 2, 1)), -1)
    crops = torch.zeros(5, 2, 1, crop_height, crop_width)
    found = with_changes(explanation, look={"theta": theta.unsqueeze(1), "crop": crops[:, :1]})
    assert figure(found, "Sampled area, share of the frame") == ("25 % (4 to 100)",)
    assert figure(found, "Rotation of the sampled area") == ("20.0° (-40.0 to 35.0)",)
    both = torch.stack((theta, torch.eye(2, 3).expand(5, 2, 3)), 1)
    found = with_changes(explanation, look={"theta": both, "crop": crops})
    assert figure(found, "Sampled area, share of the frame") == (
        "glimpse 1: 25 % (4 to 100); glimpse 2: 100 % (100 to 100)",
    )


def test_shifts_are_lengths_averaged_over_a_frame(tmp_path, three_models):
    explanation = explained(save_npz(tmp_path / "clip.npz", noise(5, 32, 64)), three_models[2:])
    arrows = torch.ones(5, 1, 2, 2, 2)
    arrows[:, 0, 0, 1] += torch.tensor([2, 0, 6, 1, 1]).unsqueeze(-1) * torch.tensor([3.0, 4.0])
    found = with_changes(explanation, look={"arrows_px": arrows})
    assert figure(found, "Shift by the first layer's offsets, mean over its taps") == ("2.50 px (0.00 to 15.00)",)


def test_masses_stand_beside_their_digits(generated, three_models):
    explanation = explained(generated, three_models[:1])
    known = {
        "gradient": {"ratio": torch.tensor([[2.0, 3.0]]), "ratio_min": torch.tensor([1.5])},
        "ink": {"ratio": torch.tensor([[5.0, 4.0]]), "ratio_min": torch.tensor([0.75])},
    }
    found = with_changes(explanation, attended=known)
    assert figure(found, "Saliency") == ("2.00 on 0, 3.00 on 3 (least 1.50)",)
    assert figure(found, "Brightness, for comparison") == ("5.00 on 0, 4.00 on 3 (least 0.75)",)


def test_a_transformer_follows_by_slope_and_correlation(generated, three_models):
    values = {"angle_slope": 0.5, "angle_correlation": 0.9, "scale_slope": -0.25, "scale_correlation": -0.75}
    following = {name: torch.tensor([value]) for name, value in values.items()}
    explanation = explained(generated, three_models[1:2])
    found = with_changes(explanation, attended={"sampled_area": {"following": following}})
    assert figure(found, "Its angle against that of the digits") == ("0.50 (0.90)",)
    assert figure(found, "Its scale against that of the digits") == ("-0.25 (-0.75)",)
    constant = following | {"angle_slope": torch.tensor([torch.nan])}
    found = with_changes(explanation, attended={"sampled_area": {"following": constant}})
    assert figure(found, "Its angle against that of the digits") is None


def test_glimpses_are_told_with_the_share_of_frames_in_which_each_digit_has_its_own(generated, three_models, tmp_path):
    several = save_model(tmp_path, "multi-stn-lstm")
    explanation = explained(generated, [several])
    assert explanation.columns[0].look.quadrilateral_px.shape[1:] == (2, 4, 2)
    values = {"one_each": 0.75, "alone": 0.5, "covered": 0.875, "iou": 0.25}
    following = {name: torch.tensor([value]) for name, value in values.items()}
    found = with_changes(explanation, attended={"sampled_area": {"following": following}})
    assert figure(found, "Each digit in another glimpse") == ("75.0\u00a0%",)
    assert figure(found, "Each digit alone in a glimpse") == ("50.0\u00a0%",)
    assert figure(found, "Digits in any glimpse") == ("87.5\u00a0%",)
    assert figure(found, "Intersection over union with the best glimpse") == ("0.25",)
    assert figure(explained(generated, three_models[1:2]), "Each digit in another glimpse") is None


def test_a_verdict_is_told_with_percentages_seconds_and_size(tmp_path, three_models):
    explanation = explained(save_npz(tmp_path / "clip.npz", noise(5, 32, 64)), three_models[:1])
    said = {"verdict": "07", "probability": 0.125, "top": (("07", 0.125), ("17", 0.05)), "decided_at": 3, "fps": 2.0}
    found = with_changes(explanation, prediction=said | {"sure": True})
    assert figure(found, "Verdict, by the last frame") == ("07",)
    assert figure(found, "Its probability") == ("12.5\u00a0%",)
    assert figure(found, "Most probable classes") == ("07\u00a012.5\u00a0%, 17\u00a05.0\u00a0%",)
    assert figure(found, "Decided at") == ("frame 4 (1.5 s)",)
    assert figure(found, "Input frames") == ("5",)
    assert figure(found, "Input size") == ("64x32 px",)
    unsure = with_changes(explanation, prediction=said | {"sure": False, "decided_at": None})
    assert figure(unsure, "Verdict, by the last frame") == ("unsure: 07",)
    assert figure(unsure, "Decided at") == ("not decided",)


# Names and colours.


def test_models_of_a_kind_are_told_apart(tmp_path, clip):
    paths = [save_model(tmp_path / name) for name in ("early", "late")] + [save_model(tmp_path / "x", "stn-lstm")]
    columns = explained(clip, [*paths, paths[0]]).columns
    names = [column.name for column in columns]
    assert names == ["lenet-lstm (early)", "lenet-lstm (late)", "stn-lstm", "lenet-lstm (early) #2"]
    assert len({column.colour for column in columns}) == 4


# What is asked.


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_frames": 0}, "max_frames must be at least 1"),
        ({"format": "htm"}, "no format is called 'htm'; did you mean 'html'"),
        ({"out": "a.avi"}, "no format is called 'avi'"),
    ],
)
def test_a_wrong_call_is_refused(tmp_path, options, message):
    given = {"model": (tmp_path,)} | options
    given["out"] = tmp_path / given["out"] if "out" in given else None
    with pytest.raises(UsageError, match=message):
        ExplainConfig(tmp_path / "clip.mp4", **given)


@pytest.mark.parametrize(
    ("out", "format", "path", "chosen"),
    [
        (None, None, "clip.1-explained.html", "html"),
        (None, "gif", "clip.1-explained.gif", "gif"),
        ("a.GIF", None, "a.GIF", "gif"),
        ("a", None, "a", "html"),
        ("a.b", "png", "a.b", "png"),
    ],
)
def test_the_format_is_what_was_asked_or_what_the_name_ends_in(tmp_path, out, format, path, chosen):
    config = ExplainConfig(tmp_path / "clip.1.mp4", (tmp_path,), tmp_path / out if out else None, format)
    assert (config.path.name, config.chosen_format) == (path, chosen)


def test_without_a_model_those_of_the_package_are_shown(generated, tmp_path):
    explained = explain_clip(ExplainConfig(generated))
    assert [column.name for column in explained.columns] == list(weights.matched())
    assert all(column.labels == schemes.create("digits").labels for column in explained.columns)
