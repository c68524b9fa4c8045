"""The ladder beside a training by steps: with pretrained features, read in a size of their own."""

import numpy as np
import pytest

from saccade.data import Folder, FrameChoice
from saccade.models import efficientnet
from saccade.train import TrainConfig, beside, pretrained, train
from saccade.train.pretrained_rung import pretrained_features

from ..own_clips import write_folder

needs_weights = pytest.mark.skipif(
    efficientnet.pretrained_file() is None, reason="the pretrained weights are not installed: saccade[pretrained]"
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    found = Folder(write_folder(tmp_path_factory.mktemp("own") / "my clips", per_class=4))
    found.scanned(workers=1)
    return found


def silent(_stage):
    return lambda done, total: None


def counting(stages):
    def begin(stage):
        return lambda done, total: stages.setdefault(stage, []).append((done, total))

    return begin


@needs_weights
def test_pretrained_features_are_those_of_the_pretrained_fit(data):
    """The small model reads frames of 64x48 px, the pretrained trunk the same clips enlarged."""
    assert data.frame_format.size == (48, 64)
    stages = {}
    found = pretrained_features(data, ("train", "validation"), counting(stages))
    larger = Folder(data.root, frame_choice=FrameChoice(pretrained.SHORT_SIDE_PX, enlarge=True))
    clips = larger.together(("train", "validation"))
    assert clips.frames[0].shape[-2:] == (160, 213)
    wanted = pretrained.describe(clips, larger.frame_format).pretrained
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-3)
    assert stages["features of the pretrained trunk"][-1] == (len(clips), len(clips))
    assert stages["clips read for the pretrained trunk"]
    again = {}
    np.testing.assert_array_equal(found, pretrained_features(larger, ("train", "validation"), counting(again)))
    assert list(again) == ["features of the pretrained trunk"]  # frames of that size are there


@needs_weights
def test_the_split_is_kept_in_the_other_size(data):
    """A split that was remembered need not be the one that would be drawn."""
    held = Folder(data.root, seed=5)
    assert held.as_json()["clips"] != data.as_json()["clips"]
    kept = Folder(data.root, remembered={"held_out": held.as_json()["held_out"]})
    found, drawn = (pretrained_features(one, ("validation",), silent) for one in (kept, held))
    np.testing.assert_array_equal(found, drawn)


@needs_weights
def test_the_rung_stands_beside_a_training_by_steps(data, tmp_path):
    config = TrainConfig("lenet-lstm", steps=1, batch_size=2, precision="float32")
    path = train(config, data, tmp_path / "run")
    rungs, rows = beside.beside_ladder(path, data, data.scanned(), silent)
    assert [rung.name for rung in rungs][-1] == "pretrained features"
    assert {len(row.correct) for row in (*rungs, *rows)} == {len(data.clips("validation"))}


def test_without_the_weights_there_is_no_such_rung(data, tmp_path, monkeypatch):
    monkeypatch.setattr(efficientnet, "pretrained_file", lambda: None)
    assert pretrained_features(data, ("train",), silent) is None
    parts = [beside.train_and_validation(data)[1]]
    rungs = beside.ladder_of(data, data.scanned(), ("train", "validation"), parts, silent)
    assert "pretrained features" not in [rung.name for rung in rungs]
