"""The program that reads a live source for its parent: `python reader.py HANDLE`.

It is a process of its own since a call of FFmpeg that hangs cannot be ended otherwise.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from importlib.util import find_spec
from multiprocessing.connection import Connection
from pathlib import Path
from types import ModuleType

_POLL_S = 0.5


def main(handle: str) -> None:
    """Read the source that the parent names over a connection.

    Args:
        handle: the file descriptor of the connection, in decimal.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    _leave_out_torch()
    from saccade.stream.decoding import serve

    with Connection(int(handle)) as connection:
        serve(connection)


def _leave_out_torch() -> None:
    """Let modules of these packages be imported without the packages' own files, which import torch.

    So the process starts in a tenth of the time, also after each loss of a camera.
    """
    root = find_spec("saccade")
    assert root is not None
    for name in ("data", "stream"):
        package = ModuleType(f"saccade.{name}")
        package.__path__ = [str(Path(place) / name) for place in root.submodule_search_locations or ()]
        sys.modules[package.__name__] = package


def _end_with(parent: int) -> None:
    """End this process when its parent has died, also while FFmpeg waits for a source."""
    while os.getppid() == parent:
        time.sleep(_POLL_S)
    os._exit(1)


if __name__ == "__main__":
    main(sys.argv[1])
