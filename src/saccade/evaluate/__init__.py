"""Evaluate models: metrics with intervals, the effect of attention, and result files."""

from saccade.evaluate.attention_effect import AttentionEffect, LayerAttention
from saccade.evaluate.attention_rows import attention_rows
from saccade.evaluate.attention_table import attention_table, mean_interval
from saccade.evaluate.command import EvaluateConfig, Result, each, run, standard_test
from saccade.evaluate.evaluation import Evaluation, attention_effect, evaluate
from saccade.evaluate.intervals import Interval, interval, t_interval, wilson_interval
from saccade.evaluate.report import render, worst_confusions
from saccade.evaluate.rows import COLUMNS, append_rows, read_rows, write_rows

__all__ = [
    "COLUMNS",
    "AttentionEffect",
    "EvaluateConfig",
    "Evaluation",
    "Interval",
    "LayerAttention",
    "Result",
    "append_rows",
    "attention_effect",
    "attention_rows",
    "attention_table",
    "each",
    "evaluate",
    "interval",
    "mean_interval",
    "read_rows",
    "render",
    "run",
    "standard_test",
    "t_interval",
    "wilson_interval",
    "worst_confusions",
    "write_rows",
]
