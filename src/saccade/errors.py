"""The errors that a user can mend, each one line: what was wanted, what came, what to do."""

import difflib
from collections.abc import Iterable


class SaccadeError(Exception):
    """Base of every error that the command line prints as one line instead of a traceback."""

    exit_code = 1


class UsageError(SaccadeError):
    """The call is wrong: an unknown name, an impossible combination of arguments."""

    exit_code = 2


class DataError(SaccadeError):
    """The data is wrong: a truncated file, a checkpoint of another model, NaN in weights."""


class MissingExtraError(SaccadeError, ImportError):
    """A part that is installed only with an extra is not there."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"{package} is not installed; get it with: pip install 'saccade[{extra}]'")


class NonFiniteError(SaccadeError, ArithmeticError):
    """A loss, gradient, parameter, offset or affine map became NaN or infinite."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C came, and what was done is saved; the message says how much."""


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UsageError:
    """Build the error for a name that is not in a list, with the nearest names first.

    >>> str(unknown_name("model", "dcn-lstn", ["lenet-lstm", "dcn-lstm"]))
    "no model is called 'dcn-lstn'; did you mean 'dcn-lstm'? Known: lenet-lstm, dcn-lstm"
    """
    known = list(known)
    near = difflib.get_close_matches(name, known, n=2)
    hint = f"did you mean {' or '.join(map(repr, near))}? " if near else ""
    return UsageError(f"no {kind} is called {name!r}; {hint}Known: {', '.join(known)}")
