"""onnxruntime and ONNX's reference evaluator, on exported files, against the definition in float64.

Each file is exported once, with dynamic batch, height and width, and then runs on several.
"""

import functools
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx.reference import ReferenceEvaluator
from torch import nn
from torch.export import Dim

from saccade.nn import DeformConv2d
from saccade.ops import deform_conv2d
from saccade.ops.deform_conv.onnx import translation_table

# Torch 2.13 on itself, when its exporter copies a program.
pytestmark = pytest.mark.filterwarnings(r"ignore:`isinstance\(treespec, LeafSpec\)` is deprecated:FutureWarning")

USES = "DeformConv", "GridSample"
CASES = {
    "plain": {"channels": (2, 3), "kernel": (3, 3), "padding": 1, "mask": False},
    "everything": {"channels": (6, 4), "kernel": (2, 3), "groups": 2, "offset_groups": 3}
    | {"stride": (2, 1), "padding": (1, 2), "dilation": (1, 2)},
    "depthwise": {
        "channels": (4, 4),
        "kernel": (3, 1),
        "groups": 4,
        "offset_groups": 2,
        "stride": (3, 2),
        "bias": False,
    },
}
# Of the largest magnitude. Both judges round absolute positions to float32, which moves samples by size * 2**-24
# pixels, GridSample by some times that; on white noise of 30 pixels that made at most 3e-6.
TOLERANCE = 2e-5


class Call(nn.Module):
    """The operator with a weight and bias of its own; offset and mask are inputs."""

    def __init__(self, channels, kernel, groups=1, offset_groups=1, bias=True, mask=True, **settings):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randn(channels[1], channels[0] // groups, *kernel, generator=generator))
        self.bias = nn.Parameter(torch.randn(channels[1], generator=generator)) if bias else None
        self.channels, self.num_taps, self.settings = channels[0], offset_groups * kernel[0] * kernel[1], settings
        self.has_mask = mask

    def inputs(self, batch, size, std_px=2.0):
        generator = torch.Generator().manual_seed(batch)
        image = torch.randn(batch, self.channels, *size, generator=generator)
        out_size = nn.functional.conv2d(image[:, :1], self.weight[:1, :1], **self.settings).shape[2:]
        offset = torch.randn(batch, 2 * self.num_taps, *out_size, generator=generator) * std_px
        given = {"input": image, "offset": offset}
        if self.has_mask:
            given["mask"] = torch.rand(batch, self.num_taps, *out_size, generator=generator)
        return given

    def forward(self, input, offset, mask=None):
        return deform_conv2d(input, offset, self.weight, self.bias, mask=mask, **self.settings)

    @torch.no_grad()
    def define(self, given):
        """Return what the definition makes of it in float64."""
        bias = None if self.bias is None else self.bias.double()
        given = {name: tensor.double() for name, tensor in given.items()}
        return deform_conv2d(**given, weight=self.weight.double(), bias=bias, **self.settings, backend="reference")


class Layers(nn.Module):
    """Both versions of the layer, the second with a limit, one after the other."""

    def __init__(self):
        super().__init__()
        self.first = DeformConv2d(3, 4, 3, padding=1)
        settings = {"stride": 2, "padding": 1, "groups": 2, "offset_groups": 2}
        self.second = DeformConv2d(4, 2, (3, 2), **settings, modulated=True, max_offset_px=1.5, bias=False)

    def forward(self, images):
        return self.second(self.first(images).relu())


class Dtypes(nn.Module):
    """The operator in each mixture of dtypes: of input, weight and bias, and of offset and mask."""

    def __init__(self, pairs):
        super().__init__()
        self.call, self.pairs = Call(**CASES["everything"]), pairs

    def forward(self, input, offset, mask):
        outputs = []
        for dtype, positions in self.pairs:
            weight, bias = self.call.weight.to(dtype), self.call.bias.to(dtype)
            output = deform_conv2d(
                input.to(dtype), offset.to(positions), weight, bias, mask=mask.to(positions), **self.call.settings
            )
            assert output.dtype == dtype
            outputs.append(output.double())  # numpy has no bfloat16
        return outputs


@functools.cache
def layers():
    torch.manual_seed(0)
    model = Layers().eval()
    for layer in (model.first, model.second):
        nn.init.normal_(layer.positions.weight, std=0.2)
    return model


def export(model, given, use, dynamic=True, **settings):
    """Return the file's content; batch, height and width of all inputs are dynamic, or none."""
    settings["custom_translation_table"] = translation_table(use)
    if dynamic:
        settings["dynamic_shapes"] = {name: {0: Dim.DYNAMIC, 2: Dim.DYNAMIC, 3: Dim.DYNAMIC} for name in given}
    program = torch.onnx.export(model, kwargs=given, dynamo=True, verbose=False, **settings)
    onnx.checker.check_model(program.model_proto, full_check=True)
    return program.model_proto


@functools.cache
def exported(use, case):
    call = Call(**CASES[case]).eval()
    return call, export(call, call.inputs(3, (11, 13)), use)


def run(judge, model, given):
    feed = {name: tensor.numpy() for name, tensor in given.items()}
    if judge == "evaluator":
        outputs = ReferenceEvaluator(model).run(None, feed)
    else:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        outputs = session.run(None, feed)
    return [torch.from_numpy(np.asarray(output)) for output in outputs]


def assert_close(found, expected, tolerance=TOLERANCE):
    assert found.shape == expected.shape
    error = (found.double() - expected.double()).abs().max().item()
    assert error <= tolerance * expected.abs().max().item()


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("use", USES)
def test_judges_give_the_definition_for_other_batches_and_sizes(use, case):
    call, model = exported(use, case)
    for batch, size in ((1, (5, 5)), (2, (6, 7))):
        given = call.inputs(batch, size)
        for judge in ("onnxruntime", "evaluator"):
            assert_close(run(judge, model, given)[0], call.define(given))
    given = call.inputs(3, (31, 24), std_px=6.0)
    assert_close(run("onnxruntime", model, given)[0], call.define(given))
    given = call.inputs(0, (9, 8))
    assert run("onnxruntime", model, given)[0].shape == call.define(given).shape


@pytest.mark.parametrize("use", USES)
def test_positions_are_rounded_to_float32(use):
    call, model = exported(use, "plain")
    given = call.inputs(1, (300, 400))
    assert_close(run("onnxruntime", model, given)[0], call.define(given), 1e-4)


@pytest.mark.parametrize("size", [(4, 5), (1, 4), (3, 1), (1, 1)])
@pytest.mark.parametrize("use", USES)
def test_whole_pixels_borders_and_what_is_not_finite(use, size):
    call, model = exported(use, "plain")
    nan, inf = float("nan"), float("inf")
    for values in ([-2.0, -1.0, 0.0, 1.0, 2.0, 3.0, -0.5, 0.5], [1e9, -1e9, 3e38, 2.0**24], [nan, inf, -inf, 0.25]):
        given = call.inputs(2, size)
        offset = given["offset"].flatten()
        picked = torch.randint(len(values), offset.shape, generator=torch.Generator().manual_seed(1))
        given["offset"] = torch.tensor(values)[picked].view_as(given["offset"])
        expected = call.define(given)
        assert_close(run("onnxruntime", model, given)[0], expected)
        # ONNX's evaluator of DeformConv divides by height - 1 and width - 1, and makes an int of every position.
        if use == "GridSample" or (1 not in size and nan not in values):
            assert_close(run("evaluator", model, given)[0], expected)


@pytest.mark.parametrize("use", USES)
def test_mixed_dtypes(use):
    half, bfloat, single, double = torch.float16, torch.bfloat16, torch.float32, torch.float64
    pairs = [(half, single), (bfloat, single), (half, half), (single, half)]
    if use == "DeformConv":  # onnxruntime has no Conv in float64 on a CPU, which GridSample needs
        pairs += [(double, double), (double, single)]
    model = Dtypes(pairs).eval()
    given = model.call.inputs(2, (5, 7))
    proto = export(model, given, use, dynamic=False)
    with torch.no_grad():
        expected = model(**given)
    for judge in ("onnxruntime", "evaluator"):
        for (dtype, _), found, output in zip(pairs, run(judge, proto, given), expected, strict=True):
            # The evaluator rounds positions to float32 in any case. A 16-bit result may be rounded the other way.
            exact = judge == "onnxruntime" and dtype == double
            assert_close(found, output, 1e-12 if exact else max(TOLERANCE, torch.finfo(dtype).eps))


@pytest.mark.parametrize(("use", "opset"), [("DeformConv", 19), ("GridSample", 18)])
def test_layers(use, opset):
    proto = export(layers(), {"images": torch.rand(2, 3, 17, 18)}, use, opset_version=opset)
    assert [domain.version for domain in proto.opset_import] == [opset]
    for batch, size in ((1, (5, 6)), (3, (31, 24))):
        images = torch.rand(batch, 3, *size, generator=torch.Generator().manual_seed(batch))
        with torch.no_grad():
            expected = layers()(images)
        assert_close(run("onnxruntime", proto, {"images": images})[0], expected)


def test_layers_as_a_program_of_torch():
    dims = {0: Dim("batch", min=1), 2: Dim("height", min=5), 3: Dim("width", min=5)}
    program = torch.export.export(layers(), (torch.rand(2, 3, 17, 18),), dynamic_shapes=(dims,))
    called = [node.target for node in program.graph.nodes if node.op == "call_function"]
    assert called.count(torch.ops.saccade.deform_conv2d.default) == 2
    images = torch.rand(1, 3, 5, 31)
    assert torch.equal(program.module()(images), layers()(images))


def test_deform_conv_is_one_node():
    _, model = exported("DeformConv", "everything")
    (node,) = model.graph.node
    assert {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute} == {
        "dilations": [1, 2],
        "group": 2,
        "kernel_shape": [2, 3],
        "offset_group": 3,
        "pads": [1, 2, 1, 2],
        "strides": [2, 1],
    }
    assert node.op_type == "DeformConv"
    _, model = exported("GridSample", "everything")
    kinds = [node.op_type for node in model.graph.node]
    assert (kinds.count("DeformConv"), kinds.count("GridSample"), kinds.count("Conv")) == (0, 1, 1)


def test_the_opset_is_too_old_for_deform_conv():
    call = Call(**CASES["plain"]).eval()
    with pytest.raises(torch.onnx.OnnxExporterError, match=r"the opset is 18, .*use=\"GridSample\""):
        export(call, call.inputs(3, (11, 13)), "DeformConv", dynamic=False, opset_version=18)


@pytest.mark.parametrize("use", USES)
def test_channels_and_kernel_are_fixed(use):
    (translate,) = translation_table(use).values()
    image, offset, weight = (SimpleNamespace(shape=s) for s in ((2, "channels", 6, 6), (2, 2, 6, 6), (3, 4, 1, 1)))
    with pytest.raises(ValueError, match="the channels and the kernel must have fixed sizes"):
        translate(image, offset, weight, None, None, [1, 1], [0, 0], [1, 1], "auto")


def test_another_name():
    with pytest.raises(ValueError, match="use is 'deform_conv'; known: DeformConv, GridSample"):
        translation_table("deform_conv")


def test_saccade_does_not_import_onnx():
    code = (
        "import sys, saccade.ops.deform_conv.onnx; sys.exit(bool({'onnx', 'onnxscript', 'onnx_ir'} & {*sys.modules}))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
