"""Errors that a user can fix; each message is one line: what was wanted, what was found, what to do."""

import difflib
from collections.abc import Iterable


class SaccadeError(Exception):
    """Base of every error that the command line prints as one line instead of a traceback."""

    exit_code = 1


class UsageError(SaccadeError):
    """The call is wrong: for example an unknown name, or arguments that cannot be combined."""

    exit_code = 2


class DataError(SaccadeError):
    """The data is wrong: for example a truncated file, a checkpoint of another model, or NaN in weights."""


class MissingExtraError(SaccadeError, ImportError):
    """An optional package is not installed; the message names the extra that installs it."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"{package} is not installed; get it with: pip install 'saccade[{extra}]'")


class NonFiniteError(SaccadeError, ArithmeticError):
    """A loss, gradient, parameter, offset or affine map became NaN or infinite."""


class Interrupted(KeyboardInterrupt):
    """The user pressed Ctrl-C, and the work done so far is saved; the message says how much."""


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UsageError:
    """Return the error for an unknown name; its message suggests similar names and lists all known names.

    >>> str(unknown_name("model", "dcn-lstn", ["lenet-lstm", "dcn-lstm"]))
    "no model is called 'dcn-lstn'; did you mean 'dcn-lstm'? Known: lenet-lstm, dcn-lstm"
    """
    known = list(known)
    near = difflib.get_close_matches(name, known, n=2)
    hint = f"did you mean {' or '.join(map(repr, near))}? " if near else ""
    return UsageError(f"no {kind} is called {name!r}; {hint}Known: {', '.join(known)}")
