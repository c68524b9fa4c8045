"""The verb `saccade serve`: attention live, on a page in the browser."""

from __future__ import annotations

import contextlib
import errno
import signal
import socket
import threading
import webbrowser
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from tyro.conf import UseAppendAction

from saccade.errors import DataError, MissingExtraError, UsageError
from saccade.serve.address import own_names, parse_name, parse_prefix

if TYPE_CHECKING:
    import uvicorn
    from fastapi import FastAPI

    from saccade.serve.engine import Engine

# Connections beyond the pages: files, uploads, pages that are told that the server is busy.
_MORE_CONNECTIONS = 128
_MAX_HEADER_BYTES = 16 << 10
_GRACE_S = 3
# As in `saccade.models.MATCHED`, whose module imports torch.
_PACKAGED = ("lenet-lstm", "stn-lstm", "dcn-lstm")


@dataclass(frozen=True)
class ServeConfig:
    """Show attention live, on a page in the browser.

    Args:
        model: checkpoints, folders of runs, or names of models whose weights come with the package, to be shown side by
            side; by default all of the package.
        host: address to listen at; other machines reach only another than the default.
        port: port to listen at; 0 takes a free one.
        allow_host: a further name under which browsers find the page, of a proxy or of this machine, as in lab.example
            (at every port) or lab.example:8443 (only there); give the option once for each. Pages of that origin may
            talk to the server. Plain addresses and the name of --host need no option.
        path_prefix: path below which the page lies, as in /saccade, where a proxy passes it on; one that takes it away
            needs no option.
        max_clients: pages that get frames at once.
        min_confidence: probability from which a verdict is shown; where several classes can be present, that of exactly
            this set.
        digits: where digits come from, for models that know them: strokes (as a mouse draws), mnist, uci, auto or a
            folder.
        digits_dir: where MNIST is looked for before the user cache.
        open: open the page in a browser.
    """

    model: tuple[Path, ...] = ()
    host: str = "127.0.0.1"
    port: int = 8000
    allow_host: UseAppendAction[tuple[str, ...]] = ()
    path_prefix: str = ""
    max_clients: int = 4
    min_confidence: float = 0.5
    # Not a DigitSourceConfig, whose module imports torch: the page is there before.
    digits: str = "strokes"
    digits_dir: Path | None = None
    open: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise UsageError(f"a port lies in 0 to 65535; got {self.port}")
        for name in self.allow_host:
            parse_name(name)
        parse_prefix(self.path_prefix)
        if self.max_clients < 1:
            raise UsageError(f"max_clients must be at least 1; got {self.max_clients}")
        if not 0 <= self.min_confidence <= 1:
            raise UsageError(f"min_confidence is a probability from 0 to 1; got {self.min_confidence}")


def serve(config: ServeConfig, say: Callable[[str], None] = print) -> None:
    """Serve the page until Ctrl-C.

    Args:
        config: what is shown, and where.
        say: takes the lines for the person who started it.

    Raises:
        MissingExtraError: the extra `serve` is not installed.
        UsageError: the address cannot be had, or models for different frames.
        DataError: a checkpoint or the digits cannot be read.
    """
    try:
        import uvicorn  # noqa: F401
        import websockets  # noqa: F401 (uvicorn would miss it only when a page connects)

        from saccade.serve.app import create_app
    except ImportError as error:
        raise MissingExtraError(error.name or "fastapi", "serve") from error
    _check_models(config.model)
    with listening_socket(config.host, config.port) as listening:
        address = _address(config.host, listening.getsockname()[1], parse_prefix(config.path_prefix))

        def load() -> Engine:
            engine = _load(config, say)
            say(f"models loaded: {', '.join(engine.models)}")
            return engine

        def failed() -> None:
            server.should_exit = True

        app = create_app(
            load,
            max_clients=config.max_clients,
            names=own_names(config.host),
            failed=failed,
            allowed=map(parse_name, config.allow_host),
            prefix=parse_prefix(config.path_prefix),
        )
        server = _server(app, config.max_clients)
        say(f"see what it sees: {address}  (Ctrl-C ends it)")
        if config.open:
            threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()
        with _terminated_like_interrupted():
            # Uvicorn ends cleanly and then raises the signal once more.
            with contextlib.suppress(KeyboardInterrupt):
                server.run(sockets=[listening])
            engine = app.state.engine
            if engine.done() and not engine.cancelled() and engine.exception():
                raise engine.exception()
            say("ended")


def _check_models(paths: tuple[Path, ...]) -> None:
    for path in paths:
        if not path.exists() and str(path) not in _PACKAGED:
            raise DataError(
                f"no checkpoint at {path}; give a .safetensors file, the folder of a run, or {', '.join(_PACKAGED)}"
            )
    if len(paths) > 1:
        # Before the page, though torch takes its time: what cannot be shown side by side gets no page.
        from saccade.serve.engine import check_together

        check_together(paths)


def _server(app: FastAPI, max_clients: int) -> uvicorn.Server:
    import uvicorn
    from uvicorn.protocols.http.h11_impl import H11Protocol

    from saccade.serve.connection import Connections, Server
    from saccade.serve.messages import MAX_MESSAGE_BYTES

    connections = Connections(H11Protocol)
    protocol: Any = connections  # called as a class is
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
    """Let SIGTERM end what runs inside as Ctrl-C does, which puts its files away, and only then the process."""
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
    """Listen at an address, so that the line that names it is true.

    Raises:
        UsageError: the port is taken, or the address is not this machine's.
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
                f"port {port} of {host} is taken; end what listens there, or take another: --port {port + 1}"
            ) from error
        raise UsageError(
            f"cannot listen at {host} port {port} ({error.strerror}); take another --host or --port"
        ) from error
    return listening


def _address(host: str, port: int, prefix: str) -> str:
    shown = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://{f'[{shown}]' if ':' in shown else shown}:{port}{prefix}/"


def _load(config: ServeConfig, say: Callable[[str], None]) -> Engine:
    """Load the models; here, in a thread of its own, torch is imported."""
    import torch

    from saccade import weights
    from saccade.data import digits
    from saccade.serve.engine import Engine, load_models

    # Frames are small: a second thread would mostly wait, and take its core from the browser.
    torch.set_num_threads(1)
    models = load_models(config.model or tuple(weights.paths().values()))
    drawn = None
    if models[0].knows_digits:
        drawn = digits.load(config.digits, "test", digits_dir=config.digits_dir, say=say)
        if missing := set(range(10)) - set(drawn.labels.tolist()):
            told = ", ".join(map(str, sorted(missing)))
            raise DataError(
                f"the test images of --digits {config.digits} hold no {told}; the page needs all ten digits"
            )
    elif config.digits != "strokes" or config.digits_dir is not None:
        raise UsageError(f"{models[0].name} knows no digits; leave out --digits and --digits-dir")
    return Engine(models, drawn, min_confidence=config.min_confidence)
