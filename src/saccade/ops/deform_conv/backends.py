"""What computes deformable convolutions, and which of it can take a call.

A backend is a module with the four functions of `Backend`. To add one, write the module and list it here; the
tests run over this list.
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from saccade.ops.deform_conv import cpu, portable, triton
from saccade.ops.deform_conv.arguments import Gradients, Needs, Tensors
from saccade.ops.deform_conv.geometry import Geometry


class Backend(Protocol):
    """What a backend module has. All functions take the same checked arguments, outside autocast."""

    def unavailable(self) -> str | None:
        """Say in a sentence why the backend cannot run in this installation and machine, or return None if it can."""

    def why_not(self, tensors: Tensors, geometry: Geometry) -> str | None:
        """Say in a sentence why this backend cannot take these inputs, or return None if it can."""

    def forward(self, tensors: Tensors, geometry: Geometry) -> Tensor:
        """Return the convolution in the dtype of `weight` and the memory format of `input`."""

    def backward(self, grad: Tensor, tensors: Tensors, geometry: Geometry, needs: Needs) -> Gradients:
        """Return the gradients of input, offset, weight, bias and mask that are needed, else None."""


# In the order of preference of backend="auto".
BACKENDS: dict[str, Backend] = {"cpu": cpu, "triton": triton, "portable": portable}


def choose(name: str, tensors: Tensors, geometry: Geometry) -> Backend:
    """Return the first backend that can take the inputs, or the named one.

    Raises:
        ValueError: if there is no such name, or why it cannot take them.
    """
    if name != "auto" and name not in BACKENDS:
        raise ValueError(f"no backend is called {name!r}; known: auto, {', '.join(BACKENDS)}, reference")
    reasons = {}
    for candidate in BACKENDS if name == "auto" else [name]:
        backend = BACKENDS[candidate]
        reason = backend.unavailable() or backend.why_not(tensors, geometry)
        if reason is None:
            return backend
        reasons[candidate] = reason
    found = "; ".join(f"{candidate}: {reason}" for candidate, reason in reasons.items())
    raise ValueError(f"no backend can take these inputs: {found}")
