"""Gradients of a model's verdict and of its units, with respect to pixels and to sampled values."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from saccade.attention.forward import Seen
from saccade.attention.geometry import Grid, Size
from saccade.attention.route import Deformable
from saccade.attention.trace import normalised
from saccade.labels import Labels
from saccade.nn import OffsetResample2d


def verdict_gradients(
    logits: Float[Tensor, "batch time classes"], seen: Seen, labels: Labels, wanted: Tensor
) -> tuple[Tensor, dict[int, Tensor]]:
    """Return the verdict scores' gradients with respect to a tensor and to the output of each stage with offsets.

    Of a stage in a trunk that reads further pictures of each frame, they are those of the frames themselves.

    Parameters get no gradients. The function also works where the caller has disabled gradients.

    Args:
        logits: the model's logits, with their graph.
        seen: the record of the forward pass through the model's encoder.
        labels: the model's classes, whose `score` is differentiated. A clip's verdict is that of its last frame.
        wanted: the tensor of the record, such as its pixels.
    """
    stages = seen.said.route.deformable
    with torch.inference_mode(False), torch.enable_grad():
        score = labels.score(logits[:, -1]).sum()
        found, *of_outputs = torch.autograd.grad(score, [wanted, *(seen.outputs[at] for at in stages)])
    num_frames = math.prod(seen.pixels.shape[:-3])
    return found, {at: gradient[:num_frames] for at, gradient in zip(stages, of_outputs, strict=True)}


def saliency_of(gradient: Float[Tensor, "*frames channels height width"]) -> Float[Tensor, "*frames height width"]:
    """Convert gradients with respect to pixels to maps that sum to 1 in each frame; a zero gradient gives a zero map.

    Source: Simonyan, Vedaldi and Zisserman, "Deep Inside Convolutional Networks", 2013.
    """
    return normalised(gradient.abs().sum(-3), (-2, -1))


def map_saliency(
    maps: Float[Tensor, "frames channels y x"], gradient: Float[Tensor, "frames channels y x"], grid: Grid, size: Size
) -> Float[Tensor, "frames height width"]:
    """Return what places of a feature map add to a score, as maps of pixels that sum to 1 in each frame.

    A place adds the product of its values and their gradients, summed over channels. Places that subtract count as
    zero. If the score is a linear function of the map, the products add up to it; gradients of pixels say less, since
    those of a deep trunk differ from pixel to pixel.

    Args:
        maps: the feature maps.
        gradient: the gradient of the score with respect to them.
        grid: the positions of the map in the frame.
        size: height and width of the frame.

    Source: Draelos and Carin, "Use HiResCAM instead of Grad-CAM for faithful explanations", 2020, arXiv 2011.08891.
    """
    added = (maps.detach() * gradient).sum(1, keepdim=True).clamp(min=0)
    axes = zip(size, added.shape[-2:], grid.start_px, grid.step_px, strict=True)
    y, x = (((torch.arange(edge) - start) / step + 0.5) * 2 / num - 1 for edge, num, start, step in axes)
    places = torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], -1).to(added).expand(len(added), -1, -1, -1)
    shown = F.grid_sample(added, places, padding_mode="border", align_corners=False)
    return normalised(shown.squeeze(1), (-2, -1))


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
