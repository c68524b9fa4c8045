"""Small models whose figures are known beforehand."""

import torch
from torch import nn

from saccade.nn.attention import AttentionLayer


class Canned(nn.Module):
    """Says the given logits (clips, classes), or (clips, time, classes), clip after clip, whatever it is shown."""

    causal = True

    def __init__(self, logits):
        super().__init__()
        self.logits, self.next = logits, 0

    def forward(self, clips):
        chosen = (self.next + torch.arange(len(clips))) % len(self.logits)
        self.next += len(clips)
        said = self.logits[chosen]
        return said.unsqueeze(1).expand(-1, clips.shape[1], -1) if said.dim() == 2 else said


class Glance(nn.Module):
    """A linear classifier of each frame, blurred, with an attention layer before it or none."""

    causal = True

    def __init__(self, num_classes=55, attention=None):
        super().__init__()
        torch.manual_seed(0)
        self.attention = attention
        self.trunk = nn.Sequential(nn.AvgPool2d(8), nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, num_classes))

    def forward(self, clips):
        frames = clips.flatten(0, 1).float() / 255
        if self.attention is not None:
            frames = self.attention(frames)
        return self.trunk(frames).unflatten(0, clips.shape[:2])


class Says(nn.Module):
    """A position network that always says the same, once a frame."""

    def __init__(self, positions):
        super().__init__()
        self.register_buffer("said", torch.as_tensor(positions, dtype=torch.float32))

    def forward(self, frames):
        return self.said.expand(len(frames), *self.said.shape)


class Roll(AttentionLayer):
    """Samples a frame a whole number of pixels away: the simplest layer with offsets, (dy, dx) once a frame."""

    def __init__(self, dy, dx):
        super().__init__()
        self.positions = Says([[[dy]], [[dx]]])

    def neutral(self, positions):
        return torch.zeros_like(positions)

    def forward(self, frames):
        dy, dx = self.positions(frames)[0].flatten().nan_to_num().long().tolist()
        return frames.roll((-dy, -dx), (-2, -1))


class Indispensable(nn.Module):
    """Right with its attention, wrong on every clip without."""

    causal = True

    def __init__(self, num_classes=55):
        super().__init__()
        self.attention = Roll(3, 4)
        self.num_classes, self.next = num_classes, 0

    def forward(self, clips):
        frame = torch.zeros(1, 1, 8, 8)
        frame[..., 3, 4] = 1
        attends = self.attention(frame)[..., 0, 0] > 0
        label = (self.next + torch.arange(len(clips))) % self.num_classes
        self.next += len(clips)
        said = label if attends else (label + 1) % self.num_classes
        return nn.functional.one_hot(said, self.num_classes).float().unsqueeze(1).expand(-1, clips.shape[1], -1)
