"""The command `saccade export`: trace a model in two forms, write both, compare them with the model, keep them."""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from torch import nn
from torch.fx import config as fx_config

from saccade import checkpoint, files, weights
from saccade.checkpoint import Header
from saccade.clips import SHORT_SIDE_PX, Size
from saccade.errors import DataError, UsageError
from saccade.export import card, onnx_file, torch_file
from saccade.export.compare import largest_difference
from saccade.export.config import ExportConfig
from saccade.export.description import described
from saccade.export.forms import forms
from saccade.models import VideoClassifier
from saccade.nn import DeformConv2d

_FILES: dict[str, ModuleType] = {"onnx": onnx_file, "torch": torch_file}
_SCRATCH = ".export.part-"
# What an export has in its folder while it runs.
_OURS = (_SCRATCH, f".{card.NAME}.lock", f".{Path(card.NAME).stem}.part-")


@dataclass(frozen=True)
class Exported:
    """What was written.

    Args:
        paths: the files.
        size: (height, width) of the frames.
        largest_difference: the largest difference of a probability from the model's.
    """

    paths: tuple[Path, ...]
    size: Size
    largest_difference: float


def export(config: ExportConfig, *, stage: Callable[[str], None] | None = None) -> Exported:
    """Write a model as `clip` and `step` with a model card, after they were compared with the model.

    Args:
        config: the model and the options.
        stage: called with the name of each stage before it begins.

    Raises:
        UsageError: if the model reads whole clips of one length, has frames of another size, or `out` is not empty.
        MissingExtraError: if the extra `export` is not installed.
        DataError: if the checkpoint cannot be read, does not name its classes, or an exported file differs from it.
        OSError: if the files cannot be written.
    """
    begin = stage or (lambda name: None)
    _FILES[config.format].check_installed()
    path = checkpoint.locate(weights.find(config.model))
    model, header = checkpoint.load(path)
    size = _checked(model, header, config)
    assert isinstance(model, VideoClassifier)
    with _written_whole(config.out) as folder, _quiet():
        difference = _write(model, header, config, size, files.digest_of(path), folder, begin)
        names = sorted(made.name for made in folder.iterdir())
    return Exported(tuple(config.out / name for name in names), size, difference)


def _checked(model: nn.Module, header: Header, config: ExportConfig) -> Size:
    """Return the size of frames; raise the errors of a model that cannot be exported."""
    if header.labels is None:
        raise DataError(
            f"{config.model} does not say what its classes are; a video classifier made by `saccade train` is needed"
        )
    if not isinstance(model, VideoClassifier):
        raise UsageError(
            f"a {header.kind} reads whole clips of one length, and has no state for single frames; export another model"
        )
    own = model.frame_format.size
    if own is not None and config.size not in (None, own):
        raise UsageError(f"{config.model} takes frames of {own[0]}x{own[1]} px; leave out --size")
    return own or config.size or (SHORT_SIDE_PX, SHORT_SIDE_PX)


def _write(
    model: VideoClassifier,
    header: Header,
    config: ExportConfig,
    size: Size,
    digest: str,
    folder: Path,
    begin: Callable[[str], None],
) -> float:
    """Write all files into a folder; return the largest difference of a probability."""
    format, gridsample = _FILES[config.format], config.deform == "gridsample"
    runs, about = [], {}
    for form in forms(model, size, reference=gridsample and config.format == "torch"):
        begin(f"{form.name} model")
        about = described(header, model.labels, model.frame_format, size, digest, form)
        file = folder / f"{form.name}{format.SUFFIX}"
        format.write(file, form, form.traced(), json.dumps(about), gridsample=gridsample)
        runs.append(format.opened(file))
    begin("comparison")
    difference = largest_difference(model, size, *runs)
    native = not gridsample and any(isinstance(layer, DeformConv2d) for layer in model.modules())
    text = card.text(
        header, about, suffix=format.SUFFIX, native=native, difference=difference, versions=format.versions()
    )
    files.write_text(folder / card.NAME, text)
    return difference


@contextmanager
def _written_whole(out: Path) -> Iterator[Path]:
    """Yield a folder inside `out` whose files move into `out` if the block ends without an error, the card last.

    Otherwise `out` is left as it was. What a killed process left in hidden folders is removed.

    Raises:
        UsageError: if `out` is not empty, or another process writes to it.
    """
    is_new = not out.exists()
    try:
        with files.errors_named(out), _held(out), _scratch(out) as made:
            yield made
            for path in sorted(made.iterdir(), key=lambda path: path.name == card.NAME):
                path.replace(out / path.name)
    except BaseException:
        if is_new:
            with suppress(OSError):
                out.rmdir()
        raise


@contextmanager
def _held(out: Path) -> Iterator[None]:
    with ExitStack() as stack:
        try:
            stack.enter_context(files.locked(out / card.NAME, timeout_s=0))
        except FileExistsError as error:
            raise UsageError(f"{out} is a file; choose a new or empty folder as --out") from error
        except TimeoutError as error:
            raise UsageError(f"another process is writing to {out}; choose another --out") from error
        yield


@contextmanager
def _scratch(out: Path) -> Iterator[Path]:
    """Yield a new folder in a hidden one inside `out`, which is removed; `out` is locked."""
    # Temporary files of others may be those of a training that runs.
    if others := sorted(path.name for path in out.iterdir() if not path.name.startswith(_OURS)):
        raise UsageError(f"{out} holds {others[0]}; choose a new or empty folder as --out")
    for left in out.glob(f"{_SCRATCH}*"):
        shutil.rmtree(left)
    files.remove_leftovers(out)
    files.check_writable(out / card.NAME)
    with tempfile.TemporaryDirectory(prefix=_SCRATCH, dir=out) as scratch:
        made = Path(scratch) / "made"
        made.mkdir()
        yield made


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what the exporters of torch tell their developers from the user: they log much, and warn of themselves."""
    before, traced = logging.root.manager.disable, fx_config.do_not_emit_stack_traces
    logging.disable(logging.CRITICAL)
    fx_config.do_not_emit_stack_traces = True  # slow to find, and none stay in the files
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=FutureWarning, message=r"`isinstance\(treespec, LeafSpec\)`")
            yield
    finally:
        fx_config.do_not_emit_stack_traces = traced
        logging.disable(before)
