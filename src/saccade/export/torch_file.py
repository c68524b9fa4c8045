"""Models as programs of `torch.export`."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.export import ExportedProgram

from saccade.export.description import METADATA
from saccade.export.forms import Form

SUFFIX = ".pt2"


def check_installed() -> None:
    """Do nothing: torch is always there."""


def write(path: Path, form: Form, program: ExportedProgram, metadata: str, *, gridsample: bool) -> None:
    """Write a program as a file for `torch.export.load`.

    Args:
        path: the file.
        form: what the program was traced from.
        program: the program; deformable convolutions are already what they should be.
        metadata: the text to store under `METADATA`.
        gridsample: as for ONNX files.
    """
    # Into memory first: where a disk is full, the writer of torch ends the process.
    content = io.BytesIO()
    torch.export.save(program, content, extra_files={METADATA: metadata})
    path.write_bytes(content.getbuffer())


def opened(path: Path) -> Callable[[Sequence[Tensor]], list[Tensor]]:
    """Return a function that runs the file."""
    module = torch.export.load(path).module()

    def run(inputs: Sequence[Tensor]) -> list[Tensor]:
        with torch.no_grad():
            return list(module(*inputs))

    return run


def versions() -> str:
    """Return the version of the package that writes and runs the file."""
    return f"torch {torch.__version__}"
