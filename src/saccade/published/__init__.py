"""The published protocol: three stages, on the training loop that end-to-end training has."""

from saccade.published.run import INSTANCES, PublishedConfig, run

__all__ = ["INSTANCES", "PublishedConfig", "run"]
