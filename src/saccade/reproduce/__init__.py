"""The experiment in one command: train and evaluate models under conditions, and write tables and pictures."""

from saccade.reproduce.presets import PRESETS, ReproduceConfig
from saccade.reproduce.run import reproduce

__all__ = ["PRESETS", "ReproduceConfig", "reproduce"]
