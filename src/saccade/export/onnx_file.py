"""Models as ONNX files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.export import ExportedProgram

from saccade.errors import MissingExtraError
from saccade.export.description import METADATA
from saccade.export.forms import Form
from saccade.ops import onnx_translation_table

SUFFIX = ".onnx"
OPSET = 20
"""The version of ONNX's operators: the first in which a deformable convolution and GridSample have their names."""


def check_installed() -> None:
    """Raise MissingExtraError if the extra `export` is not installed."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "onnx", "export") from error


def write(path: Path, form: Form, program: ExportedProgram, metadata: str, *, gridsample: bool) -> None:
    """Write a program as an ONNX file.

    Args:
        path: the file.
        form: what the program was traced from.
        program: the program.
        metadata: the text to store under `METADATA`.
        gridsample: whether deformable convolutions become standard operators.
    """
    from onnx_ir.passes import Sequential
    from onnx_ir.passes import common as passes

    written = torch.onnx.export(
        program,
        dynamo=True,
        verbose=False,
        opset_version=OPSET,
        custom_translation_table=onnx_translation_table("GridSample" if gridsample else "DeformConv"),
        input_names=list(form.inputs),
        output_names=list(form.outputs),
        # Only for the names of the axes; those of the state are the same.
        dynamic_shapes=[form.axes[0], *({} for _ in form.axes[1:])],
    )
    assert written is not None
    # Constants that the optimiser left over, and the lines of code behind each node, which name folders.
    Sequential(passes.RemoveUnusedNodesPass(), passes.ClearMetadataAndDocStringPass())(written.model)
    written.model.metadata_props[METADATA] = metadata
    written.save(path, external_data=False)


def opened(path: Path) -> Callable[[Sequence[Tensor]], list[Tensor]]:
    """Return a function that runs an ONNX file in onnxruntime, on as many threads as torch uses."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]

    def run(inputs: Sequence[Tensor]) -> list[Tensor]:
        feed = {name: tensor.numpy() for name, tensor in zip(names, inputs, strict=True)}
        return [torch.from_numpy(np.asarray(output)) for output in session.run(None, feed)]

    return run


def versions() -> str:
    """Return the versions of the packages that write and run the file."""
    import onnx
    import onnxruntime

    return f"onnx {onnx.__version__}, onnxruntime {onnxruntime.__version__}, opset {OPSET}"
