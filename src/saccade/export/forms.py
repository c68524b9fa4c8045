"""The two forms in which a model is exported: for whole clips, and for one frame at a time with a state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from saccade.clips import Size
from saccade.errors import DataError
from saccade.export.parts import prepared
from saccade.models import VideoClassifier


class ClipModel(nn.Module):
    """From clips to logits and probabilities at every frame."""

    def __init__(self, model: VideoClassifier) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, frames: UInt8[Tensor, "batch time channels height width"]
    ) -> tuple[Float[Tensor, "batch time classes"], Float[Tensor, "batch time classes"]]:
        """Return logits and probabilities."""
        logits = self.model(frames)
        return logits, self.model.labels.probabilities(logits)


class StepModel(nn.Module):
    """From one frame of each clip and a state to logits, probabilities and the next state."""

    def __init__(self, model: VideoClassifier) -> None:
        super().__init__()
        self.model = model

    def forward(self, frame: UInt8[Tensor, "batch channels height width"], *state: Tensor) -> tuple[Tensor, ...]:
        """Return logits (batch, classes), probabilities and the parts of the next state."""
        logits, after = self.model.step(frame.unsqueeze(1), state)
        logits = logits.squeeze(1)
        return logits, self.model.labels.probabilities(logits), *after


@dataclass(frozen=True)
class Form:
    """A module with what is needed to trace it.

    Args:
        name: `clip` or `step`.
        module: the module.
        example: its inputs, of two clips.
        axes: the axes of each input that may have any size, with their names.
        inputs: the names of the inputs.
        outputs: the names of the outputs.
    """

    name: str
    module: nn.Module
    example: tuple[Tensor, ...]
    axes: tuple[dict[int, str], ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    def shapes(self) -> list[list[int | str]]:
        """Return the shape of each input, with the names of axes of any size."""
        return [
            [axes.get(axis, size) for axis, size in enumerate(tensor.shape)]
            for tensor, axes in zip(self.example, self.axes, strict=True)
        ]

    def traced(self) -> ExportedProgram:
        """Return the module as a program of torch."""
        dims = {name: Dim(name) for axes in self.axes for name in axes.values()}
        dynamic: list[Any] = [{axis: dims[name] for axis, name in axes.items()} for axes in self.axes]
        if self.name == "step":
            dynamic = [dynamic[0], tuple(dynamic[1:])]  # the state is one argument of any length
        with torch.no_grad():
            # Strict: Dynamo reads the Python code, in which `len(clips)` would otherwise fix the number of clips.
            program = torch.export.export(self.module, self.example, dynamic_shapes=tuple(dynamic), strict=True)
        _forget_sources(program)
        return program


def forms(model: VideoClassifier, size: Size, *, reference: bool) -> tuple[Form, Form]:
    """Return a model for clips and for single frames.

    Args:
        model: the model.
        size: (height, width) of the frames.
        reference: whether deformable convolutions become standard operators of torch.

    Raises:
        DataError: if the state before the first frame is not zero.
    """
    shape = model.frame_format.channels, *size
    state, more = model.initial_state(2, size), model.initial_state(3, size)
    if any(bool(part.any()) for part in state):
        raise DataError("the state before the first frame is not zero, and a file cannot say so; export another model")
    names = [f"state_{place}" for place in range(len(state))]
    clip = Form(
        name="clip",
        module=ClipModel(prepared(model, reference=reference, by_frame=True)),
        example=(torch.zeros(2, 3, *shape, dtype=torch.uint8),),
        axes=({0: "batch", 1: "time"},),
        inputs=("frames",),
        outputs=("logits", "probabilities"),
    )
    step = Form(
        name="step",
        module=StepModel(prepared(model, reference=reference, by_frame=False)),
        # Copies: tensors that share memory would be traced as one.
        example=(torch.zeros(2, *shape, dtype=torch.uint8), *(part.clone() for part in state)),
        axes=({0: "batch"}, *({_differing(a, b): "batch"} for a, b in zip(state, more, strict=True))),
        inputs=("frame", *names),
        outputs=("logits", "probabilities", *(f"next_{name}" for name in names)),
    )
    return clip, step


def _differing(one: Tensor, other: Tensor) -> int:
    (axis,) = (axis for axis in range(one.dim()) if one.shape[axis] != other.shape[axis])
    return axis


def _forget_sources(program: ExportedProgram) -> None:
    """Remove the lines of code behind each node: they name folders of this machine."""
    for module in program.graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            for node in module.graph.nodes:
                node.meta.pop("stack_trace", None)
