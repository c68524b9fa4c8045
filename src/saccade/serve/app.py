"""The routes: the page and its files, the stream of one page, a video for it, and how the server is."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request, WebSocket, WebSocketDisconnect
from fastapi.responses import JSONResponse, Response
from starlette.requests import ClientDisconnect

import saccade
from saccade.errors import DataError
from saccade.serve import upload
from saccade.serve.guard import Guard
from saccade.serve.messages import FPS, MAX_POINTS, MAX_STROKES

if TYPE_CHECKING:
    from saccade.serve.engine import Engine
    from saccade.serve.live import Live

TRY_AGAIN_LATER = 1013
_MAX_DECODERS = 2
_PACKAGE = Path(saccade.__file__).parent
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_log = logging.getLogger("uvicorn.error")


class Pages:
    """The pages that are connected, at most so many.

    Args:
        limit: how many get frames at once.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.by_token: dict[str, Live | None] = {}

    def enter(self) -> str | None:
        """Give a page a token, or None when all places are taken."""
        if len(self.by_token) >= self.limit:
            return None
        token = secrets.token_urlsafe(16)
        self.by_token[token] = None
        return token

    def leave(self, token: str) -> None:
        """Give the place back."""
        del self.by_token[token]


def create_app(load: Callable[[], Engine], *, max_clients: int, names: set[str], failed: Callable[[], None]) -> FastAPI:
    """Build the application.

    Args:
        load: makes the engine; called in a thread, so that the page is there before torch is.
        max_clients: pages that get frames at once; others are told that the server is busy.
        names: host names of the server.
        failed: called when `load` raised; the error is in `app.state.engine`.
    """
    pages = Pages(max_clients)

    def tell_failure(done: asyncio.Future[Engine]) -> None:
        if not done.cancelled() and done.exception():
            failed()

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.engine = asyncio.get_running_loop().run_in_executor(None, load)
        app.state.engine.add_done_callback(tell_failure)
        yield
        if app.state.engine.done() and not app.state.engine.exception():
            await asyncio.to_thread(app.state.engine.result().close)

    app = FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(Guard, names=names)
    _serve_files(app)
    _serve_status(app, pages)
    _serve_stream(app, pages)
    _serve_uploads(app, pages)
    return app


def _serve_files(app: FastAPI) -> None:
    """Answer with the files of the page, from a table made now: no name from outside ever becomes a path."""
    paths = [*(_PACKAGE / "serve" / "static").iterdir(), _PACKAGE / "visualize" / "overlay.js"]
    files = {path.name: (path.read_bytes(), _TYPES[path.suffix]) for path in paths if path.suffix in _TYPES}

    @app.get("/{name}")
    async def file(name: str) -> Response:
        if name not in files:
            return Response("there is no such page; the one there is lies at /\n", 404, media_type="text/plain")
        content, media_type = files[name]
        return Response(content, media_type=media_type)

    @app.get("/")
    async def page() -> Response:
        return await file("index.html")


def _serve_status(app: FastAPI, pages: Pages) -> None:
    @app.get("/api/status")
    async def status() -> dict[str, Any]:
        """Tell how the server is: whether the models are there, how many pages are connected."""
        return {"version": saccade.__version__, "ready": app.state.engine.done(), "pages": len(pages.by_token)}


def _serve_stream(app: FastAPI, pages: Pages) -> None:
    @app.websocket("/api/stream")
    async def stream(socket: WebSocket) -> None:
        """Stream frames to a page for as long as it is there."""
        await socket.accept()
        if (token := pages.enter()) is None:
            await socket.send_json({"type": "busy", "limit": pages.limit})
            await socket.close(TRY_AGAIN_LATER)
            return
        try:
            await _converse(socket, pages, token, app.state.engine)
        finally:
            pages.leave(token)


async def _converse(socket: WebSocket, pages: Pages, token: str, loading: Awaitable[Engine]) -> None:
    await socket.send_json({"type": "loading"})
    try:
        engine = await asyncio.shield(loading)
    except Exception as error:  # whatever it was, the page says it
        await socket.send_json({"type": "closed", "message": f"the models cannot be loaded: {error}"})
        await socket.close(1011)
        return
    # Now that torch is there; before, it would make the page wait.
    from saccade.serve.live import Live

    pages.by_token[token] = live = Live(socket, engine)
    await socket.send_json(_hello(engine, token))
    try:
        await live.run()
    except Exception:  # one page less; the server goes on
        _log.exception("a page's stream failed")
        with contextlib.suppress(RuntimeError, WebSocketDisconnect):
            await socket.close(1011)


def _hello(engine: Engine, token: str) -> dict[str, Any]:
    return {
        "type": "hello",
        "version": saccade.__version__,
        "token": token,
        "models": [
            {
                "name": model.name,
                "kind": model.kind,
                "classes": model.labels.names,
                "exclusive": model.labels.exclusive,
                "task": model.task,
                "has_attention": model.has_attention,
            }
            for model in engine.models.values()
        ],
        "min_confidence": engine.min_confidence,
        "knows_digits": engine.digits is not None,
        "frame_format": {
            "channels": engine.frame_format.channels,
            "size": engine.frame_format.size,
            "fps": engine.frame_format.fps,
        },
        "limits": {
            "fps": FPS,
            "upload_bytes": upload.MAX_UPLOAD_BYTES,
            "strokes": MAX_STROKES,
            "points": MAX_POINTS,
        },
    }


def _serve_uploads(app: FastAPI, pages: Pages) -> None:
    decoders = asyncio.Semaphore(_MAX_DECODERS)
    under_way: set[str] = set()

    @app.post("/api/video/{token}")
    async def video(request: Request, token: str) -> Response:
        """Take a video for the page of that token and show it there; the body is the file."""
        if (live := pages.by_token.get(token)) is None:
            return _refused("this page is not connected; reload it and give the video again", 409)
        if token in under_way:
            return _refused("the video before is still being decoded; try again in a moment", 409)
        if not 0 < _declared_length(request) <= upload.MAX_UPLOAD_BYTES:
            return _refused(f"a file has 1 byte to {upload.MAX_UPLOAD_BYTES >> 20} MB; give a smaller video", 413)
        under_way.add(token)
        try:
            decoded = await upload.take(request.stream(), decoders, live.frame_format)
        except DataError as error:
            return _refused(str(error), 422)
        except ClientDisconnect:
            return Response(status_code=400)  # nobody is there to read it
        finally:
            under_way.discard(token)
        await live.show_video(decoded)
        time, _, height, width = decoded.shape
        return JSONResponse({"frames": time, "size": [height, width], "fps": decoded.fps, "warning": decoded.warning})


def _declared_length(request: Request) -> int:
    declared = request.headers.get("content-length", "")
    # Browsers always say; who does not is counted while the body comes.
    return int(declared) if declared.isdecimal() and len(declared) < 20 else 1


def _refused(message: str, status: int) -> JSONResponse:
    # The rest of the body is not read, so nothing else can follow on this connection.
    return JSONResponse({"message": message}, status, headers={"Connection": "close"})
