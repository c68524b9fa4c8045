"""Measure how accurate models stay when their input changes: turned, scaled, compressed, occluded, noisy."""

from saccade.robustness.changes import CHANGES, Change, scaled, turned
from saccade.robustness.command import Report, robustness
from saccade.robustness.config import RobustnessConfig
from saccade.robustness.curves import Curve, Point, curves
from saccade.robustness.measure import measure
from saccade.robustness.page import render
from saccade.robustness.runs import Generated
from saccade.robustness.summary import summary
from saccade.robustness.transfer import Transfer
from saccade.robustness.turning import TurnedCopies

__all__ = [
    "CHANGES",
    "Change",
    "Curve",
    "Generated",
    "Point",
    "Report",
    "RobustnessConfig",
    "Transfer",
    "TurnedCopies",
    "curves",
    "measure",
    "render",
    "robustness",
    "scaled",
    "summary",
    "turned",
]
