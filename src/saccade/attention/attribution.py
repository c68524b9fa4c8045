"""Gradients of a model's verdict and of its units, with respect to pixels and to sampled values."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from saccade.attention.forward import Seen
from saccade.attention.route import Deformable
from saccade.attention.trace import normalised
from saccade.labels import Labels
from saccade.nn import OffsetResample2d


def verdict_gradients(
    logits: Float[Tensor, "batch time classes"], seen: Seen, labels: Labels
) -> tuple[Float[Tensor, "batch time channels height width"], dict[int, Tensor]]:
    """Return the verdict scores' gradients with respect to the pixels and to the output of each stage with offsets.

    Parameters get no gradients. The function also works where the caller has disabled gradients.

    Args:
        logits: the model's logits, with their graph.
        seen: the record of the forward pass through the model's encoder.
        labels: the model's classes, whose `score` is differentiated. A clip's verdict is that of its last frame.
    """
    stages = seen.said.route.deformable
    with torch.inference_mode(False), torch.enable_grad():
        score = labels.score(logits[:, -1]).sum()
        of_pixels, *of_outputs = torch.autograd.grad(score, [seen.pixels, *(seen.outputs[at] for at in stages)])
    return of_pixels, dict(zip(stages, of_outputs, strict=True))


def saliency_of(gradient: Float[Tensor, "*frames channels height width"]) -> Float[Tensor, "*frames height width"]:
    """Convert gradients with respect to pixels to maps that sum to 1 in each frame; a zero gradient gives a zero map.

    Source: Simonyan, Vedaldi and Zisserman, "Deep Inside Convolutional Networks", 2013.
    """
    return normalised(gradient.abs().sum(-3), (-2, -1))


def tap_weight(
    layer: Deformable,
    said: Float[Tensor, "frames channels height width"],
    gradient: Float[Tensor, "frames channels_out height width"],
) -> Float[Tensor, "frames taps height width"]:
    """Return how much a score depends on the values that each tap samples at each output position.

    This is the absolute gradient with respect to the sampled values, summed over the channels that the tap samples.

    Args:
        layer: the layer.
        said: the output of the layer's `positions`.
        gradient: the gradient of the score with respect to the layer's output.
    """
    if isinstance(layer, OffsetResample2d):
        return gradient.abs()
    assert isinstance(layer.positions, nn.Conv2d)
    channels_out, per_group, *kernel = layer.weight.shape
    taps, groups = kernel[0] * kernel[1], layer.positions.in_channels // per_group
    weight = layer.weight.detach().reshape(groups, channels_out // groups, per_group * taps)
    by_group = gradient.flatten(2).unflatten(1, (groups, -1))
    sampled = torch.einsum("gok,fgop->fgkp", weight, by_group).abs()
    # Input channels are in order across the kernel's groups, so offset groups split them without a permutation.
    offset_groups = layer.num_offset_channels // (2 * taps)
    found = sampled.reshape(len(gradient), offset_groups, -1, taps, *gradient.shape[2:]).sum(2).flatten(1, 2)
    logits = said[:, layer.num_offset_channels :]
    return found * (2 * logits.sigmoid()) if logits.shape[1] else found
