"""Batch normalisation folded into convolutions, for models that do not learn."""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from saccade.nn.deform_conv import DeformConv2d

Model = TypeVar("Model", bound=nn.Module)


def folded(model: Model) -> Model:
    """Return a copy of a model without batch normalisation, which computes the same up to rounding, in less time.

    Normalisation after max pooling is folded where its factors are positive, since the largest value is then the same
    one. The copy does not learn.

    Args:
        model: a model whose normalisation layers follow their convolutions in the order of children.

    >>> conv, norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
    >>> layers = nn.Sequential(conv, norm).eval()
    >>> frames = torch.rand(1, 3, 8, 8)
    >>> torch.allclose(folded(layers)(frames), layers(frames), atol=1e-5)
    True
    """
    found = copy.deepcopy(model).eval().requires_grad_(False)
    for module in list(found.modules()):
        convolution: nn.Conv2d | DeformConv2d | None = None
        pooled = False
        for name, layer in list(module.named_children()):
            if isinstance(layer, (nn.Conv2d, DeformConv2d)):
                convolution, pooled = layer, False
            elif isinstance(layer, nn.MaxPool2d):
                pooled = True
            elif isinstance(layer, nn.BatchNorm2d) and convolution is not None:
                if not pooled or bool((layer.weight > 0).all()):
                    _fold(convolution, layer)
                    setattr(module, name, nn.Identity())
                convolution = None
            elif not isinstance(layer, nn.Identity):
                convolution = None
    return found.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def _fold(convolution: nn.Conv2d | DeformConv2d, norm: nn.BatchNorm2d) -> None:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    convolution.weight, convolution.bias = fuse_conv_bn_weights(
        convolution.weight,
        convolution.bias,
        norm.running_mean,
        norm.running_var,
        norm.eps,
        norm.weight,
        norm.bias,
    )
    convolution.requires_grad_(False)
