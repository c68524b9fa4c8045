"""Small models whose attention is known beforehand."""

import torch
from torch import nn

from saccade import models
from saccade.nn import DeformConv2d, OffsetResample2d, SpatialTransformer

MATCHED = ("lenet-lstm", "stn-lstm", "dcn-lstm")


class Says(nn.Module):
    """A position network that says the given positions, frame after frame: one for all, or one for each."""

    def __init__(self, positions):
        super().__init__()
        self.register_buffer("said", torch.as_tensor(positions, dtype=torch.float32))

    def forward(self, frames):
        return self.said.expand(len(frames), *self.said.shape[1:])


class Sums(nn.Module):
    """A classifier of two classes: the weighted sum of what its encoder gives, and nothing."""

    causal = True

    def __init__(self, encoder, weight=1.0):
        super().__init__()
        self.encoder, self.weight = encoder, weight

    def forward(self, clips):
        maps = self.encoder(clips.flatten(0, 1))
        found = (maps * self.weight).flatten(1).sum(1).unflatten(0, clips.shape[:2]).sum(1, keepdim=True)
        return torch.stack((found, torch.full_like(found, -1e9)), -1)


def looking(theta, crop_size=None):
    """Build the encoder that samples frames by given affine maps (frames, 2, 3) and does nothing more."""
    return nn.Sequential(SpatialTransformer(Says(torch.as_tensor(theta).flatten(1)), crop_size))


def constant_offsets(layer, offset_px):
    """Let a layer with offsets move every position by the same, given tap by tap (taps, 2) or for all."""
    offset = torch.as_tensor(offset_px, dtype=torch.float32)
    nn.init.zeros_(layer.positions.weight)
    if layer.positions.bias is None:
        layer.positions.bias = nn.Parameter(torch.zeros(len(layer.positions.weight)))
    layer.positions.bias.data = offset.expand(len(layer.positions.weight) // 2, 2).flatten().clone()
    return layer


def wandering(name, seed=0, **arguments):
    """Build a model with random weights that looks elsewhere in every frame."""
    torch.manual_seed(seed)
    model = models.create(name, **arguments).eval()
    for layer in model.modules():
        if isinstance(layer, DeformConv2d | OffsetResample2d):
            nn.init.normal_(layer.positions.weight, std=0.05)
        if isinstance(layer, SpatialTransformer):
            last = list(layer.positions.modules())[-1]
            nn.init.normal_(last.weight, std=0.3)
    return model


def random_frames(num=3, size=(64, 64), seed=0, channels=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (num, channels, *size), dtype=torch.uint8, generator=generator)
