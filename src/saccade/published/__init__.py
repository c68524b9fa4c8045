"""The published protocol in three stages, on the training loop of end-to-end training."""

from saccade.published.run import INSTANCES, PublishedConfig, run

__all__ = ["INSTANCES", "PublishedConfig", "run"]
