"""Untrained models as checkpoints, and clips as files."""

import numpy as np
import torch
from torch import nn

from saccade import checkpoint
from saccade.checkpoint import Header
from saccade.data import digits
from saccade.data.digits import schemes
from saccade.data.digits.motion import Motion
from saccade.data.digits.moving_digits import MovingDigits
from saccade.labels import Labels
from saccade.nn import attention_layers

MATCHED = ("lenet-lstm", "stn-lstm", "dcn-lstm")
LEARNED = {"data": "moving digits", "digits": "mnist", "condition": "rotation", "protocol": "end_to_end"}
WORDS = Labels(("take2", "wave", "3 wheels"))


def save_model(folder, name="lenet-lstm", labels="pair", data=LEARNED, frame_format=None, **arguments):
    """Save an untrained model whose verdicts change over time and whose attention is not where it starts."""
    torch.manual_seed(1)
    named = schemes.create(labels).labels if isinstance(labels, str) else labels
    header = Header(name, arguments, named, frame_format, {"facts": data})
    model = header.create_model().eval()
    with torch.no_grad():
        for part in ("temporal", "head"):
            for parameter in getattr(model, part, nn.Identity()).parameters():
                parameter.mul_(20)
        for layer in attention_layers(model).values():
            for parameter in layer.positions.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
    checkpoint.save(folder / checkpoint.NAME, model, header)
    return folder


def moving(num_frames=8, canvas_px=64, labels="pair", index=3):
    clips = MovingDigits(digits.load("uci", "test"), Motion(num_frames=num_frames, canvas_px=canvas_px), labels=labels)
    return clips.batch(torch.tensor([index])).frames[0]


def noise(num_frames, height, width, channels=1):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (num_frames, channels, height, width), dtype=torch.uint8, generator=generator)


def save_npz(path, frames):
    np.savez_compressed(path, frames=frames.numpy())
    return path
