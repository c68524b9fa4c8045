"""The sentences of a report."""

from __future__ import annotations

from saccade.explain.explanation import Column, Explanation
from saccade.explain.payload import SHOWN_FPS


def facts(explanation: Explanation) -> str:
    """Describe the clip in a line."""
    height, width = explanation.file_size
    first = "the first " if explanation.cut else ""
    parts = [f"{first}{explanation.num_frames} frames", f"{height}x{width} px"]
    parts.append(f"{explanation.fps:.4g} frames/s" if explanation.fps else f"shown at {SHOWN_FPS:.0f} frames/s")
    if explanation.truth:
        parts.append(f"shows {_and([str(digit) for digit in explanation.truth.digits])}")
    return " · ".join(parts)


def notices(explanation: Explanation) -> list[str]:
    """Tell what a reader must know before anything else."""
    found = list(explanation.warnings)
    if explanation.cut:
        found.append(
            f"The clip continues after {explanation.num_frames} frames; everything here, verdicts too, is of those."
            " --max-frames reads more."
        )
    return found


def legend(column: Column) -> str:
    """Say in HTML what the marks on a model's frames mean that has no transformer."""
    if column.look.points_px is not None:
        return (
            "Dots: where its three strongest units sample, each in its colour; larger dots matter more."
            " Crosses: their centres without offsets."
        )
    return "No attention: it treats the whole frame alike. Saliency shows what its verdict depends on."


def reading(explanation: Explanation) -> list[str]:
    """Explain in HTML, a paragraph an item, what the drawings and figures mean and what they do not."""
    looks = [column.look for column in explanation.columns]
    told = [
        "Frames are shown at the size at which each model got them, pixel for pixel. The verdict is that of the last"
        " frame; it was <em>decided</em> at the first frame from which on it did not change. Probabilities are what the"
        f" model says, not how often it is right, and these models know {_known(explanation)} only: on other videos a"
        " verdict means nothing, however sure it looks. Space plays and pauses, the arrow keys step, Home and End go to"
        " either end;"
        " <code>#frame=20</code> behind the page's address opens it at that frame."
    ]
    if any(look.quadrilateral_px is not None for look in looks):
        told.append(
            "<strong>Transformer.</strong> The quadrilateral is what the spatial transformer cuts out of the frame with"
            " one affine map; its dot becomes the upper left corner of the crop beside it, which is all that the rest"
            " of the network gets. Where it reaches beyond the frame the crop is black."
        )
    if any(look.points_px is not None for look in looks):
        told.append(
            "<strong>Deformable convolution.</strong> Each unit of the deepest layer gathers its value at points that"
            " the network chose, traced here through all deformable layers to the frame. The three most strongly"
            " excited units are shown; larger points matter more to the verdict. A point is the centre of a"
            " small patch, not a single pixel. Arrows are the shallowest layer's offsets, averaged over each position's"
            " taps, at their true length."
        )
    told.append(
        "<strong>Saliency</strong> is the absolute gradient of the verdict's score, at the last frame, with respect to"
        " each pixel, scaled by each frame's own maximum: where a small change would matter. It does not show that the"
        " model recognised what lies there, and an untrained network has a saliency too."
    )
    if any(look.receptive_field is not None for look in looks):
        told.append(
            "<strong>Receptive field</strong> is the same gradient for one unit alone, in each frame the most strongly"
            " excited one: of the last feature map, or where a layer is deformable of the deepest such (its points have"
            " the first colour). It holds all ways in which a pixel moves the unit, also those that shift where it"
            " samples."
        )
    if explanation.truth:
        told.append(
            "<strong>On the digits</strong> stands the part of a model's attention inside a digit's true box, divided"
            " by the box's share of the frame, as a mean over frames: 1 is what looking everywhere alike gives, and the"
            " line for brightness what looking at nothing but bright pixels would. <em>Least</em> takes the digit with"
            " less attention in each frame, hence chance is below 1 there. One clip is an example and no proof:"
            " <code>saccade evaluate</code> measures the same over a test set, with intervals."
        )
    return told


def _known(explanation: Explanation) -> str:
    """Say what the models can name."""
    if explanation.knows_digits:
        return "digits"
    return "the classes of their training"


def _and(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
