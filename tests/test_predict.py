import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import nn

from saccade import checkpoint, models
from saccade.checkpoint import Header
from saccade.data import digits
from saccade.data.motion import Motion
from saccade.data.moving_digits import MovingDigits
from saccade.data.video import read_clip, write_gif, write_mp4
from saccade.errors import DataError, UsageError
from saccade.generate import GenerateConfig, generate
from saccade.models import verdict
from saccade.predict import PredictConfig, Prediction, each, find_clips, fitting_size, predict, render


def save_model(path, name="lenet-lstm", labels="pair", *, loud=60, **arguments):
    """Save an untrained model whose verdicts change from frame to frame."""
    torch.manual_seed(0)
    model = models.create(name, **arguments).eval()
    with torch.no_grad():
        for part in ("temporal", "head"):
            for parameter in getattr(model, part, nn.Identity()).parameters():
                parameter.mul_(loud)
    data = {"labels": labels} if labels else {}
    checkpoint.save(path / checkpoint.NAME, model, Header(name, arguments, data))
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
    model = save_model(tmp_path, num_classes=55)
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
    model = save_model(tmp_path, num_classes=55)
    decided = set()
    for index, frames in enumerate(moving(6)):
        prediction = one(tmp_path, save(tmp_path / f"{index}.npz", frames))
        with torch.no_grad():
            choice = model(frames[None])[0].argmax(-1).tolist()
        at = prediction.decided_at
        assert set(choice[at:]) == {choice[-1]}
        assert at == 0 or choice[at - 1] != choice[-1]
        decided.add(at)
    assert len(decided) > 1  # the untrained verdicts do change


def test_sets_of_digits(tmp_path):
    model = save_model(tmp_path, labels="digits", num_classes=10)
    for index, frames in enumerate(moving(6)):
        prediction = one(tmp_path, save(tmp_path / f"{index}.npz", frames))
        with torch.no_grad():
            present = model(frames[None])[0].sigmoid()
        last = present[-1]
        assert prediction.verdict == ("-".join(str(d) for d in range(10) if last[d] > 0.5) or "none")
        assert prediction.probability == pytest.approx(float(torch.maximum(last, 1 - last).prod()), abs=1e-4)
        same = ((present > 0.5) == (last > 0.5)).all(-1).tolist()
        assert all(same[prediction.decided_at :])
        assert prediction.decided_at == 0 or not same[prediction.decided_at - 1]


def test_no_digit_is_called_none(tmp_path):
    model = save_model(tmp_path, labels="digits", num_classes=10)
    with torch.no_grad():
        nn.init.zeros_(model.head.weight)
        nn.init.constant_(model.head.bias, -3)
    checkpoint.save(tmp_path / checkpoint.NAME, model, Header("lenet-lstm", {"num_classes": 10}, {"labels": "digits"}))
    assert one(tmp_path, save(tmp_path / "a.npz", moving(1)[0])).verdict == "none"


def test_long_clips_are_followed_through(tmp_path):
    torch.manual_seed(0)
    model = models.create("lenet-lstm", num_classes=55).eval()
    with torch.no_grad():
        # Little goes in and nothing is forgotten: only so do the first of three hundred frames matter at the end.
        admit, forget = model.temporal.cell.bias_ih_l0.view(4, -1)[:2]
        admit.fill_(-5)
        forget.fill_(20)
        model.head.weight.mul_(60)
    checkpoint.save(tmp_path / checkpoint.NAME, model, Header("lenet-lstm", {"num_classes": 55}, {"labels": "pair"}))
    frames = torch.randint(0, 256, (300, 1, 28, 28), dtype=torch.uint8)
    prediction = one(tmp_path, save(tmp_path / "a.npz", frames))
    with torch.no_grad():
        whole, half = (model(part[None])[0].softmax(-1) for part in (frames, frames[150:]))
    assert prediction.num_frames == 300
    assert prediction.probability == pytest.approx(float(whole[-1].max()), abs=1e-4)
    assert float(half[-1].max()) < 0.8 * prediction.probability
    assert prediction.decided_at == (whole.argmax(-1) != whole[-1].argmax()).nonzero().max() + 1


def test_a_colour_model_gets_colour(tmp_path):
    model = save_model(tmp_path, num_classes=55, channels=3)
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
    assert fitting_size(size) == seen
    assert fitting_size(size, any_size=False) == (64, 64)


def test_small_and_large_frames_are_resized(tmp_path):
    save_model(tmp_path, num_classes=55)
    for height, width, seen in ((20, 30, (64, 96)), (90, 120, (90, 120)), (120, 160, (64, 85))):
        clip = save(tmp_path / "a.npz", torch.zeros(3, 1, height, width, dtype=torch.uint8))
        assert one(tmp_path, clip).frame_size == seen


class AtTheEnd(nn.Module):
    """Like the published models: clips of one length, 64x64 frames, one prediction at the end."""

    def __init__(self, num_classes, num_frames):
        super().__init__()
        self.num_frames, self.head = num_frames, nn.Linear(64 * 64, num_classes)

    def forward(self, clips):
        if clips.shape[1] != self.num_frames:
            raise ValueError(f"the clip has {clips.shape[1]} frames; this model reads exactly {self.num_frames}")
        return self.head(clips.float().mean((1, 2)).flatten(1) / 255).unsqueeze(1)


def test_a_published_model_speaks_at_the_end_of_exactly_its_frames(tmp_path, monkeypatch):
    monkeypatch.setitem(models.MODELS, "at-the-end", AtTheEnd)
    save_model(tmp_path, "at-the-end", "ordered", num_classes=100, num_frames=8)
    prediction = one(tmp_path, save(tmp_path / "a.npz", moving(1, num_frames=8, canvas_px=100)[0]))
    assert prediction.decided_at is None
    assert prediction.frame_size == (64, 64)
    longer = save(tmp_path / "b.npz", moving(1, num_frames=9)[0])
    with pytest.raises(DataError, match=r"b\.npz does not fit the model.* 9 frames.*exactly 8"):
        one(tmp_path, longer)
    assert one(tmp_path, longer, max_frames=8).num_frames == 8


def test_a_generated_folder_is_read_clip_by_clip(tmp_path):
    save_model(tmp_path / "run", num_classes=55)
    folder = generate(GenerateConfig(tmp_path / "clips", num_clips=3, format="gif", digits="uci", num_frames=6))
    predictions = predict(PredictConfig((folder, folder / "00"), tmp_path / "run", device="cpu"))
    names = ["00/000000.gif", "01/000001.gif", "02/000002.gif", "00/000000.gif"]
    assert [str(p.clip.relative_to(folder)) for p in predictions] == names
    assert predictions[0] == predictions[3]
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
    save_model(tmp_path, num_classes=55)
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
    save_model(tmp_path, num_classes=55)
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
            Prediction(Path("[bold]a.mp4"), "07", 0.9, top, 12, 50, (64, 64), 10.0),
            Prediction(Path("b.npz"), "07", 0.9, top, 0, 50, (64, 64)),
            Prediction(Path("c.npz"), "07", 0.9, top, None, 50, (64, 64), warning="c.npz is damaged"),
        ]
    )
    for part in (
        "[bold]a.mp4",
        "90.0 %",
        "12 of 50 (1.2 s)",
        " 0 of 50 ",
        "the end",
        "07 90.0  17 5.0",
        "c.npz is damaged",
    ):
        assert part in text


def test_predictions_become_json(tmp_path):
    save_model(tmp_path, num_classes=55)
    prediction = one(tmp_path, save(tmp_path / "a.npz", moving(1)[0]))
    read = json.loads(json.dumps(asdict(prediction), default=str))
    assert read["clip"] == str(tmp_path / "a.npz")
    assert read["top"][0] == [prediction.verdict, prediction.probability]


# Refusals.


def test_wrong_calls_are_refused(tmp_path):
    with pytest.raises(UsageError, match="no clip was given"):
        PredictConfig((), tmp_path)
    with pytest.raises(UsageError, match="max_frames must be at least 1"):
        PredictConfig((tmp_path,), tmp_path, max_frames=0)
    save_model(tmp_path, num_classes=55)
    with pytest.raises(UsageError, match="device"):
        predict(PredictConfig((save(tmp_path / "a.npz", moving(1)[0]),), tmp_path, device="gpu"))


def test_a_missing_clip_or_checkpoint_is_refused(tmp_path):
    clip = save(tmp_path / "a.npz", moving(1)[0])
    with pytest.raises(DataError, match="no checkpoint at"):
        one(tmp_path, clip)
    save_model(tmp_path, num_classes=55)
    with pytest.raises(DataError, match="no clip at"):
        one(tmp_path, tmp_path / "none.mp4")


def test_a_model_without_classes_it_can_name_is_refused(tmp_path):
    clip = save(tmp_path / "a.npz", moving(1)[0])
    save_model(tmp_path, labels=None, num_classes=55)
    with pytest.raises(DataError, match="does not say what its classes are"):
        one(tmp_path, clip)
    save_model(tmp_path, labels="ordered", num_classes=55)
    with pytest.raises(DataError, match="55 classes, its labels 'ordered' 100"):
        one(tmp_path, clip)
