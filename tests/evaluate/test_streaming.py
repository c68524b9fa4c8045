"""Events in a stream of held-out clips: what is joined, what is said of it, and what is refused."""

import json

import pytest
import torch
from rich.console import Console

from saccade import checkpoint, cli
from saccade.checkpoint import Header
from saccade.clips import FrameFormat
from saccade.data import Folder, StoredClips, StoredData
from saccade.data.video_writing import write_mp4
from saccade.errors import UsageError
from saccade.evaluate import EvaluateConfig, evaluate_stream, render_stream
from saccade.labels import Labels

from ..own_clips import CLASSES, moving_square


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Write clips of two motions, and still ones as background."""
    root = tmp_path_factory.mktemp("clips")
    for label in (*CLASSES, "none"):
        for number in range(6):
            frames = moving_square(label, 10 * number + len(label), num_frames=12 + number % 3)
            if label == "none":
                frames = frames[:1].repeat(15, 1, 1, 1)
            path = root / label / f"{label}_{number}.mp4"
            path.parent.mkdir(exist_ok=True)
            write_mp4(path, frames, 10.0)
    return root


def save(folder, data, **changes):
    """Write an untrained model for some clips."""
    described = {"labels": data.labels, "frame_format": data.frame_format, "data": {"config": data.as_json()}} | changes
    header = Header("lenet-lstm", {"input": "both"}, **described)
    torch.manual_seed(0)
    model = header.create_model()
    with torch.no_grad():
        model.head.weight.mul_(100)
    checkpoint.save(folder / checkpoint.NAME, model, header)
    return folder


def test_each_test_clip_is_an_event_once_amid_as_much_background_as_asked(clips, tmp_path):
    data = Folder(clips)
    counted = []
    config = EvaluateConfig(save(tmp_path, data))
    figures = evaluate_stream(config, data, minutes=0.3, progress=lambda *at: counted.append(at))
    tested = data.clips("test")
    none = data.labels.names.index("none")
    num_events = int((tested.targets != none).sum())
    assert 0 < num_events < len(tested)
    assert {found.num_events for found in (figures.at_threshold, *figures.others)} == {num_events}
    background = [len(frames) for frames, target in zip(tested.frames, tested.targets, strict=True) if target == none]
    assert figures.background_s == pytest.approx(sum(background) / 10)
    assert 0.15 <= figures.background_min <= 0.45
    events = sum(map(len, tested.frames)) - sum(background)
    assert figures.at_threshold.minutes == pytest.approx(figures.background_min + events / 600)
    assert counted[-1] == (round(600 * figures.at_threshold.minutes),) * 2
    assert figures == evaluate_stream(config, data, minutes=0.3)


def test_the_threshold_is_that_of_the_checkpoint(clips, tmp_path):
    data = Folder(clips)
    labels = Labels(data.labels.names, none="none", min_confidence=0.77)
    figures = evaluate_stream(EvaluateConfig(save(tmp_path, data, labels=labels)), data, minutes=0.1)
    assert figures.at_threshold.threshold == 0.77
    console = Console(width=200, record=True)
    console.print(render_stream(figures))
    told = console.export_text()
    assert "the checkpoint has threshold 0.77" in told
    assert all(f"{found.threshold:g}" in told for found in figures.others)


def test_a_model_that_always_says_one_class_finds_events_and_one_that_says_nothing_none(clips, tmp_path):
    data = Folder(clips)
    for bias, finds in ((-1e3, False), (1e3, True)):
        path = save(tmp_path / str(bias), data)
        model, header = checkpoint.load(path)
        with torch.no_grad():
            model.head.weight.zero_()
            model.head.bias.zero_()
            model.head.bias[0] = bias  # of the first class, an event
            model.head.bias[data.labels.names.index("none")] = -bias
        checkpoint.save(path / checkpoint.NAME, model, header)
        found = evaluate_stream(EvaluateConfig(path), data, minutes=0.1).at_threshold
        assert bool(found.num_found + found.num_false) is finds


def test_the_command_prints_a_table_or_json(clips, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("saccade.evaluate.streaming.MINUTES", 0.1)
    run = save(tmp_path, Folder(clips))
    assert cli.main(["evaluate", "--model", str(run), "--stream"]) == 0
    assert "events found" in capsys.readouterr().out
    assert cli.main(["evaluate", "--model", str(run), "--stream", "--json"]) == 0
    described = json.loads(capsys.readouterr().out)
    assert described["at_threshold"]["threshold"] == 0.5
    assert len(described["others"]) == 18


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"labels": Labels((*CLASSES, "none"))}, "no class of .* means that nothing happens"),
        ({"frame_format": FrameFormat(3, (48, 64))}, "states no frame rate"),
    ],
)
def test_models_of_which_no_stream_can_be_made_are_refused(clips, tmp_path, changes, said):
    data = Folder(clips)
    with pytest.raises(UsageError, match=said):
        evaluate_stream(EvaluateConfig(save(tmp_path, data, **changes)), data, minutes=0.1)


def test_a_split_without_background_is_told(clips, tmp_path):
    data = Folder(clips)
    tested = data.clips("test")
    events = (tested.targets != data.labels.names.index("none")).nonzero().flatten().tolist()
    frames = [tested.frames[clip] for clip in events]
    alone = StoredData(tested, StoredClips(frames, tested.targets[events], data.labels))
    with pytest.raises(UsageError, match="no test clip has the class 'none'"):
        evaluate_stream(EvaluateConfig(save(tmp_path, data)), alone, minutes=0.1)


def test_a_model_that_needs_whole_clips_is_refused(clips, tmp_path):
    data = Folder(clips)
    header = Header("lenet-lstm-published", labels=data.labels, data={"config": data.as_json()})
    checkpoint.save(tmp_path / checkpoint.NAME, header.create_model(), header)
    with pytest.raises(UsageError, match="cannot follow a stream"):
        evaluate_stream(EvaluateConfig(tmp_path), data, minutes=0.1)
