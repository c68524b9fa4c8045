"""The page of an evaluation: its figures, and where the model looked in the clips with the most wrong verdicts."""

from __future__ import annotations

import io
import shlex
from collections.abc import Iterator
from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from saccade import checkpoint, files, predict, run_folder, weights
from saccade.attention import Look, look
from saccade.checkpoint import Header
from saccade.clips import Clips, DataConfig
from saccade.data import Folder, video
from saccade.device import choose_device
from saccade.evaluate import ClipVerdict, EvaluateConfig, Result, WrongClip, check_one_part, each, page
from saccade.evaluate.clip_verdicts import exact_probability, most_wrong
from saccade.evaluate.forward import Progress
from saccade.explain import prose
from saccade.explain.explanation import Column, Explanation
from saccade.explain.figures import decided, figures_of, listed
from saccade.explain.pictures import check_can_draw
from saccade.labels import Labels
from saccade.visualize import LookStrip, colour_of
from saccade.visualize.figures import DPI, load_pyplot

NUM_CLIPS = 10

_NUM_SHOWN = 8  # frames of a clip
_FRAME_PX = 140  # the longer side of a frame on the page
_SHARP = 1.5  # pixels of the picture for each pixel of the page, for screens with small pixels
_GAP_PX = 6


def each_with_page(
    config: EvaluateConfig, data: DataConfig, path: Path, *, progress: Progress | None = None
) -> Iterator[Result]:
    """Evaluate a checkpoint as `evaluate.each` does, and write a page with the results and the most wrong clips.

    If a file cannot be written, the result is yielded before the error is raised.

    Args:
        config: the model and the options.
        data: the clips.
        path: the HTML file to write.
        progress: called after every batch with the number of clips done and the total number, in each of several
            passes.

    Raises:
        UsageError: as for `evaluate.run`, or if the data have several parts.
        DataError: as for `evaluate.run`.
        NonFiniteError: as for `evaluate.run`.
        MissingExtraError: if matplotlib is not installed.
        OSError: if the file cannot be written.
    """
    check_one_part(data.parts(), "--report")
    check_can_draw()
    files.check_writable(path)
    for result in each(config, data, progress=progress):
        try:
            files.write_text(path, _page(result, config, data))
        finally:
            yield result


def _page(result: Result, config: EvaluateConfig, data: DataConfig) -> str:
    call = run_folder.call()
    clips = data.clips(config.split)
    wrong = wrong_clips(result, config, clips, root=data.collection.folder if isinstance(data, Folder) else None)
    return page.render(result, wrong, command=call["command"], provenance=prose.provenance(call))


def wrong_clips(
    result: Result, config: EvaluateConfig, clips: Clips, *, root: Path | None = None, num: int = NUM_CLIPS
) -> list[WrongClip]:
    """Return what a page shows of the most wrong clips.

    The evaluation chooses the clips. What is shown of one comes from a second pass over it, in float32: its verdict and
    probabilities can differ a little from those of an evaluation in bfloat16.

    Args:
        result: the results of the model on these clips.
        config: the model and the options of the evaluation.
        clips: the clips.
        root: the folder of their files; None if they are not files.
        num: the number of clips.

    Raises:
        MissingExtraError: if matplotlib is not installed.
    """
    device = choose_device(config.device)
    path = weights.find(config.model)
    model, header = checkpoint.load(path, device)
    found = []
    for index in most_wrong(result.evaluation.clips, num):
        batch = clips.batch(torch.tensor([index]))
        verdict = result.evaluation.clips[index]
        clip = video.Clip(_as_bytes(batch.frames[0]), result.fps)
        column = _column(model, header, path, clip, Path(verdict.name or f"clip {index}"), clips.labels, device)
        command = None
        if root is not None and verdict.name is not None and (root / verdict.name).exists():  # a part is no file
            command = shlex.join(["saccade", "explain", str(root / verdict.name), "--model", str(config.model)])
        found.append(_wrong_clip(column, verdict, command))
    return found


def _as_bytes(frames: Tensor) -> UInt8[Tensor, "time channels height width"]:
    return frames.cpu() if frames.dtype == torch.uint8 else (255 * frames.clamp(0, 1)).round().to(torch.uint8).cpu()


def _column(
    model: nn.Module, header: Header, path: Path, clip: video.Clip, name: Path, labels: Labels, device: torch.device
) -> Column:
    seen, _ = look(model, clip.frames.to(device), saliency=True)
    prediction = predict.prediction_of(name, clip, seen.logits.cpu(), labels)
    colour = colour_of(header.kind)
    return Column(header.kind, colour, path, header, labels, clip, seen, prediction, None, {}, labels.min_confidence)


def _wrong_clip(column: Column, verdict: ClipVerdict, command: str | None) -> WrongClip:
    labels, said = column.labels, column.probabilities.cpu()
    chosen = labels.decide(column.look.logits[-1]).long().tolist()
    said_over_time, shown_over_time = _over_time(said, chosen), _over_time(said, verdict.target)
    shown = _name(labels, verdict.target)
    picture, size = _picture(column)
    return WrongClip(
        name=str(column.prediction.clip),
        shown=shown,
        said=column.prediction.verdict,
        right=column.prediction.verdict == shown,
        sure=column.prediction.sure,
        exclusive=labels.exclusive,
        probability=said_over_time[-1],
        target_probability=shown_over_time[-1],
        picture=picture,
        picture_size=size,
        legend=_legend(column.look),
        said_over_time=said_over_time,
        shown_over_time=shown_over_time,
        num_frames=len(column.clip.frames),
        did=_did(column),
        command=command,
    )


def _name(labels: Labels, wanted: int | list[int]) -> str:
    """Return the name of a class index or of the present classes."""
    present = (wanted,) if isinstance(wanted, int) else tuple(k for k, there in enumerate(wanted) if there)
    return labels.name_of(present)


def _over_time(said: Float[Tensor, "time classes"], wanted: int | list[int]) -> list[float]:
    exact = torch.tensor(wanted)
    rows = exact.expand(len(said)) if exact.dim() == 0 else exact.bool().expand(len(said), -1)
    found: list[float] = exact_probability(said, rows).tolist()
    return found


def _did(column: Column) -> list[tuple[str, str]]:
    """Return figures on the verdict over time and on where the model looked."""
    explanation = Explanation(
        column.prediction.clip, column.frame_size, len(column.clip.frames), False, (column,), truth=None
    )
    said = column.prediction
    most = "Most probable" if column.labels.exclusive else "Most probable, each by itself"
    told = [(most, listed(said.top[:3]))]
    of = "" if said.decided_at is None else f" of {len(column.clip.frames)}"
    told.append(("Decided at", decided(said, column.clip.fps) + of))
    for group, figures in figures_of(explanation).items():
        if group != "Verdict":
            told += [(figure.name, figure.values[0]) for figure in figures]
    return told


def _legend(seen: Look) -> str:
    if seen.crop is not None and seen.crop.shape[1] > 1:
        return (
            "Upper row: the frames, with the areas that the glimpses of the spatial transformer sample; a number marks"
            " the upper left corner of each. Lower row: the crops in the same order, which are all that the rest of the"
            " network receives, beside where they lie."
        )
    if seen.crop is not None:
        return (
            "Upper row: the frames, with the area that the spatial transformer samples; the dot marks its upper left"
            " corner. Lower row: the crop, which is all that the rest of the network receives."
        )
    if seen.points_px is not None:
        return (
            "Upper row: the frames. Lower row: the sampling points of the three strongest units of the deformable"
            " layers, one colour for each; larger dots matter more. Crosses: these units without offsets."
        )
    return "Upper row: the frames. Lower row: the saliency, since this model has no attention layers."


def _picture(column: Column) -> tuple[bytes, tuple[int, int]]:
    """Draw frames of the clip and where the model looked; return a PNG file, and the width and height to show it at."""
    num = min(_NUM_SHOWN, len(column.clip.frames))
    strip = LookStrip("", column.clip.frames, column.look, column.colour, num)
    height, width = column.frame_size
    across = num * _FRAME_PX * width / max(height, width)
    row = across * strip.height_per_width
    down = 2 * row + _GAP_PX
    figure = load_pyplot().figure(figsize=(across * _SHARP / DPI, down * _SHARP / DPI), dpi=DPI)
    strip.draw(*(figure.add_axes((0, bottom / down, 1, row / down)) for bottom in (row + _GAP_PX, 0)), line_pt=1.4)
    written = io.BytesIO()
    figure.savefig(written, format="png", dpi=DPI, transparent=True)
    load_pyplot().close(figure)
    return written.getvalue(), (round(across), round(down))
