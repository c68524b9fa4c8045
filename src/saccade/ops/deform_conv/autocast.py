"""Autocast, for an operator that decides itself which of its tensors are cast."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch.amp import is_autocast_available


def _exists(device: str) -> bool:
    return is_autocast_available(device)


if torch.__version__ < "2.13":  # a TorchVersion compares numbers, not strings
    # Older versions of torch.compile cannot trace this call. The wrapper loads the compiler, which takes a second.
    _exists = torch.compiler.assume_constant_result(_exists)


def dtype_of(device: str) -> torch.dtype | None:
    """Return the dtype that autocast casts to, or None if it is off."""
    active = _exists(device) and torch.is_autocast_enabled(device)
    return torch.get_autocast_dtype(device) if active else None


def switched_off(device: str) -> AbstractContextManager[object]:
    """Return a context without autocast."""
    return nullcontext() if dtype_of(device) is None else torch.autocast(device, enabled=False)
