"""The text of a report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from saccade import checkpoint
from saccade.attention import Look
from saccade.explain.explanation import Column, Explanation
from saccade.explain.payload import SHOWN_FPS

_ORDER = "in the order of their numbers, from left to right and row by row"


def provenance(call: Mapping[str, Any]) -> str:
    """Return a sentence on when and with what a page was made, given the result of `run_folder.call`."""
    made_with = ", ".join(f"{name} {version}" for name, version in checkpoint.versions().items())
    return f"Made {call['started']} with {made_with}, commit {call['commit']}."


def facts(explanation: Explanation) -> str:
    """Describe the clip in one line."""
    height, width = explanation.file_size
    first = "the first " if explanation.cut else ""
    parts = [f"{first}{explanation.num_frames} frames", f"{width}x{height} px"]
    parts.append(f"{explanation.fps:.4g} frames/s" if explanation.fps else f"shown at {SHOWN_FPS:.0f} frames/s")
    if explanation.truth:
        parts.append(f"shows {_and([str(digit) for digit in explanation.truth.digits])}")
    return " · ".join(parts)


def notices(explanation: Explanation) -> list[str]:
    """Return the notices for the top of the report: damage in the file, and frames that were not read."""
    found = list(explanation.warnings)
    if explanation.cut:
        found.append(
            f"The clip continues after {explanation.num_frames} frames. The report and its verdicts cover only these"
            " frames; use --max-frames to read more."
        )
    return found


def legend(column: Column) -> str:
    """Return the meaning of the marks on the frames of a model, and whether its attention did anything, as HTML."""
    quadrilaterals = column.look.quadrilateral_px
    if quadrilaterals is not None and _has_several(column.look):
        told = (
            f"{quadrilaterals.shape[1]} quadrilaterals: the areas of the frame that the glimpses of the spatial"
            " transformer sample. A number marks the upper left corner of each. Above: the sampled areas, the input of"
            f" the encoder, {_ORDER}."
        )
    elif quadrilaterals is not None:
        told = (
            "Quadrilateral: the area of the frame that the spatial transformer samples. The dot marks its upper left"
            " corner. Above: the sampled area, the input of the encoder."
        )
    elif column.look.points_px is not None:
        told = (
            "Dots: sampling points of the three strongest units, one colour for each unit; larger dots matter more."
            " Crosses: the centres of these units without offsets."
        )
    else:
        return (
            "No attention layers: this model chooses no area and no points of the frame. Saliency shows what its"
            " verdict depends on."
        )
    return " ".join([told, *_findings(column.look)])


def _findings(look: Look) -> list[str]:
    """Return sentences on attention that changes nothing that can be measured, and on points outside the frame."""
    found = []
    height, width = look.frame_size
    if look.quadrilateral_px is not None:
        area = "the area is" if look.quadrilateral_px.shape[1] == 1 else "every area is"
        whole = torch.tensor([[0, 0], [0, width], [height, width], [height, 0]]) - 0.5
        if (look.quadrilateral_px.cpu() - whole).abs().max() <= 1:
            found.append(
                f"In this clip {area} the whole frame within a pixel: <strong>attention changes nothing</strong>."
            )
    if look.arrows_px is not None:
        start, end = look.arrows_px.cpu().unbind(-2)
        if (longest := (end - start).norm(dim=-1).max().item()) < 0.1:
            found.append(
                f"In this clip offsets, averaged over taps, are at most {longest:.2f} px long: <strong>attention"
                " changes nothing</strong>."
            )
    if look.points_px is not None:
        y, x = look.points_px.cpu().unbind(-1)
        inside = (y >= -0.5) & (y <= height - 0.5) & (x >= -0.5) & (x <= width - 0.5)
        if (outside := 1 - inside.float().mean().item()) >= 0.05:
            found.append(f"{100 * outside:.0f}\N{NO-BREAK SPACE}% of these points lie outside the frame.")
    return found


def reading(explanation: Explanation) -> list[str]:
    """Return paragraphs of HTML on the meaning of the drawings and figures, and on its limits."""
    looks = [column.look for column in explanation.columns]
    told = [
        "Frames are shown as each model receives them, enlarged or reduced to the page. The verdict is that of the last"
        " frame. It was <em>decided</em> at the first frame from which it stays the same and sure, as in <code>saccade"
        f" predict</code>: {_sure(explanation)}. Probabilities are the output of the"
        f" model, not how often it is right. These models know {_known(explanation)} only: on other videos a verdict"
        " means nothing, even if its probability is high. Space plays and pauses, the arrow keys move by one frame, and"
        " Home and End go to the first and the last frame. <code>#frame=20</code> at the end of the page's address"
        " opens the page at frame 20."
    ]
    if any(look.quadrilateral_px is not None for look in looks):
        told.append(
            "<strong>Spatial transformer.</strong> The quadrilateral is the area that the spatial transformer samples"
            " from the frame with one affine map. The dot marks the corner that becomes the upper left corner of the"
            " crop. The crop is shown beside the frame; it is the only input of the rest of the network. The crop is"
            " black where the quadrilateral extends beyond the frame."
        )
    if any(_has_several(look) for look in looks):
        told.append(
            "<strong>Several glimpses.</strong> One network predicts an affine map for each glimpse from the whole"
            " frame, and one trunk reads all crops. Their quadrilaterals have colours, line styles and numbers; the"
            f" crops are drawn {_ORDER}. An object is <em>in a glimpse</em> if the middle of its box is."
        )
    if any(look.points_px is not None for look in looks):
        told.append(
            "<strong>Deformable convolution.</strong> Each unit of the deepest layer samples at points that the network"
            " chose. The points are traced here through all deformable layers to the frame. The three most active units"
            " are shown; larger points matter more to the verdict. A point is the centre of a small patch, not a single"
            " pixel. Arrows are the offsets of the shallowest layer at their true length, averaged over the taps of"
            " each position."
        )
    told.append(
        "<strong>Saliency</strong> is the absolute gradient of the verdict's score at the last frame with respect to"
        " each pixel, scaled by the maximum of each frame. It shows where a small change of a pixel would matter. For a"
        " model with the trunk EfficientNet-lite0 or ResNet-18, and no attention in or before it, it is what each place"
        " of the trunk's map adds to the score; places are 32 pixels apart. Saliency does not show that the model"
        " recognised an object there: an untrained network has a saliency too."
    )
    if any(look.receptive_field is not None for look in looks):
        told.append(
            "<strong>Receptive field</strong> is the same gradient for one unit, the most active one in each frame. The"
            " unit belongs to the deepest deformable layer, where its points have the first colour, or to the last"
            " feature map of a model without deformable layers. The gradient includes all effects of a pixel on the"
            " unit, also through the positions at which the unit samples."
        )
    if explanation.truth:
        told.append(
            "<strong>On the digits</strong> is the share of a model's attention inside the true box of a digit, divided"
            " by the box's share of the frame, as a mean over frames. Attention that is even over the frame gives 1."
            " The row for brightness gives the value for attention to bright pixels alone. <em>Least</em> takes the"
            " digit with the least attention in each frame, so chance is below 1 there. One clip is an example, not"
            " evidence: <code>saccade evaluate --attention</code> measures the same over a test set, with intervals."
        )
    return told


def _has_several(look: Look) -> bool:
    return look.quadrilateral_px is not None and look.quadrilateral_px.shape[1] > 1


def _sure(explanation: Explanation) -> str:
    """Return when a verdict is sure, in words."""
    kinds = {column.labels.exclusive for column in explanation.columns}
    least = explanation.columns[0].min_confidence
    if least == 0:
        return "with <code>--min-confidence 0</code> every verdict is sure"
    rules = {
        True: f"a class is sure from {100 * least:.3g}\N{NO-BREAK SPACE}%",
        False: "a set of classes is sure while no class has a probability between"
        f" {50 * (1 - least):.3g} and {50 * (1 + least):.3g}\N{NO-BREAK SPACE}%; the probability of a set is that of"
        " exactly these classes, below that of each",
    }
    return ", ".join(rule for kind, rule in rules.items() if kind in kinds)


def _known(explanation: Explanation) -> str:
    """Return what the models can classify, in words."""
    if explanation.knows_digits:
        return "digits"
    return "the classes of their training"


def _and(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
