"""The routes: the files of the page, its WebSocket, video uploads and the status of the server."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from fastapi import FastAPI, Request, WebSocket, WebSocketDisconnect
from fastapi.responses import JSONResponse, Response
from starlette.requests import ClientDisconnect
from starlette.types import Message

import saccade
from saccade.errors import DataError
from saccade.serve import teach, upload
from saccade.serve.address import Name
from saccade.serve.connection import Limited, have_own_share, is_open
from saccade.serve.current import Current, Pages
from saccade.serve.guard import Below, Guard
from saccade.serve.hello import hello

if TYPE_CHECKING:
    from saccade.clips import FrameFormat
    from saccade.serve.engine import Engine
    from saccade.serve.upload import Decoded

SERVICE_RESTART, TRY_AGAIN_LATER = 1012, 1013
_MAX_DECODERS = 2
_PACKAGE = Path(saccade.__file__).parent
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_log = logging.getLogger("uvicorn.error")

T = TypeVar("T")


def create_app(
    load: Callable[[], Engine | None],
    *,
    max_clients: int,
    names: Iterable[Name],
    failed: Callable[[], None],
    allowed: Iterable[Name] = (),
    prefix: str = "",
    teaching: teach.Teaching | None = None,
) -> FastAPI:
    """Build the application.

    Args:
        load: a function that creates the engine, or returns None if there is no model yet. It runs in a thread, so that
            the page opens before torch is imported.
        max_clients: the maximum number of pages that receive frames; further pages show that the server is busy.
        names: the host names of the server.
        failed: a function that is called if `load` raises an exception, which is then in `app.state.engine`.
        allowed: the host names of a proxy in front of the server.
        prefix: the path prefix of all routes, as `parse_prefix` returns it.
        teaching: what pages teach; None if they do not.
    """
    pages = Pages(max_clients)

    def tell_failure(done: asyncio.Future[Engine | None]) -> None:
        if not done.cancelled() and done.exception():
            failed()

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.engine = asyncio.get_running_loop().run_in_executor(None, load)
        app.state.engine.add_done_callback(tell_failure)
        app.state.current = current = Current(app.state.engine)
        following = None if teaching is None else asyncio.create_task(teaching.follow(current, pages))
        yield
        if following is not None:
            following.cancel()
        await current.close()

    app = FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
    # The middleware that is added last handles a request first. What the guard refuses costs others nothing.
    app.add_middleware(Below, prefix=prefix)
    app.add_middleware(Limited)
    app.add_middleware(Guard, names=names, allowed=allowed)
    _serve_files(app, prefix)
    _serve_status(app, pages)
    _serve_stream(app, pages, teaches=teaching is not None)
    _serve_uploads(app, pages)
    if teaching is not None:
        teach.serve(app, teaching)
    return app


def _serve_files(app: FastAPI, prefix: str) -> None:
    """Serve the files of the page from a table that is built now, so that no name in a request becomes a path."""
    paths = [*(_PACKAGE / "serve" / "static").iterdir(), _PACKAGE / "visualize" / "overlay.js"]
    files = {path.name: (path.read_bytes(), _TYPES[path.suffix]) for path in paths if path.suffix in _TYPES}

    @app.get("/{name}")
    async def file(name: str) -> Response:
        if name not in files:
            return Response(f"there is no page at this address; open {prefix}/\n", 404, media_type="text/plain")
        content, media_type = files[name]
        return Response(content, media_type=media_type)

    @app.get("/")
    async def page() -> Response:
        return await file("index.html")


def _serve_status(app: FastAPI, pages: Pages) -> None:
    @app.get("/api/status")
    async def status() -> dict[str, Any]:
        """Return the version, whether loading has ended, and the number of connected pages."""
        return {"version": saccade.__version__, "ready": app.state.current.engine.done(), "pages": len(pages.by_token)}


def _serve_stream(app: FastAPI, pages: Pages, *, teaches: bool) -> None:
    @app.websocket("/api/stream")
    async def stream(socket: WebSocket) -> None:
        """Stream frames to a page until it disconnects."""
        with contextlib.suppress(WebSocketDisconnect):  # a page may disconnect at any time
            await socket.accept()
            if not is_open():
                return
            if (token := pages.enter()) is None:
                await socket.send_json({"type": "busy", "limit": pages.limit})
                await socket.close(TRY_AGAIN_LATER)
                return
            have_own_share()
            try:
                await _converse(socket, pages, token, app.state.current, teaches=teaches)
            finally:
                pages.leave(token)


async def _converse(socket: WebSocket, pages: Pages, token: str, current: Current, *, teaches: bool) -> None:
    await socket.send_json({"type": "loading"})
    loading, replaced = current.engine, current.replaced
    try:
        # Messages that the page sends before the models are loaded are discarded.
        if await _unless(asyncio.ensure_future(_loaded(loading)), _gone(socket)) is None:
            return
    except Exception as error:  # the page shows the message of any error
        await socket.send_json({"type": "closed", "message": f"the models cannot be loaded: {error}"})
        await socket.close(1011)
        return
    engine = loading.result()
    await socket.send_json(hello(engine, token, teaches=teaches))
    change = asyncio.ensure_future(replaced.wait())
    if engine is None:
        await _unless(change, _gone(socket))
    else:
        # This imports torch. At module level the import would delay the page.
        from saccade.serve.live import Live

        pages.by_token[token] = live = Live(socket, engine)
        try:
            await _unless(change, asyncio.ensure_future(live.run()))
        except Exception:  # an error in one page must not end the server
            _log.exception("a page's stream failed")
            with contextlib.suppress(RuntimeError, WebSocketDisconnect):
                await socket.close(1011)
            return
    if replaced.is_set():
        with contextlib.suppress(RuntimeError):  # the page has just left
            await socket.send_json({"type": "replaced"})
            await socket.close(SERVICE_RESTART)


async def _loaded(loading: asyncio.Future[Engine | None]) -> bool:
    """Wait until the models are loaded, or raise the error."""
    await asyncio.shield(loading)
    return True


def _gone(socket: WebSocket) -> asyncio.Future[None]:
    return asyncio.ensure_future(_comes(socket.receive, "websocket.disconnect"))


def _serve_uploads(app: FastAPI, pages: Pages) -> None:
    decoders = asyncio.Semaphore(_MAX_DECODERS)
    under_way: set[str] = set()

    @app.post("/api/video/{token}")
    async def video(request: Request, token: str) -> Response:
        """Decode the video in the body and show it on the page with this token."""
        if (live := pages.by_token.get(token)) is None:
            return _refused("this page is not connected; reload it and choose the video again", 409)
        if token in under_way:
            return _refused("the previous video is still being decoded; try again in a moment", 409)
        if not 0 < _declared_length(request) <= upload.MAX_UPLOAD_BYTES:
            return _refused(f"a video must have 1 byte to {upload.MAX_UPLOAD_BYTES >> 20} MB; choose another file", 413)
        have_own_share()
        under_way.add(token)
        try:
            left = pages.wait_until_left(token)
            decoded = await _decoded(request, decoders, live.frame_format, left)
        except DataError as error:
            return _refused(str(error), 422)
        except OSError as error:
            return _refused(f"the server cannot store the video: {error.strerror}", 507)
        except ClientDisconnect:
            decoded = None
        finally:
            under_way.discard(token)
        if decoded is None:
            return Response(status_code=400, headers={"Connection": "close"})  # mostly nobody reads it
        await live.show_video(decoded)
        time, _, height, width = decoded.shape
        return JSONResponse({"frames": time, "size": [height, width], "fps": decoded.fps, "warning": decoded.warning})


async def _decoded(
    request: Request, decoders: asyncio.Semaphore, frame_format: FrameFormat, left: Coroutine[Any, Any, None]
) -> Decoded | None:
    """Receive and decode a video; return None if the sender disconnects or the page leaves first."""
    has_come = asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        async for chunk in request.stream():
            yield chunk
        has_come.set()

    async def receive() -> Message:
        await has_come.wait()
        return await request.receive()

    taken = asyncio.ensure_future(upload.take(body(), decoders, frame_format))
    disconnected = asyncio.ensure_future(_comes(receive, "http.disconnect"))
    return await _unless(taken, disconnected, asyncio.ensure_future(left))


async def _comes(receive: Callable[[], Awaitable[Message]], kind: str) -> None:
    """Wait for a message of a type; discard others."""
    while (await receive())["type"] != kind:
        pass


async def _unless(work: asyncio.Future[T], *ends: asyncio.Future[None]) -> T | None:
    """Return the result of the work; if one of the ends comes first, cancel the work and return None.

    An error of the one that comes first is raised.
    """
    futures: list[asyncio.Future[Any]] = [work, *ends]
    try:
        done, _ = await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)
        for future in done:
            future.result()
        return work.result() if work.done() else None
    finally:
        for future in futures:
            future.cancel()
        await asyncio.gather(*futures, return_exceptions=True)


def _declared_length(request: Request) -> int:
    declared = request.headers.get("content-length", "")
    # Browsers always send the length. Without it, the bytes are counted while they arrive.
    return int(declared) if declared.isdecimal() and len(declared) < 20 else 1


def _refused(message: str, status: int) -> JSONResponse:
    # The rest of the body is not read, so the connection cannot carry another request.
    return JSONResponse({"message": message}, status, headers={"Connection": "close"})
