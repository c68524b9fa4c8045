import json
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import nn

from saccade import checkpoint, models, weights
from saccade.checkpoint import Header
from saccade.clips import FrameFormat
from saccade.data import digits
from saccade.data.digits import DigitsConfig, schemes
from saccade.data.digits.motion import Motion
from saccade.data.digits.moving_digits import MovingDigits
from saccade.data.finding import find_clips
from saccade.data.video import read_clip
from saccade.data.video_writing import write_gif, write_mp4
from saccade.errors import DataError, UsageError
from saccade.generate import GenerateConfig, generate
from saccade.labels import Labels
from saccade.models import verdict
from saccade.predict import PredictConfig, Prediction, each, predict, render

PAIR, ORDERED, DIGITS = (schemes.create(name).labels for name in ("pair", "ordered", "digits"))


def save_model(path, name="lenet-lstm", labels=PAIR, frame_format=None, *, loud=60, **arguments):
    """Save an untrained model whose verdicts change from frame to frame; rounding does not grow in its state."""
    torch.manual_seed(0)
    header = Header(name, arguments, labels, frame_format)
    model = header.create_model().eval()
    with torch.no_grad():
        for part in ("temporal", "head"):
            for weight, parameter in getattr(model, part, nn.Identity()).named_parameters():
                parameter.mul_(1 if "weight_hh" in weight else loud)
    checkpoint.save(path / checkpoint.NAME, model, header)
    return model


def moving(num=3, num_frames=12, canvas_px=64, condition="rotation_scaling"):
    motion = Motion(condition, num_frames=num_frames, canvas_px=canvas_px)
    return MovingDigits(digits.load("uci", "test"), motion).batch(torch.arange(num)).frames


def save(path, frames):
    np.savez_compressed(path, frames=frames.numpy())
    return path


def one(tmp_path, clip, **options):
    (prediction,) = predict(PredictConfig((clip,), tmp_path, device="cpu", **options))
    return prediction


@pytest.mark.parametrize("suffix", ["npz", "gif", "mp4"])
def test_the_verdict_is_the_models_on_the_same_pixels(tmp_path, suffix):
    model = save_model(tmp_path)
    for index, frames in enumerate(moving()):
        path = tmp_path / f"{index}.{suffix}"
        {"npz": lambda p, f, _: save(p, f), "gif": write_gif, "mp4": write_mp4}[suffix](path, frames, 10)
        prediction = one(tmp_path, path)
        with torch.no_grad():
            expected = verdict(model(read_clip(path).frames[None]))[0].softmax(-1)
        names = [f"{a}{b}" for a in range(10) for b in range(a, 10)]
        best = expected.topk(5)
        assert prediction.verdict == names[int(expected.argmax())]
        assert prediction.probability == pytest.approx(float(expected.max()), abs=1e-4)
        assert [name for name, _ in prediction.top] == [names[i] for i in best.indices.tolist()]
        assert [p for _, p in prediction.top] == pytest.approx(best.values.tolist(), abs=1e-4)
        assert (prediction.num_frames, prediction.frame_size, prediction.warning) == (12, (64, 64), None)


def test_decided_at_is_the_first_frame_that_the_verdict_holds_from(tmp_path):
    model = save_model(tmp_path)
    decided = set()
    for index, frames in enumerate(moving(6)):
        prediction = one(tmp_path, save(tmp_path / f"{index}.npz", frames), min_confidence=0)
        with torch.no_grad():
            choice = model(frames[None])[0].argmax(-1).tolist()
        at = prediction.decided_at
        assert set(choice[at:]) == {choice[-1]}
        assert at == 0 or choice[at - 1] != choice[-1]
        decided.add(at)
    assert len(decided) > 1  # the untrained verdicts do change


def test_sets_of_digits(tmp_path):
    model = save_model(tmp_path, labels=DIGITS)
    for index, frames in enumerate(moving(6)):
        prediction = one(tmp_path, save(tmp_path / f"{index}.npz", frames), min_confidence=0)
        with torch.no_grad():
            present = model(frames[None])[0].sigmoid()
        last = present[-1]
        assert prediction.verdict == ("-".join(str(d) for d in range(10) if last[d] > 0.5) or "no digit")
        assert prediction.probability == pytest.approx(float(torch.maximum(last, 1 - last).prod()), abs=1e-4)
        same = ((present > 0.5) == (last > 0.5)).all(-1).tolist()
        assert all(same[prediction.decided_at :])
        assert prediction.decided_at == 0 or not same[prediction.decided_at - 1]


def test_a_clip_without_a_digit_is_called_so(tmp_path):
    model = save_model(tmp_path, labels=DIGITS)
    with torch.no_grad():
        nn.init.zeros_(model.head.weight)
        nn.init.constant_(model.head.bias, -3)
    checkpoint.save(tmp_path / checkpoint.NAME, model, Header("lenet-lstm", labels=DIGITS))
    assert one(tmp_path, save(tmp_path / "a.npz", moving(1)[0])).verdict == "no digit"


def test_long_clips_are_followed_through(tmp_path):
    torch.manual_seed(0)
    header = Header("lenet-lstm", labels=PAIR)
    model = header.create_model().eval()
    with torch.no_grad():
        # Little goes in and nothing is forgotten: only so do the first of three hundred frames matter at the end.
        admit, forget = model.temporal.cell.bias_ih_l0.view(4, -1)[:2]
        admit.fill_(-5)
        forget.fill_(20)
        model.head.evidence.weight.mul_(60)
    checkpoint.save(tmp_path / checkpoint.NAME, model, header)
    frames = torch.randint(0, 256, (300, 1, 28, 28), dtype=torch.uint8)
    prediction = one(tmp_path, save(tmp_path / "a.npz", frames), min_confidence=0)
    with torch.no_grad():
        whole, half = (model(part[None])[0].softmax(-1) for part in (frames, frames[150:]))
    assert prediction.num_frames == 300
    assert prediction.probability == pytest.approx(float(whole[-1].max()), abs=1e-4)
    assert float(half[-1].max()) < 0.8 * prediction.probability
    assert prediction.decided_at == (whole.argmax(-1) != whole[-1].argmax()).nonzero().max() + 1


def test_a_colour_model_gets_colour(tmp_path):
    model = save_model(tmp_path, frame_format=FrameFormat(channels=3))
    frames = moving(3)[:, :, 0].transpose(0, 1).contiguous()  # three clips as the three colours
    prediction = one(tmp_path, save(tmp_path / "a.npz", frames))
    with torch.no_grad():
        expected = verdict(model(frames[None]))[0].softmax(-1)
    assert prediction.probability == pytest.approx(float(expected.max()), abs=1e-4)


@pytest.mark.parametrize(
    ("size", "seen"),
    [
        ((64, 64), (64, 64)),
        ((28, 128), (28, 128)),
        ((27, 27), (64, 64)),
        ((96, 129), (64, 86)),
        ((480, 640), (64, 85)),
        ((640, 480), (85, 64)),
        ((10, 2000), (64, 256)),
        ((1, 1), (64, 64)),
    ],
)
def test_frames_are_brought_to_a_size_that_the_model_knows(size, seen):
    assert FrameFormat().fit(size) == seen
    assert FrameFormat(size=(64, 64)).fit(size) == (64, 64)


def test_small_and_large_frames_are_resized(tmp_path):
    save_model(tmp_path)
    for height, width, seen in ((20, 30, (64, 96)), (90, 120, (90, 120)), (120, 160, (64, 85))):
        clip = save(tmp_path / "a.npz", torch.zeros(3, 1, height, width, dtype=torch.uint8))
        assert one(tmp_path, clip).frame_size == seen


class AtTheEnd(nn.Module):
    """Like the published models: clips of one length, 64x64 frames, one prediction at the end."""

    frame_format = FrameFormat(size=(64, 64))

    def __init__(self, num_frames):
        super().__init__()
        self.num_frames, self.head = num_frames, nn.Linear(64 * 64, 100)

    def forward(self, clips):
        if clips.shape[1] != self.num_frames:
            raise ValueError(f"the clip has {clips.shape[1]} frames; this model reads exactly {self.num_frames}")
        return self.head(clips.float().mean((1, 2)).flatten(1) / 255).unsqueeze(1)


def test_a_published_model_speaks_at_the_end_of_exactly_its_frames(tmp_path, monkeypatch):
    monkeypatch.setitem(models.MODELS, "at-the-end", AtTheEnd)
    save_model(tmp_path, "at-the-end", ORDERED, num_frames=8)
    prediction = one(tmp_path, save(tmp_path / "a.npz", moving(1, num_frames=8, canvas_px=100)[0]))
    assert prediction.decided_at is None
    assert prediction.frame_size == (64, 64)
    longer = save(tmp_path / "b.npz", moving(1, num_frames=9)[0])
    with pytest.raises(DataError, match=r"b\.npz does not fit the model.* 9 frames.*exactly 8"):
        one(tmp_path, longer)
    assert one(tmp_path, longer, max_frames=8).num_frames == 8


def test_a_generated_folder_is_read_clip_by_clip(tmp_path):
    save_model(tmp_path / "run")
    folder = generate(GenerateConfig(tmp_path / "clips", format="gif"), DigitsConfig("uci", num_clips=3, num_frames=6))
    predictions = predict(PredictConfig((folder, folder / "00"), tmp_path / "run", device="cpu"))
    names = ["00/000000.gif", "01/000001.gif", "02/000002.gif"]
    assert [str(p.clip.relative_to(folder)) for p in predictions] == names
    assert {p.fps for p in predictions} == {10}


def test_folders_are_searched_for_clips_only(tmp_path):
    for name in ("b.mp4", "a.GIF", "sub/c.npz", "notes.txt", ".hidden.mp4", ".hidden/d.mp4", "sheet.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [str(p.relative_to(tmp_path)) for p in find_clips(tmp_path)] == ["a.GIF", "b.mp4", "sub/c.npz"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty holds no clip; .*\.mp4"):
        find_clips(tmp_path / "empty")


def test_a_damaged_clip_is_told_of(tmp_path):
    save_model(tmp_path)
    clip = tmp_path / "a.mp4"
    write_mp4(clip, torch.randint(0, 256, (30, 1, 64, 64), dtype=torch.uint8), 10)
    content = bytearray(clip.read_bytes())
    start, end = content.index(b"mdat"), content.index(b"moov")
    content[(start + end) // 2 : end - 4] = bytes(end - 4 - (start + end) // 2)
    clip.write_bytes(content)
    prediction = one(tmp_path, clip)
    assert prediction.num_frames < 30
    assert "a.mp4 is damaged" in prediction.warning
    assert "is damaged" in shown([prediction])


def test_clips_behind_one_that_cannot_be_read_follow(tmp_path):
    save_model(tmp_path)
    good = [save(tmp_path / f"{name}.npz", torch.zeros(3, 1, 64, 64, dtype=torch.uint8)) for name in "ac"]
    bad, errors = tmp_path / "b.mp4", []
    bad.write_bytes(b"no video")
    found = each(PredictConfig((good[0], bad, good[1]), tmp_path, device="cpu"), unreadable=errors.append)
    assert [prediction.clip for prediction in found] == good
    assert [str(bad) in str(error) for error in errors] == [True]


def shown(predictions):
    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    with console.file:
        console.print(render(predictions))
        return console.export_text()


def test_the_table_shows_what_was_said():
    top = (("07", 0.9), ("17", 0.05), ("01", 0.02), ("02", 0.01), ("03", 0.005))
    text = shown(
        [
            Prediction(Path("[bold]a.mp4"), "07", 0.9, top, 12, 50, (64, 64), 10.0, decided_at_s=1.2),
            Prediction(Path("b.npz"), "07", 0.9, top, 0, 50, (64, 64)),
            Prediction(Path("c.npz"), "07", 0.9, top, None, 50, (64, 64), warning="c.npz is damaged"),
            Prediction(Path("d.npz"), "17", 0.4, top, 3, 50, (64, 64), sure=False),
        ]
    )
    for part in (
        "[bold]a.mp4",
        "90.0 %",
        "frame 13 of 50 (1.2 s)",  # people count from 1
        "frame 1 of 50 ",
        "the end",
        "07 90.0  17 5.0",
        "c.npz is damaged",
        "unsure: 17",
        "not decided",
    ):
        assert part in text


def test_predictions_become_json(tmp_path):
    save_model(tmp_path)
    prediction = one(tmp_path, save(tmp_path / "a.npz", moving(1)[0]))
    read = json.loads(json.dumps(prediction.as_json()))
    assert read["clip"] == str(tmp_path / "a.npz")
    assert read["top"][0] == [prediction.verdict, prediction.probability]
    assert sum(read["probabilities"].values()) == pytest.approx(1)
    assert read["probabilities"][prediction.verdict] == prediction.probability == max(read["probabilities"].values())
    assert "over_time" not in read


# Classes of one's own, in colour, at a rate of their own.

WORDS = Labels(("take2", "wave", "3 wheels"))
SEEN = FrameFormat(3, (64, 96), fps=12.5)


def colours(num_frames, height=48, width=72):
    """A clip whose colour changes from frame to frame."""
    levels = torch.linspace(0, 255, num_frames).byte()
    frame = torch.stack((levels, 255 - levels, levels.flip(0) // 2), 1)
    return frame[:, :, None, None].expand(-1, -1, height, width).contiguous()


@pytest.mark.parametrize("name", ["lenet-lstm", "dcn-lstm"])
def test_own_classes_in_colour_at_their_own_rate(tmp_path, name):
    model = save_model(tmp_path, name, WORDS, SEEN, input="both")
    for fps, every in ((25, 2), (12.5, 1)):
        clip = tmp_path / f"{fps}.mp4"
        write_mp4(clip, colours(20), fps)
        prediction = one(tmp_path, clip)
        assert (prediction.num_frames, prediction.frame_size, prediction.fps) == (20 // every, (64, 96), 12.5)
        frames = read_clip(clip, size=(64, 96), num_channels=3).frames[::every]
        assert frames.float().std(1).mean() > 10  # these are no shades of grey
        with torch.no_grad():
            said = model(frames[None])[0].softmax(-1)
        assert prediction.verdict == WORDS.names[int(said[-1].argmax())]
        assert dict(prediction.top) == pytest.approx(dict(zip(WORDS.names, said[-1].tolist(), strict=True)), abs=1e-4)
        same = (said.argmax(-1) == said[-1].argmax()).tolist()
        assert all(same[prediction.decided_at :])
        assert prediction.decided_at == 0 or not same[prediction.decided_at - 1]
    assert "digit" not in shown([prediction])


def test_classes_that_do_not_exclude_each_other_are_joined_by_their_separator(tmp_path):
    model = save_model(tmp_path, labels=Labels(WORDS.names, exclusive=False))
    clip = save(tmp_path / "a.npz", moving(1)[0])
    for bias, verdict_name in ((50.0, "take2 + wave + 3 wheels"), (-50.0, "none of them")):
        with torch.no_grad():
            model.head.weight.zero_()
            model.head.bias.fill_(bias)
        checkpoint.save(tmp_path / checkpoint.NAME, model, Header("lenet-lstm", labels=model.labels))
        assert one(tmp_path, clip).verdict == verdict_name


def test_a_long_name_leaves_room_for_the_clip():
    name = "L" * 300
    said = Prediction(Path("clip.mp4"), name, 0.9, ((name, 0.9), ("short", 0.1)), 12, 50, (64, 64), 10.0)
    assert " clip.mp4 " in shown([said])


@pytest.mark.parametrize("name", ["<b>x</b>", "[red]", "[/]", ":wave:", "back\\"])
def test_names_are_never_markup(name):
    top = ((name, 0.9), ("wave", 0.06), ("3 wheels", 0.04))
    said = Prediction(Path(f"{name}.mp4"), name, 0.9, top, 12, 50, (64, 64), 10.0, f"{name}.mp4 is damaged")
    text = shown([said])
    assert text.count(name) == 4
    for part in (f" {name}.mp4 ", f" {name} ", f" {name} 90.0  wave 6.0  3 wheels 4.0 ", f"{name}.mp4 is damaged"):
        assert part in text


def test_the_table_tells_how_many_classes_it_names():
    said = Prediction(Path("a.mp4"), "x", 0.9, (("x", 0.9), ("y", 0.06), ("z", 0.04)), 0, 5, (64, 64))
    assert "top 3" in shown([said])
    more = tuple((str(index), 0.2) for index in range(5))
    assert "top 5" in shown([said, Prediction(Path("b.mp4"), "0", 0.2, more, 0, 5, (64, 64))])


def test_a_model_of_the_package_is_known_by_its_name(tmp_path):
    clip = save(tmp_path / "a.npz", moving(1, num_frames=30)[0])
    for name in ("dcn-lstm", "stn-lstm"):
        (found,) = predict(PredictConfig((clip,), Path(name), device="cpu"))
        (wanted,) = predict(PredictConfig((clip,), weights.paths()[name], device="cpu"))
        assert found == wanted
        assert set(found.verdict.split("-")) <= set("0123456789")
    with pytest.raises(DataError, match=r"no checkpoint at dcn-lsdm.* dcn-lstm"):
        predict(PredictConfig((clip,), Path("dcn-lsdm"), device="cpu"))


# Refusals.


def test_wrong_calls_are_refused(tmp_path):
    with pytest.raises(UsageError, match="no clip was given"):
        PredictConfig((), tmp_path)
    for name in ("max_frames", "workers"):
        with pytest.raises(UsageError, match=f"{name} must be at least 1"):
            PredictConfig((tmp_path,), tmp_path, **{name: 0})
    with pytest.raises(UsageError, match="min_confidence must lie in 0 to 1"):
        PredictConfig((tmp_path,), tmp_path, min_confidence=1.5)
    save_model(tmp_path)
    with pytest.raises(UsageError, match="device"):
        predict(PredictConfig((save(tmp_path / "a.npz", moving(1)[0]),), tmp_path, device="gpu"))


def test_a_missing_clip_or_checkpoint_is_refused(tmp_path):
    clip = save(tmp_path / "a.npz", moving(1)[0])
    with pytest.raises(DataError, match="no checkpoint at"):
        one(tmp_path, clip)
    save_model(tmp_path)
    with pytest.raises(DataError, match=r"there is nothing at .*none\.mp4"):
        one(tmp_path, tmp_path / "none.mp4")


def test_a_model_without_classes_it_can_name_is_refused(tmp_path, monkeypatch):
    clip = save(tmp_path / "a.npz", moving(1)[0])
    save_model(tmp_path, labels=None)
    with pytest.raises(DataError, match="does not say what its classes are"):
        one(tmp_path, clip)
    monkeypatch.setitem(models.MODELS, "at-the-end", AtTheEnd)
    save_model(tmp_path, "at-the-end", PAIR, num_frames=12)
    with pytest.raises(DataError, match="100 classes, its labels name 55"):
        one(tmp_path, clip)
