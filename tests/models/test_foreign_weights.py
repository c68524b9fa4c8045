"""Files of weights as others write them: what comes in, what is told, and what is refused."""

import os
import shutil
import zipfile

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from saccade.errors import DataError
from saccade.models.foreign_weights import Loaded, load
from saccade.models.resnet import ResNet18
from saccade.nn import DeformConv2d


def network(width=4):
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.Conv2d(width, 2, 1))


@pytest.fixture
def learned():
    torch.manual_seed(0)
    return network().state_dict()


WAYS_TO_WRITE = {
    "plain.pth": torch.save,
    "old.pt": lambda weights, path: torch.save(weights, path, _use_new_zipfile_serialization=False),
    "safe.safetensors": save_file,
    "training.ckpt": lambda weights, path: torch.save({"epoch": 3, "state_dict": weights}, path),
    "model.bin": lambda weights, path: torch.save({"model": weights, "optimizer": {}}, path),
    "parallel.pth": lambda weights, path: torch.save({f"module.{n}": w for n, w in weights.items()}, path),
    "both.pth": lambda weights, path: torch.save({"state_dict": {f"module.{n}": w for n, w in weights.items()}}, path),
    "half.pth": lambda weights, path: torch.save(
        {n: w.half() if w.is_floating_point() else w for n, w in weights.items()}, path
    ),
}


@pytest.mark.parametrize("name", WAYS_TO_WRITE)
def test_every_way_to_write_weights_is_read(learned, tmp_path, name):
    WAYS_TO_WRITE[name](learned, tmp_path / name)
    trunk = network()
    assert load(trunk, tmp_path / name) == Loaded(9, (), (), ())
    for own, weight in trunk.state_dict().items():
        assert torch.allclose(weight, learned[own], atol=1e-3), own


def test_what_does_not_fit_is_told_and_the_rest_is_loaded(learned, tmp_path):
    given = {**learned, "fc.weight": torch.ones(2, 2), "0.weight": torch.ones(4, 1, 3, 3)}
    given["2.bias"] = torch.ones(2, dtype=torch.int64)
    del given["1.running_mean"], given["1.num_batches_tracked"]
    torch.save(given, tmp_path / "other.pth")
    trunk = network()
    before = trunk[0].weight.clone()
    found = load(trunk, tmp_path / "other.pth")
    assert found == Loaded(
        5, missing=("1.running_mean",), unexpected=("fc.weight",), wrong_shape=("0.weight", "2.bias")
    )
    assert str(found) == (
        "5 tensors loaded; 1 missing: 1.running_mean; 1 unexpected: fc.weight; 2 of another shape: 0.weight, 2.bias"
    )
    assert torch.equal(trunk[0].weight, before)
    assert torch.equal(trunk[2].weight, learned["2.weight"])


def test_a_plain_networks_weights_are_all_that_a_deformable_one_needs(tmp_path):
    plain, deformable = nn.Sequential(nn.Conv2d(3, 4, 3)), nn.Sequential(DeformConv2d(3, 4, 3))
    torch.save(plain.state_dict(), tmp_path / "plain.pth")
    assert load(deformable, tmp_path / "plain.pth") == Loaded(2, (), (), ())
    frames = torch.rand(2, 3, 8, 9)
    assert torch.allclose(deformable(frames), plain(frames), atol=1e-6)


def test_names_that_would_move_the_cursor_are_shown_as_escapes(learned, tmp_path):
    torch.save({**learned, "\x1b[2Jfc": torch.ones(1)}, tmp_path / "odd.pth")
    assert str(load(network(), tmp_path / "odd.pth")).endswith("1 unexpected: \\x1b[2Jfc")


class Command:
    """Something whose unpickling runs a command of the shell."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.parametrize("is_zip", [True, False])
def test_a_file_that_would_run_a_command_is_refused(learned, tmp_path, is_zip):
    path, trace = tmp_path / "evil.pth", tmp_path / "trace"
    torch.save({**learned, "x": Command(f"touch {trace}")}, path, _use_new_zipfile_serialization=is_zip)
    refused(network(), path, r"evil\.pth is refused: loading it would run (posix|nt)\.system; save its weights alone")
    assert not trace.exists()


def test_a_whole_model_is_refused_with_what_to_do(tmp_path):
    torch.save(network(), tmp_path / "whole.pth")
    refused(
        network(), tmp_path / "whole.pth", r"would run torch\.nn\S*Sequential; .*torch\.save\(model\.state_dict\(\)"
    )


def refused(trunk, path, message):
    """Assert that a file is refused in one line of text that names it, and that the trunk stays as it is."""
    before = {name: weight.clone() for name, weight in trunk.state_dict().items()}
    with pytest.raises(DataError, match=message) as caught:
        load(trunk, path)
    said = str(caught.value)
    assert said.isprintable()
    assert path.name in said
    assert len(said) < 400 + len(str(path))
    for name, weight in trunk.state_dict().items():
        assert torch.equal(weight, before[name])


def test_files_that_hold_no_such_weights_are_refused(learned, tmp_path):
    files = {
        "list.pth": ([1, 2], "holds a list without weights"),
        "empty.pth": ({}, "holds a dict without weights"),
        "numbers.pth": ({3: torch.ones(2)}, "holds a dict without weights"),
        "sparse.pth": ({"0.weight": torch.eye(3).to_sparse()}, "holds a dict without weights"),
        "other.pth": (
            {"layer.weight": torch.ones(2, 2)},
            r"no weights of Sequential: it has layer.weight; 0.weight of",
        ),
        "counters.pth": ({"1.num_batches_tracked": torch.tensor(3)}, "no weights of Sequential"),
        "not finite.pth": (learned | {"0.bias": torch.tensor([1.0, torch.nan, 0, 0])}, "NaN or infinity in 0.bias"),
    }
    for name, (held, message) in files.items():
        torch.save(held, tmp_path / name)
        refused(network(), tmp_path / name, message)


def test_damaged_files_are_refused(learned, tmp_path):
    for name, cut in (("a.pth", 0.5), ("b.pt", 0.9), ("c.safetensors", 0.5), ("old.pt", 0.5), ("d.pth", 0.0)):
        WAYS_TO_WRITE.get(name, save_file if name.endswith("safetensors") else torch.save)(learned, tmp_path / name)
        whole = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(whole[: int(cut * len(whole))])
        refused(network(), tmp_path / name, "is not a file of weights, or is damaged")
    (tmp_path / "text.pth").write_text("These are no weights,\nbut a text.")
    refused(network(), tmp_path / "text.pth", "is not a file of weights, or is damaged")
    torch.save(learned, tmp_path / "protocol.pth", pickle_protocol=4)
    refused(network(), tmp_path / "protocol.pth", "or is damaged; give one that torch.save or safetensors wrote$")
    for junk in (b"junk", b"(lp0", b"0", bytes(range(256))):
        (tmp_path / "junk.pth").write_bytes(junk)
        refused(network(), tmp_path / "junk.pth", "or is damaged; give one that torch.save or safetensors wrote$")


def test_files_that_cannot_be_opened_are_told(tmp_path):
    refused(network(), tmp_path / "none.pth", "none.pth cannot be opened: No such file")
    refused(network(), tmp_path, "cannot be opened: Is a directory")


def test_a_compressed_file_is_refused_before_it_is_unpacked(learned, tmp_path):
    torch.save(learned, tmp_path / "plain.pth")
    with (
        zipfile.ZipFile(tmp_path / "plain.pth") as plain,
        zipfile.ZipFile(tmp_path / "packed.pth", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for part in plain.infolist():
            packed.writestr(part.filename, plain.read(part))
    refused(network(), tmp_path / "packed.pth", "is compressed, as torch.save never does")


def test_sizes_that_a_file_only_claims_take_no_memory(tmp_path):
    # One number that is shown as a billion.
    torch.save({"0.weight": torch.ones(1).expand(1000, 1000, 1000), "0.bias": torch.ones(4)}, tmp_path / "wide.pth")
    assert (tmp_path / "wide.pth").stat().st_size < 10_000
    found = load(network(), tmp_path / "wide.pth")
    assert found.num == 1
    assert "0.weight" in found.missing


@pytest.mark.parametrize("name", ["plain.pth", "safe.safetensors"])
def test_weights_are_mapped_and_not_read_into_memory(learned, tmp_path, name):
    class Watching(nn.Sequential):
        def fitted(self, weights):
            mapped.extend(not weight.untyped_storage().resizable() for weight in weights.values())
            return dict(weights)

    mapped = []
    WAYS_TO_WRITE[name](learned, tmp_path / name)
    load(Watching(*network()), tmp_path / name)
    assert mapped == [True] * 9


def test_a_trunk_says_what_it_needs_of_a_whole_network(tmp_path):
    whole = {**ResNet18().state_dict(), "fc.weight": torch.ones(1000, 512), "fc.bias": torch.ones(1000)}
    torch.save(whole, tmp_path / "resnet18.pth")
    shutil.copy(tmp_path / "resnet18.pth", tmp_path / "again.pth")
    grey = ResNet18(channels=1, deformable=True)
    assert load(grey, tmp_path / "again.pth") == Loaded(120, (), (), ())
    assert torch.allclose(grey.conv1.weight, whole["conv1.weight"].sum(1, keepdim=True))
