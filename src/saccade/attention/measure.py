"""How much of a model's attention falls on objects whose positions are known."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from saccade.attention.attribution import verdict_gradients
from saccade.attention.covering import covering
from saccade.attention.following import circular_mean, following, turn_and_zoom
from saccade.attention.forward import Clips, Seen, run
from saccade.attention.geometry import quadrilateral
from saccade.attention.mass import Mass, mass_ratio, of_pixels, of_sampled_area, of_sampling_points
from saccade.attention.route import labels_of, route_of
from saccade.clips import Poses

MEASURES = ("gradient", "sampled_area", "sampling_points", "ink")
"""The kinds of attention: `gradient` is the absolute gradient of the verdict's score with respect to the pixels, for
every model. `sampled_area` is the area that the spatial transformer samples. `sampling_points` are the points where the
layers with offsets sample, weighted by gradient. `ink` is the brightness of the pixels: a reference level without any
model, for attention to ink alone."""


@dataclass(frozen=True)
class Attended:
    """Figures of each clip, each a mean over the clip's frames; NaN if no frame has a value.

    Args:
        ratio: the share of the mass on each object divided by the object's share of the area; 1 is chance.
        ratio_min: the smallest ratio among the objects of a frame, over frames that show all of them. Chance is below 1
            here, because the smallest of several values is taken.
        ratio_min_elsewhere: `ratio_min` of the same attention on the objects of another clip. This is the chance level
            of `ratio_min` for attention that prefers some places in every clip, for example the middle of the frame.
        all_above: the fraction of these frames in which the ratio of every object is above 1.
        all_above_elsewhere: the same for the objects of another clip.
        following: how the mechanism responds to the objects. For the sampled area: how closely its angle and size
            follow the objects' angle and scale, as a mean over glimpses; see `following`. Also how its glimpses cover
            the objects, and those of another clip (`..._elsewhere`); see `covering`. For the sampling points:
            `ratio_min_gain`, which is `ratio_min` minus its value with the same weights at the points of a plain layer.
            This is the effect of the offsets alone.
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
    """Measure where a model looks in clips whose poses are known.

    Gradients are those of the score of the verdict at the end of the clip. They are taken over the whole clip and
    normalised in each frame.

    Args:
        model: the model; it is not changed.
        clips: the clips.
        poses: the poses of the objects in the clips.
        elsewhere_px: the boxes of the objects in as many other clips.

    Returns:
        The figures of each clip, for each of `MEASURES` that the model has, and the logits at the end of each clip.
    """
    seen, logits, _ = run(model, route_of(model), clips, gradients=True)
    gradient, by_stage = verdict_gradients(logits, seen, labels_of(model, logits.shape[-1]), seen.pixels)
    with torch.no_grad():
        found = {
            name: _attended(mass, poses, elsewhere_px, clips.shape[-2:])
            for name, mass in _masses(seen, gradient, by_stage).items()
        }
        if (at := seen.said.route.transformer) is not None:
            found["sampled_area"].following.update(_following(seen, at, poses))
            found["sampled_area"].following.update(_covering(seen, at, poses, elsewhere_px))
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
        found["sampled_area"] = of_sampled_area(said.maps(said.route.transformer), crop, frame)
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
    least, least_elsewhere = _least(here, poses.present), _least(elsewhere, _ever_shown(elsewhere_px))
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
    """Return the smallest ratio among the objects of a clip; NaN in frames that do not show all of them."""
    return torch.where(present.unsqueeze(1), ratio, torch.inf).amin(-1)


def _ever_shown(box_px: Int64[Tensor, "clips time things 4"]) -> Bool[Tensor, "clips things"]:
    """Return which objects show: of other clips only the boxes are known, so one that never shows counts as absent."""
    return box_px.any(-1).any(1)


def _fraction_above_one(ratio: Float[Tensor, "clips time"]) -> Float[Tensor, "clips"]:
    return torch.where(ratio.isnan(), torch.nan, (ratio > 1).to(ratio.dtype)).nanmean(1)


def _following(seen: Seen, at: int, poses: Poses) -> dict[str, Tensor]:
    frame, crop = seen.said.sizes[at]
    clips = poses.angle_deg.shape[:2]
    maps = seen.said.maps(at).unflatten(0, clips).transpose(1, 2)
    angle_deg, size = turn_and_zoom(maps, crop, frame)
    true_deg, true_scale = (true.unsqueeze(1).expand_as(size) for true in _mean_pose(poses))
    found = (*following(angle_deg, true_deg, angles=True), *following(size, true_scale))
    names = ("angle_slope", "angle_correlation", "scale_slope", "scale_correlation")
    return {name: of_glimpses.nanmean(1) for name, of_glimpses in zip(names, found, strict=True)}


def _mean_pose(poses: Poses) -> tuple[Float[Tensor, "clips time"], Float[Tensor, "clips time"]]:
    return circular_mean(poses.angle_deg), poses.scale.mean(-1)


def _covering(
    seen: Seen, at: int, poses: Poses, elsewhere_px: Int64[Tensor, "clips time things 4"]
) -> dict[str, Float[Tensor, "clips"]]:
    corners = quadrilateral(seen.said.maps(at), seen.said.sizes[at][0])
    found: dict[str, Float[Tensor, "clips"]] = {}
    places = (("", poses.box_px, poses.present), ("_elsewhere", elsewhere_px, _ever_shown(elsewhere_px)))
    for suffix, box_px, present in places:
        clips = box_px.shape[:2]
        things = present.unsqueeze(1).expand(-1, clips[1], -1).flatten(0, 1)
        figures = covering(corners, box_px.flatten(0, 1), things)._asdict()
        found |= {f"{name}{suffix}": figure.unflatten(0, clips).nanmean(1) for name, figure in figures.items()}
    return found
