"""The trunk beside torchvision's, as recorded in a file, and by its properties."""

import json
import runpy
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import nn

from saccade.attention import sampling_points
from saccade.models import foreign_weights
from saccade.models.resnet import ResNet18
from saccade.nn import DeformConv2d, attention_layers, num_attention_parameters

GOLDEN = Path(__file__).parents[1] / "golden"
SCRIPT = runpy.run_path(str(GOLDEN / "make_trunks.py"))


@pytest.fixture(scope="module")
def golden():
    """Read the shapes of all weights, and the maps by name."""
    with safe_open(GOLDEN / "trunks.safetensors", framework="pt") as file:
        shapes = json.loads(file.metadata()["shapes"])["resnet18"]
        maps = {name: file.get_tensor(name) for name in file.keys() if name.startswith("resnet18")}  # noqa: SIM118
    return shapes, maps


@pytest.fixture(scope="module")
def file(golden, tmp_path_factory):
    """Write drawn weights of torchvision's names and shapes, classifier included, as torch does."""
    path = tmp_path_factory.mktemp("weights") / "resnet18.pth"
    torch.save(SCRIPT["drawn"](golden[0]), path)
    return path


def from_file(file, **arguments):
    trunk = ResNet18(**arguments).eval()
    loaded = foreign_weights.load(trunk, file)
    assert (loaded.missing, loaded.unexpected, loaded.wrong_shape) == ((), (), ())
    return trunk


def frames(size=(64, 96)):
    return SCRIPT["frames"](size)


def test_names_and_shapes_are_torchvisions(golden):
    own = {name: list(weight.shape) for name, weight in ResNet18().state_dict().items()}
    assert own == {name: shape for name, shape in golden[0].items() if not name.startswith("fc.")}


@pytest.mark.parametrize("deformable", [False, True])
@pytest.mark.parametrize("kind", ["even", "odd"])
def test_torchvision_gave_the_same(golden, file, kind, deformable):
    trunk = from_file(file, deformable=deformable)
    with torch.no_grad():
        found = trunk(frames(SCRIPT["SIZES"][kind]))
    assert found.shape[1] == trunk.out_channels
    torch.testing.assert_close(SCRIPT["few"](found), golden[1][f"resnet18/32/{kind}"], rtol=1e-4, atol=1e-2)


def test_only_the_last_stage_deforms_and_its_offsets_learn(file):
    trunk = from_file(file, deformable=True)
    assert list(attention_layers(trunk)) == [f"layer4.{block}.conv{at}" for block in (0, 1) for at in (1, 2)]
    assert num_attention_parameters(trunk) == sum(w.numel() for w in trunk.parameters()) - sum(
        w.numel() for w in ResNet18().parameters()
    )
    trunk(frames()).square().mean().backward()
    for name, weight in trunk.named_parameters():
        assert weight.grad.isfinite().all(), name
        assert weight.grad.any(), name


def test_a_grey_frame_gives_what_it_gives_in_three_equal_colours(file):
    grey = frames()[:, :1]
    coloured = from_file(file)(grey.expand(-1, 3, -1, -1))
    torch.testing.assert_close(from_file(file, channels=1)(grey), coloured, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("deformable", [False, True])
def test_each_layer_is_on_the_way_once_but_those_of_shortcuts(deformable):
    trunk, given = ResNet18(deformable=deformable).eval(), {}
    path = trunk.path()
    assert len(set(path)) == len(path)
    parts = (nn.Conv2d, DeformConv2d, nn.BatchNorm2d, nn.ReLU, nn.MaxPool2d)
    named = {name: layer for name, layer in trunk.named_modules() if isinstance(layer, parts)}
    beside = {name for name in named if "downsample" in name or "positions" in name}
    assert set(path) == {layer for name, layer in named.items() if name not in beside}
    path[-1].register_forward_hook(lambda _layer, _inputs, output: given.update(last=output))
    assert trunk(torch.rand(1, 3, 40, 50)) is given["last"]


def test_sampling_points_lie_around_the_unit():
    trunk = ResNet18(deformable=True)
    points = sampling_points(trunk, torch.rand(3, 256, 256), (4, 3))
    # Stride 32 without an offset: padding is the same on all sides.
    assert torch.allclose(points.mean(0), torch.tensor([4 * 32.0, 3 * 32.0]), atol=1e-3)


def test_a_batch_of_two_is_two_batches_of_one(file):
    trunk = from_file(file, deformable=True)
    found = trunk(frames())
    torch.testing.assert_close(found, torch.cat([trunk(frame) for frame in frames().split(1)]), rtol=1e-4, atol=1e-3)
