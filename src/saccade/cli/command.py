"""Run the command `saccade`: parse the arguments, call the function of the verb, print the result."""

import io
import os
import re
import shlex
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import saccade
from saccade import files
from saccade.cli import processes
from saccade.cli.options import by_names_of_today
from saccade.cli.verbs import VERBS
from saccade.errors import DataError, Interrupted, SaccadeError, UsageError, unknown_name
from saccade.foreign import shown

# What torch says on processors and on GPUs.
_NO_MEMORY = re.compile("allocate memory|out of memory")


def run(arguments: Sequence[str]) -> int:
    """Run the command line; return its exit status, as `saccade.cli.main` does."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by whoever started the process
            setattr(sys, name, io.TextIOWrapper(io.FileIO(os.open(os.devnull, os.O_WRONLY), "w")))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # Characters that the encoding lacks become escapes; an error would lose the rest of the output.
            stream.reconfigure(errors="backslashreplace")
    try:
        status = _run(list(arguments))
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
        if processes.is_first():
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
    verb = VERBS[name]
    processes.check(name)
    if "" in words:
        raise UsageError("an argument is empty; is a variable of the shell not set?")
    known = by_names_of_today(name, words)
    with _no_interrupt_lost():
        import tyro

        from saccade import console, distributed
        from saccade.device import prepared_process

        call = verb.make(known)  # imports torch
    with prepared_process(), distributed.joined():
        console.err.quiet = console.out.quiet = not processes.is_first()
        tyro.cli(
            call,
            prog=f"saccade {name}",
            description=f"{verb.summary[0].upper()}{verb.summary[1:]}. {verb.about}Example: {verb.example}",
            args=known,
            config=(tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff),
        )


@contextmanager
def _no_interrupt_lost() -> Iterator[None]:
    """After Ctrl-C, raise KeyboardInterrupt at the end of the block at the latest.

    While modules are imported, KeyboardInterrupt may be lost: extension modules discard errors or raise others instead.
    """
    is_pressed = False

    def press(_number: int, _frame: object) -> None:
        nonlocal is_pressed
        is_pressed = True
        raise KeyboardInterrupt

    is_main = threading.current_thread() is threading.main_thread()  # no other thread receives signals
    if not is_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, press)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if is_pressed:
            raise KeyboardInterrupt


def _fail(error: BaseException, status: int, debug: bool) -> int:
    processes.let_first_tell(error)
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
    # These need an option to continue; the other verbs continue from the files in their folder.
    resume = ["--resume"] if words[0] in ("train", "robustness") and "--resume" not in words else []
    return f"interrupted: {error}\ncontinue with: {shlex.join([*processes.launcher(), *words, *resume])}"


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
