"""Evaluate models: metrics with intervals, the effect of attention, and result files."""

from saccade.evaluate.attention_effect import AttentionEffect, LayerAttention
from saccade.evaluate.attention_rows import attention_rows
from saccade.evaluate.attention_table import attention_table, mean_interval
from saccade.evaluate.breakdown import ClassFigures, GroupFigures, Share
from saccade.evaluate.camera import CameraFigures, ThroughCamera, losing, slower, through_cameras
from saccade.evaluate.cells import Interval, interval
from saccade.evaluate.clip_verdicts import ClipVerdict, NamedClips, most_wrong
from saccade.evaluate.command import EvaluateConfig, Result, check_one_part, each, run, standard_test
from saccade.evaluate.confusion import confusion_svg
from saccade.evaluate.evaluation import Evaluation, attention_effect, evaluate
from saccade.evaluate.report import render, worst_confusions
from saccade.evaluate.rows import COLUMNS, append_rows, read_rows, write_rows
from saccade.evaluate.streaming import StreamFigures, evaluate_stream, render_stream
from saccade.evaluate.wrong_clip import WrongClip

__all__ = [
    "COLUMNS",
    "AttentionEffect",
    "CameraFigures",
    "ClassFigures",
    "ClipVerdict",
    "EvaluateConfig",
    "Evaluation",
    "GroupFigures",
    "Interval",
    "LayerAttention",
    "NamedClips",
    "Result",
    "Share",
    "StreamFigures",
    "ThroughCamera",
    "WrongClip",
    "append_rows",
    "attention_effect",
    "attention_rows",
    "attention_table",
    "check_one_part",
    "confusion_svg",
    "each",
    "evaluate",
    "evaluate_stream",
    "interval",
    "losing",
    "mean_interval",
    "most_wrong",
    "read_rows",
    "render",
    "render_stream",
    "run",
    "slower",
    "standard_test",
    "through_cameras",
    "worst_confusions",
    "write_rows",
]
