"""Run `saccade explain`: from its options to the written file."""

from __future__ import annotations

from pathlib import Path

from saccade import files, run_folder
from saccade.data import video_writing
from saccade.errors import UsageError
from saccade.explain import page, pictures, prose
from saccade.explain.config import ExplainConfig
from saccade.explain.explanation import Explanation, explain_clip
from saccade.explain.payload import shown_fps


def explain(config: ExplainConfig) -> Path:
    """Write a report of where models look in a clip and what they predict; return the file.

    Raises:
        UsageError: if the device is unknown, if the models were trained at different frame rates, or if no file is
            named and the standard one exists.
        DataError: if the clip or a checkpoint cannot be read, or if they do not fit each other.
        MissingExtraError: if matplotlib is not installed and the format is not html.
        OSError: if the file cannot be written.
    """
    # Fail before the work, not after it.
    if config.out is None and config.path.exists():
        raise UsageError(f"{config.path} exists; name another file with --out, or this one to replace it")
    files.check_writable(config.path)
    if config.chosen_format != "html":
        pictures.check_can_draw()
    explanation = explain_clip(config)
    if config.chosen_format == "html":
        files.write_text(config.path, _page(explanation))
    elif config.chosen_format == "png":
        pictures.write_strip(config.path, explanation)
    else:
        frames, fps = pictures.moving(explanation), shown_fps(explanation)
        if config.chosen_format == "gif":
            video_writing.write_gif(config.path, frames, min(fps, video_writing.MAX_GIF_FPS))
        else:
            video_writing.write_mp4(config.path, frames, fps)
    return config.path


def _page(explanation: Explanation) -> str:
    call = run_folder.call()
    return page.render(explanation, command=call["command"], provenance=prose.provenance(call))
