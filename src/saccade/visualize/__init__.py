"""Pictures of clips, of training, and of where a model looked."""

from saccade.visualize.animation import Moving, animate
from saccade.visualize.annotated import Annotator
from saccade.visualize.look_picture import LAYERS, LookPicture
from saccade.visualize.look_strip import LookStrip, draw_looks
from saccade.visualize.probability_chart import ProbabilityChart
from saccade.visualize.training import COLOURS, colour_of, draw_curves, draw_samples, film_strip

__all__ = [
    "COLOURS",
    "LAYERS",
    "Annotator",
    "LookPicture",
    "LookStrip",
    "Moving",
    "ProbabilityChart",
    "animate",
    "colour_of",
    "draw_curves",
    "draw_looks",
    "draw_samples",
    "film_strip",
]
