"""The command `saccade predict`: the class of each clip, and the frame from which the verdict stays and is sure."""

from saccade.labels import MIN_CONFIDENCE
from saccade.predict.classifier import Classifier, classes_of, format_of, read_for
from saccade.predict.command import each, predict
from saccade.predict.config import PredictConfig
from saccade.predict.csv_file import PROBABILITY, unfinished
from saccade.predict.prediction import Failure, OverTime, Prediction, prediction_of
from saccade.predict.table import render

__all__ = [
    "MIN_CONFIDENCE",
    "PROBABILITY",
    "Classifier",
    "Failure",
    "OverTime",
    "PredictConfig",
    "Prediction",
    "classes_of",
    "each",
    "format_of",
    "predict",
    "prediction_of",
    "read_for",
    "render",
    "unfinished",
]
