"""Where a model looks in a stream: asked for at some frames or all, it changes nothing of what the model says."""

import pytest
import torch

from saccade import checkpoint, models
from saccade.clips import FrameFormat
from saccade.data.video_writing import write_mp4
from saccade.labels import Labels
from saccade.stream import Classifier, StreamConfig, follow

MODELS = {"stn-lstm": "quadrilateral_px", "dcn-lstm": "points_px", "lenet-lstm": None}


@pytest.fixture(scope="module", params=MODELS)
def run(request, tmp_path_factory):
    """Write an untrained model whose probabilities differ from frame to frame."""
    torch.manual_seed(0)
    given = {"labels": Labels(("wave", "clap", "jump")), "frame_format": FrameFormat(3, (48, 64), fps=10.0)}
    model = models.create(request.param, **given)
    with torch.no_grad():
        model.head.weight.mul_(30)
    path = tmp_path_factory.mktemp(request.param) / checkpoint.NAME
    checkpoint.save(path, model, checkpoint.Header(request.param, **given))
    return path


@pytest.fixture(scope="module")
def frames():
    return torch.randint(0, 256, (12, 3, 48, 64), generator=torch.Generator().manual_seed(1)).to(torch.uint8)


@pytest.fixture(scope="module")
def clip(frames, tmp_path_factory):
    path = tmp_path_factory.mktemp("clip") / "a.mp4"
    write_mp4(path, frames, 10)
    return path


def test_predictions_are_those_of_step_in_any_order(run, frames):
    plain, mixed = Classifier(run), Classifier(run)
    expected = [plain.step(frame) for frame in frames]
    assert len({prediction.probability for prediction in expected}) == len(frames)
    for number, (frame, wanted) in enumerate(zip(frames, expected, strict=True)):
        if number % 3:
            prediction, look = mixed.look(frame)
            assert look.frame_size == (48, 64)
            for model, part in MODELS.items():
                if part is not None:
                    assert (getattr(look, part) is not None) == (model in run.parent.name)
        else:
            prediction = mixed.step(frame)
        assert prediction.probabilities == pytest.approx(wanted.probabilities, abs=1e-5)
        assert (prediction.verdict, prediction.num_frames) == (wanted.verdict, number + 1)


def test_a_stream_looks_while_somebody_watches_and_runs_the_model_once(run, clip):
    classifier, calls = Classifier(run), []
    classifier.model.head.register_forward_hook(lambda *_: calls.append(1))
    config, watched = StreamConfig(str(clip), run), iter([False, True, True, False] + [True] * 8)
    moments = list(follow(config, classifier, say=print, is_watched=lambda: next(watched)))
    assert [moment.look is not None for moment in moments] == [False, True, True, False] + [True] * 8
    assert len(calls) == 12
    assert {tuple(moment.frame.picture.shape) for moment in moments} == {(48, 64, 3)}
    plain = list(follow(config, Classifier(run), say=print))
    assert all(moment.look is None and moment.frame.picture is None for moment in plain)
    for moment, other in zip(moments, plain, strict=True):
        assert moment.prediction.probabilities == pytest.approx(other.prediction.probabilities, abs=1e-5)
