"""What a model attended to, compared with the known positions of things."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from saccade.attention.attribution import verdict_gradients
from saccade.attention.following import circular_mean, following, turn_and_zoom
from saccade.attention.forward import Clips, Seen, run
from saccade.attention.mass import Mass, mass_ratio, of_pixels, of_sampled_area, of_sampling_points
from saccade.attention.route import labels_of, route_of
from saccade.clips import Poses

MEASURES = ("gradient", "sampled_area", "sampling_points", "ink")
"""What counts as attention: pixels by the absolute gradient of the verdict's score, for every model; what the spatial
transformer samples; where the layers with offsets sample, weighted by gradient; and as a level to compare with, for any
model, the brightness of the pixels, which is what looking at nothing but ink would give."""


@dataclass(frozen=True)
class Attended:
    """Figures of each clip, each a mean over its frames; NaN where a clip has none.

    Args:
        ratio: for each thing, the mass on it over its share of the area; 1 is chance.
        ratio_min: the smallest of a frame's things, in frames that show all of them. Chance is below 1 here, since of
            several chances one takes the worst.
        ratio_min_elsewhere: the same attention beside the things of another clip: chance for `ratio_min`, with whatever
            the attention prefers that is no matter of the clip, such as the middle of the frame.
        all_above: fraction of these frames in which every thing has more than its share.
        all_above_elsewhere: the same for the things of another clip.
        following: what the mechanism does with the things. Of the sampled area, how its angle and size follow their
            angle and scale: see `following`. Of the sampling points, `ratio_min_gain`: how much larger `ratio_min` is
            than with the same weights at the points of a plain layer, which is what the offsets alone do.
    """

    ratio: Float[Tensor, "clips things"]
    ratio_min: Float[Tensor, "clips"]
    ratio_min_elsewhere: Float[Tensor, "clips"]
    all_above: Float[Tensor, "clips"]
    all_above_elsewhere: Float[Tensor, "clips"]
    following: dict[str, Float[Tensor, "clips"]]


def measure(
    model: nn.Module, clips: Clips, poses: Poses, elsewhere_px: Int64[Tensor, "clips time things 4"]
) -> tuple[dict[str, Attended], Float[Tensor, "clips classes"]]:
    """Measure where a model looks in clips whose truth is known.

    Gradients are those of the score of the verdict at the clip's end, of the whole clip, normalised in each frame.

    Args:
        model: the model; it is left as it was.
        clips: the clips.
        poses: their truth.
        elsewhere_px: the boxes of as many other clips.

    Returns:
        For each of `MEASURES` that the model has, the figures of each clip; and the logits at each clip's end.
    """
    seen, logits, _ = run(model, route_of(model), clips, gradients=True)
    gradient, by_stage = verdict_gradients(logits, seen, labels_of(model, logits.shape[-1]))
    with torch.no_grad():
        found = {
            name: _attended(mass, poses, elsewhere_px, clips.shape[-2:])
            for name, mass in _masses(seen, gradient, by_stage).items()
        }
        if (at := seen.said.route.transformer) is not None:
            found["sampled_area"].following.update(_following(seen, at, poses))
        if by_stage:
            rest = of_sampling_points(seen, by_stage, moved=False)
            at_rest = _attended(rest, poses, elsewhere_px, clips.shape[-2:])
            points = found["sampling_points"]
            points.following["ratio_min_gain"] = points.ratio_min - at_rest.ratio_min
    return found, logits[:, -1].detach()


def _masses(seen: Seen, gradient: Tensor, by_stage: dict[int, Tensor]) -> dict[str, Mass]:
    said = seen.said
    found = {"gradient": of_pixels(gradient.abs().sum(2).flatten(0, 1))}
    if said.route.transformer is not None:
        frame, crop = said.sizes[said.route.transformer]
        found["sampled_area"] = of_sampled_area(said.theta(said.route.transformer), crop, frame)
    if by_stage:
        found["sampling_points"] = of_sampling_points(seen, by_stage)
    return found | {"ink": of_pixels(seen.pixels.detach().mean(2).flatten(0, 1))}


def _attended(
    mass: Mass, poses: Poses, elsewhere_px: Int64[Tensor, "clips time things 4"], frame_size: torch.Size
) -> Attended:
    size = frame_size[0], frame_size[1]
    here, elsewhere = (
        mass_ratio(mass, boxes.flatten(0, 1), size).unflatten(0, boxes.shape[:2])
        for boxes in (poses.box_px, elsewhere_px)
    )
    # Whose boxes those elsewhere are is not told: a thing that never shows is taken for none.
    least, least_elsewhere = _least(here, poses.present), _least(elsewhere, elsewhere_px.flatten(3).any(-1).any(1))
    return Attended(
        ratio=here.nanmean(1),
        ratio_min=least.nanmean(1),
        ratio_min_elsewhere=least_elsewhere.nanmean(1),
        all_above=_fraction_above_one(least),
        all_above_elsewhere=_fraction_above_one(least_elsewhere),
        following={},
    )


def _least(
    ratio: Float[Tensor, "clips time things"], present: Bool[Tensor, "clips things"]
) -> Float[Tensor, "clips time"]:
    """Return the least of the things that a clip has; NaN in frames where one of them does not show."""
    return torch.where(present.unsqueeze(1), ratio, torch.inf).amin(-1)


def _fraction_above_one(ratio: Float[Tensor, "clips time"]) -> Float[Tensor, "clips"]:
    return torch.where(ratio.isnan(), torch.nan, (ratio > 1).to(ratio.dtype)).nanmean(1)


def _following(seen: Seen, at: int, poses: Poses) -> dict[str, Tensor]:
    frame, crop = seen.said.sizes[at]
    clips = poses.angle_deg.shape[:2]
    angle_deg, size = (found.unflatten(0, clips) for found in turn_and_zoom(seen.said.theta(at), crop, frame))
    angle = following(angle_deg, circular_mean(poses.angle_deg), angles=True)
    scale = following(size, poses.scale.mean(-1))
    names = ("angle_slope", "angle_correlation", "scale_slope", "scale_correlation")
    return dict(zip(names, (*angle, *scale), strict=True))
