"""Record clips of a class from a camera, as files that training reads."""

from saccade.record.config import RecordConfig
from saccade.record.recorder import record

__all__ = ["RecordConfig", "record"]
