"""Add a deformable convolution to a network; it starts as a plain convolution and learns where to sample.

python examples/deformable_layer.py
"""

import torch
from torch import nn

from saccade.nn import DeformConv2d, num_attention_parameters, recorded

network = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), DeformConv2d(16, 32, 3, padding=1))
images = torch.rand(2, 3, 32, 32)
with recorded(network) as positions:
    print("output", tuple(network(images).shape))
offsets_px = positions["2"]
print(f"{num_attention_parameters(network)} attention parameters; offsets {tuple(offsets_px.shape)}")
print(f"largest offset before training: {offsets_px.abs().max():.1f} px")
