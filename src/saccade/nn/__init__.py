"""Layers."""

from saccade.nn.attention import (
    AttentionLayer,
    attention_layers,
    num_attention_parameters,
    recorded,
    switched_off,
)
from saccade.nn.recurrent import Recurrent
from saccade.nn.spatial_transformer import SpatialTransformer

__all__ = [
    "AttentionLayer",
    "Recurrent",
    "SpatialTransformer",
    "attention_layers",
    "num_attention_parameters",
    "recorded",
    "switched_off",
]
