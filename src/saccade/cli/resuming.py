"""What the verb `train` continues with `--resume`: the settings and the data of a run."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from saccade.cli.options import given, names
from saccade.errors import DataError, UsageError
from saccade.foreign import check_types


def as_begun(words: Sequence[str], config: Any, out: Path) -> tuple[Any, Any, int | None]:
    """Return the configuration of a run, updated with the options typed now, its data, and its number of folds.

    Raises:
        UsageError: if nothing is to be continued, since a head was fitted at once.
        DataError: if there is no run, or it is damaged.
    """
    from saccade import checkpoint, run_folder
    from saccade.train import folds_run

    if not out.exists():
        raise DataError(f"there is no run to continue at {out}; name its folder with --out")
    if out.is_dir() and not run_folder.begun(out):
        raise DataError(f"nothing has been saved in {out} yet; leave out --resume to begin")
    if folds_run.is_begun(out):
        return _folds_as_begun(words, config, out)
    header = checkpoint.read_header(out)
    if header.model == "lite0-memory":
        raise UsageError(f"{out} is finished: a head on a pretrained trunk is fitted at once; choose another --out")
    config = _updated(words, config, header.training.get("config", {}), f"{out} has a damaged checkpoint")
    return config, header.data_config(), None


def check_folds(out: Path, begun: int | None, typed: int | None) -> None:
    """Raise UsageError if a run is to be continued with another number of folds; None for none."""
    if typed in (None, begun):
        return
    came = "without --folds" if begun is None else f"with --folds {begun}"
    raise UsageError(f"{out} was made {came}, now --folds {typed}; give the same to continue, or choose another --out")


def _folds_as_begun(words: Sequence[str], config: Any, out: Path) -> tuple[Any, Any, int]:
    """Return the configuration of a cross-validation by steps, its clips and its number of folds."""
    from saccade import run_folder
    from saccade.data import Folder
    from saccade.train import folds_run

    told, damaged = run_folder.read(out), f"{out} has a damaged run.json"
    config = _updated(words, config, told.get("config", {}), damaged)
    try:
        return config, Folder.from_json(told["data"]), int(told[folds_run.NUM_FOLDS])
    except (TypeError, ValueError, KeyError) as error:
        raise DataError(f"{damaged} ({error}); train again into another --out") from error


def _updated(words: Sequence[str], config: Any, begun: Mapping[str, Any], damaged: str) -> Any:
    before = {name: value for name, value in begun.items() if name in names(config)}
    try:
        check_types(before, type(config))
    except TypeError as error:
        raise DataError(f"{damaged} ({error}); take an earlier copy or train again") from error
    if before.get("start_from"):
        before["start_from"] = Path(before["start_from"])
    typed = given(words, config)
    if "steps" in typed or "minutes" in typed:
        before |= {"steps": None, "minutes": None}
    return replace(config, **before | typed)
