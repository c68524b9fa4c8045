"""The command `saccade`.

Its modules are imported when it runs, so that Ctrl-C meanwhile ends it without a traceback.
"""

import sys
from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit status: 0 done, 2 wrong call, 1 bad data, 130 interrupted.

    Args:
        arguments: the words after `saccade`; None for those of this process.
    """
    try:
        from saccade.cli.command import run

        return run(sys.argv[1:] if arguments is None else arguments)
    except KeyboardInterrupt:  # while modules were imported; later ones are told where more is known
        if sys.stderr is not None:
            print("interrupted", file=sys.stderr)
        return 130
