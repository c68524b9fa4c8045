"""The command `saccade check`: what a collection of clips holds, and what in it would mislead a training."""

from saccade.check.config import CheckConfig
from saccade.check.report import Report, check
from saccade.check.table import render

__all__ = ["CheckConfig", "Report", "check", "render"]
