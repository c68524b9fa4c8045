"""Verdicts over time, and verdicts that are not sure."""

import json
from pathlib import Path

import pytest
import torch
from rich.console import Console

from saccade import checkpoint
from saccade.checkpoint import Header
from saccade.clips import FrameFormat
from saccade.data.video import Clip, read_clip
from saccade.data.video_writing import write_mp4
from saccade.labels import Labels
from saccade.predict import MIN_CONFIDENCE, PredictConfig, predict, prediction_of, render
from saccade.predict.prediction import Summary
from saccade.serve import ServeConfig

LABELS = Labels(("wave", "clap", "[jump]"))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Save an untrained model whose verdicts change from frame to frame; return it and its folder.

    Its recurrent weights are small, so that rounding does not grow.
    """
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(3)
    header = Header("lenet-lstm", labels=LABELS, frame_format=FrameFormat(channels=3))
    model = header.create_model().eval()
    with torch.no_grad():
        for part in (model.temporal, model.head):
            for weight, parameter in part.named_parameters():
                parameter.mul_(1 if "weight_hh" in weight else 30)
    checkpoint.save(folder / checkpoint.NAME, model, header)
    return model, folder


def clip(path, num_frames, fps=10):
    torch.manual_seed(num_frames)
    write_mp4(path, torch.randint(0, 256, (num_frames, 3, 32, 32), dtype=torch.uint8), fps)
    return path


def one(path, folder, **options):
    (found,) = predict(PredictConfig((path,), folder, device="cpu", **options))
    return found


def logits_of(number, num_frames=1):
    return torch.eye(3)[number].expand(num_frames, 3) * 9


def test_a_short_clip_is_reported_at_each_frame(tmp_path, model):
    network, folder = model
    path = clip(tmp_path / "a.mp4", 40)
    found = one(path, folder, over_time=True)
    with torch.no_grad():
        said = network(read_clip(path, num_channels=3).frames[None])[0].softmax(-1)
    over_time = found.over_time
    assert over_time.frames == tuple(range(40))
    assert over_time.seconds == pytest.approx([frame / 10 for frame in range(40)])
    assert torch.from_numpy(over_time.probabilities).sub(said).abs().max() < 1e-4
    assert [LABELS.names[index] for index in said.argmax(-1)] == [verdict.name for verdict in over_time.verdicts]
    assert (over_time.verdicts[-1].name, over_time.verdicts[-1].probability) == (found.verdict, found.probability)


def test_a_long_clip_is_reported_at_the_last_frame_of_each_second(tmp_path, model):
    network, folder = model
    path = clip(tmp_path / "a.mp4", 127)
    over_time = one(path, folder, over_time=True).over_time
    with torch.no_grad():
        said = network(read_clip(path, num_channels=3).frames[None])[0].softmax(-1)
    assert over_time.frames == (*range(9, 120, 10), 126)
    assert torch.from_numpy(over_time.probabilities).sub(said[list(over_time.frames)]).abs().max() < 1e-4


def test_the_report_of_hours_has_a_moment_a_second():
    summary, part = Summary(Path("a.mp4"), LABELS, MIN_CONFIDENCE), logits_of(1, 360)
    for hour_tenth in range(20):
        summary.add(part, [hour_tenth * 360 + second for second in range(360)])
        summary.add(part, [hour_tenth * 360 + 359.5] * 360)  # many frames within one second
    found = summary.prediction(Clip(torch.empty(0)), 14400, (64, 64), True)
    assert len(found.over_time.frames) == 7200
    assert found.over_time.probabilities.nbytes == 7200 * 3 * 4


def test_parts_of_a_clip_add_up_to_the_clip():
    torch.manual_seed(0)
    logits, seconds = torch.randn(150, 3), tuple(frame / 7 for frame in range(150))
    read = Clip(torch.empty(150, 1, 28, 30), 7.0, None, seconds)
    whole = prediction_of(Path("a.mp4"), read, logits, LABELS, over_time=True)
    for num in (1, 32, 149):
        summary = Summary(Path("a.mp4"), LABELS, MIN_CONFIDENCE)
        for start in range(0, 150, num):
            summary.add(logits[start : start + num], seconds[start : start + num])
        assert summary.prediction(read, 150, (28, 30), True) == whole


def test_frames_whose_times_are_unknown_are_reported_by_their_numbers(tmp_path):
    read = Clip(torch.empty(110, 1, 28, 28))
    found = prediction_of(Path("a.npz"), read, logits_of(0, 110), LABELS, over_time=True)
    assert found.over_time.frames == (24, 49, 74, 99, 109)
    assert found.over_time.seconds is None
    assert "frame 25 wave" in table(found)


def table(*predictions):
    console = Console(width=400, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    with console.file:
        console.print(render(predictions))
        return console.export_text()


def test_the_table_shows_where_the_verdict_changes():
    logits = torch.cat((torch.zeros(4, 3), logits_of(2, 6), logits_of(1, 10)))
    read = Clip(torch.empty(20, 1, 28, 28), 10.0, None, tuple(frame / 10 for frame in range(20)))
    found = prediction_of(Path("a.mp4"), read, logits, LABELS, over_time=True)
    assert "0.0 s unsure, 0.4 s [jump] 100.0, 1.0 s clap 100.0" in table(found)
    assert "over time" not in table(prediction_of(Path("a.mp4"), read, logits, LABELS))
    flicker = prediction_of(Path("a.mp4"), read, torch.eye(3)[torch.arange(20) % 2] * 9, LABELS, over_time=True)
    assert "0.5 s clap 100.0, ... 12 more ..., 1.8 s wave 100.0, 1.9 s clap 100.0" in table(flicker)


def test_decided_is_when_the_verdict_stays_and_is_sure():
    read = Clip(torch.empty(12, 1, 28, 28), 10.0, None, tuple(frame / 10 for frame in range(12)))
    weak = torch.tensor([[0.3, 0.2, 0.1]])
    middling = torch.tensor([[1.0, 0.0, 0.0]])  # 57.6 %
    logits = torch.cat((logits_of(0, 3), weak, weak, middling, logits_of(0, 6)))
    found = prediction_of(Path("a.mp4"), read, logits, LABELS, over_time=True)
    assert (found.decided_at, found.decided_at_s, found.sure) == (5, 0.5, True)
    text = table(found)
    assert "frame 6 of 12 (0.5 s)" in text
    assert "0.0 s wave 100.0, 0.3 s unsure, 0.5 s wave 57.6" in text  # the value at the change, not the highest
    any_probability = prediction_of(Path("a.mp4"), read, logits, LABELS, min_confidence=0)
    assert any_probability.decided_at == 0
    undecided = prediction_of(Path("a.mp4"), read, torch.cat((logits, weak))[1:], LABELS)
    assert (undecided.decided_at, undecided.decided_at_s, undecided.sure) == (None, None, False)
    assert "not decided" in table(undecided)


def test_a_set_is_as_sure_as_its_least_certain_class():
    labels = Labels(tuple("abcdefgh"), exclusive=False)
    read = Clip(torch.empty(1, 1, 28, 28))
    clear = torch.tensor([[2.0, 2, -2, -2, -2, -2, -2, -2]])  # each 88 % yes or no; exactly this set 36 %
    found = prediction_of(Path("a.npz"), read, clear, labels)
    assert (found.verdict, found.classes, found.sure) == ("a + b", ("a", "b"), True)
    assert found.probability < 0.4
    unclear = clear.clone()
    unclear[0, 5] = -1.0  # 27 %
    assert not prediction_of(Path("a.npz"), read, unclear, labels).sure
    assert prediction_of(Path("a.npz"), read, unclear, labels, min_confidence=0.4).sure


def test_json_holds_the_report(tmp_path, model):
    _, folder = model
    found = one(clip(tmp_path / "a.mp4", 5), folder, over_time=True)
    read = json.loads(json.dumps(found.as_json()))["over_time"]
    assert read["frames"] == [0, 1, 2, 3, 4]
    assert read["verdicts"][-1] == found.verdict
    assert {len(values) for values in read.values()} == {5}
    assert all(sum(row) == pytest.approx(1, abs=1e-3) for row in read["probabilities"])


def test_a_model_that_speaks_at_the_end_has_one_moment():
    read = Clip(torch.empty(20, 1, 28, 28), 10.0, None, tuple(frame / 10 for frame in range(20)))
    found = prediction_of(Path("a.mp4"), read, logits_of(0), LABELS, over_time=True)
    assert (found.decided_at, found.over_time.frames, found.over_time.seconds) == (None, (19,), None)


def test_a_verdict_below_the_minimum_is_unsure(tmp_path, model):
    _, folder = model
    path = clip(tmp_path / "a.mp4", 5)
    probability = one(path, folder).probability
    for least, sure in ((probability, True), (min(1.0, probability + 1e-6), probability + 1e-6 > 1.0)):
        found = one(path, folder, min_confidence=least)
        assert found.sure is sure
        assert (f"unsure: {found.verdict}" in table(found)) is not sure
    read = Clip(torch.empty(1, 1, 28, 28))
    assert not prediction_of(Path("a.npz"), read, torch.zeros(1, 3), LABELS).sure


def test_the_live_page_has_the_same_minimum():
    assert ServeConfig().min_confidence is PredictConfig((Path("a"),), Path("b")).min_confidence is None


def test_without_a_minimum_that_of_the_classes_counts():
    strict = Labels(LABELS.names, min_confidence=0.9)
    clip_of_one, logits = Clip(torch.empty(1, 1, 28, 28)), torch.tensor([[2.0, 0.0, 0.0]])  # 79 %
    assert prediction_of(Path("a.npz"), clip_of_one, logits, LABELS).sure
    assert not prediction_of(Path("a.npz"), clip_of_one, logits, strict).sure
    assert prediction_of(Path("a.npz"), clip_of_one, logits, strict, min_confidence=0.5).sure
