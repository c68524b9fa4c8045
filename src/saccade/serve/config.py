"""The options of `saccade serve`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import UseAppendAction

from saccade.errors import UsageError
from saccade.serve.address import parse_name, parse_prefix


@dataclass(frozen=True)
class ServeConfig:
    """Show live where models look and what they predict, on a page in the browser.

    Args:
        model: checkpoints, run folders, or names of models whose weights come with the package. Several are shown side
            by side. The default is the three of the package that differ in attention alone.
        host: the address to listen on. The default is reachable from this machine only.
        port: the port to listen on; 0 selects a free port.
        allow_host: another host name of the page, that of a proxy or of this machine: lab.example for every port, or
            lab.example:8443 for one port. Repeat the option for more names. Pages of that origin may use the server. IP
            addresses and the name of --host need no option.
        path_prefix: the path of the page, such as /saccade, behind a proxy that passes the path on. A proxy that
            removes the path needs no option.
        max_clients: the maximum number of pages that receive frames at once.
        min_confidence: the minimum probability at which a verdict is shown. The default is that in the checkpoint, 0.5
            for most models. If several classes can be present at once, none is shown while any of them is close to
            50 %: at 0.5 between 25 and 75 %.
        source: a stream that pages may watch, beside their own cameras: as for `saccade stream`, a camera of this
            machine, an address (rtsp, http, https, udp, tcp), or a file, which is played at its own rate. All pages
            share one reader, which runs while somebody watches. Whoever can open the page can watch it.
        digits: the source of digit images, for models that know digits: strokes (like drawings with a mouse), mnist,
            uci, auto or a folder.
        digits_dir: the folder that is searched for MNIST before the user cache.
        open: whether to open the page in a browser.
        teach: a folder in which the page records clips of classes, and trains on them. The models go to the folder with
            -models behind its name; the latest is shown, beside the one before or those of --model. Whoever can open
            the page can record, delete and train.

    Raises:
        UsageError: if a number is out of range, or a host name or the path prefix has the wrong form.
    """

    model: tuple[Path, ...] = ()
    host: str = "127.0.0.1"
    port: int = 8000
    allow_host: UseAppendAction[tuple[str, ...]] = ()
    path_prefix: str = ""
    max_clients: int = 4
    min_confidence: float | None = None
    source: str | None = None
    # Not a DigitSourceConfig: its module imports torch, which would delay the page.
    digits: str = "strokes"
    digits_dir: Path | None = None
    open: bool = False
    teach: Path | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise UsageError(f"port must lie in 0 to 65535; got {self.port}")
        for name in self.allow_host:
            parse_name(name)
        parse_prefix(self.path_prefix)
        if self.max_clients < 1:
            raise UsageError(f"max_clients must be at least 1; got {self.max_clients}")
        if self.min_confidence is not None and not 0 <= self.min_confidence <= 1:
            raise UsageError(f"min_confidence must lie in 0 to 1; got {self.min_confidence}")
