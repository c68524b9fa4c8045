"""The command as one of several processes that torchrun started: what it may do, and which process prints."""

import os
import re
import time
from contextlib import suppress

from saccade.errors import UsageError
from saccade.processors import num_launched

_ON_SEVERAL = ("train",)
_FIRST_TELLS_WITHIN_S = 20.0


def check(verb: str) -> None:
    """Raise UsageError if a verb is started in several processes and is made for one."""
    if num_launched() > 1 and verb not in _ON_SEVERAL:
        raise UsageError(f"saccade {verb} runs in one process; start it without torchrun")


def is_first() -> bool:
    """Return whether this process prints what all of them have to say."""
    return num_launched() == 1 or _number() == 0


def let_first_tell(error: BaseException) -> None:
    """Wait for the first process to print an error that it has too; the launcher then ends this one.

    A call is wrong in all processes. An error that was raised in all of them names the process that failed. A launcher
    ends all processes as soon as one has failed, so the others must not be quicker than the first. Whoever is still
    there after some seconds is the only one that knows.
    """
    if not is_first() and (isinstance(error, UsageError) or re.match(r"process \d+: ", str(error))):
        with suppress(KeyboardInterrupt):
            _wait()


def _wait() -> None:
    time.sleep(_FIRST_TELLS_WITHIN_S)


def launcher() -> list[str]:
    """Return the words before those of the verb that start the command as it was started."""
    num = str(num_launched())
    if num == "1":
        return ["saccade"]
    here, machines = os.environ.get("LOCAL_WORLD_SIZE", num), os.environ.get("GROUP_WORLD_SIZE")
    nodes = ["--nnodes", machines] if here != num and machines is not None else []
    return ["torchrun", *nodes, "--nproc-per-node", here, "-m", "saccade"]


def _number() -> int:
    return int(os.environ.get("RANK", "0"))
