"""The command `saccade export`: a model as files that run without saccade, in ONNX or as programs of torch.

`clip` reads whole clips. `step` reads one frame at a time and passes on its state. Both take raw pixels, and hold as
metadata all that a program needs to know: classes, frame size, frame rate, state, threshold.
"""

from saccade.export.command import Exported, export
from saccade.export.compare import TOLERANCE
from saccade.export.config import ExportConfig
from saccade.export.description import METADATA

__all__ = ["METADATA", "TOLERANCE", "ExportConfig", "Exported", "export"]
