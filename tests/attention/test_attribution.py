"""Gradients beside Captum's, and weights of taps beside gradients of unfolded convolutions."""

import pytest
import torch
from captum.attr import Saliency
from torch.nn import functional as F

from saccade.attention import look
from saccade.attention.attribution import tap_weight
from saccade.labels import Labels
from saccade.nn import DeformConv2d, OffsetResample2d

from .stand_ins import MATCHED, random_frames, wandering


@pytest.mark.parametrize("name", MATCHED)
def test_saliency_is_captums(name):
    model, frames = wandering(name), random_frames(3)
    found, _ = look(model, frames, saliency=True)
    pixels = (frames.float() / 255).unsqueeze(0).requires_grad_()
    verdict = int(found.logits[-1].argmax())
    expected = Saliency(lambda clips: model(clips)[:, -1]).attribute(pixels, target=verdict)[0].sum(1)
    assert torch.allclose(found.saliency, expected / expected.sum((1, 2), keepdim=True), atol=1e-6)


@pytest.mark.parametrize("exclusive", [True, False])
def test_saliency_of_ten_classes_is_captums_of_what_they_say(exclusive):
    labels = Labels(tuple("abcdefghij"), exclusive=exclusive)
    model, frames = wandering("lenet-lstm", labels=labels), random_frames(3)
    model.head.bias.data = torch.tensor([1.0, -1] * 5)
    found, _ = look(model, frames, saliency=True)
    last = found.logits[-1]
    assert 1 < (last > 0).sum() < 10
    said = torch.arange(10) == last.argmax() if exclusive else last > 0
    pixels = (frames.float() / 255).unsqueeze(0).requires_grad_()
    expected = Saliency(lambda clips: model(clips)[:, -1, said].sum(-1)).attribute(pixels)[0].sum(1)
    assert torch.allclose(found.saliency, expected / expected.sum((1, 2), keepdim=True), atol=1e-6)


@pytest.mark.parametrize(("groups", "offset_groups"), [(1, 1), (2, 1), (1, 2), (2, 4)])
@pytest.mark.parametrize("modulated", [False, True])
def test_what_hangs_on_each_tap(groups, offset_groups, modulated):
    torch.manual_seed(0)
    layer = DeformConv2d(
        4, 6, (3, 2), padding=1, stride=2, groups=groups, offset_groups=offset_groups, modulated=modulated, bias=False
    )
    map = torch.randn(2, 4, 7, 9)
    said = layer.positions(map)
    if modulated:
        said = torch.cat(
            (said[:, : layer.num_offset_channels], torch.randn_like(said)[:, layer.num_offset_channels :]), 1
        )
    # The same convolution as a product with unfolded samples, whose gradient autograd gives.
    size = said.shape[2:]
    samples = F.unfold(map, (3, 2), padding=1, stride=2).view(2, 4, 6, *size).requires_grad_()
    factor = torch.ones(2, 4, 6, *size)
    if modulated:
        logits = said[:, layer.num_offset_channels :].view(2, offset_groups, 1, 6, *size)
        factor = (2 * logits.sigmoid()).expand(-1, -1, 4 // offset_groups, -1, -1, -1).reshape(2, 4, 6, *size)
    by_group = (samples * factor).view(2, groups, 4 // groups, 6, *size)
    weight = layer.weight.view(groups, 6 // groups, 4 // groups, 6)
    out = torch.einsum("bgcthw,goct->bgohw", by_group, weight).flatten(1, 2)
    if not modulated:
        assert torch.allclose(out, layer(map), atol=1e-5)
    gradient = torch.randn_like(out)
    expected = torch.autograd.grad(out, samples, gradient)[0].abs()
    expected = expected.view(2, offset_groups, -1, 6, *size).sum(2).flatten(1, 2)
    assert torch.allclose(tap_weight(layer, said.detach(), gradient), expected, atol=1e-5)


def test_what_hangs_on_each_channel():
    gradient = torch.randn(2, 3, 5, 5)
    said = torch.zeros(2, 6, 5, 5)
    assert torch.equal(tap_weight(OffsetResample2d(3), said, gradient), gradient.abs())
