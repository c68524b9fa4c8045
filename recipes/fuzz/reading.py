"""Read a file as the verbs do, within limits, and say what came of it."""

import signal
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from saccade import checkpoint, run_folder
from saccade.data import collection, members, video
from saccade.data.digits import load
from saccade.errors import SaccadeError
from saccade.evaluate import read_rows
from saccade.processors import limit_memory

MEMORY_BYTES, TIME_LIMIT_S = 1 << 30, 10
READ, REFUSED = "read", "refused"


@dataclass(frozen=True)
class Job:
    """A damaged file of a kind."""

    kind: str
    path: Path


def reader(folder: Path) -> Callable[[Job], str]:
    """Limit this process, and return the function that reads a file and says what came of it."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # which ends the process
    limit_memory(MEMORY_BYTES)
    return partial(outcome_of, folder)


def outcome_of(folder: Path, job: Job) -> str:
    """Read a file, and return `read`, `refused`, or what went wrong."""
    signal.alarm(TIME_LIMIT_S)
    try:
        for _ in reading(folder, job):
            pass
    except SaccadeError as error:
        return f"{REFUSED}: {error}"
    except Exception as error:
        return f"traceback: {type(error).__name__}: {error!s:.200} {traceback.format_exc()[-400:]}"
    finally:
        signal.alarm(0)
    return READ


def reading(folder: Path, job: Job) -> Iterator[object]:
    """Read a file as the verbs do."""
    if job.kind in ("video", "npz"):
        yield video.describe(job.path)
        yield video.read_clip(job.path, size=(32, 32))
        yield members.digest_of(job.path)
    elif job.kind == "idx":
        yield from idx_files(folder, job.path)
    elif job.kind == "checkpoint":
        yield checkpoint.load(job.path)
    elif job.kind == "archive":
        for entry in collection.read(job.path).entries:
            yield video.read_clip(entry.path, size=(32, 32))
    elif job.kind == "clips.csv":
        yield collection.read(job.path)
    elif job.kind == "rows.csv":
        yield read_rows(job.path)
    elif job.path.suffix == ".json":
        place = folder / "run"
        place.mkdir(exist_ok=True)
        job.path.replace(place / run_folder.RUN)
        yield run_folder.read(place)
    else:
        yield run_folder.read_log(job.path)


def idx_files(folder: Path, images: Path) -> Iterator[object]:
    """Read IDX files in the place of MNIST's."""
    place = folder / "mnist"
    place.mkdir(exist_ok=True)
    for part in ("train", "t10k"):
        (place / f"{part}-images-idx3-ubyte").write_bytes(images.read_bytes())
        (place / f"{part}-labels-idx1-ubyte").write_bytes((folder / "labels").read_bytes())
    yield load("mnist", "test", digits_dir=place)


def lost(job: Job, why: str) -> str:
    """Return the outcome of a file that ended the process."""
    return "hang: longer than ten seconds" if why == "SIGALRM" else f"crash: {why}"
