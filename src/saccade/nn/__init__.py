"""Layers."""

from saccade.nn.attention import (
    AttentionLayer,
    attention_layers,
    num_attention_parameters,
    recorded,
    switched_off,
)
from saccade.nn.deform_conv import DeformConv2d
from saccade.nn.heads import PairHead
from saccade.nn.offset_resample import OffsetResample2d
from saccade.nn.spatial_transformer import SpatialTransformer
from saccade.nn.temporal import GRU, LSTM, TEMPORAL, State, Temporal

__all__ = [
    "GRU",
    "LSTM",
    "TEMPORAL",
    "AttentionLayer",
    "DeformConv2d",
    "OffsetResample2d",
    "PairHead",
    "SpatialTransformer",
    "State",
    "Temporal",
    "attention_layers",
    "num_attention_parameters",
    "recorded",
    "switched_off",
]
