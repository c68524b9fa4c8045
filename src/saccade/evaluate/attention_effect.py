"""The effect of attention: where the attention layers looked, and how accurate the model is without them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from saccade.errors import NonFiniteError
from saccade.nn.attention import AttentionLayer, attention_layers
from saccade.nn.deform_conv import DeformConv2d
from saccade.nn.spatial_transformer import SpatialTransformer, identity_positions


@dataclass(frozen=True)
class LayerAttention:
    """Where one attention layer looked.

    *Conventions:* offsets are in pixels of the layer's input map. Affine maps have the entries of `SpatialTransformer`.
    A value is None if the layer has no offsets or no affine map.

    Args:
        num_offsets: the number of predicted offset vectors.
        offset_px_rms: the root mean square of the lengths of the offsets.
        map_spread: how much an affine map changes between frames: the standard deviation of each of its six entries
            over frames, as a root mean square over the entries of all glimpses.
        map_deviation: the distance of the affine maps from the identity: the mean absolute difference of the entries.
    """

    num_offsets: int = 0
    offset_px_rms: float | None = None
    map_spread: float | None = None
    map_deviation: float | None = None


@dataclass(frozen=True)
class AttentionEffect:
    """Where the attention layers of a model looked in some clips, and the results on these clips without attention.

    Without attention means `nn.attention.switched_off`: every layer samples where a plain layer would, with unchanged
    weights.

    Args:
        layers: where each layer looked, by its module name; empty for a model without attention.
        accuracy: the accuracy with attention.
        accuracy_without: the accuracy with attention switched off; None if it was not measured, and without
            attention.
        cross_entropy_without: the cross entropy with attention switched off; None as well.
        num_changed: the number of clips whose verdict changes when attention is switched off; None as well.
        num_clips: the number of clips.
    """

    layers: dict[str, LayerAttention]
    accuracy: float
    accuracy_without: float | None
    cross_entropy_without: float | None
    num_changed: int | None
    num_clips: int

    @property
    def offset_px_rms(self) -> float | None:
        """The root mean square length of all offsets, in pixels of each layer's input map; None without offsets."""
        found = [(layer.num_offsets, layer.offset_px_rms) for layer in self.layers.values()]
        squares = sum(num * rms**2 for num, rms in found if rms is not None)
        num_all = sum(num for num, _ in found)
        return math.sqrt(squares / num_all) if num_all else None

    @property
    def map_spread(self) -> float | None:
        """The spread of the affine maps, as a root mean square over layers with a map; None without maps."""
        return _root_mean_square([layer.map_spread for layer in self.layers.values()])

    @property
    def map_deviation(self) -> float | None:
        """The distance of the affine maps from the identity, as a mean over layers with a map; None without maps."""
        found = [layer.map_deviation for layer in self.layers.values() if layer.map_deviation is not None]
        return sum(found) / len(found) if found else None

    @property
    def changes_nothing(self) -> bool:
        """Whether every verdict is the same without attention."""
        return self.num_changed == 0

    @property
    def summary(self) -> str:
        """The effect in one sentence."""
        if not self.layers:
            return "no attention"
        if self.accuracy_without is None:
            return self._looks()
        if self.changes_nothing:
            return f"changes nothing: {self._looks()}, and all {self.num_clips} verdicts are the same without them"
        before, after = (f"{100 * value:.1f} %" for value in (self.accuracy, self.accuracy_without))
        if self.accuracy_without == self.accuracy:
            told = f"accuracy stays at {before}, though {self.num_changed} of {self.num_clips} verdicts change"
        else:
            told = f"accuracy {'falls' if self.accuracy_without < self.accuracy else 'rises'} from {before} to {after}"
        return f"{self._looks()}; without them {told}"

    def columns(self) -> dict[str, Any]:
        """Return the columns of a result row."""
        return {
            "offset_px_rms": self.offset_px_rms,
            "map_spread": self.map_spread,
            "map_deviation": self.map_deviation,
            "accuracy_without_attention": self.accuracy_without,
            "cross_entropy_without_attention": self.cross_entropy_without,
            "verdicts_changed_by_attention": self.num_changed if self.layers else None,
            "attention_summary": self.summary,
        }

    def as_json(self) -> dict[str, Any]:
        """Return all values as JSON values."""
        return self.columns() | {"layers": {name: asdict(layer) for name, layer in self.layers.items()}}

    def _looks(self) -> str:
        told = []
        if self.offset_px_rms is not None:
            told.append(f"offsets of {_short(self.offset_px_rms)} px rms")
        if self.map_spread is not None and self.map_deviation is not None:
            told.append(f"affine maps with spread {_short(self.map_spread)} and deviation {_short(self.map_deviation)}")
        return " and ".join(told)


class AttentionWatch:
    """Accumulates statistics of the outputs of attention layers, batch by batch."""

    def __init__(self, model: nn.Module) -> None:
        self._layers = attention_layers(model)
        self._maps: dict[str, list[Float[Tensor, "batch glimpses 6"]]] = {}
        self._squares: dict[str, float] = {}
        self._num_offsets: dict[str, int] = {}

    def add(self, positions: Mapping[str, Tensor]) -> None:
        """Add the outputs that `nn.attention.recorded` holds after a forward pass."""
        for name, said in positions.items():
            layer = self._layers[name]
            if isinstance(layer, SpatialTransformer):
                # Six numbers per map are few enough to keep, and give an exact standard deviation.
                self._maps.setdefault(name, []).append(layer.maps(said).flatten(2).double().cpu())
            else:
                offsets = _offsets(layer, said)
                length = torch.linalg.vector_norm(offsets, dtype=torch.float64).item()
                self._squares[name] = self._squares.get(name, 0.0) + length**2
                self._num_offsets[name] = self._num_offsets.get(name, 0) + offsets.numel() // 2

    def layers(self) -> dict[str, LayerAttention]:
        """Return where each layer looked.

        Raises:
            NonFiniteError: if offsets or affine maps are NaN or infinite.
        """
        found = {name: self._layer(name) for name in self._layers if name in self._maps or name in self._squares}
        for name, layer in found.items():
            if not all(math.isfinite(v) for v in (layer.offset_px_rms, layer.map_deviation) if v is not None):
                raise NonFiniteError(f"the outputs of layer {name} are not finite; use an earlier checkpoint")
        return found

    def _layer(self, name: str) -> LayerAttention:
        if name in self._maps:
            maps = torch.cat(self._maps[name])
            spread = _root_mean_square(maps.std(0, correction=0).flatten().tolist())
            deviation = (maps - identity_positions("affine")).abs().mean().item()
            return LayerAttention(map_spread=spread, map_deviation=deviation)
        num = self._num_offsets[name]
        return LayerAttention(num, offset_px_rms=math.sqrt(self._squares[name] / num))


def _offsets(layer: AttentionLayer, positions: Tensor) -> Tensor:
    """Return the offsets in pixels of a layer's output, without the factors for its taps."""
    return layer.offset_px(positions) if isinstance(layer, DeformConv2d) else positions


def _root_mean_square(values: list[float | None] | list[float]) -> float | None:
    found = [value for value in values if value is not None]
    return math.sqrt(sum(value**2 for value in found) / len(found)) if found else None


def _short(value: float) -> str:
    # Two decimals would show a small value as 0, like no effect at all.
    return f"{value:.2f}" if value >= 0.005 else f"{value:.1g}"
