"""Layers."""

from saccade.nn.attention import (
    AttentionLayer,
    attention_layers,
    num_attention_parameters,
    recorded,
    switched_off,
)
from saccade.nn.deform_conv import DeformConv2d
from saccade.nn.glimpses import Glimpses
from saccade.nn.grid_pool import GridPool
from saccade.nn.heads import PairHead
from saccade.nn.offset_resample import OffsetResample2d
from saccade.nn.spatial_transformer import CloserLook, SpatialTransformer
from saccade.nn.temporal import GRU, LSTM, TEMPORAL, Mean, State, Temporal, Transformer

__all__ = [
    "GRU",
    "LSTM",
    "TEMPORAL",
    "AttentionLayer",
    "CloserLook",
    "DeformConv2d",
    "Glimpses",
    "GridPool",
    "Mean",
    "OffsetResample2d",
    "PairHead",
    "SpatialTransformer",
    "State",
    "Temporal",
    "Transformer",
    "attention_layers",
    "num_attention_parameters",
    "recorded",
    "switched_off",
]
