"""The command `saccade preview`: labelled clips as a model sees them, before and after random changes."""

from saccade.preview.command import preview
from saccade.preview.config import PreviewConfig

__all__ = ["PreviewConfig", "preview"]
