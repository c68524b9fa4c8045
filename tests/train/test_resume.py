"""Runs that go on where they stopped, and those that do not, since they are of another kind."""

import json
import re
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from saccade import checkpoint, files
from saccade.data import StoredClips, StoredData
from saccade.data.digits import DigitsConfig
from saccade.errors import DataError, Interrupted, UsageError
from saccade.labels import Labels
from saccade.train import loop, train

from .runs import DIGITS, MODELS, assert_same_bits, config_of, stop_at, tensors_of, write_digits


def stopped(out, step, config=None, data=DIGITS):
    with pytest.raises(Interrupted, match=f"saved at step {step} of 6"):
        train(config or config_of(), data, out, progress=stop_at(step))
    return out


# --- The same bits


CASES = [(model, precision, 3) for model in MODELS for precision in ("float32", "bfloat16")]


@pytest.mark.parametrize(("model", "precision", "step"), [*CASES, ("lenet-lstm", "float32", 5)])
def test_a_resumed_run_is_one_that_never_stopped(model, precision, step, tmp_path, whole):
    config = config_of(model=model, precision=precision)
    stopped(tmp_path, step, config)
    torch.rand(3)
    train(config, DIGITS, tmp_path, resume=True)
    assert_same_bits(whole(config), tmp_path)


@pytest.mark.parametrize(
    ("changes", "condition"),
    [
        ({"ema": 0.5}, "rotation_scaling"),
        ({"muon_rate": 0.0}, "rotation_scaling"),
        ({}, ("normal", "rotation")),
        ({"trunk": "wide", "model": "dcn-lstm"}, "rotation_scaling"),
        ({"input": "both"}, "rotation_scaling"),
    ],
)
def test_a_resumed_run_is_one_that_never_stopped_whatever_it_does(changes, condition, tmp_path, whole):
    config, digits = config_of(**changes), replace(DIGITS, condition=condition)
    stopped(tmp_path, 2, config, digits)
    train(config, digits, tmp_path, resume=True)
    assert_same_bits(whole(config, digits), tmp_path)


def test_a_finished_run_resumes_to_itself(tmp_path):
    train(config_of(steps=2), DIGITS, tmp_path)
    before = (tmp_path / checkpoint.NAME).read_bytes()
    rows = []
    train(config_of(steps=2), DIGITS, tmp_path, resume=True, progress=rows.append)
    assert rows == []
    assert (tmp_path / checkpoint.NAME).read_bytes() == before


def test_a_run_that_was_killed_is_logged_without_repetition(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "LOG_EVERY_S", -1)
    stopped(tmp_path, 2)

    def crash(row):
        if row["step"] == 5:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        train(config_of(), DIGITS, tmp_path, resume=True, progress=crash)
    train(config_of(), DIGITS, tmp_path, resume=True)
    steps = [json.loads(line)["step"] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 3, 4, 5, 6]


# --- Of version 0.1


_NEWER = ("input", "augment", "attention", "temporal", "finetune", "max_angle_deg")


def as_version_01_wrote_it(out, config, digits):
    """Turn a run into one of version 0.1, checkpoint format 2: digits were options of training, and all data digits."""
    header = checkpoint.read_header(out)
    asked = {name: value for name, value in config.as_json().items() if name not in _NEWER}
    of_digits = {name: "labels" if name == "scheme" else name for name in ("condition", "digits", "scheme")}
    of_digits |= {name: name for name in ("num_frames", "frames_per_setting", "short_fraction", "angle")}
    of_digits |= {name: name for name in ("num_digits", "clutter", "noise")}
    described = digits.as_json()
    asked |= {old: described[name] for name, old in of_digits.items()} | {"data_dir": None}
    kept = ("step", "num_steps", "elapsed_s", "precision", "before")
    training = {name: header.training[name] for name in kept} | {"config": asked}
    pairs = digits.scheme == "pair"
    written = {
        "model": config.model,
        "arguments": {"num_classes": len(header.labels.names), "trunk": config.trunk, "digit_pairs": pairs},
        "data": {
            "digits": header.facts["digits"],
            "condition": "+".join(digits.condition),
            "labels": digits.scheme,
            "protocol": "end_to_end",
        },
        "training": training,
        "versions": {"saccade": "0.1.0", "torch": "2.9.0", "python": "3.11.7"},
        "format": 2,
    }
    save_file(tensors_of(out), out / checkpoint.NAME, {"saccade": json.dumps(written)})
    files.write_json(out / "checkpoint.json", written)
    run = {"verb": "train", "config": asked, "steps": training["num_steps"], "precision": training["precision"]}
    files.write_json(out / "run.json", run)


SETS = replace(DIGITS, scheme="digits", num_digits=(1, 3), clutter=2, noise=5.0, condition=("normal", "rotation"))
SETS = replace(SETS, frames_per_setting=3, short_fraction=0.4, short_frames=4, angle=60.0)
FIRST = replace(DIGITS, short_frames=4)  # the only length of short clips before it was an option


@pytest.mark.parametrize("digits", [FIRST, SETS], ids=["pairs", "sets"])
@pytest.mark.parametrize("data", ["as asked", "as learned"])
def test_a_run_of_version_01_resumes(digits, data, tmp_path, whole):
    config = config_of(ema=0.5)
    as_version_01_wrote_it(stopped(tmp_path, 3, config, digits), config, digits)
    learned = checkpoint.read_header(tmp_path).data_config()
    assert learned == digits
    with pytest.raises(UsageError, match=r"made with clutter=\d, now clutter=4"):
        train(config, replace(digits, clutter=4), tmp_path, resume=True)
    train(config, digits if data == "as asked" else learned, tmp_path, resume=True)
    assert_same_bits(whole(config, digits), tmp_path)


def test_a_run_that_began_before_an_option_came_goes_on_as_with_its_default(tmp_path, whole):
    as_version_01_wrote_it(stopped(tmp_path, 3, config_of(), FIRST), config_of(), FIRST)
    header = json.loads((tmp_path / "checkpoint.json").read_text())
    for name in ("num_digits", "clutter", "noise", "ema"):
        del header["training"]["config"][name]
    save_file(tensors_of(tmp_path), tmp_path / checkpoint.NAME, {"saccade": json.dumps(header)})
    with pytest.raises(UsageError, match=r"made with ema=0\.0, now ema=0\.5"):
        train(config_of(ema=0.5), FIRST, tmp_path, resume=True)
    train(config_of(), FIRST, tmp_path, resume=True)
    assert_same_bits(whole(config_of(), FIRST), tmp_path)


def test_a_run_of_the_first_format_resumes(tmp_path, whole):
    # There was one trunk, one optimiser, one condition, and none of them had a name.
    config = config_of(trunk="wide", muon_rate=0.0)
    as_version_01_wrote_it(stopped(tmp_path, 3, config, FIRST), config, FIRST)
    header = json.loads((tmp_path / "checkpoint.json").read_text()) | {"format": 1}
    del header["arguments"]["trunk"], header["arguments"]["digit_pairs"]
    for name in ("trunk", "muon_rate", "num_digits", "clutter", "noise", "ema"):
        del header["training"]["config"][name]
    header["training"]["config"]["condition"] = "rotation_scaling"
    tensors = {name.replace("optimizer.0.", "optimizer."): tensor for name, tensor in tensors_of(tmp_path).items()}
    save_file(tensors, tmp_path / checkpoint.NAME, {"saccade": json.dumps(header)})
    train(config, FIRST, tmp_path, resume=True)
    assert_same_bits(whole(config, FIRST), tmp_path)


# --- Another run


@pytest.fixture(scope="module")
def begun(tmp_path_factory, uci):
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(DigitsConfig, "load", lambda _config, split: uci[split])
        return stopped(tmp_path_factory.mktemp("begun"), 1)


def assert_refused(out, config, data, name, came, now):
    before = {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}
    message = f"{out} was made with {name}={came}, now {name}={now}; give the same to continue"
    with pytest.raises(UsageError, match=re.escape(message)):
        train(config, data, out, resume=True)
    assert {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()} == before


@pytest.mark.parametrize(
    ("name", "came", "now"),
    [
        ("model", "lenet-lstm", "stn-lstm"),
        ("trunk", "small", "wide"),
        ("input", "frames", "both"),
        ("steps", 6, 5),
        ("ema", 0.0, 0.9),
        ("muon_rate", 0.02, 0.0),
        ("batch_size", 4, 5),
        ("learning_rate", 0.003, 0.001),
        ("attention_rate", 0.1, 1.0),
        ("weight_decay", 0.01, 0.0),
        ("seed", 0, 1),
        ("precision", "float32", "bfloat16"),
    ],
)
def test_a_run_is_not_resumed_with_another_option(name, came, now, begun):
    assert_refused(begun, config_of(**{name: now}), DIGITS, name, came, now)


@pytest.mark.parametrize(
    ("name", "came", "now"),
    [
        ("condition", ["rotation_scaling"], ["normal"]),
        ("condition", ["rotation_scaling"], ["rotation_scaling", "normal"]),
        ("scheme", "pair", "digits"),
        ("num_frames", 6, 8),
        ("frames_per_setting", 2, 3),
        ("short_fraction", 0.6, 0.2),
        ("short_frames", 2, 3),
        ("angle", 90.0, 45.0),
        ("canvas", 64, 72),
        ("clutter", 0, 3),
    ],
)
def test_a_run_is_not_resumed_on_other_clips_of_digits(name, came, now, begun):
    digits = replace(DIGITS, **{name: tuple(now) if isinstance(now, list) else now})
    assert_refused(begun, config_of(), digits, "labels" if name == "scheme" else name, came, now)


def test_a_run_is_not_resumed_on_clips_of_another_kind(begun):
    clips = StoredClips([torch.zeros(4, 1, 64, 64, dtype=torch.uint8)] * 2, torch.tensor([0, 1]), Labels(("a", "b")))
    assert_refused(begun, config_of(input="frames"), StoredData(clips, clips), "kind", "digits", "memory")


def test_a_run_is_not_resumed_on_other_digits(tmp_path, monkeypatch):
    # `auto` meant UCI until somebody put MNIST in its place.
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    out = stopped(tmp_path / "run", 1, data=replace(DIGITS, digits="auto"))
    write_digits(tmp_path / "cache" / "saccade" / "mnist", ([100] * 120, [100] * 60))
    assert_refused(out, config_of(), replace(DIGITS, digits="auto"), "digits", "uci", "mnist")


def test_what_is_no_run_is_not_resumed(tmp_path):
    with pytest.raises(DataError, match="no checkpoint at"):
        train(config_of(), DIGITS, tmp_path / "none", resume=True)


def test_weights_alone_are_not_resumed(tmp_path):
    config = config_of(steps=1)
    train(config, DIGITS, tmp_path)
    model, header = checkpoint.load(tmp_path)
    checkpoint.save(tmp_path / checkpoint.NAME, model, header)
    with pytest.raises(DataError, match="holds weights only"):
        train(config, DIGITS, tmp_path, resume=True)


# --- Two runs


@contextmanager
def poisoned_memory():
    """Let memory that nobody wrote to hold NaN, or the largest integer."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


POISONED = [(model, precision, DIGITS) for model in MODELS for precision in ("float32", "bfloat16")]
POISONED += [("lenet-lstm", "float32", replace(DIGITS, condition=("elastic",)))]


@pytest.mark.parametrize(("model", "precision", "digits"), POISONED)
def test_two_runs_give_the_same_bits_whatever_memory_held(model, precision, digits, tmp_path, whole):
    config = config_of(model=model, precision=precision)
    first = whole(config, digits)
    torch.rand(3)  # nor does it matter what was drawn before
    with poisoned_memory():
        assert torch.empty(3).isnan().all()
        train(config, digits, tmp_path)
    assert_same_bits(first, tmp_path)
