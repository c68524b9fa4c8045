"""Attention that looks somewhere else than straight ahead."""

import torch
from torch import nn

from saccade.nn import attention_layers


def looking_around(model):
    """Let attention look somewhere else than straight ahead, as it does once it has learned."""
    torch.manual_seed(1)
    for layer in attention_layers(model).values():
        for parameter in list(layer.positions.parameters())[-2:]:
            nn.init.normal_(parameter, std=0.05)
            if parameter.numel() == 6:
                parameter.data += torch.eye(2, 3).flatten()
    return model
