"""Layers."""

from saccade.nn.attention import (
    AttentionLayer,
    attention_layers,
    num_attention_parameters,
    recorded,
    switched_off,
)
from saccade.nn.deform_conv import DeformConv2d
from saccade.nn.offset_resample import OffsetResample2d
from saccade.nn.pair_head import PairHead
from saccade.nn.recurrent import Recurrent
from saccade.nn.spatial_transformer import SpatialTransformer

__all__ = [
    "AttentionLayer",
    "DeformConv2d",
    "OffsetResample2d",
    "PairHead",
    "Recurrent",
    "SpatialTransformer",
    "attention_layers",
    "num_attention_parameters",
    "recorded",
    "switched_off",
]
