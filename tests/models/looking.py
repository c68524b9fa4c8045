"""Attention that looks somewhere else than straight ahead."""

import torch
from torch import nn

from saccade.nn import Glimpses, attention_layers
from saccade.nn.glimpses import spread_positions


def looking_around(model):
    """Let attention look somewhere else than straight ahead, as it does once it has learned."""
    torch.manual_seed(1)
    for layer in attention_layers(model).values():
        for parameter in list(layer.positions.parameters())[-2:]:
            nn.init.normal_(parameter, std=0.05)
            if parameter.numel() == 6:
                parameter.data += torch.eye(2, 3).flatten()
            elif parameter.dim() == 1 and isinstance(layer, Glimpses):
                parameter.data += spread_positions(layer.num_glimpses, layer.mode)
    return model
