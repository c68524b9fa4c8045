"""Where a model looked: sampled areas, sampling points, saliency, and how much of them falls on known objects."""

from saccade.attention.look import Look, look
from saccade.attention.measure import Attended, measure
from saccade.attention.units import effective_receptive_field, sampling_points, strongest_units

__all__ = ["Attended", "Look", "effective_receptive_field", "look", "measure", "sampling_points", "strongest_units"]
