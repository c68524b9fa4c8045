import json
import math
import re
import signal
from contextlib import contextmanager, suppress

import pytest
import torch

from saccade import checkpoint
from saccade.data import Digits, MovingDigits
from saccade.errors import DataError, Interrupted, NonFiniteError, SaccadeError, UsageError
from saccade.train import TrainConfig, loop, train
from saccade.train.interrupts import held_back
from saccade.train.optimizer import Optimizer
from saccade.train.trainer import _check_same_run as check_same_run
from saccade.train.trainer import start

MODELS = ("lenet-lstm", "stn-lstm", "dcn-lstm")


@pytest.fixture(autouse=True)
def digits_in_memory(uci, monkeypatch):
    """Spare the tests the second that reading the digits takes."""
    monkeypatch.setattr(TrainConfig, "load_digits", lambda _config, split: uci[split])


@pytest.fixture
def made(monkeypatch):
    """Collect the models that training makes."""
    models, create = [], TrainConfig.create_model
    monkeypatch.setattr(TrainConfig, "create_model", lambda config: models.append(create(config)) or models[-1])
    return models


def config_of(**changes):
    """Six steps: three of 4-frame clips, three of 6-frame ones."""
    return TrainConfig(
        **{"digits": "uci", "steps": 6, "batch_size": 4, "num_frames": 6, "precision": "float32"} | changes
    )


def stop_at(step):
    """Press Ctrl-C after a step."""

    def progress(row):
        if row["step"] == step:
            signal.raise_signal(signal.SIGINT)

    return progress


def tensors_of(path):
    header = checkpoint.read_header(path)
    model = torch.nn.Module()
    model.state_dict = dict  # nothing is expected: all tensors come back
    with checkpoint.safe_open(checkpoint.locate(path), framework="pt") as opened:
        return {name: opened.get_tensor(name) for name in list(opened.keys())}, header.training


def assert_same_bits(first, second):
    (one, one_training), (other, other_training) = tensors_of(first), tensors_of(second)
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name
    for name in ("step", "num_steps"):
        assert one_training[name] == other_training[name]


# --- It learns


@pytest.mark.parametrize(("model", "labels"), [*((model, "pair") for model in MODELS), ("lenet-lstm", "digits")])
def test_the_loss_falls(model, labels, tmp_path, monkeypatch):
    # One batch again and again: whatever can learn learns it by heart.
    first = loop._next_batch
    held = []

    def same(trainer):
        held.append(held[0] if held else first(trainer))
        return held[-1]

    monkeypatch.setattr(loop, "_next_batch", same)
    rows = []
    config = config_of(model=model, labels=labels, steps=30, num_frames=4, batch_size=6, condition="normal")
    train(config, tmp_path / "run", progress=rows.append)
    # Saying how often each digit comes, whatever is seen, would leave two thirds of the loss of presence.
    assert rows[-1]["loss"] < 0.5 * rows[0]["loss"]


def test_the_loss_is_the_mean_over_all_frames():
    logits = torch.randn(3, 5, 7, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([1, 6, 0])
    by_hand = -torch.stack([logits[b, t].log_softmax(0)[labels[b]] for b in range(3) for t in range(5)]).mean()
    assert torch.allclose(loop.loss_at_every_frame(logits, labels), by_hand)
    present = (torch.arange(21).view(3, 7) % 3 == 0).float()
    chance = logits.sigmoid()
    how_many = -(present[:, None] * chance.log() + (1 - present[:, None]) * (1 - chance).log()).mean()
    shares = present / present.sum(1, keepdim=True)
    which = -(shares[:, None] * logits.softmax(-1).log()).sum(-1).mean()
    assert torch.allclose(loop.loss_at_every_frame(logits, present), how_many + which, atol=1e-6)


def test_accuracy_of_presence_is_the_exact_set(tmp_path, monkeypatch):
    logits = torch.tensor([[1.0, -1, 1], [1, 1, -1], [-1, -1, -1]])
    labels = torch.tensor([[1.0, 0, 1], [1, 0, 0], [0, 0, 0]])
    assert loop._accuracy(logits, labels) == pytest.approx(2 / 3)
    assert loop._accuracy(logits, torch.tensor([0, 0, 2])) == pytest.approx(2 / 3)


# --- The schedule


@pytest.mark.parametrize("num_steps", [1, 2, 3, 9, 10, 11, 100, 1001])
def test_the_learning_rate_rises_for_a_tenth_and_falls_to_nothing(num_steps):
    factors = [loop.learning_rate_factor(step, num_steps) for step in range(num_steps)]
    top = factors.index(max(factors))
    assert max(factors) == 1
    assert top == max(1, num_steps // 10) - 1
    assert factors[: top + 1] == sorted(factors[: top + 1])
    assert factors[top:] == sorted(factors[top:], reverse=True)
    assert min(factors) > 0
    if num_steps >= 100:
        assert factors[-1] < 0.01


@pytest.mark.parametrize("model", MODELS)
def test_attention_learns_at_its_own_rate_and_only_matrices_decay(model):
    trainer = loop.start(
        config_of(model=model, learning_rate=0.02, muon_rate=0.1, attention_rate=0.25, weight_decay=0.3)
    )
    trainer.num_steps = 6
    loop.advance(trainer)
    names = {id(p): name for name, p in trainer.model.named_parameters()}
    seen = set()
    for group in trainer.optimizer.param_groups:
        for parameter in group["params"]:
            name = names[id(parameter)]
            seen.add(name)
            by_muon = name.startswith("encoder.") and ".positions." not in name and parameter.dim() > 1
            rate = 0.1 if by_muon else 0.02 * (0.25 if ".positions." in name else 1.0)
            assert group["lr"] == pytest.approx(rate), name
            assert group["weight_decay"] == (0.3 if parameter.dim() > 1 else 0.0), name
    assert seen == set(names.values())


@pytest.fixture
def stepped(monkeypatch):
    """Collect, at the moment of each step, the learning rates and the length of the whole gradient."""
    seen, step = [], Optimizer.step

    def observed(optimizer):
        groups = optimizer.param_groups
        gradients = [p.grad.flatten() for group in groups for p in group["params"] if p.grad is not None]
        seen.append(({group["lr"] / group["base_lr"] for group in groups}, torch.cat(gradients).norm().item()))
        step(optimizer)

    monkeypatch.setattr(Optimizer, "step", observed)
    return seen


def test_each_step_is_taken_at_its_own_learning_rate(stepped, tmp_path):
    rows = []
    train(config_of(steps=12, learning_rate=0.01), tmp_path, progress=rows.append)
    for step, (factors, _) in enumerate(stepped):
        expected = loop.learning_rate_factor(step, 12)
        assert list(factors) == [pytest.approx(expected)] * len(factors)
        assert rows[step]["learning_rate"] == pytest.approx(0.01 * expected)


def test_a_long_gradient_is_cut_to_one_and_logged_as_it_was(stepped, tmp_path, monkeypatch):
    real = loop.loss_at_every_frame
    monkeypatch.setattr(loop, "loss_at_every_frame", lambda *given: 100 * real(*given))
    rows = []
    train(config_of(steps=2), tmp_path, progress=rows.append)
    for (_, length), row in zip(stepped, rows, strict=True):
        assert length == pytest.approx(1.0, rel=1e-3)
        assert row["gradient_norm"] > 10


# --- Clips


@pytest.mark.parametrize(
    "changes", [{}, {"num_frames": 3}, {"num_frames": 7, "batch_size": 1}, {"short_fraction": 1.0}]
)
def test_no_clip_is_seen_twice(changes, tmp_path, monkeypatch):
    seen, generate = [], MovingDigits.batch

    def batch(clips, indices, **options):
        seen.append((clips.motion.num_frames, indices.tolist()))
        return generate(clips, indices, **options)

    monkeypatch.setattr(MovingDigits, "batch", batch)
    config = config_of(**changes)
    train(config, tmp_path / "run")
    indices = [index for _, part in seen for index in part]
    assert len(set(indices)) == len(indices)
    # As many frames in every step, but for the rounding of the number of short clips.
    for num_frames, part in seen:
        assert (
            config.batch_size * config.num_frames - 4 < num_frames * len(part) <= config.batch_size * config.num_frames
        )
    if not changes:
        assert [num_frames for num_frames, _ in seen] == [4, 4, 4, 6, 6, 6]


# --- The same bits


@pytest.mark.parametrize("model", MODELS)
def test_two_runs_give_the_same_bits(model, tmp_path):
    for name in ("a", "b"):
        torch.rand(3)  # what was drawn before does not matter
        train(config_of(model=model, steps=3), tmp_path / name)
    assert_same_bits(tmp_path / "a", tmp_path / "b")


def test_another_seed_gives_another_model(tmp_path):
    for seed in (0, 1):
        train(config_of(seed=seed, steps=1), tmp_path / str(seed))
    (first, _), (second, _) = (tensors_of(tmp_path / name) for name in "01")
    assert not torch.equal(first["model.head.evidence.weight"], second["model.head.evidence.weight"])


CASES = [(model, precision, 3) for model in MODELS for precision in ("float32", "bfloat16")]
CASES += [("lenet-lstm", "float32", step) for step in (1, 2, 4, 5)]


@pytest.mark.parametrize(("model", "precision", "step"), CASES)
def test_a_resumed_run_is_one_that_never_stopped(model, precision, step, tmp_path):
    config = config_of(model=model, precision=precision)
    train(config, tmp_path / "whole")
    with pytest.raises(Interrupted, match=f"saved at step {step} of 6"):
        train(config, tmp_path / "resumed", progress=stop_at(step))
    torch.rand(3)
    train(config, tmp_path / "resumed", resume=True)
    assert_same_bits(tmp_path / "whole", tmp_path / "resumed")


@pytest.mark.parametrize(
    "changes",
    [{"ema": 0.5}, {"muon_rate": 0.0}, {"condition": ("normal", "rotation")}, {"trunk": "wide", "model": "dcn-lstm"}],
)
def test_a_resumed_run_is_one_that_never_stopped_whatever_it_does(changes, tmp_path):
    config = config_of(**changes)
    train(config, tmp_path / "whole")
    with pytest.raises(Interrupted):
        train(config, tmp_path / "resumed", progress=stop_at(2))
    train(config, tmp_path / "resumed", resume=True)
    assert_same_bits(tmp_path / "whole", tmp_path / "resumed")


def test_the_checkpoint_holds_the_moving_average(tmp_path, made):
    name, weights = "head.evidence.weight", []
    config = config_of(steps=4, ema=0.15)
    train(config, tmp_path, progress=lambda _row: weights.append(made[0].state_dict()[name].clone()))
    average = weights[0]
    # The first steps weigh more than the decay says.
    for decay, weight in zip((2 / 11, 0.15, 0.15), weights[1:], strict=True):
        average = average + (1 - min(decay, 0.15)) * (weight - average)
    held, training = tensors_of(tmp_path)
    assert torch.allclose(held[f"model.{name}"], average, atol=1e-6)
    assert torch.equal(held[f"learning.{name}"], weights[-1])
    assert training["config"]["ema"] == 0.15
    assert torch.equal(checkpoint.load(tmp_path)[0].state_dict()[name], held[f"model.{name}"])


def test_the_first_steps_of_an_average_weigh_more(tmp_path, made):
    name, weights = "head.evidence.weight", []
    train(
        config_of(steps=2, ema=0.999),
        tmp_path,
        progress=lambda _row: weights.append(made[0].state_dict()[name].clone()),
    )
    held, _ = tensors_of(tmp_path)
    assert torch.allclose(held[f"model.{name}"], weights[0] + (1 - 2 / 11) * (weights[1] - weights[0]), atol=1e-6)


def test_the_timing_leaves_no_trace_in_the_average(tmp_path):
    with suppress(Interrupted):
        train(config_of(steps=None, minutes=0.02, ema=0.9), tmp_path, progress=stop_at(3))
    held, training = tensors_of(tmp_path)
    assert held["average.num_averaged"].item() == training["step"]


def test_a_second_ctrl_c_is_not_held_back_but_a_second_sigterm_is():
    with held_back() as interrupted:
        for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGINT):
            signal.raise_signal(number)
            assert interrupted()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("model", MODELS)
def test_muon_moves_the_weights_between_layers_of_the_encoder(model):
    trainer = loop.start(config_of(model=model, muon_rate=0.05))
    trainer.num_steps = 6
    loop.advance(trainer)
    names = {id(p): name for name, p in trainer.model.named_parameters()}
    rate = {names[id(p)]: group["lr"] for group in trainer.optimizer.param_groups for p in group["params"]}
    assert set(rate) == set(names.values())
    moved = {name for name, lr in rate.items() if lr == pytest.approx(0.05)}
    assert {"encoder.trunk.0.0.weight", "encoder.trunk.3.0.weight", "encoder.dense.0.weight"} <= moved
    assert all(name.startswith("encoder.") and ".positions." not in name for name in moved)
    assert loop.start(config_of(model=model, muon_rate=0.0)).optimizer.param_groups[-1]["lr"] < 0.01


def test_a_run_can_be_resumed_again_and_again(tmp_path):
    config = config_of()
    train(config, tmp_path / "whole")
    for step in (1, 2, 4):
        with pytest.raises(Interrupted):
            train(config, tmp_path / "resumed", resume=step > 1, progress=stop_at(step))
    train(config, tmp_path / "resumed", resume=True)
    assert_same_bits(tmp_path / "whole", tmp_path / "resumed")


def test_ctrl_c_after_the_last_step_finds_a_finished_run(tmp_path):
    train(config_of(steps=2), tmp_path, progress=stop_at(2))
    assert json.loads((tmp_path / "run.json").read_text())["finished"]


@pytest.mark.parametrize("place", ["loss_at_every_frame", "_check_finite", "_accuracy", "_next_batch"])
def test_ctrl_c_in_the_middle_of_a_step_loses_nothing(place, tmp_path, monkeypatch):
    # Real Ctrl-C comes in the middle of a step, when half of it is done: normalisation has seen its frames, say.
    config = config_of(steps=4)
    train(config, tmp_path / "whole")
    calls, real = [], getattr(loop, place)

    def pressed(*arguments):
        calls.append(None)
        if len(calls) == 2:
            signal.raise_signal(signal.SIGINT)
        return real(*arguments)

    monkeypatch.setattr(loop, place, pressed)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(Interrupted, match=r"saved at step [12] of 4"):
        train(config, tmp_path / "resumed")
    assert signal.getsignal(signal.SIGINT) is before
    monkeypatch.undo()
    monkeypatch.setattr(TrainConfig, "load_digits", lambda _config, split: loop_digits(split))
    train(config, tmp_path / "resumed", resume=True)
    assert_same_bits(tmp_path / "whole", tmp_path / "resumed")


def loop_digits(split):
    from saccade.data import digits

    return digits.load("uci", split)


@contextmanager
def poisoned_memory():
    """Let memory that nobody wrote to hold NaN, or the largest integer."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_memory_that_nobody_wrote_to_is_not_read(model, precision, tmp_path):
    config = config_of(model=model, steps=2, precision=precision, condition="elastic")
    train(config, tmp_path / "plain")
    with poisoned_memory():
        assert torch.empty(3).isnan().all()
        train(config, tmp_path / "poisoned")
    assert_same_bits(tmp_path / "plain", tmp_path / "poisoned")


# --- The run folder


def test_a_run_leaves_its_story(tmp_path):
    out = tmp_path / "run"
    rows = []
    config = config_of(seed=5)
    assert train(config, out, progress=rows.append) == out / "checkpoint.safetensors"
    described = json.loads((out / "run.json").read_text())
    assert described["config"] == config.as_json()
    assert (described["steps"], described["precision"], described["finished"]) == (6, "float32", True)
    header = checkpoint.read_header(out)
    assert header.data == {"digits": "uci", "condition": "rotation_scaling", "labels": "pair", "protocol": "end_to_end"}
    assert (header.training["step"], header.training["num_steps"]) == (6, 6)
    model, _ = checkpoint.load(out)
    assert model(torch.zeros(1, 2, 1, 64, 64)).shape == (1, 2, 55)
    logged = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert logged[-1] == rows[-1]
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    names = ("loss", "accuracy", "learning_rate", "gradient_norm", "clips_per_s", "generation_share", "elapsed_s")
    assert all(math.isfinite(row[name]) for row in rows for name in names)
    assert all(0 <= row["accuracy"] <= 1 for row in rows)
    assert [row["elapsed_s"] for row in rows] == sorted(row["elapsed_s"] for row in rows)


def test_every_step_is_logged_once_although_the_run_was_resumed(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "LOG_EVERY_S", -1)
    config = config_of()
    with pytest.raises(Interrupted):
        train(config, tmp_path, progress=stop_at(3))
    train(config, tmp_path, resume=True)
    steps = [json.loads(line)["step"] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert steps == sorted(set(steps))
    assert set(steps) >= {1, 2, 4, 5, 6}


def test_a_run_that_was_killed_is_logged_without_repetition(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "LOG_EVERY_S", -1)
    config = config_of()
    saves, save = [], loop.save

    def once(trainer, out):
        saves.append(None)
        if len(saves) == 1:
            save(trainer, out)

    monkeypatch.setattr(loop, "CHECKPOINT_EVERY_S", -1)
    monkeypatch.setattr(loop, "save", once)

    def crash(row):
        if row["step"] == 4:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        train(config, tmp_path, progress=crash)
    monkeypatch.setattr(loop, "save", save)
    train(config, tmp_path, resume=True)
    steps = [json.loads(line)["step"] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 3, 4, 5, 6]


def test_a_run_is_not_overwritten(tmp_path):
    train(config_of(steps=1), tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    with pytest.raises(UsageError, match="already holds a run; add --resume"):
        train(config_of(steps=1, seed=1), tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before


def test_a_finished_run_resumes_to_itself(tmp_path):
    train(config_of(steps=2), tmp_path)
    before = (tmp_path / "checkpoint.safetensors").read_bytes()
    rows = []
    train(config_of(steps=2), tmp_path, resume=True, progress=rows.append)
    assert rows == []
    assert (tmp_path / "checkpoint.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    "changes",
    [
        {"model": "stn-lstm"},
        {"condition": ("normal",)},
        {"condition": ("rotation_scaling", "normal")},
        {"ema": 0.9},
        {"muon_rate": 0.0},
        {"trunk": "wide"},
        {"labels": "digits"},
        {"batch_size": 5},
        {"num_frames": 8},
        {"frames_per_setting": 3},
        {"short_fraction": 0.2},
        {"angle": 45.0},
        {"learning_rate": 1e-3},
        {"attention_rate": 1.0},
        {"weight_decay": 0.0},
        {"seed": 1},
        {"precision": "bfloat16"},
    ],
)
def test_a_run_is_not_resumed_as_another(changes, tmp_path):
    config = config_of(steps=2)
    with pytest.raises(Interrupted):
        train(config, tmp_path, progress=stop_at(1))
    name, value = next(iter(changes.items()))
    now = re.escape(str(list(value) if isinstance(value, tuple) else value))
    with pytest.raises(UsageError, match=f"was trained with {name}=.*, now {name}={now}"):
        train(config_of(steps=2, **changes), tmp_path, resume=True)
    train(config, tmp_path, resume=True)


def test_a_scheduler_that_ends_the_run_is_as_good_as_ctrl_c(tmp_path):
    config = config_of()

    def end(row):
        if row["step"] == 2:
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(Interrupted, match="saved at step 2 of 6"):
        train(config, tmp_path / "ended", progress=end)
    train(config, tmp_path / "ended", resume=True)
    train(config, tmp_path / "whole")
    assert_same_bits(tmp_path / "ended", tmp_path / "whole")


def test_a_run_is_not_resumed_for_other_steps(tmp_path):
    train(config_of(steps=2), tmp_path)
    with pytest.raises(UsageError, match="was trained with steps=2, now steps=5"):
        train(config_of(steps=5), tmp_path, resume=True)


def test_what_a_run_began_with_is_kept_through_a_resume(tmp_path):
    train(config_of(steps=2, condition="normal"), tmp_path / "first")
    config = config_of(steps=4, start_from=tmp_path / "first")
    with pytest.raises(Interrupted):
        train(config, tmp_path / "run", progress=stop_at(1))
    train(config_of(steps=None), tmp_path / "run", resume=True)
    training = checkpoint.read_header(tmp_path / "run").training
    assert training["before"] == {"before_condition": "normal", "before_steps": 2}
    assert training["config"]["start_from"] == str(tmp_path / "first")
    assert training["config"]["steps"] == 4


def test_a_first_save_that_fails_leaves_the_folder_free(tmp_path, monkeypatch):
    def full(*_arguments):
        raise DataError("no room")

    with monkeypatch.context() as patched:
        patched.setattr(loop, "save", full)
        with pytest.raises(DataError):
            train(config_of(), tmp_path)
    train(config_of(), tmp_path)


def test_a_run_is_not_resumed_on_other_digits(tmp_path, uci, monkeypatch):
    # `auto` meant UCI until somebody put MNIST in its place.
    config = config_of(digits="auto", steps=2)
    with pytest.raises(Interrupted):
        train(config, tmp_path, progress=stop_at(1))
    other = Digits(uci["train"].images, uci["train"].labels, "mnist", "train")
    monkeypatch.setattr(TrainConfig, "load_digits", lambda _config, _split: other)
    with pytest.raises(UsageError, match=r"uci.*mnist|mnist.*uci"):
        train(config, tmp_path, resume=True)


def test_what_is_no_run_is_not_resumed(tmp_path):
    with pytest.raises(DataError, match="no checkpoint at"):
        train(config_of(), tmp_path / "none", resume=True)


def test_weights_alone_are_not_resumed(tmp_path):
    config = config_of(steps=1)
    train(config, tmp_path)
    model, header = checkpoint.load(tmp_path)
    checkpoint.save(tmp_path / checkpoint.NAME, model, header)
    with pytest.raises(DataError, match="holds weights only"):
        train(config, tmp_path, resume=True)


@pytest.mark.parametrize("error", [KeyboardInterrupt, NonFiniteError])
def test_a_run_that_ended_before_its_first_checkpoint_can_go_on(error, tmp_path, monkeypatch):
    config = config_of(steps=None, minutes=0.01)

    def interrupted(_trainer, _minutes):
        raise error("during the timing")

    with monkeypatch.context() as patched:
        patched.setattr(loop, "_steps_in", interrupted)
        with pytest.raises(error):
            train(config, tmp_path)
    # Either the folder is free again, or the run in it resumes.
    try:
        train(config, tmp_path)
    except UsageError:
        train(config, tmp_path, resume=True)
    assert (tmp_path / checkpoint.NAME).is_file()


def test_training_starts_from_a_checkpoint(tmp_path, made):
    train(config_of(steps=1), tmp_path / "first")
    weights = tensors_of(tmp_path / "first")[0]
    config = config_of(steps=2, start_from=tmp_path / "first", condition="normal")
    loop.start(config)
    for name, tensor in made[-1].state_dict().items():
        assert torch.equal(tensor, weights[f"model.{name}"]), name
    with pytest.raises(Interrupted):
        train(config, tmp_path / "second", progress=stop_at(1))
    # Once under way, the start is no longer needed.
    for path in (tmp_path / "first").glob("checkpoint.*"):
        path.unlink()
    train(config, tmp_path / "second", resume=True)


def test_training_does_not_start_from_another_model(tmp_path):
    train(config_of(steps=1), tmp_path / "first")
    with pytest.raises(
        UsageError,
        match=r"holds a lenet-lstm \(light trunk\) for labels pair; a dcn-lstm \(light trunk\) for labels pair",
    ):
        train(config_of(model="dcn-lstm", start_from=tmp_path / "first"), tmp_path / "second")
    assert not (tmp_path / "second").exists()


# --- Minutes


def test_minutes_fix_the_number_of_steps_once(tmp_path):
    out = tmp_path / "a"
    config = config_of(steps=None, minutes=0.02)
    rows = []
    with suppress(Interrupted):  # a slow machine may have time for one step only
        train(config, out, progress=lambda row: (rows.append(row), stop_at(1)(row)))
    num_steps = json.loads((out / "run.json").read_text())["steps"]
    assert num_steps >= 1
    train(config, out, resume=True, progress=rows.append)
    assert {row["num_steps"] for row in rows} == {num_steps}
    assert rows[-1]["step"] == num_steps
    assert json.loads((out / "run.json").read_text())["steps"] == num_steps
    # The timing left no trace in the weights.
    train(config_of(steps=num_steps), tmp_path / "b")
    (one, _), (other, _) = tensors_of(out), tensors_of(tmp_path / "b")
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())


# --- What is not finite


def assert_stops_and_keeps(out, config, match, progress=None):
    """Training stops with a line that says where, and the last checkpoint can be resumed."""
    with pytest.raises(NonFiniteError, match=match) as raised:
        train(config, out, progress=progress)
    assert raised.value.exit_code == 1
    model, header = checkpoint.load(out)
    assert all(tensor.isfinite().all() for tensor in model.state_dict().values())
    assert header.training["step"] in (1, 2)


@pytest.fixture
def often(monkeypatch):
    """Save after every step."""
    monkeypatch.setattr(loop, "CHECKPOINT_EVERY_S", -1)


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops(value, tmp_path, monkeypatch):
    calls, real = [], loop.loss_at_every_frame

    def loss(*arguments):
        calls.append(None)
        return real(*arguments) * (value if len(calls) == 3 else 1.0)

    monkeypatch.setattr(loop, "loss_at_every_frame", loss)
    config = config_of()
    assert_stops_and_keeps(tmp_path, config, r"loss is not finite at step 2 \(learning rate .*, gradient norm nan")
    train(config, tmp_path, resume=True)


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize("model", MODELS)
def test_a_gradient_that_is_not_finite_stops(model, tmp_path, made):
    def poison(row):
        if row["step"] == 2:
            weight = next(p for name, p in made[0].named_parameters() if name.endswith("trunk.1.0.weight"))
            weight.register_hook(lambda gradient: gradient * math.inf)

    assert_stops_and_keeps(tmp_path, config_of(model=model), "gradient norm is not finite at step 2", poison)


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(("model", "layer"), [("stn-lstm", "encoder.attention"), ("dcn-lstm", "encoder.trunk.2.0")])
def test_positions_that_are_not_finite_stop(value, model, layer, tmp_path, made):
    def poison(row):
        if row["step"] == 2:
            positions = made[0].get_submodule(layer).positions

            def spoil(_module, _arguments, output):
                spoilt = output.clone()
                spoilt[(0,) * spoilt.dim()] = value
                return spoilt

            positions.register_forward_hook(spoil)

    match = f"(positions of {layer}|loss|gradient norm) is not finite at step 2"
    assert_stops_and_keeps(tmp_path, config_of(model=model), match, poison)


@pytest.mark.usefixtures("often")
def test_positions_are_watched_even_where_nothing_else_shows_it(tmp_path, made):
    # One infinite number of a map sends a frame's samples outside: black, and all the rest is finite.
    def poison(row):
        if row["step"] == 2:
            positions = made[0].encoder.attention.positions
            positions.register_forward_hook(lambda _module, _arguments, output: output.detach() + torch.inf)

    assert_stops_and_keeps(tmp_path, config_of(model="stn-lstm"), "is not finite at step 2", poison)


@pytest.mark.usefixtures("often")
def test_a_parameter_that_is_not_finite_is_not_saved(tmp_path, made):
    def poison(row):
        if row["step"] == 2:
            made[0].head.evidence.bias.data[1] = math.nan

    assert_stops_and_keeps(tmp_path, config_of(), r"head\.evidence\.bias is not finite at step 2", poison)


@pytest.mark.usefixtures("often")
def test_a_disk_that_is_full_is_one_line_and_keeps_the_checkpoint(tmp_path, monkeypatch):
    calls, save_file = [], checkpoint.save_file

    def full(*arguments, **options):
        calls.append(None)
        if len(calls) == 4:  # the first lies there before the first step
            raise checkpoint.SafetensorError("I/O error: No space left on device (os error 28)")
        save_file(*arguments, **options)

    monkeypatch.setattr(checkpoint, "save_file", full)
    config = config_of()
    with pytest.raises((SaccadeError, OSError), match="No space left"):
        train(config, tmp_path)
    assert checkpoint.read_header(tmp_path).training["step"] == 2
    train(config, tmp_path, resume=True)


# --- What is refused before anything is written


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "lenet"}, "did you mean 'lenet-lstm'"),
        ({"device": "gpu"}, "no device is called 'gpu'"),
        ({"precision": "float16"}, "no precision is called 'float16'; did you mean"),
        ({"seed": 2**70}, "seed"),
    ],
)
def test_a_wrong_call_leaves_no_folder(changes, message, tmp_path):
    with pytest.raises(UsageError, match=message):
        train(config_of(**changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_stages_of_short_clips_follow_each_other_and_then_come_the_long_ones(monkeypatch):
    config = config_of(labels="digits", num_digits=(1, 3), num_frames=8, steps=12, short_fraction=0.5)
    trainer = start(config)
    trainer.num_steps = 12
    used = []
    monkeypatch.setattr(
        MovingDigits, "batch", lambda self, *_args: used.append((self.num_digits, self.motion.num_frames))
    )
    for trainer.step in range(12):
        loop._next_batch(trainer)
    assert used == [(1, 4)] * 2 + [(2, 4)] * 2 + [(3, 4)] * 2 + [(3, 8)] * 6


def test_a_run_that_began_before_an_option_came_goes_on_as_with_its_default(tmp_path):
    trainer = start(config_of())
    old = {name: value for name, value in trainer.config.as_json().items() if name not in ("num_digits", "clutter")}
    training = {"config": old, "precision": trainer.precision, "num_steps": 6}
    header = checkpoint.Header("lenet-lstm", {}, {"digits": "uci"}, training)
    check_same_run(trainer, header, tmp_path)
    with pytest.raises(UsageError, match="trained with clutter=0, now clutter=3"):
        check_same_run(start(config_of(clutter=3)), header, tmp_path)
