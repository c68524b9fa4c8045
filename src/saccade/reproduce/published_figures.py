"""The table of Shan and Atanasov (2017): the slides of June 2017, cross entropy and test accuracy as a fraction."""

from __future__ import annotations

PUBLISHED: dict[tuple[str, str], tuple[float, float]] = {
    ("lenet-lstm", "normal"): (1.39, 0.982),
    ("stn-lstm", "normal"): (2.07, 0.849),
    ("dcn-lstm", "normal"): (1.27, 0.997),
    ("lenet-lstm", "rotation"): (1.32, 0.993),
    ("stn-lstm", "rotation"): (1.85, 0.922),
    ("dcn-lstm", "rotation"): (1.15, 0.998),
    ("lenet-lstm", "scaling"): (1.51, 0.975),
    ("stn-lstm", "scaling"): (1.96, 0.898),
    ("dcn-lstm", "scaling"): (1.23, 0.992),
    ("lenet-lstm", "rotation_scaling"): (1.64, 0.958),
    ("stn-lstm", "rotation_scaling"): (2.04, 0.882),
    ("dcn-lstm", "rotation_scaling"): (1.23, 0.992),
    # Only the final poster has the fifth condition, and it has no figure for the spatial transformer.
    ("lenet-lstm", "elastic"): (1.48, 0.9719),
    ("dcn-lstm", "elastic"): (1.28, 0.993),
}
"""(model, condition) -> (cross entropy, accuracy)."""
