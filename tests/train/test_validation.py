"""Which step of a training is kept, when training ends early, and what stays for a resumed run."""

import errno
import json

import pytest
import torch

from saccade import checkpoint
from saccade.data import StoredClips, StoredData
from saccade.errors import Interrupted, NonFiniteError, UsageError
from saccade.evaluate import evaluate
from saccade.labels import Labels
from saccade.train import train
from saccade.train.end_to_end import start

from .runs import assert_same_bits, config_of, stop_at

LABELS = Labels(("dark", "bright"))


def clips_of(num, *, seed, wrong=False, labels=LABELS):
    """Clips of two classes that brightness tells apart; with `wrong`, their targets say the opposite."""
    generator = torch.Generator().manual_seed(seed)
    targets = torch.arange(num) % 2
    frames = [
        (torch.randint(60, (4, 1, 32, 32), generator=generator) + 150 * target).to(torch.uint8) for target in targets
    ]
    return StoredClips(frames, 1 - targets if wrong else targets, labels)


def data_of(*, wrong=False):
    return StoredData(clips_of(12, seed=0), clips_of(4, seed=1), clips_of(6, seed=2, wrong=wrong), num_frames=4)


def run(out, data=None, **changes):
    said, rows = [], []
    config = config_of(**{"input": "frames", "steps": 24} | changes)
    train(config, data or data_of(), out, progress=rows.append, say=said.append)
    return json.loads((out / "run.json").read_text()), rows, said


def test_the_step_that_is_best_on_validation_clips_is_kept_with_its_temperature(tmp_path):
    described, rows, said = run(tmp_path)
    looks = {row["step"]: row for row in rows if "validation_loss" in row}
    assert 24 in looks
    assert len(looks) == 3
    best = min(looks, key=lambda step: looks[step]["validation_loss"])
    found = described["validation"]
    assert found["kept_step"] == best
    assert found["num_clips"] == 6
    assert said == [
        f"step {best} is kept, the best on 6 validation clips (accuracy {100 * found['accuracy']:.0f} %,"
        f" cross entropy {found['cross_entropy']:.2f})"
    ]
    model, header = checkpoint.load(tmp_path)
    assert (header.training["step"], header.training["num_steps"]) == (best, 24)
    assert header.training["validation"] == found
    measured = evaluate(model, data_of().clips("validation"), precision="float32")
    assert measured.cross_entropy == pytest.approx(found["cross_entropy"], abs=1e-5)
    assert measured.cross_entropy == pytest.approx(looks[best]["validation_loss"], abs=1e-5)
    assert measured.accuracy == found["accuracy"] == looks[best]["validation_accuracy"]
    assert found["cross_entropy_before_temperature"] != pytest.approx(found["cross_entropy"], abs=1e-5)
    logged = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert {row["step"] for row in logged if "validation_loss" in row} == looks.keys()


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_a_rate_that_ends_in_nonsense_is_told_with_the_step_and_what_to_do(ema, tmp_path):
    with pytest.raises(NonFiniteError, match="not finite after step 1; the last good") as told:
        run(tmp_path, steps=1, learning_rate=1e30, muon_rate=0.0, ema=ema)
    assert "try a lower --learning-rate" in str(told.value)
    assert "--precision float32" not in str(told.value)


def test_the_step_that_is_best_is_told_even_if_it_cannot_be_saved(tmp_path, monkeypatch):
    said, save, num_saved = [], checkpoint.save, []

    def full_at_last(path, *rest):
        num_saved.append(path)
        if len(num_saved) > full_after:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        save(path, *rest)

    monkeypatch.setattr(checkpoint, "save", full_at_last)
    for full_after in (1, 2):
        num_saved.clear()
        with pytest.raises(OSError, match="No space left"):
            train(config_of(input="frames", steps=4), data_of(), tmp_path / str(full_after), say=said.append)
    assert sum("is kept, the best on 6 validation clips" in line for line in said) == 2


def test_training_ends_early_where_it_makes_validation_worse(tmp_path):
    described, rows, said = run(tmp_path, data_of(wrong=True), steps=60)
    assert described["finished"]
    assert described["steps_done"] == rows[-1]["step"] < 60
    assert described["validation"]["kept_step"] <= rows[-1]["step"] - 20
    losses = [row["validation_loss"] for row in rows if "validation_loss" in row]
    model, _ = checkpoint.load(tmp_path)
    kept = evaluate(model, data_of(wrong=True).clips("validation"), precision="float32").cross_entropy
    assert kept == pytest.approx(min(losses), abs=1e-4)
    assert kept < losses[-1] - 1e-3
    assert said[0].startswith(f"ended early, after step {rows[-1]['step']} of 60: step ")


@pytest.mark.parametrize(("step", "changes"), [(1, {}), (13, {}), (13, {"ema": 0.5})])
def test_a_resumed_run_keeps_the_same_step(step, changes, tmp_path):
    whole, _, _ = run(tmp_path / "whole", **changes)
    config = config_of(input="frames", steps=24, **changes)
    with pytest.raises(Interrupted):
        train(config, data_of(), tmp_path / "resumed", progress=stop_at(step))
    torch.rand(3)
    train(config, data_of(), tmp_path / "resumed", resume=True)
    assert_same_bits(tmp_path / "whole", tmp_path / "resumed")
    assert json.loads((tmp_path / "resumed" / "run.json").read_text())["validation"] == whole["validation"]


def test_a_run_that_ended_early_resumes_to_the_same_end(tmp_path):
    whole, rows, _ = run(tmp_path / "whole", data_of(wrong=True), steps=60)
    config, last = config_of(input="frames", steps=60), rows[-1]["step"]
    with pytest.raises(Interrupted):
        train(config, data_of(wrong=True), tmp_path / "resumed", progress=stop_at(last - 1))
    train(config, data_of(wrong=True), tmp_path / "resumed", resume=True)
    assert_same_bits(tmp_path / "whole", tmp_path / "resumed")
    assert json.loads((tmp_path / "resumed" / "run.json").read_text())["steps_done"] == whole["steps_done"] == last


def test_a_finished_run_is_left_as_it_is(tmp_path):
    run(tmp_path, steps=2)
    before = (tmp_path / checkpoint.NAME).read_bytes()
    said, rows = [], []
    config = config_of(input="frames", steps=2)
    train(config, data_of(), tmp_path, resume=True, progress=rows.append, say=said.append)
    assert rows == []
    assert said == [f"{tmp_path} is finished"]
    assert (tmp_path / checkpoint.NAME).read_bytes() == before
    with pytest.raises(UsageError, match="made with seed=0, now seed=1"):
        train(config_of(input="frames", steps=2, seed=1), data_of(), tmp_path, resume=True)


def test_without_validation_clips_the_last_step_is_kept(tmp_path):
    clips = clips_of(6, seed=0)
    described, _, said = run(tmp_path, StoredData(clips, clips, num_frames=4), steps=5)
    assert said == ["no clips for validation: the last step is kept, and probabilities are not calibrated"]
    assert "validation" not in described
    assert checkpoint.read_header(tmp_path).training["step"] == 5


def test_a_plan_that_shows_each_clip_less_than_a_few_times_is_told(tmp_path):
    """12 training clips, 4 in a step: 9 steps are three passes."""
    for steps, num_told in ((8, 1), (9, 0)):
        _, _, said = run(tmp_path / str(steps), steps=steps)
        assert [line.startswith("warning:") for line in said].count(True) == num_told
    _, _, (first, *_) = run(tmp_path / "one", steps=1)
    assert first == (
        "warning: 1 step of 4 clips are 4 draws from 12 training clips; learning takes many of each: give more"
        " --minutes or --steps, or choose a smaller model"
    )


def test_validation_takes_a_small_share_of_the_frames():
    many = StoredData(clips_of(12, seed=0), clips_of(4, seed=1), clips_of(60, seed=2), num_frames=4)
    validation = start(config_of(input="frames"), many).validation
    frames_per_step = 4 * 4
    assert 60 * 4 / 2 / validation.least_interval <= 0.1 * frames_per_step
    due = [step for step in range(1, 1001) if validation.is_due(step, 1000)]
    assert due[-1] == 1000
    assert len(due) <= 41


def test_more_validation_clips_than_needed_are_drawn_from_all_of_them(monkeypatch):
    monkeypatch.setattr("saccade.train.validation.MAX_CLIPS", 20)
    many = StoredData(clips_of(12, seed=0), clips_of(4, seed=1), clips_of(60, seed=2), num_frames=4)
    held = start(config_of(input="frames"), many).validation.clips
    assert len(held) == 20
    assert 4 < int(held.targets.sum()) < 16
    for frames, target in zip(held.frames, held.targets.tolist(), strict=True):
        assert (float(frames.float().mean()) > 120) == bool(target)
