"""The verb `saccade generate`: write moving digits to files, for people and for other programs."""

from saccade.generate.config import GenerateConfig
from saccade.generate.contact_sheet import draw_contact_sheet
from saccade.generate.dataset import LABELS, MANIFEST, POSES, SHEET, generate

__all__ = ["LABELS", "MANIFEST", "POSES", "SHEET", "GenerateConfig", "draw_contact_sheet", "generate"]
