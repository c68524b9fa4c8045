"""A training of a few numbers, whose every step takes milliseconds."""

import torch
from torch import nn
from torch.nn import functional as F

from saccade.checkpoint import Header
from saccade.clips import ClipBatch
from saccade.nn import DeformConv2d, SpatialTransformer
from saccade.nn.spatial_transformer import IdentityLinear
from saccade.train import loop
from saccade.train.end_to_end import learning_rate_factor
from saccade.train.optimizer import Optimizers
from saccade.train.trainer import Objective, Trainer, moving_average, restore

NUM_STEPS = 6


class Small(nn.Module):
    """Both kinds of attention, statistics of batches, chance, and three classes."""

    def __init__(self):
        super().__init__()
        self.attention = SpatialTransformer(nn.Sequential(nn.Flatten(), IdentityLinear(64, "affine")))
        self.deformable = DeformConv2d(1, 2, 3, padding=1)
        self.rest = nn.Sequential(nn.BatchNorm2d(2), nn.Flatten(), nn.Dropout(0.2), nn.Linear(128, 3))

    def forward(self, frames):
        return self.rest(self.deformable(self.attention(frames)))


class Batches:
    def __call__(self, step, num_steps):
        generator = torch.Generator().manual_seed(step)
        frames = torch.rand(4, 1, 8, 8, generator=generator)
        return ClipBatch(frames, torch.randint(3, (4,), generator=generator))

    def to(self, device):
        return self


class Watched(Optimizers):
    """Remembers at each step the learning rates and the length of the whole gradient."""

    def __init__(self, parts):
        super().__init__(parts)
        self.seen = []

    def step(self):
        gradients = [p.grad.flatten() for group in self.param_groups for p in group["params"] if p.grad is not None]
        factors = {group["lr"] / group["base_lr"] for group in self.param_groups}
        self.seen.append((factors, torch.cat(gradients).norm().item()))
        super().step()


def loss_of(logits, batch):
    return F.cross_entropy(logits, batch.targets)


def accuracy_of(logits, batch):
    return (logits.argmax(-1) == batch.targets).float().mean().item()


def trainer_of(*, loss=loss_of, ema=0.0, num_steps=NUM_STEPS):
    torch.manual_seed(0)
    model = Small()
    optimizer = Watched([torch.optim.AdamW(model.parameters(), lr=0.01, fused=True)])
    objective = Objective(loss, accuracy_of, learning_rate_factor, max_gradient_norm=1.0)
    average = moving_average(model, ema)
    return Trainer(model, optimizer, Batches(), objective, Header("small"), num_steps=num_steps, average=average)


def go_on(out, **options):
    """Resume with what a new process would build, after other things were drawn."""
    trainer = trainer_of(**options)
    torch.rand(3)
    restore(trainer, out, {})
    loop.run(trainer, out)
    return trainer
