"""Training: the loop, and end-to-end training of video classifiers."""

from saccade.train.config import TrainConfig
from saccade.train.end_to_end import train

__all__ = ["TrainConfig", "train"]
