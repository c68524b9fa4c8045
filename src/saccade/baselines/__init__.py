"""The ladder: simple classifiers of clips that stand beside a model and that it has to beat."""

from saccade.baselines.features import mean_frame, motion, shrunk, summarise
from saccade.baselines.ladder import Rung, difference, judged, ladder
from saccade.baselines.report import render

__all__ = ["Rung", "difference", "judged", "ladder", "mean_frame", "motion", "render", "shrunk", "summarise"]
