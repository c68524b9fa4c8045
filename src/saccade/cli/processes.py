"""The command as one of several processes that torchrun started: what it may do, and which process prints."""

import os

from saccade.errors import UsageError

_ON_SEVERAL = ("train",)


def check(verb: str) -> None:
    """Raise UsageError if a verb is started in several processes and is made for one."""
    if _num() > 1 and verb not in _ON_SEVERAL:
        raise UsageError(f"saccade {verb} runs in one process; start it without torchrun")


def is_first() -> bool:
    """Return whether this process prints what all of them have to say."""
    return _num() == 1 or _number() == 0


def is_told_by_first(error: BaseException) -> bool:
    """Return whether the first process prints an error that this one has too.

    A call is wrong in all processes. An error that was raised in all of them names the process that failed.
    """
    return not is_first() and (isinstance(error, UsageError) or str(error).startswith("process "))


def launcher() -> list[str]:
    """Return the words before those of the verb that start the command as it was started."""
    if _num() == 1:
        return ["saccade"]
    here = os.environ.get("LOCAL_WORLD_SIZE", str(_num()))
    nodes = (
        ["--nnodes", os.environ["GROUP_WORLD_SIZE"]] if here != str(_num()) and "GROUP_WORLD_SIZE" in os.environ else []
    )
    return ["torchrun", *nodes, "--nproc-per-node", here, "-m", "saccade"]


def _num() -> int:
    num = os.environ.get("WORLD_SIZE", "")
    return int(num) if "RANK" in os.environ and num.isdecimal() else 1


def _number() -> int:
    return int(os.environ.get("RANK", "0"))
