"""Training, both ways: end to end, and as published."""

from saccade.train.config import TrainConfig
from saccade.train.loop import train

__all__ = ["TrainConfig", "train"]
