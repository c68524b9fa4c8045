"""A forward pass that records the outputs of the attention layers."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from saccade.attention.route import Route, encoder_of
from saccade.attention.trace import Said
from saccade.clips import as_float
from saccade.nn.temporal import State

Frames = UInt8[Tensor, "time channels height width"] | Float[Tensor, "time channels height width"]
Clips = UInt8[Tensor, "batch time channels height width"] | Float[Tensor, "batch time channels height width"]


@dataclass(frozen=True)
class Seen:
    """The record of a forward pass through an encoder, frame by frame.

    A trunk may read further pictures of each frame, after all frames, such as differences. Only those of the frames
    themselves are told: in `said`, `readouts` and `last`. `outputs` hold all, as the graph has them.

    Args:
        pixels: the frames or clips as float; part of the graph if gradients were requested.
        said: the outputs of the attention layers.
        outputs: the output of each stage, with its graph if gradients were requested.
        readouts: the output of each stage's `readout`, with its graph if gradients were requested.
        last: the last feature map; None if the encoder has none. The maps of several glimpses are below each other.
        summarised: the input of the route's `summary`, with its graph if gradients were requested; None without one.
    """

    pixels: Tensor
    said: Said
    outputs: list[Tensor]
    readouts: list[Tensor]
    last: Tensor | None
    summarised: Tensor | None = None


def run(
    model: nn.Module, route: Route, clips: Clips, state: State | None = None, *, gradients: bool = False
) -> tuple[Seen, Float[Tensor, "batch time classes"], State | None]:
    """Run clips through a model in evaluation mode and record its encoder; the model's mode is restored.

    Args:
        model: the model.
        route: the route of the model, whose layers are recorded.
        clips: the clips.
        state: the state after the previous frames of the same clips, for a model with `step`.
        gradients: whether the caller will take gradients.

    Returns:
        The record, the logits, and the new state: None for a model without `step`.

    Raises:
        ValueError: if a state is given for a model without `step`, or if the model rejects the clips.
    """
    step: Callable[..., Any] | None = getattr(model, "step", None)
    if state is not None and step is None:
        raise ValueError(f"{type(model).__name__} cannot continue from a state; pass the whole clip without a state")
    with _watched(model, route, clips, gradients) as watch:
        if gradients:
            state = _each(state, Tensor.clone)  # autograd does not accept tensors that were made in inference mode
        logits, state = step(watch.pixels, state) if step is not None else (model(watch.pixels), None)
        seen = watch.seen()
    return seen, logits, _each(state, Tensor.detach)


def run_encoder(model: nn.Module, route: Route, frames: Frames, *, gradients: bool = False) -> Seen:
    """Run frames through a model's encoder alone, in evaluation mode, and record it; the model's mode is restored."""
    with _watched(model, route, frames, gradients) as watch:
        encoder_of(model)(_encoder_input(model, watch.pixels))
        return watch.seen()


def _encoder_input(model: nn.Module, frames: Tensor) -> Tensor:
    """Return the encoder's input for frames that are each a clip of their own."""
    prepare: Callable[[Tensor], tuple[Tensor, State]] | None = getattr(model, "encoder_input", None)
    return frames if prepare is None else prepare(frames.unsqueeze(1))[0].squeeze(1)


def _each(state: State | None, make: Callable[[Tensor], Tensor]) -> State | None:
    """Apply a function to each tensor of a state."""
    return None if state is None else tuple(make(part) for part in state)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode within the context.

    The mode of each module is restored separately: a frozen part of a model in training may be in evaluation mode.
    """
    before = [module for module in model.modules() if module.training]
    if not before:
        yield
        return
    model.eval()
    try:
        yield
    finally:
        for module in before:
            module.training = True


class _Watch:
    """Records the inputs and outputs of modules in this thread only: other threads may run the same model."""

    def __init__(self, route: Route, pixels: Tensor) -> None:
        self.route, self.pixels = route, pixels
        self._given: dict[nn.Module, tuple[Tensor, Tensor]] = {}
        self._thread = threading.get_ident()

    def keep(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        """Record a module's input and output; this is a forward hook."""
        if threading.get_ident() == self._thread:
            self._given[module] = inputs[0], output

    def seen(self) -> Seen:
        """Return the record of the forward pass."""
        stages, given = self.route.stages, self._given
        num_frames = math.prod(self.pixels.shape[:-3])
        return Seen(
            self.pixels,
            Said(
                self.route,
                [given[stage.layer.positions][1][:num_frames].detach() for stage in stages],
                [(_size(given[stage.layer][0]), _size(given[stage.layer][1])) for stage in stages],
                _size(self.pixels),
            ),
            [given[stage.layer][1] for stage in stages],
            [given[stage.readout][1][:num_frames] for stage in stages],
            self._last(num_frames),
            given[self.route.summary.module][0] if self.route.summary is not None else None,
        )

    def _last(self, num_frames: int) -> Tensor | None:
        if self.route.last is None:
            return None
        found, num = self._given[self.route.last][1], self.route.num_glimpses
        if num == 1:
            return found[:num_frames]
        return torch.cat(found.reshape(num_frames, num, *found.shape[-3:]).unbind(1), -2)


@contextmanager
def _watched(model: nn.Module, route: Route, clips: Tensor, gradients: bool) -> Iterator[_Watch]:
    modules = {module for stage in route.stages for module in (stage.layer.positions, stage.layer, stage.readout)}
    if route.last is not None:
        modules.add(route.last)
    if route.summary is not None:
        modules.add(route.summary.module)
    with ExitStack() as stack:
        stack.enter_context(evaluating(model))
        if gradients:
            # The caller may be in inference mode, where tensors cannot have gradients.
            stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.set_grad_enabled(gradients))
        if gradients and clips.is_cuda:
            # cuDNN's recurrent layers have a backward pass in training mode only.
            stack.enter_context(torch.backends.cudnn.flags(enabled=False))
        pixels = as_float(clips)
        watch = _Watch(route, pixels.clone().requires_grad_() if gradients else pixels)
        for module in modules:
            stack.callback(module.register_forward_hook(watch.keep).remove)
        yield watch


def _size(map: Tensor) -> tuple[int, int]:
    return map.shape[-2], map.shape[-1]
