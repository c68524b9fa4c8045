"""Training: the loop, and classifiers of clips end to end."""

from saccade.train.config import TrainConfig
from saccade.train.end_to_end import train

__all__ = ["TrainConfig", "train"]
