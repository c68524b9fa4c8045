import pytest
import torch

from saccade import checkpoint, models
from saccade.checkpoint import Header
from saccade.data import digits
from saccade.data.digits import DigitsConfig, DigitSourceConfig, Motion, MovingDigits
from saccade.models.published import CNNS
from saccade.reproduce import ReproduceConfig, looks, reproduce

pytest.importorskip("matplotlib")
CPU = torch.device("cpu")


def frames_of(num_frames=12):
    return MovingDigits(digits.load("uci", "test"), Motion(num_frames=num_frames)).batch(torch.tensor([18])).frames[0]


@pytest.mark.parametrize(
    ("name", "part"), [("lenet-lstm", "saliency"), ("stn-lstm", "crop"), ("dcn-lstm", "points_px")]
)
def test_a_trained_model_looks_at_the_clip(tmp_path, name, part):
    model = models.create(name)
    checkpoint.save(tmp_path / checkpoint.NAME, model, Header(name, labels=DigitsConfig().labels))
    strip = looks.end_to_end_strip(tmp_path, name, "rotation", frames_of(), CPU)
    assert "-LSTM, Rotation: says " in strip.title
    assert len(getattr(strip.look, part)) == len(strip.frames) == 12
    assert strip.picture().shape[::2] == (3, 960)


def test_a_published_cnn_looks_at_each_frame(tmp_path):
    cnn = CNNS["lenet-lstm-published"]()
    checkpoint.save(tmp_path / checkpoint.NAME, cnn, Header("lenet-cnn-published"))
    strip = looks.published_strip(tmp_path, "lenet-lstm", "scaling", frames_of(), CPU)
    assert strip.title == "LeNet-LSTM as published, Scaling: its CNN alone"
    with torch.no_grad():
        assert torch.allclose(strip.look.logits, cnn(strip.frames), atol=1e-4)
    assert len(strip.frames) == 10
    assert (strip.look.saliency.sum((-1, -2)) > 0.99).all()  # every frame has its own, not only the last


@pytest.mark.parametrize(("name", "part"), [("stn-lstm", "crop"), ("dcn-lstm", "points_px")])
def test_a_published_cnn_has_the_parts_of_its_kind(monkeypatch, tmp_path, name, part):
    monkeypatch.setattr(checkpoint, "load_weights", lambda _model, _path: {})  # up to 400 MB
    strip = looks.published_strip(tmp_path, name, "rotation", frames_of(), CPU)
    assert len(getattr(strip.look, part)) == len(strip.frames) == 10
    assert strip.picture().shape[::2] == (3, 960)


def height_of(path):
    return int.from_bytes(path.read_bytes()[20:24])


def test_cells_stand_below_each_other_and_lost_weights_are_left_out(tmp_path):
    size = {"steps": 1, "seeds": 1, "num_clips": 11, "models": ("lenet-lstm",), "conditions": ("normal", "rotation")}
    size |= {"trained_on": ("condition",), "jobs": 1}
    config = ReproduceConfig("full", tmp_path, DigitSourceConfig("uci"), **size)
    reproduce(config, say=lambda _line: None)
    two = height_of(tmp_path / "attention.png")
    (tmp_path / "cells" / "lenet-lstm-normal-seed0" / "checkpoint.safetensors").unlink()
    reproduce(config, say=lambda _line: None)
    assert 2 * height_of(tmp_path / "attention.png") == two
