import json
import os
import pickle
import resource
import signal

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from saccade import checkpoint, models, weights
from saccade.checkpoint import FORMAT, NAME, Header, load, load_weights, locate, read_header, save
from saccade.clips import FrameFormat
from saccade.data.digits import DigitsConfig, schemes
from saccade.errors import DataError, SaccadeError, UsageError
from saccade.labels import Labels
from saccade.train import TrainConfig

LABELS = Labels.numbered(7)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return models.create("lenet-lstm", labels=LABELS).eval()


@pytest.fixture
def path(model, tmp_path):
    """A checkpoint as training writes it."""
    path = tmp_path / NAME
    data = {"config": DigitsConfig(digits="uci", noise=3.0).as_json(), "facts": {"data": "moving digits"}}
    header = Header("lenet-lstm", {"trunk": "light"}, LABELS, data=data, training={"step": 3})
    save(path, model, header, {"optimizer.0.exp_avg": torch.arange(3.0)})
    return path


def contents(folder):
    return {path.name for path in folder.iterdir()}


def rewrite(path, *, metadata=None, **tensors):
    """Change what a checkpoint file holds; a tensor given as None is taken out."""
    with safe_open(path, framework="pt") as opened:
        old = opened.metadata()
    held = load_file(path) | tensors
    save_file({k: v for k, v in held.items() if v is not None}, path, metadata=metadata or old)


def header_with(path, **changes):
    """Change what the header in a checkpoint file says."""
    with safe_open(path, framework="pt") as opened:
        described = json.loads(opened.metadata()["saccade"])
    rewrite(path, metadata={"saccade": json.dumps(described | changes)})


# --- There and back


@pytest.mark.parametrize("name", ["lenet-lstm", "stn-lstm", "dcn-lstm"])
@pytest.mark.parametrize(
    ("arguments", "labels", "frame_format"),
    [
        ({}, Labels(("wave", "take2"), exclusive=False), FrameFormat(3, (48, 64), (0.5, 0.4, 0.3), (0.2,) * 3, 12.5)),
        ({"temporal": "gru", "input": "both"}, None, None),
    ],
)
def test_a_loaded_model_is_the_saved_one(name, arguments, labels, frame_format, tmp_path):
    header = Header(name, arguments, labels, frame_format)
    model = header.create_model().to(memory_format=torch.channels_last)
    save(tmp_path / NAME, model, header)
    loaded, read = load(tmp_path)
    assert read == header
    assert (loaded.labels, loaded.frame_format) == (labels or model.labels, frame_format or FrameFormat())
    assert not loaded.training
    for key, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], tensor), key


def test_loading_keeps_the_memory_layout_of_the_model(model, path):
    into = models.create("lenet-lstm", labels=LABELS).to(memory_format=torch.channels_last)
    strides = {name: tensor.stride() for name, tensor in into.state_dict().items()}
    load_weights(into, path)
    assert {name: tensor.stride() for name, tensor in into.state_dict().items()} == strides
    assert torch.equal(into.encoder.trunk[1][0].weight, model.encoder.trunk[1][0].weight)


def test_the_header_says_what_is_needed(path):
    header = read_header(path)
    assert header.model == "lenet-lstm"
    assert header.arguments == {"trunk": "small"}
    assert header.labels == LABELS
    assert header.data_config() == DigitsConfig(digits="uci", noise=3.0)
    assert header.facts == {"data": "moving digits"}
    assert header.training == {"step": 3}
    assert header.format == FORMAT
    assert header.versions.keys() >= {"saccade", "torch", "python"}


def test_a_model_that_does_not_say_what_it_learned_on_asks_for_clips():
    with pytest.raises(UsageError, match="does not name its training data; name the clips with --data"):
        Header("lenet-lstm").data_config()


def test_a_copy_of_the_header_lies_beside(path):
    beside = json.loads(path.with_suffix(".json").read_text())
    with safe_open(path, framework="pt") as opened:
        assert beside == json.loads(opened.metadata()["saccade"])


def test_other_tensors_come_back(model, path):
    other = load_weights(model, path)
    assert list(other) == ["optimizer.0.exp_avg"]
    assert other["optimizer.0.exp_avg"].tolist() == [0, 1, 2]


def test_a_folder_means_the_checkpoint_in_it(path):
    assert locate(path.parent) == locate(path) == path


def test_saving_again_replaces_and_leaves_nothing_else(model, path):
    save(path, model, Header("lenet-lstm", labels=LABELS, training={"step": 4}))
    assert read_header(path).training == {"step": 4}
    assert contents(path.parent) == {"checkpoint.json", NAME}


# --- Nothing is lost


def test_a_save_that_fails_halfway_leaves_the_old_one_whole(model, path, monkeypatch):
    before = path.read_bytes(), path.with_suffix(".json").read_bytes()

    def half(_tensors, filename, **_options):
        filename.write_bytes(before[0][:1000])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", half)
    with pytest.raises(OSError, match="No space"):
        save(path, model, Header("lenet-lstm", labels=LABELS, training={"step": 4}))
    assert (path.read_bytes(), path.with_suffix(".json").read_bytes()) == before
    assert contents(path.parent) == {"checkpoint.json", NAME}


def test_a_full_disk_is_one_line_and_leaves_the_old_one_whole(model, path):
    before = path.read_bytes()
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        # Either is one line on the command line.
        with pytest.raises((OSError, SaccadeError)):
            save(path, model, Header("lenet-lstm", labels=LABELS))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)
    assert path.read_bytes() == before
    assert contents(path.parent) == {"checkpoint.json", NAME}


# --- Earlier formats

OLD_CONFIG = {
    "model": "lenet-lstm",
    "trunk": "light",
    "condition": ["rotation", "scaling"],
    "digits": "auto",
    "data_dir": None,
    "labels": "pair",
    "steps": 30,
    "minutes": None,
    "batch_size": 4,
    "num_frames": 12,
    "frames_per_setting": 3,
    "short_fraction": 0.25,
    "angle": 45.0,
    "num_digits": 2,
    "clutter": 1,
    "noise": 6.0,
    "learning_rate": 0.001,
    "muon_rate": 0.01,
    "attention_rate": 0.2,
    "weight_decay": 0.02,
    "ema": 0.9,
    "seed": 5,
    "device": "auto",
    "precision": "auto",
    "start_from": None,
}
OLD_DATA = {"digits": "uci", "condition": "rotation+scaling", "labels": "pair", "protocol": "end_to_end"}


def old_checkpoint(path, model, *, arguments, data, config, format=2, name="lenet-lstm"):
    """Write a checkpoint as versions before this did."""
    save(path, model, Header(name))
    training = {"step": 3, "config": config} if config else {}
    described = {"model": name, "arguments": arguments, "data": data, "training": training, "format": format}
    rewrite(path, metadata={"saccade": json.dumps(described | {"versions": checkpoint.versions()})})
    return path


def test_a_header_of_the_second_format_is_read(tmp_path):
    model = models.create("lenet-lstm").eval()
    arguments = {"num_classes": 55, "trunk": "light", "digit_pairs": True}
    path = old_checkpoint(tmp_path / NAME, model, arguments=arguments, data=OLD_DATA, config=OLD_CONFIG)
    loaded, header = load(path)
    assert (header.model, header.arguments) == ("lenet-lstm", {"trunk": "small"})
    assert header.labels == loaded.labels == schemes.create("pair").labels
    assert header.frame_format == FrameFormat()
    assert header.data_config() == DigitsConfig(
        digits="uci",
        condition=("rotation", "scaling"),
        scheme="pair",
        num_digits=2,
        clutter=1,
        noise=6.0,
        num_frames=12,
        frames_per_setting=3,
        short_fraction=0.25,
        short_frames=4,  # the only length before this was an option
        angle=45.0,
    )
    assert header.facts == {"data": "moving digits", **OLD_DATA}
    assert header.training["step"] == 3
    assert TrainConfig(**header.training["config"]) == TrainConfig(
        input="frames",
        steps=30,
        batch_size=4,
        learning_rate=0.001,
        muon_rate=0.01,
        attention_rate=0.2,
        weight_decay=0.02,
        ema=0.9,
        seed=5,
    )
    assert header.training["data"] == header.data_config().identity()
    clips = torch.rand(1, 2, 1, 28, 28)
    assert torch.equal(loaded(clips), model(clips))


@pytest.mark.parametrize("scheme", ["pair", "ordered", "digits"])
@pytest.mark.parametrize("format", [1, 2])
def test_old_labels_are_those_of_the_scheme(tmp_path, scheme, format):
    labels = schemes.create(scheme).labels
    model = models.create("stn-lstm", labels=labels, trunk="wide").eval()
    arguments = {"num_classes": len(labels.names), "digit_pairs": scheme == "pair"}
    arguments |= {} if format == 1 else {"trunk": "wide"}
    data = OLD_DATA | {"labels": scheme, "condition": "elastic"}
    config = OLD_CONFIG | {"labels": scheme, "condition": "elastic"}
    path = tmp_path / NAME
    old_checkpoint(path, model, arguments=arguments, data=data, config=config, format=format, name="stn-lstm")
    loaded, header = load(path)
    assert header.labels == loaded.labels == labels
    assert header.data_config().scheme == scheme
    assert header.data_config().condition == ("elastic",)
    clips = torch.rand(1, 2, 1, 28, 28)
    assert torch.equal(loaded(clips), model(clips))


def test_what_the_first_format_leaves_out_is_what_there_was(tmp_path):
    wide = models.create("dcn-lstm", labels=LABELS, trunk="wide").eval()
    config = {name: value for name, value in OLD_CONFIG.items() if name not in ("trunk", "muon_rate", "ema")}
    given = {"arguments": {"num_classes": 7}, "data": {"digits": "uci"}, "config": config}
    loaded, header = load(old_checkpoint(tmp_path / NAME, wide, **given, format=1, name="dcn-lstm"))
    assert header.arguments == {"trunk": "wide"}
    assert header.labels == LABELS
    asked = TrainConfig(**header.training["config"])
    assert (asked.trunk, asked.muon_rate, asked.ema) == ("wide", 0.0, 0.0)
    clips = torch.rand(1, 2, 1, 28, 28)
    assert torch.equal(loaded(clips), wide(clips))


def test_an_old_model_that_is_only_to_be_used(tmp_path):
    model = models.create("lenet-lstm", labels=LABELS, frame_format=FrameFormat(3))
    arguments = {"num_classes": 7, "channels": 3, "trunk": "light"}
    _, header = load(old_checkpoint(tmp_path / NAME, model, arguments=arguments, data={}, config=None))
    assert (header.labels, header.frame_format) == (LABELS, FrameFormat(3))
    assert (header.facts, header.training) == ({}, {})


@pytest.mark.parametrize("named", ["digits", "data_dir"])
def test_an_old_model_is_read_though_its_digits_are_gone(tmp_path, named):
    gone = str(tmp_path / "gone")
    data, config = OLD_DATA | {"digits": "gone" if named == "digits" else "mnist"}, OLD_CONFIG | {named: gone}
    arguments = {"num_classes": 55, "trunk": "light", "digit_pairs": True}
    model = models.create("lenet-lstm")
    header = read_header(old_checkpoint(tmp_path / NAME, model, arguments=arguments, data=data, config=config))
    asked = header.data_config()
    assert (asked.digits, asked.digits_dir) == ((gone, None) if named == "digits" else ("mnist", tmp_path / "gone"))
    assert header.facts["digits"] == header.training["data"]["digits"] == data["digits"]


@pytest.mark.parametrize("name", models.MATCHED)
def test_the_weights_of_the_package_are_read(name):
    path = weights.find(name)
    assert json.loads(path.with_suffix(".json").read_text())["format"] == 1
    loaded, header = load(path)
    assert header.arguments == {"trunk": "wide"}
    assert header.labels == loaded.labels == schemes.create("digits").labels
    assert loaded.frame_format == FrameFormat()
    asked = header.data_config()
    assert (asked.digits, asked.scheme, asked.condition) == ("mnist+strokes", "digits", ("rotation_scaling",))
    assert (asked.num_digits, asked.clutter, asked.noise, asked.num_frames) == ((1, 5), 4, 25.0, 16)
    with torch.no_grad():
        assert loaded(torch.zeros(1, 2, 1, 64, 64)).shape == (1, 2, 10)


# --- What is refused


def test_a_missing_checkpoint(tmp_path):
    for path in (tmp_path, tmp_path / "none", tmp_path / "none.safetensors"):
        with pytest.raises(
            DataError, match=r"no checkpoint at .*; give a \.safetensors file, the folder of a run, or "
        ):
            load(path)


@pytest.mark.parametrize("share", [0, 1e-6, 1e-5, 1e-3, 0.1, 0.5, 0.9, 0.9999, 0.999999])
def test_a_checkpoint_cut_short(path, share):
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    for call in (load, read_header):
        with pytest.raises(DataError, match="is not a complete safetensors file"):
            call(path)


def test_a_checkpoint_that_goes_on(path):
    path.write_bytes(path.read_bytes() + b"more")
    with pytest.raises(DataError, match="is not a complete safetensors file"):
        load(path)


@pytest.mark.parametrize("content", [b"hello", b"\x00" * 5000, b"\xff" * 5000, b"PK\x03\x04" * 100])
def test_files_of_another_kind(tmp_path, content):
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    with pytest.raises(DataError, match="is not a complete safetensors file"):
        load(path)


def test_no_code_of_a_checkpoint_runs(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "ran"),))

    torch.save({"model": Bomb()}, tmp_path / "a.safetensors")
    (tmp_path / "b.safetensors").write_bytes(pickle.dumps(Bomb()))
    for name in ("a", "b"):
        with pytest.raises(DataError):
            load(tmp_path / f"{name}.safetensors")
    assert not (tmp_path / "ran").exists()


def test_safetensors_of_someone_else(tmp_path):
    for metadata in (None, {"format": "pt"}):
        save_file({"weight": torch.zeros(3)}, tmp_path / NAME, metadata=metadata)
        with pytest.raises(DataError, match="was not written by saccade"):
            load(tmp_path)


@pytest.mark.parametrize("garbage", ["", "{", "[]", "null", "7", '{"model": "lenet-lstm"}', '"text"'])
def test_a_header_that_is_none(path, garbage):
    rewrite(path, metadata={"saccade": garbage})
    with pytest.raises(DataError):
        load(path)


@pytest.mark.parametrize("format", [0, FORMAT + 1, "1", None])
def test_another_format(path, format):
    header_with(path, format=format)
    with pytest.raises(DataError, match=f"has checkpoint format {format}; this version reads formats up to {FORMAT}"):
        load(path)


@pytest.mark.parametrize(
    "changes",
    [
        {"model": "vit-lstm"},
        {"arguments": {"trunck": "wide"}},
        {"arguments": ["trunk"]},
        {"labels": {"names": []}},
        {"labels": {"names": ["a", "a"]}},
        {"labels": 7},
        {"frame_format": {"chanels": 1}},
        {"model": None},
        {"something": "new"},
    ],
)
def test_a_header_of_another_version(path, changes):
    header_with(path, **changes)
    with pytest.raises(DataError):
        load(path)


@pytest.mark.parametrize(
    "changes", [{"model": "dcn-lstm"}, {"model": "stn-lstm"}, {"labels": Labels.numbered(8).as_json()}]
)
def test_weights_of_another_model(path, changes):
    header_with(path, **changes)
    with pytest.raises(DataError, match=r"does not fit: .* should be \(.*\), is "):
        load(path)


def test_weights_for_another_model(path):
    with pytest.raises(DataError, match="holds a lenet-lstm, which does not fit"):
        load_weights(models.create("dcn-lstm"), path)


def test_weights_too_few_and_too_many(path, model):
    content = path.read_bytes()
    rewrite(path, **{"model.head.bias": None})
    with pytest.raises(DataError, match=r"head\.bias should be \(7,\), is nothing"):
        load(path)
    path.write_bytes(content)
    rewrite(path, **{"model.extra": torch.zeros(1)})
    with pytest.raises(DataError, match="extra is not in the model"):
        load(path)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_weights_that_are_not_finite(path, value):
    weight = load_file(path)["model.encoder.trunk.1.0.weight"]
    weight[3, 2, 1, 0] = value
    rewrite(path, **{"model.encoder.trunk.1.0.weight": weight})
    with pytest.raises(DataError, match=r"NaN or infinity in encoder\.trunk\.1\.0\.weight; take an earlier"):
        load(path)


def test_what_is_refused_leaves_the_model_as_it_was(path):
    model = models.create("lenet-lstm", labels=LABELS)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    rewrite(path, **{"model.head.bias": torch.full((7,), torch.nan)})
    with pytest.raises(DataError):
        load_weights(model, path)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_a_file_has_its_own_name_and_a_checkpoint_its_folders(tmp_path):
    for name in ("a/checkpoint.safetensors", "weights/best.safetensors"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    paths = (tmp_path / "a" / "checkpoint.safetensors", tmp_path / "weights" / "best.safetensors")
    assert checkpoint.distinct_names(["stn-lstm", "stn-lstm"], paths) == ["stn-lstm (a)", "stn-lstm (best)"]


def test_a_header_that_does_not_tell_the_length_of_short_clips_had_four_frames(tmp_path):
    described = DigitsConfig(digits="uci").as_json()
    del described["short_frames"], described["jitter"]
    header = Header("lenet-lstm", {}, LABELS, data={"config": described, "facts": {}}, training={"data": described})
    save(tmp_path / NAME, models.create("lenet-lstm", labels=LABELS), header)
    again = read_header(tmp_path)
    assert again.data_config() == DigitsConfig(digits="uci", short_frames=4)
    assert again.training["data"]["short_frames"] == 4
