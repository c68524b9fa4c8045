"""The experiment in one command: models by conditions, trained, evaluated, tabled and pictured."""

from saccade.reproduce.presets import PRESETS, ReproduceConfig
from saccade.reproduce.run import reproduce

__all__ = ["PRESETS", "ReproduceConfig", "reproduce"]
