"""Write torchvision's results for small deformable convolutions to tests/golden/deform_conv2d.safetensors.

The tests compare with this file, so that they do not need torchvision. To write it again, use a separate environment,
since torchvision's wheels need their own version of torch (7 GB with its CUDA libraries; works without a GPU):

    make .venv-bench/.has-peers
    .venv-bench/bin/python benchmarks/make_golden.py
"""

import json
from pathlib import Path

import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor

OUT = Path(__file__).parents[1] / "tests" / "golden" / "deform_conv2d.safetensors"

# name: (batch, channels in, height, width), (channels out, kernel height, kernel width), groups, offset groups,
# arguments of the convolution, kind of offsets.
CASES = {
    "plain": ((2, 3, 7, 9), (4, 3, 3), 1, 1, {"padding": 1}, "normal"),
    "one_by_one": ((1, 4, 5, 5), (3, 1, 1), 1, 1, {}, "normal"),
    "five_by_five": ((1, 2, 8, 8), (3, 5, 5), 1, 1, {"padding": 2, "bias": True}, "normal"),
    "bias_and_mask": ((2, 3, 6, 5), (4, 3, 3), 1, 1, {"padding": 1, "bias": True, "mask": True}, "normal"),
    "stride": ((2, 3, 9, 8), (4, 3, 3), 1, 1, {"stride": (2, 1), "padding": (0, 1), "bias": True}, "normal"),
    "dilation": ((1, 3, 11, 9), (2, 3, 2), 1, 1, {"padding": 2, "dilation": (2, 3), "mask": True}, "normal"),
    "groups": ((2, 6, 5, 7), (4, 3, 3), 2, 1, {"padding": 1}, "normal"),
    "depthwise": ((1, 4, 6, 6), (8, 3, 3), 4, 1, {"padding": 1, "mask": True}, "normal"),
    "offset_groups": ((2, 6, 5, 5), (3, 3, 3), 1, 3, {"padding": 1, "mask": True}, "normal"),
    "both_groups": ((1, 12, 6, 5), (6, 3, 2), 2, 3, {"stride": 2, "padding": 1, "bias": True, "mask": True}, "normal"),
    "no_padding": ((1, 3, 6, 7), (2, 3, 3), 1, 1, {}, "normal"),
    "integer": ((1, 3, 6, 6), (2, 3, 3), 1, 1, {"padding": 1, "mask": True}, "integer"),
    "zero": ((1, 3, 5, 6), (2, 3, 3), 1, 1, {"padding": 1}, "zero"),
    "border": ((1, 3, 5, 5), (2, 3, 3), 1, 1, {"padding": 1, "mask": True}, "border"),
    "outside": ((1, 2, 4, 4), (2, 3, 3), 1, 1, {"padding": 1, "bias": True}, "outside"),
}


def offsets(kind: str, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Draw offsets: zero, normal, whole pixels, half pixels around the border, or mostly outside."""
    normal = torch.randn(shape, generator=generator)
    return {
        "zero": normal * 0,
        "normal": normal * 1.5,
        "integer": (normal * 2).round(),
        "border": (normal * 6).round() / 2,
        "outside": normal * 20,
    }[kind]


def case(name: str, generator: torch.Generator) -> tuple[dict[str, Tensor], dict[str, object]]:
    """Return the tensors of a case (float32 inputs, and results computed in float64), and its arguments."""
    image, (channels_out, *kernel), groups, offset_groups, given, kind = CASES[name]
    given = dict(given)
    draw = {"bias": given.pop("bias", False), "mask": given.pop("mask", False)}
    inputs = {
        "input": torch.randn(image, generator=generator),
        "weight": torch.randn(channels_out, image[1] // groups, *kernel, generator=generator),
    }
    plain = torch.nn.functional.conv2d(inputs["input"], inputs["weight"], groups=groups, **given)
    taps = offset_groups * kernel[0] * kernel[1]
    inputs["offset"] = offsets(kind, (image[0], 2 * taps, *plain.shape[2:]), generator)
    if draw["bias"]:
        inputs["bias"] = torch.randn(channels_out, generator=generator)
    if draw["mask"]:
        inputs["mask"] = torch.rand(image[0], taps, *plain.shape[2:], generator=generator)
    leaves = {key: value.double().requires_grad_() for key, value in inputs.items()}
    output = torchvision.ops.deform_conv2d(**leaves, **given)
    grad = torch.randn(output.shape, generator=generator)
    gradients = torch.autograd.grad(output, list(leaves.values()), grad.double())
    results = {f"grad_{key}": gradient.float() for key, gradient in zip(leaves, gradients, strict=True)}
    return {**inputs, "grad": grad, "output": output.detach().float(), **results}, given


def main() -> None:
    generator = torch.Generator().manual_seed(0)
    tensors, arguments = {}, {}
    for name in CASES:
        found, arguments[name] = case(name, generator)
        tensors.update({f"{name}/{key}": value.contiguous() for key, value in found.items()})
    metadata = {"torch": torch.__version__, "torchvision": torchvision.__version__, "arguments": json.dumps(arguments)}
    OUT.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, OUT, metadata)
    print(f"{OUT}: {len(CASES)} cases, {OUT.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
