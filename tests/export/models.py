"""Untrained checkpoints that attention, time and differences of frames all have an effect on."""

import torch
from torch import nn

from saccade import checkpoint
from saccade.checkpoint import Header
from saccade.clips import FrameFormat
from saccade.labels import Labels
from saccade.nn.attention import attention_layers

CLASSES = ("wave", "<b>take|2</b>", "jump")


def save_model(path, name="classifier", *, size=(32, 40), fps=None, channels=3, exclusive=True, **arguments):
    """Save a model whose attention moves samples by pixels."""
    torch.manual_seed(0)
    labels = Labels(CLASSES, exclusive=exclusive, min_confidence=0.4)
    frame_format = FrameFormat(channels, size=size, mean=(0.4,), std=(0.25,), fps=fps)
    header = Header(name, arguments, labels, frame_format)
    model = header.create_model().eval()
    for layer in attention_layers(model).values():
        for part in layer.positions.modules():
            if isinstance(part, nn.Conv2d | nn.Linear):
                nn.init.normal_(part.weight, std=0.02)
    with torch.no_grad():
        for parameter in model.head.parameters():
            parameter.mul_(4)
    checkpoint.save(path, model, header)
    return path


def clips(batch, num_frames, channels=3, size=(32, 40)):
    """Draw clips of noise."""
    generator = torch.Generator().manual_seed(batch)
    return torch.randint(0, 256, (batch, num_frames, channels, *size), dtype=torch.uint8, generator=generator)
