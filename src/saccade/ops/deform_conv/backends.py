"""The backends of deformable convolution, and the choice among them.

A backend is a module with the four functions of `Backend`. To add one, write the module and list it here; the
tests cover every backend in the list.
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from saccade.ops.deform_conv import cpu, portable, triton
from saccade.ops.deform_conv.arguments import Gradients, Needs, Tensors
from saccade.ops.deform_conv.geometry import Geometry


class Backend(Protocol):
    """The functions of a backend module, which take checked arguments and run outside autocast."""

    def unavailable(self) -> str | None:
        """Return a sentence on why the backend cannot run in this installation and machine, or None if it can."""

    def why_not(self, tensors: Tensors, geometry: Geometry) -> str | None:
        """Return a sentence on why this backend does not support these inputs, or None if it does."""

    def forward(self, tensors: Tensors, geometry: Geometry) -> Tensor:
        """Return the convolution in the dtype of `weight` and the memory format of `input`."""

    def backward(self, grad: Tensor, tensors: Tensors, geometry: Geometry, needs: Needs) -> Gradients:
        """Return the gradients of input, offset, weight, bias and mask; None for those that are not needed."""


# In the order in which backend="auto" tries them.
BACKENDS: dict[str, Backend] = {"cpu": cpu, "triton": triton, "portable": portable}


def choose(name: str, tensors: Tensors, geometry: Geometry) -> Backend:
    """Return the named backend, or for "auto" the first that supports the inputs.

    Raises:
        ValueError: if the name is unknown, or the backend (any, for "auto") does not support the inputs.
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
