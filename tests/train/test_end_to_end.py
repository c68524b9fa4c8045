import json
from contextlib import suppress
from dataclasses import replace

import pytest
import torch

from saccade import checkpoint
from saccade.clips import ClipBatch
from saccade.data import StoredClips, StoredData
from saccade.data.digits import DigitsConfig
from saccade.errors import DataError, Interrupted, NonFiniteError, UsageError
from saccade.labels import Labels
from saccade.train import batch_size, loop, train
from saccade.train.end_to_end import learning_rate_factor, objective, start

from .runs import DIGITS, MODELS, config_of, stop_at, tensors_of


class OneBatch(DigitsConfig):
    """Moving digits of which training sees one batch again and again."""

    def batches(self, size, seed):
        batch = super().batches(size, seed)(0, 1)
        always = lambda step, num_steps: batch  # noqa: E731
        always.to = lambda device: always
        return always


# --- It learns


@pytest.mark.parametrize(("model", "scheme"), [*((model, "pair") for model in MODELS), ("lenet-lstm", "digits")])
def test_the_loss_falls(model, scheme, tmp_path):
    rows = []
    data = OneBatch(digits="uci", scheme=scheme, num_frames=4, condition=("normal",))
    train(config_of(model=model, steps=30, batch_size=6), data, tmp_path / "run", progress=rows.append)
    # Saying how often each digit comes, whatever is seen, would leave two thirds of the loss of presence.
    assert rows[-1]["loss"] < 0.5 * rows[0]["loss"]


def batch_of(targets, lengths=None):
    return ClipBatch(torch.empty(len(targets), 5, 1, 28, 28), targets, lengths)


def test_the_loss_is_the_mean_over_all_frames():
    logits = torch.randn(3, 5, 7, generator=torch.Generator().manual_seed(0))
    targets = torch.tensor([1, 6, 0])
    by_hand = -torch.stack([logits[b, t].log_softmax(0)[targets[b]] for b in range(3) for t in range(5)]).mean()
    assert torch.allclose(objective(Labels.numbered(7)).loss(logits, batch_of(targets)), by_hand)
    present = (torch.arange(21).view(3, 7) % 3 == 0).float()
    chance = logits.sigmoid()
    how_many = -(present[:, None] * chance.log() + (1 - present[:, None]) * (1 - chance).log()).mean()
    shares = present / present.sum(1, keepdim=True)
    which = -(shares[:, None] * logits.softmax(-1).log()).sum(-1).mean()
    labels = Labels(Labels.numbered(7).names, exclusive=False)
    assert torch.allclose(objective(labels).loss(logits, batch_of(present)), how_many + which, atol=1e-6)


def test_accuracy_is_of_the_last_frame_and_of_the_exact_set():
    logits = torch.tensor([[1.0, -1, 1], [1, 1, -1], [-1, -1, -1]]).unsqueeze(1)
    present = torch.tensor([[1.0, 0, 1], [1, 0, 0], [0, 0, 0]])
    sets = objective(Labels(("0", "1", "2"), exclusive=False))
    assert sets.accuracy(logits, batch_of(present)) == pytest.approx(2 / 3)
    one = objective(Labels.numbered(3))
    assert one.accuracy(logits, batch_of(torch.tensor([0, 0, 2]))) == pytest.approx(2 / 3)
    # The first clip has a second frame, which says something else.
    longer = torch.cat((logits, torch.tensor([-1.0, -1, 1]).expand(3, 1, 3)), 1)
    batch = batch_of(torch.tensor([2, 0, 2]), torch.tensor([2, 1, 2]))
    assert one.accuracy(longer, batch) == 1


# --- The schedule


@pytest.mark.parametrize("num_steps", [1, 2, 3, 9, 10, 11, 100, 1001])
def test_the_learning_rate_rises_for_a_tenth_and_falls_to_nothing(num_steps):
    factors = [learning_rate_factor(step, num_steps) for step in range(num_steps)]
    top = factors.index(max(factors))
    assert max(factors) == 1
    assert top == max(1, num_steps // 10) - 1
    assert factors[: top + 1] == sorted(factors[: top + 1])
    assert factors[top:] == sorted(factors[top:], reverse=True)
    assert min(factors) > 0
    if num_steps >= 100:
        assert factors[-1] < 0.01


@pytest.mark.parametrize("muon_rate", [0.1, 0.0])
@pytest.mark.parametrize("model", MODELS)
def test_every_weight_learns_at_its_own_rate_and_only_matrices_decay(model, muon_rate):
    rates = {"learning_rate": 0.02, "muon_rate": muon_rate, "attention_rate": 0.25, "weight_decay": 0.3}
    trainer = start(config_of(model=model, **rates), DIGITS)
    names = {id(p): name for name, p in trainer.model.named_parameters()}
    seen, moved = set(), set()
    for group in trainer.optimizer.param_groups:
        for parameter in group["params"]:
            name = names[id(parameter)]
            seen.add(name)
            between_layers = name.startswith("encoder.") and ".positions." not in name and parameter.dim() > 1
            by_muon = muon_rate > 0 and between_layers
            moved |= {name} if by_muon else set()
            rate = 0.1 if by_muon else 0.02 * (0.25 if ".positions." in name else 1.0)
            assert group["base_lr"] == pytest.approx(rate), name
            assert group["weight_decay"] == (0.3 if parameter.dim() > 1 else 0.0), name
    assert seen == set(names.values())
    if muon_rate:
        assert {"encoder.trunk.0.0.weight", "encoder.trunk.3.0.weight", "encoder.dense.0.weight"} <= moved


# --- The run folder


def test_a_run_leaves_its_story(tmp_path):
    out = tmp_path / "run"
    rows = []
    config = config_of(seed=5)
    assert train(config, DIGITS, out, progress=rows.append) == out / checkpoint.NAME
    described = json.loads((out / "run.json").read_text())
    assert described["config"] == config.as_json() | {"input": "frames", "augment": False}
    assert described["data"] == DIGITS.as_json()
    assert (described["steps"], described["precision"], described["finished"]) == (6, "float32", True)
    header = checkpoint.read_header(out)
    assert header.facts == {
        "data": "moving digits",
        "digits": "uci",
        "condition": "rotation_scaling",
        "labels": "pair",
        "order": None,
        "protocol": "end_to_end",
    }
    assert header.data_config() == DIGITS
    assert (header.training["step"], header.training["num_steps"]) == (6, 6)
    model, _ = checkpoint.load(out)
    assert model(torch.zeros(1, 2, 1, 64, 64)).shape == (1, 2, 55)
    logged = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert logged[-1] == rows[-1]
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]


def test_another_seed_gives_another_model(tmp_path):
    for seed in (0, 1):
        train(config_of(seed=seed, steps=1), DIGITS, tmp_path / str(seed))
    first, second = (tensors_of(tmp_path / name) for name in "01")
    assert not torch.equal(first["model.head.evidence.weight"], second["model.head.evidence.weight"])


def test_a_run_is_not_overwritten(tmp_path):
    train(config_of(steps=1), DIGITS, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    with pytest.raises(UsageError, match="already holds a finished run; choose another --out"):
        train(config_of(steps=1, seed=1), DIGITS, tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before


def test_a_first_save_that_fails_leaves_the_folder_free(tmp_path, monkeypatch):
    def full(*_arguments):
        raise DataError("no room")

    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "save", full)
        with pytest.raises(DataError, match="no room"):
            train(config_of(steps=1), DIGITS, tmp_path)
    train(config_of(steps=1), DIGITS, tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "lenet"}, "did you mean 'lenet-lstm'"),
        ({"trunk": "lite"}, "no trunk is called 'lite'"),
        ({"input": "difference"}, "did you mean 'differences'"),
        ({"device": "gpu"}, "no device is called 'gpu'"),
        ({"precision": "float16"}, "no precision is called 'float16'; did you mean"),
        ({"seed": 2**70}, "seed"),
    ],
)
def test_a_wrong_call_leaves_no_folder(changes, message, tmp_path):
    with pytest.raises(UsageError, match=message):
        train(config_of(**changes), DIGITS, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("size", [20_000, 10**9])
def test_a_batch_that_does_not_fit_into_memory_is_refused(size, tmp_path, monkeypatch):
    monkeypatch.setattr(batch_size, "memory_bytes", lambda: 1e9)
    told = rf"--batch-size {size} needs about \d+\.\d [GT]B of memory, this machine has 1\.0 GB; choose at most \d+"
    with pytest.raises(UsageError, match=told) as error:
        train(config_of(batch_size=size), DIGITS, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    most = int(str(error.value).rpartition(" ")[2])
    assert 100 < most < 20_000


def test_a_batch_of_many_times_the_clips_is_refused(tmp_path):
    black = torch.zeros(2, 1, 32, 32, dtype=torch.uint8)
    clips = StoredClips([black] * 20, torch.arange(20) % 2, Labels(("a", "b")))
    with pytest.raises(UsageError, match="is many times the 20 clips to learn from; choose at most 80"):
        start(config_of(batch_size=81), StoredData(clips, clips))
    assert start(config_of(batch_size=80), StoredData(clips, clips)).batches.size == 80


# --- Begun from other weights


def test_training_starts_from_a_checkpoint(tmp_path):
    train(config_of(steps=1), DIGITS, tmp_path / "first")
    weights = tensors_of(tmp_path / "first")
    config, normal = config_of(steps=2, start_from=tmp_path / "first"), replace(DIGITS, condition=("normal",))
    for name, tensor in start(config, normal).model.state_dict().items():
        assert torch.equal(tensor, weights[f"model.{name}"]), name
    with pytest.raises(Interrupted):
        train(config, normal, tmp_path / "second", progress=stop_at(1))
    # Once under way, the start is no longer needed.
    for path in (tmp_path / "first").glob("checkpoint.*"):
        path.unlink()
    train(config_of(steps=None), normal, tmp_path / "second", resume=True)
    training = checkpoint.read_header(tmp_path / "second").training
    assert training["before"] == {"before_condition": "rotation_scaling", "before_steps": 1}
    assert training["config"]["start_from"] == str(tmp_path / "first")
    assert training["config"]["steps"] == 2


def test_the_number_of_glimpses_belongs_to_the_model(tmp_path):
    config, first = config_of(model="multi-stn-lstm", num_glimpses=3, steps=1), tmp_path / "first"
    train(config, DIGITS, first)
    assert checkpoint.load(first)[0].encoder.attention.num_glimpses == 3
    # A checkpoint in the place of a model's name stands for its parts.
    assert start(config_of(model=str(first), steps=1), DIGITS).model.encoder.attention.num_glimpses == 3
    with pytest.raises(UsageError, match="num_glimpses"):
        train(replace(config, num_glimpses=2), DIGITS, first, resume=True)
    # Weights are those of one glimpse, so that a model of another number can begin with them.
    assert start(replace(config, num_glimpses=1, start_from=first), DIGITS).model.encoder.attention.num_glimpses == 1


@pytest.mark.parametrize(
    ("changes", "scheme", "message"),
    [
        ({"model": "dcn-lstm"}, "pair", "a dcn-lstm"),
        ({"trunk": "wide"}, "pair", r"a lenet-lstm \(wide trunk, input frames\)"),
        ({"input": "both"}, "pair", r"a lenet-lstm \(small trunk, input both\)"),
        ({}, "ordered", r"for 100 classes \(00, 01, 02 ...\)"),
    ],
)
def test_training_does_not_start_from_another_model(changes, scheme, message, tmp_path, whole):
    first = whole(config_of())
    here = r"holds a lenet-lstm \(small trunk, input frames\) for 55 classes \(00, 01, 02 ...\); "
    with pytest.raises(UsageError, match=here + ".*" + message + ".* is wanted: change --model"):
        train(config_of(start_from=first, **changes), replace(DIGITS, scheme=scheme), tmp_path / "second")
    assert not (tmp_path / "second").exists()


def test_a_checkpoint_in_the_place_of_a_model_says_its_kind(tmp_path, whole):
    changes = {"trunk": "wide", "input": "both"}
    first = whole(config_of(steps=1, **changes))
    header = start(config_of(model=str(first)), DIGITS).header
    assert (header.model, header.arguments) == ("lenet-lstm", changes)


# --- Minutes


def test_minutes_fix_the_number_of_steps_once(tmp_path):
    out = tmp_path / "a"
    config = config_of(steps=None, minutes=0.02)
    rows = []
    with suppress(Interrupted):  # a slow machine may have time for one step only
        train(config, DIGITS, out, progress=lambda row: (rows.append(row), stop_at(1)(row)))
    num_steps = json.loads((out / "run.json").read_text())["steps"]
    assert num_steps >= 1
    train(config, DIGITS, out, resume=True, progress=rows.append)
    assert {row["num_steps"] for row in rows} == {num_steps}
    assert rows[-1]["step"] == num_steps
    assert json.loads((out / "run.json").read_text())["steps"] == num_steps
    # The timing left no trace in the weights.
    train(config_of(steps=num_steps), DIGITS, tmp_path / "b")
    one, other = tensors_of(out), tensors_of(tmp_path / "b")
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())


@pytest.mark.parametrize("error", [KeyboardInterrupt, NonFiniteError])
def test_a_run_that_ended_before_its_first_checkpoint_can_begin_again(error, tmp_path, monkeypatch):
    def interrupted(_trainer, _minutes):
        raise error("during the timing")

    with monkeypatch.context() as patched:
        patched.setattr(loop, "steps_within", interrupted)
        with pytest.raises(error):
            train(config_of(steps=None, minutes=0.01), DIGITS, tmp_path)
    train(config_of(steps=1), DIGITS, tmp_path)
    assert (tmp_path / checkpoint.NAME).is_file()


# --- Attention


@pytest.mark.parametrize(("model", "layer"), [("stn-lstm", "encoder.attention"), ("dcn-lstm", "encoder.trunk.2.0")])
def test_the_loop_watches_where_a_model_looks(model, layer):
    trainer = start(config_of(model=model), DIGITS)
    trainer.num_steps = 6
    loop.advance(trainer)
    assert layer in trainer.positions
