"""The routes with which a page teaches: record clips of classes, delete them, train on them, show the new model."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from starlette.requests import ClientDisconnect

from saccade.errors import DataError, SaccadeError, UsageError
from saccade.serve import recording
from saccade.serve.connection import have_own_share
from saccade.serve.current import Current, Pages
from saccade.serve.taught import FEWEST, WANTED, ClipFolder, Taught
from saccade.serve.training import Trainings
from saccade.serve.upload import MAX_UPLOAD_S

if TYPE_CHECKING:
    from saccade.serve.engine import Engine

Load = Callable[[Sequence[Path]], "tuple[Engine | None, str | None]"]

_LOOK_EVERY_S = 1.0
_MAX_RECORDINGS = 2
_log = logging.getLogger("uvicorn.error")

T = TypeVar("T")


class Teaching:
    """What pages teach: the clips, the trainings, and the models that come out of them.

    Args:
        root: the folder of clips.
        load: a function from the run folders of finished trainings, the latest last, to the engine that shows their
            models, and a line about what it does not show; the engine is None without a model. It is slow.

    Raises:
        OSError: if the folder cannot be created.
    """

    def __init__(self, root: Path, load: Load) -> None:
        self.clips = ClipFolder(root)
        self.trainings = Trainings(self.clips.root)
        self.problem: str | None = None
        self._load = load
        self._shown: list[Path] = []

    def load(self) -> Engine | None:
        """Load the models of the latest trainings; return None if there are none yet."""
        self.clips.check()
        self._shown = self.trainings.finished()
        engine, self.problem = self._load(self._shown)
        return engine

    async def follow(self, current: Current, pages: Pages) -> None:
        """Show the model of each training that ends, whoever started it."""
        await asyncio.wait([current.engine])
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            try:
                if await asyncio.to_thread(self.trainings.finished) in ([], self._shown):
                    continue
                engine = await asyncio.to_thread(self.load)
            except (SaccadeError, OSError) as error:
                self.problem = f"the new model cannot be shown: {error}"
                continue
            if engine is not None:
                await current.replace(engine, pages)

    def state(self) -> dict[str, Any]:
        """Return what pages show."""
        classes, training = self.clips.classes(), self.trainings.latest()
        is_running = training is not None and training.running
        return {
            "folder": self.clips.root.name,
            "classes": [{"name": one.name, "clips": one.clips} for one in classes],
            "needs": needs(classes),
            "wanted": WANTED,
            "training": None if training is None else asdict(training) | {"error": self.without_path(training.error)},
            "news": None if is_running else news(classes, self.trainings.learned()),
            "problem": self.without_path(self.problem),
            "recording": {
                "fps": recording.FPS,
                "seconds": recording.SECONDS,
                "short_px": recording.MAX_SHORT_PX,
                "long_px": recording.MAX_LONG_PX,
            },
        }

    def without_path(self, text: str | None) -> str | None:
        """Return a line for pages: they need not know where on the machine the folder lies."""
        return text and text.replace(f"{self.clips.root.parent}{os.sep}", "")


def needs(classes: Sequence[Taught]) -> list[str]:
    """Return what is missing before a training can start, one line each.

    >>> needs([Taught("none", ("a", "b")), Taught("wave", ("a", "b", "c", "d"))])
    ['none needs 1 more clip']
    """
    counts = {one.name: len(one.clips) for one in classes}
    if len(counts) < 2:
        return ["add a class to learn, such as wave"]
    short = {name: FEWEST - num for name, num in counts.items() if num < FEWEST}
    return [f"{name} needs {num} more clip{'s' * (num > 1)}" for name, num in short.items()]


def news(classes: Sequence[Taught], learned: Collection[str] | None) -> str | None:
    """Return how the classes differ from those that the model learned; None if they do not, or there is no model.

    >>> news([Taught("none", ("a",)), Taught("clap", ("b",))], {"none", "wave"})
    'the model does not know clap, recorded since; it still names wave, deleted since. Train again'
    """
    if learned is None:
        return None
    now = {one.name for one in classes if one.clips}
    new, gone = (", ".join(sorted(names)) for names in (now.difference(learned), set(learned) - now))
    parts = [f"the model does not know {new}, recorded since"] if new else []
    parts += [f"{'it' if new else 'the model'} still names {gone}, deleted since"] if gone else []
    return f"{'; '.join(parts)}. Train again" if parts else None


def serve(app: FastAPI, teaching: Teaching) -> None:
    """Add the routes; each answers with the state, or with a message if it is refused."""
    places = asyncio.Semaphore(_MAX_RECORDINGS)
    clips, trainings = teaching.clips, teaching.trainings

    @app.get("/api/teach")
    async def state() -> Response:
        return await _answer(teaching, lambda: None)

    @app.post("/api/teach/classes")
    async def add(name: str) -> Response:
        return await _answer(teaching, lambda: clips.add(name))

    @app.post("/api/teach/clips")
    async def record(request: Request, name: str, session: str) -> Response:
        """Store the recording in the body as a clip of a class."""
        try:
            async with places:
                body = await _received(request)
                return await _answer(teaching, lambda: clips.keep(name, session, recording.encode(body)))
        except DataError as error:
            return _refused(str(error), 413, close=True)
        except ClientDisconnect:
            return Response(status_code=400, headers={"Connection": "close"})  # mostly nobody reads it

    @app.post("/api/teach/delete")
    async def delete(name: str, clip: str | None = None) -> Response:
        def work() -> None:
            if trainings.is_running():
                raise UsageError("a training reads the clips; delete after it has ended")
            clips.delete(name, clip)

        return await _answer(teaching, work)

    @app.post("/api/teach/train")
    async def train() -> Response:
        def work() -> None:
            if missing := needs(clips.classes()):
                raise UsageError(f"there are too few clips: {', '.join(missing)}")
            trainings.start()

        return await _answer(teaching, work)

    @app.get("/api/teach/still")
    async def still(name: str, clip: str) -> Response:
        try:
            return Response(await asyncio.to_thread(clips.still, name, clip), media_type="image/png")
        except (DataError, OSError):
            return Response(status_code=404)


async def _answer(teaching: Teaching, work: Callable[[], object]) -> Response:
    """Do slow work in a thread, then answer with the state; or with the one line of an error."""

    def whole() -> dict[str, Any]:
        work()
        return teaching.state()

    try:
        return JSONResponse(await asyncio.to_thread(whole))
    except UsageError as error:
        return _refused(teaching.without_path(str(error)), 409)
    except DataError as error:
        return _refused(teaching.without_path(str(error)), 404)
    except OSError as error:
        _log.warning("teaching: %s", error)
        if not teaching.clips.root.is_dir():
            return _refused(f"the folder {teaching.clips.root.name} is not there any more; put it back", 404)
        return _refused(f"the server cannot write to its disk: {error.strerror or error}", 507)


async def _received(request: Request) -> bytearray:
    declared, most = request.headers.get("content-length", ""), recording.MAX_BYTES
    told = f"a recording has up to {most >> 20} MB; record a shorter one"
    late = f"sending took longer than {MAX_UPLOAD_S:.0f} s; try again, or record a shorter clip"
    if not (declared.isdecimal() and len(declared) < 20 and 0 < int(declared) <= most):
        raise DataError(told)
    have_own_share()
    body = bytearray()
    try:
        async with asyncio.timeout(MAX_UPLOAD_S):
            async for chunk in request.stream():
                body += chunk
                if len(body) > most:
                    raise DataError(told)
    except TimeoutError as error:
        raise DataError(late) from error
    return body


def _refused(message: str | None, status: int, *, close: bool = False) -> JSONResponse:
    # The rest of a body that is not read would be taken for another request.
    return JSONResponse({"message": message}, status, headers={"Connection": "close"} if close else None)
