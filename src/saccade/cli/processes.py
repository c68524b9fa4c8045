"""The command as one of several processes that torchrun started: what it may do, and which process prints."""

import os

from saccade.errors import UsageError
from saccade.processors import num_launched

_ON_SEVERAL = ("train",)


def check(verb: str) -> None:
    """Raise UsageError if a verb is started in several processes and is made for one."""
    if num_launched() > 1 and verb not in _ON_SEVERAL:
        raise UsageError(f"saccade {verb} runs in one process; start it without torchrun")


def is_first() -> bool:
    """Return whether this process prints what all of them have to say."""
    return num_launched() == 1 or _number() == 0


def is_told_by_first(error: BaseException) -> bool:
    """Return whether the first process prints an error that this one has too.

    A call is wrong in all processes. An error that was raised in all of them names the process that failed.
    """
    return not is_first() and (isinstance(error, UsageError) or str(error).startswith("process "))


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
