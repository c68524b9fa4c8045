"""The command `saccade`: verb -> function. It parses and prints, and decides nothing."""

import json as json_format
import os
import shlex
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import saccade
from saccade.errors import DataError, Interrupted, SaccadeError, unknown_name


class Verb(NamedTuple):
    """A verb: what it does, a line to type, and the function that makes its function.

    The function is made late, because its module imports torch.
    """

    summary: str
    example: str
    make: Callable[[], Callable[..., Any]]


def _generate() -> Callable[..., None]:
    from saccade import console
    from saccade import generate as verb
    from saccade.data import digits

    def generate(config: verb.GenerateConfig) -> None:
        console.say(f"digits: {digits.resolve(config.digits, config.data_dir)}")
        with console.counting_bar("clips") as progress:
            folder = verb.generate(config, progress)
        console.say(f"{folder} holds {config.num_clips} clips")

    return generate


def _train() -> Callable[..., None]:
    from saccade import console
    from saccade.data import digits
    from saccade.train import TrainConfig, train

    def run(config: TrainConfig, out: Path = Path("runs/train"), resume: bool = False) -> None:
        """Train a model end to end.

        Args:
            config: the run.
            out: the run folder.
            resume: go on with the run in that folder.
        """
        console.say(f"digits: {digits.resolve(config.digits, config.data_dir)}")
        with console.training_bar(config.model) as progress:
            path = train(config, out, resume=resume, progress=progress)
        console.say(f"wrote {path}\nevaluate it with: saccade evaluate --model {shlex.quote(str(out))}")

    return run


def _evaluate() -> Callable[..., None]:
    from saccade import console
    from saccade import evaluate as verb

    def evaluate(config: verb.EvaluateConfig, json: bool = False) -> None:
        """Measure a checkpoint.

        Args:
            config: what is measured on what.
            json: print the figures as JSON, one line a condition, instead of a table.
        """
        with console.counting_bar("clips, in each pass") as progress:
            for result in verb.each(config, progress=progress):
                if json:
                    print(json_format.dumps(result.as_json()), flush=True)
                else:
                    console.out.print(verb.render(result))

    return evaluate


def _predict() -> Callable[..., None]:
    from saccade import console
    from saccade import predict as verb

    def predict(config: verb.PredictConfig, json: bool = False) -> None:
        """Name the class of clips.

        Args:
            config: which clips, which model.
            json: print the figures as JSON, one line a clip, instead of a table.
        """
        predictions, failures = [], []

        def unreadable(error: DataError) -> None:
            failures.append(error)
            console.say(f"saccade: {error}")

        for prediction in verb.each(config, unreadable=unreadable):
            predictions.append(prediction)
            if json:
                print(json_format.dumps(asdict(prediction), default=str), flush=True)
        if predictions and not json:
            console.out.print(verb.render(predictions))
        if failures:
            num = len(predictions) + len(failures)
            raise DataError(f"{len(failures)} of {num} clips cannot be read, as said above")

    return predict


def _reproduce() -> Callable[..., None]:
    from saccade import console
    from saccade import reproduce as verb

    def reproduce(config: verb.ReproduceConfig) -> None:
        with console.training_bars() as bars:
            folder = verb.reproduce(config, say=console.say, progress=bars.begin, left=bars.left)
        console.out.print((folder / "table.md").read_text(encoding="utf-8"), soft_wrap=True)
        console.say(f"wrote {folder}: {', '.join(sorted(path.name for path in folder.iterdir() if path.is_file()))}")

    return reproduce


def _explain() -> Callable[..., None]:
    from saccade import console
    from saccade import explain as verb

    def explain(config: verb.ExplainConfig) -> None:
        path = verb.explain(config)
        console.say(f"wrote {path}, {path.stat().st_size / 1000:.0f} kB")

    return explain


def _serve() -> Callable[..., None]:
    from saccade import console
    from saccade import serve as verb

    def serve(config: verb.ServeConfig) -> None:
        verb.serve(config, say=console.say)

    return serve


def _info() -> Callable[..., None]:
    def info() -> None:
        """Show versions, device, models and digit sources."""
        from saccade import console
        from saccade import info as verb

        console.out.print(verb.render())

    return info


VERBS: dict[str, Verb] = {
    "reproduce": Verb("the published table beside ours, with pictures", "saccade reproduce --preset quick", _reproduce),
    "generate": Verb(
        "write clips of moving digits to files",
        "saccade generate --condition rotation_scaling --num-clips 100 --out clips",
        _generate,
    ),
    "train": Verb(
        "train a model end to end",
        "saccade train --model dcn-lstm --condition rotation_scaling --minutes 30",
        _train,
    ),
    "evaluate": Verb("measure a checkpoint", "saccade evaluate --model runs/train --num-clips 2000", _evaluate),
    "predict": Verb("name the class of clips", "saccade predict clip.mp4 --model runs/train", _predict),
    "explain": Verb(
        "show where models look in a clip: a page, a GIF, a video, a film strip",
        "saccade explain clip.mp4 -o report.html",
        _explain,
    ),
    "serve": Verb("attention live, on a page in the browser", "saccade serve --open", _serve),
    "info": Verb("show versions, device, models, digit sources", "saccade info", _info),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit status: 0 done, 2 wrong call, 1 bad data, 130 interrupted."""
    try:
        status = _run(list(sys.argv[1:] if arguments is None else arguments))
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader left, as `head` does. What is still to be written goes nowhere, or Python would complain at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
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
    return 0


def _call(name: str, words: list[str]) -> None:
    if name not in VERBS:
        raise unknown_name("verb", name, VERBS)
    import tyro

    verb = VERBS[name]
    tyro.cli(
        verb.make(),
        prog=f"saccade {name}",
        description=f"{verb.summary[0].upper()}{verb.summary[1:]}. Example: {verb.example}",
        args=words,
        config=(tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff),
    )


def _fail(error: BaseException, status: int, debug: bool) -> int:
    if debug:
        traceback.print_exception(error)
    else:
        print(f"saccade: {' '.join(str(error).split())}", file=sys.stderr)
    return status


def _interrupted(error: KeyboardInterrupt, words: list[str]) -> str:
    if not isinstance(error, Interrupted):
        return "interrupted"
    # Only training must be told to go on; the others see what is there.
    resume = ["--resume"] if words[0] == "train" and "--resume" not in words else []
    return f"interrupted: {error}\ngo on with: {shlex.join(['saccade', *words, *resume])}"


def _help() -> str:
    width = max(map(len, VERBS)) + 2
    lines = [f"  {name:<{width}}{verb.summary}\n  {'':<{width}}  {verb.example}" for name, verb in VERBS.items()]
    return "\n".join(
        [
            "usage: saccade VERB [--help] [options]",
            "",
            "Classify video with learned visual attention, right when things turn, come closer and go away.",
            "",
            *lines,
            "",
            "`saccade VERB --help` shows a verb's options; `--debug` shows the whole of an error.",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
