"""The command `saccade`: parse the arguments, call the function of the verb, print the result."""

import io
import os
import re
import shlex
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

import saccade
from saccade import files
from saccade.cli.options import by_names_of_today
from saccade.cli.verbs import VERBS, Verb
from saccade.errors import DataError, Interrupted, SaccadeError, UsageError, unknown_name
from saccade.foreign import shown

__all__ = ["Verb", "main"]

# What torch says on processors and on GPUs.
_NO_MEMORY = re.compile("allocate memory|out of memory")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit status: 0 done, 2 wrong call, 1 bad data, 130 interrupted."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by whoever started the process
            setattr(sys, name, io.TextIOWrapper(io.FileIO(os.open(os.devnull, os.O_WRONLY), "w")))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # Characters that the encoding lacks become escapes; an error would lose the rest of the output.
            stream.reconfigure(errors="backslashreplace")
    try:
        status = _run(list(sys.argv[1:] if arguments is None else arguments))
        with files.errors_named(Path("standard output")):
            sys.stdout.flush()
    except OSError as error:
        # The reader closed the pipe, as `head` does, or the disk is full. The rest of the output is discarded, or
        # Python would report another error at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1 if isinstance(error, BrokenPipeError) else _fail(error, 1, debug=False)
    return status


def _run(words: list[str]) -> int:
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    if not words or words[0] in ("-h", "--help"):
        print(_help())
        return 0 if words else 2
    if words[0] == "--version":
        print(f"saccade {saccade.__version__}")
        return 0
    try:
        _call(words[0], words[1:])
    except SaccadeError as error:
        return _fail(error, error.exit_code, debug)
    except KeyboardInterrupt as error:
        print(_interrupted(error, words), file=sys.stderr)
        return 130
    except BrokenPipeError:
        raise
    except OSError as error:
        return _fail(error, 1, debug)
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not _NO_MEMORY.search(str(error)):
            raise
        return _fail(DataError("the memory is not enough for this; take fewer or smaller frames or batches"), 1, debug)
    return 0


def _call(name: str, words: list[str]) -> None:
    if name not in VERBS:
        raise unknown_name("verb", name, VERBS)
    import tyro

    from saccade.device import limit_threads  # imports torch, as a verb does

    verb = VERBS[name]
    if "" in words:
        raise UsageError("an argument is empty; is a variable of the shell not set?")
    known = by_names_of_today(name, words)
    run = verb.make(known)
    limit_threads()
    tyro.cli(
        run,
        prog=f"saccade {name}",
        description=f"{verb.summary[0].upper()}{verb.summary[1:]}. {verb.about}Example: {verb.example}",
        args=known,
        config=(tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff),
    )


def _fail(error: BaseException, status: int, debug: bool) -> int:
    if debug:
        traceback.print_exception(error)
    else:
        print(f"saccade: {shown(' '.join(_told(error).split()))}", file=sys.stderr)
    return status


def _told(error: BaseException) -> str:
    if not isinstance(error, OSError) or error.strerror is None:
        return str(error)
    # An error of a file names the file; an error without a name mostly comes from standard output.
    return f"{'standard output' if error.filename is None else os.fsdecode(error.filename)}: {error.strerror}"


def _interrupted(error: KeyboardInterrupt, words: list[str]) -> str:
    if not isinstance(error, Interrupted):
        return "interrupted"
    # Only training needs an option to continue; the other verbs continue from the files in their folder.
    resume = ["--resume"] if words[0] == "train" and "--resume" not in words else []
    return f"interrupted: {error}\ncontinue with: {shlex.join(['saccade', *words, *resume])}"


def _help() -> str:
    width = max(map(len, VERBS)) + 2
    lines = [f"  {name:<{width}}{verb.summary}\n  {'':<{width}}  {verb.example}" for name, verb in VERBS.items()]
    return "\n".join(
        [
            "usage: saccade VERB [--help] [options]",
            "",
            "Classify video with learned visual attention, and see where each model looks.",
            "",
            *lines,
            "",
            "`saccade VERB --help` shows a verb's options; `--debug` shows the traceback of an error.",
        ]
    )
