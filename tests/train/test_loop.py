"""The loop by itself, with a model of a few numbers: what it does knows neither models nor data."""

import json
import math
import re
import signal
from contextlib import suppress
from dataclasses import replace

import pytest
import torch

from saccade import checkpoint
from saccade.errors import DataError, Interrupted, NonFiniteError, SaccadeError
from saccade.train import loop
from saccade.train.end_to_end import learning_rate_factor
from saccade.train.interrupts import held_back
from saccade.train.trainer import Objective, restore, save

from .runs import assert_same_bits, stop_at, tensors_of
from .small import NUM_STEPS, accuracy_of, go_on, loss_of, trainer_of


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    out = tmp_path_factory.mktemp("whole")
    loop.run(trainer_of(), out)
    return out


# --- What a step does


def test_each_step_is_taken_at_its_own_learning_rate(tmp_path):
    trainer, rows = trainer_of(num_steps=12), []
    loop.run(trainer, tmp_path, rows.append)
    for step, (factors, _) in enumerate(trainer.optimizer.seen):
        expected = learning_rate_factor(step, 12)
        assert list(factors) == [pytest.approx(expected)]
        assert rows[step]["learning_rate"] == pytest.approx(0.01 * expected)


def test_a_long_gradient_is_cut_to_one_and_logged_as_it_was(tmp_path):
    trainer, rows = trainer_of(loss=lambda *given: 100 * loss_of(*given)), []
    loop.run(trainer, tmp_path, rows.append)
    for (_, length), row in zip(trainer.optimizer.seen, rows, strict=True):
        assert length == pytest.approx(1.0, rel=1e-3)
        assert row["gradient_norm"] > 10


def test_the_checkpoint_holds_the_moving_average(tmp_path):
    name, weights = "rest.3.weight", []
    trainer = trainer_of(ema=0.15, num_steps=4)
    loop.run(trainer, tmp_path, lambda _row: weights.append(trainer.model.state_dict()[name].clone()))
    average = weights[0]
    # The first steps weigh more than the decay says.
    for decay, weight in zip((2 / 11, 0.15, 0.15), weights[1:], strict=True):
        average = average + (1 - min(decay, 0.15)) * (weight - average)
    held = tensors_of(tmp_path)
    assert torch.allclose(held[f"model.{name}"], average, atol=1e-6)
    assert torch.equal(held[f"learning.{name}"], weights[-1])


def test_the_first_steps_of_a_long_average_weigh_more():
    trainer, weights = trainer_of(ema=0.999), []
    for _ in range(2):
        loop.advance(trainer)
        weights.append(trainer.model.rest[3].weight.detach().clone())
    found = trainer.product.rest[3].weight
    assert torch.allclose(found, weights[0] + (1 - 2 / 11) * (weights[1] - weights[0]), atol=1e-6)


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_timing_leaves_no_trace(tmp_path, ema):
    for name in ("timed", "plain"):
        (out := tmp_path / name).mkdir()
        trainer = trainer_of(ema=ema)
        if name == "timed":
            assert loop.steps_within(trainer, 0.01) >= 1
            trainer.num_steps = NUM_STEPS
        loop.run(trainer, out)
    assert_same_bits(tmp_path / "timed", tmp_path / "plain")


# --- The log


def test_every_step_is_told_and_the_last_is_logged(tmp_path):
    rows = []
    loop.run(trainer_of(), tmp_path, rows.append)
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    names = ("loss", "accuracy", "learning_rate", "gradient_norm", "clips_per_s", "generation_share", "elapsed_s")
    assert all(math.isfinite(row[name]) for row in rows for name in names)
    assert all(0 <= row["accuracy"] <= 1 for row in rows)
    assert [row["elapsed_s"] for row in rows] == sorted(row["elapsed_s"] for row in rows)
    assert json.loads((tmp_path / "log.jsonl").read_text().splitlines()[-1]) == rows[-1]


def test_it_is_saved_every_so_often(tmp_path):
    seen = []
    path = tmp_path / checkpoint.NAME
    loop.run(trainer_of(num_steps=4), tmp_path, lambda _row: seen.append(path.exists()), save_every_s=0.0)
    assert seen == [False, True, True, True]


# --- Stopped and resumed


@pytest.mark.parametrize(("step", "ema"), [(1, 0.0), (2, 0.0), (3, 0.0), (4, 0.0), (5, 0.0), (2, 0.5)])
def test_a_resumed_training_is_one_that_never_stopped(step, ema, tmp_path):
    for name in ("whole", "resumed"):
        (tmp_path / name).mkdir()
    loop.run(trainer_of(ema=ema), tmp_path / "whole")
    with pytest.raises(Interrupted, match=f"saved at step {step} of 6"):
        loop.run(trainer_of(ema=ema), tmp_path / "resumed", stop_at(step))
    go_on(tmp_path / "resumed", ema=ema)
    assert_same_bits(tmp_path / "whole", tmp_path / "resumed")


def test_a_training_is_resumed_again_and_again(tmp_path, whole):
    trainer = trainer_of()
    for step in (1, 2, 4):
        with pytest.raises(Interrupted):
            loop.run(trainer, tmp_path, stop_at(step))
        trainer = trainer_of()
        restore(trainer, tmp_path, {})
    loop.run(trainer, tmp_path)
    assert_same_bits(whole, tmp_path)


def test_ctrl_c_after_the_last_step_finds_a_finished_training(tmp_path, whole):
    loop.run(trainer_of(), tmp_path, stop_at(NUM_STEPS))
    assert_same_bits(whole, tmp_path)


def test_a_clip_that_vanishes_ends_the_training_without_loss(tmp_path, whole):
    trainer = trainer_of()
    batches = trainer.batches

    def vanishing(step, num_steps):
        if step == 3:
            raise DataError("clip.mp4 changed while it was in use")
        return batches(step, num_steps)

    trainer.batches = vanishing
    with pytest.raises(DataError, match=re.escape("clip.mp4")):
        loop.run(trainer, tmp_path)
    assert checkpoint.read_header(tmp_path).training["step"] == 3
    go_on(tmp_path)
    assert_same_bits(tmp_path, whole)


def test_a_scheduler_that_ends_the_run_is_as_good_as_ctrl_c(tmp_path, whole):
    with pytest.raises(Interrupted, match="saved at step 2 of 6"):
        loop.run(trainer_of(), tmp_path, stop_at(2, signal.SIGTERM))
    go_on(tmp_path)
    assert_same_bits(whole, tmp_path)


@pytest.mark.parametrize("place", ["batches", "model", "loss", "optimizer", "accuracy"])
def test_ctrl_c_in_the_middle_of_a_step_loses_nothing(place, tmp_path, whole):
    # Real Ctrl-C comes in the middle of a step, when half of it is done: normalisation has seen its frames, say.
    calls = []

    def press(*_given):
        calls.append(None)
        if len(calls) == 2:
            signal.raise_signal(signal.SIGINT)

    def pressing(real):
        return lambda *given: (press(), real(*given))[1]

    trainer = trainer_of(loss=pressing(loss_of) if place == "loss" else loss_of)
    if place == "batches":
        trainer.batches = pressing(trainer.batches)
    elif place == "model":
        trainer.model.rest.register_forward_hook(press)
    elif place == "optimizer":
        trainer.optimizer.step = pressing(trainer.optimizer.step)
    elif place == "accuracy":
        trainer.objective = Objective(loss_of, pressing(accuracy_of), learning_rate_factor, 1.0)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(Interrupted, match="saved at step 2 of 6"):
        loop.run(trainer, tmp_path)
    assert signal.getsignal(signal.SIGINT) is before
    go_on(tmp_path)
    assert_same_bits(whole, tmp_path)


def test_a_second_ctrl_c_is_not_held_back_but_a_second_sigterm_is():
    with held_back() as interrupted:
        for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGINT):
            signal.raise_signal(number)
            assert interrupted()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


# --- What is not finite


def assert_stops_and_keeps(out, trainer, match, progress=None):
    """Training stops with a line that says where, and the last checkpoint can be resumed."""
    with pytest.raises(NonFiniteError, match=match) as raised:
        loop.run(trainer, out, progress, save_every_s=-1)
    assert raised.value.exit_code == 1
    assert all(tensor.isfinite().all() for tensor in tensors_of(out).values())
    assert checkpoint.read_header(out).training["step"] in (1, 2)
    assert go_on(out).step == NUM_STEPS


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops(value, tmp_path):
    calls = []

    def loss(*given):
        calls.append(None)
        return loss_of(*given) * (value if len(calls) == 3 else 1.0)

    match = r"loss is not finite at step 2 \(learning rate .*, gradient norm nan"
    assert_stops_and_keeps(tmp_path, trainer_of(loss=loss), match)


def test_a_gradient_that_is_not_finite_stops(tmp_path):
    trainer = trainer_of()

    def poison(row):
        if row["step"] == 2:
            trainer.model.deformable.weight.register_hook(lambda gradient: gradient * math.inf)

    assert_stops_and_keeps(tmp_path, trainer, "gradient norm is not finite at step 2", poison)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("layer", ["attention", "deformable"])
def test_positions_that_are_not_finite_stop(value, layer, tmp_path):
    trainer = trainer_of()

    def spoil(_module, _arguments, output):
        spoilt = output.clone()
        spoilt[(0,) * spoilt.dim()] = value
        return spoilt

    def poison(row):
        if row["step"] == 2:
            trainer.model.get_submodule(layer).positions.register_forward_hook(spoil)

    match = f"(positions of {layer}|loss|gradient norm) is not finite at step 2"
    assert_stops_and_keeps(tmp_path, trainer, match, poison)


def test_positions_are_watched_even_where_nothing_else_shows_it(tmp_path):
    # Infinite offsets send all samples outside: black, and all the rest is finite.
    trainer = trainer_of()

    def poison(row):
        if row["step"] == 2:
            positions = trainer.model.deformable.positions
            positions.register_forward_hook(lambda _module, _arguments, output: output.detach() + torch.inf)

    assert_stops_and_keeps(tmp_path, trainer, "positions of deformable is not finite at step 2", poison)


def test_a_parameter_that_is_not_finite_is_not_saved(tmp_path):
    trainer = trainer_of()

    def poison(row):
        if row["step"] == 2:
            trainer.model.rest[3].bias.data[1] = math.nan

    assert_stops_and_keeps(tmp_path, trainer, r"rest\.3\.bias is not finite at step 2", poison)


def test_a_disk_that_is_full_is_one_line_and_keeps_the_checkpoint(tmp_path, monkeypatch, whole):
    trainer, calls, save_file = trainer_of(), [], checkpoint.save_file

    def full(*arguments, **options):
        calls.append(None)
        if len(calls) == 4:  # the first lies there before the first step
            raise checkpoint.SafetensorError("I/O error: No space left on device (os error 28)")
        save_file(*arguments, **options)

    monkeypatch.setattr(checkpoint, "save_file", full)
    save(trainer, tmp_path)
    with pytest.raises((SaccadeError, OSError), match="No space left"):
        loop.run(trainer, tmp_path, save_every_s=-1)
    assert checkpoint.read_header(tmp_path).training["step"] == 2
    with suppress(Interrupted):
        go_on(tmp_path)
    assert_same_bits(whole, tmp_path)


def test_numbers_too_small_for_a_normal_float_are_zero_within_a_step():
    products = []

    def accuracy(*_given):
        products.append((torch.tensor(1e-30) * 1e-10).item())
        return 0.0

    def outside():
        return (torch.tensor(1e-30) * 1e-10).item()

    trainer = trainer_of()
    trainer.objective = replace(trainer.objective, accuracy=accuracy)
    before = outside() == 0
    try:
        for flushed in (False, True):
            torch.set_flush_denormal(flushed)
            loop.advance(trainer)
            assert (outside() == 0) == flushed
    finally:
        torch.set_flush_denormal(before)
    assert products == [0.0, 0.0]
