"""The command `saccade`: parse the arguments, call the function of the verb, print the result."""

import io
import json as json_format
import os
import re
import shlex
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, NamedTuple

import saccade
from saccade import files
from saccade.errors import DataError, Interrupted, SaccadeError, UsageError, unknown_name
from saccade.foreign import check_types, shown

# Option names of version 0.1 that still work, with their current names: for all verbs, and for single verbs.
ALIASES = {"--data-dir": "--digits-dir"}
CLIPS_SEED = {"--seed": "--clips-seed"}
# What torch says on processors and on GPUs.
_NO_MEMORY = re.compile("allocate memory|out of memory")
OWN_ALIASES = {"generate": CLIPS_SEED, "evaluate": CLIPS_SEED}


class Verb(NamedTuple):
    """A verb: its summary, an example call, and a factory of the function that runs it.

    The factory takes the words that were typed. It runs only when the verb is called, because it imports torch.
    """

    summary: str
    example: str
    make: Callable[[Sequence[str]], Callable[..., Any]]


def _generate(_words: Sequence[str]) -> Callable[..., None]:
    from saccade import console
    from saccade import generate as verb
    from saccade.data.digits import DigitsConfig

    generated = DigitsConfig(num_clips=1000)

    def generate(config: verb.GenerateConfig, digits: DigitsConfig = generated) -> None:
        console.say(f"digits: {digits.resolve()}")
        with console.counting_bar("clips") as progress:
            folder = verb.generate(config, digits, progress)
        console.say(f"{folder} holds {digits.num_clips} clips")

    return generate


def _check(_words: Sequence[str]) -> Callable[..., None]:
    from saccade import check as verb
    from saccade import console

    def check(config: verb.CheckConfig) -> None:
        with console.counting_bar("clips") as progress:
            report = verb.check(config, progress=progress)
        console.out.print(verb.render(report))
        if report.exit_status:
            raise SystemExit(report.exit_status)

    return check


def _train(words: Sequence[str]) -> Callable[..., None]:
    from saccade import console, run_folder
    from saccade.clips import DataConfig
    from saccade.data.digits import TRAINING, DigitsConfig
    from saccade.train import TrainConfig, train

    def run(
        config: TrainConfig,
        digits: DigitsConfig = TRAINING,
        data: Path | None = None,
        group: str | None = None,
        split_seed: int = 0,
        folds: int | None = None,
        out: Path = Path("runs/train"),
        resume: bool = False,
    ) -> None:
        """Train a model end to end.

        Args:
            config: options of the training.
            digits: moving digits to learn from, without --data.
            data: a folder of clips to learn from, with one folder per class.
            group: with --data: a regular expression that captures a part of the file name, for example '_([0-9]+)_' for
                the number of a person. Clips with the same part are never split between training and test.
            split_seed: with --data: the seed of the split into training, validation and test.
            folds: with --data and a pretrained trunk: the number of folds of a cross-validation, in which each clip is
                tested once. The final model learns from all clips.
            out: the run folder.
            resume: continue the run in the folder --out.
        """
        given = _given(words, digits)
        learned: DataConfig
        if folds is not None and folds < 2:
            raise UsageError(f"--folds must be at least 2; got {folds}")
        if resume:
            config, begun = _as_begun(words, config, out)
        else:
            run_folder.check_free(out)
        if data is not None:
            if given:
                raise UsageError(f"{_flag(next(iter(given)))} is an option of moving digits; leave it out with --data")
            if not resume and _is_pretrained(words, config):
                _train_pretrained(config, data, group, split_seed, folds, out)
                return
            if folds is not None:
                raise UsageError(
                    "--folds needs the pretrained trunk: install it with pip install 'saccade[pretrained]', and leave"
                    " out the options of a training by steps"
                )
            if not resume and not _given(words, config):
                console.say(
                    "no pretrained trunk: a small model learns from scratch; few clips are learned better with"
                    " pip install 'saccade[pretrained]'"
                )
            learned = _read_folder(data, group, split_seed, config.start_from)
        elif folds is not None:
            raise UsageError("--folds is an option for a folder of clips; name the folder with --data")
        elif group is not None:
            raise UsageError("--group is an option for a folder of clips; name the folder with --data")
        elif resume:
            learned = replace(begun, **given) if isinstance(begun, DigitsConfig) else begun
        else:
            console.say(f"digits: {digits.resolve()}")
            learned = digits
        with console.training_bar(config.model) as progress:
            path = train(config, learned, out, resume=resume, progress=progress)
        console.say(f"wrote {path}\nevaluate it with: saccade evaluate --model {shlex.quote(str(out))}")

    return run


def _is_pretrained(words: Sequence[str], config: Any) -> bool:
    """Return whether a training on a folder uses the pretrained trunk: it is asked for, or nothing else is."""
    from saccade.models import efficientnet

    if config.trunk == "efficientnet-lite0":
        by_steps = sorted(_given(words, config).keys() - {"trunk", "seed"})
        if by_steps:
            raise UsageError(f"{_flag(by_steps[0])} does not apply to a pretrained trunk; leave it out")
        return True
    return not _given(words, config).keys() - {"seed"} and efficientnet.pretrained_file() is not None


def _train_pretrained(
    config: Any, root: Path, group: str | None, split_seed: int, num_folds: int | None, out: Path
) -> None:
    from saccade import baselines, console
    from saccade.data import Folder
    from saccade.data.leaks import check_leak
    from saccade.train import pretrained, pretrained_run

    with console.stages() as begin:
        folder = Folder(
            root,
            group=group,
            seed=split_seed,
            short_side=pretrained.SHORT_SIDE_PX,
            enlarge=True,
            hold_out=num_folds is None,
            progress=begin("clips read"),
        )
        console.say(f"{root}: {folder.summary()}")
        records = folder.scanned()
        for reason in folder.left_out.values():
            console.say(f"left out: {reason}")
        if (leak := check_leak(records)) is not None and leak.found:
            console.say(
                f"warning: size, rate, duration and codec alone name the class of {100 * leak.accuracy:.0f} % of clips,"
                f" the largest class has {100 * leak.largest_share:.0f} %; {leak.fields[0][0]} tells most:"
                " a model may learn this instead of what the clips show"
            )
        outcome = pretrained_run.train(config, folder, records, out, num_folds=num_folds, progress=begin)
    what = f"{num_folds} folds, every clip tested once" if num_folds else "on the validation clips"
    console.out.print(f"accuracy, {what}:")
    console.out.print(baselines.render(outcome.rungs, [outcome.model]))
    console.say(f"wrote {outcome.path}\nuse it with: saccade predict FILE --model {shlex.quote(str(out))}")


def _as_begun(words: Sequence[str], config: Any, out: Path) -> tuple[Any, Any]:
    """Return the configuration of a run, updated with the options typed now, and its data."""
    from saccade import checkpoint, run_folder

    if not out.exists():
        raise DataError(f"there is no run to continue at {out}; name its folder with --out")
    if out.is_dir() and not run_folder.begun(out):
        raise DataError(f"nothing has been saved in {out} yet; leave out --resume to begin")
    header = checkpoint.read_header(out)
    if header.training.get("config", {}).get("trunk") == "efficientnet-lite0":
        raise UsageError(f"{out} is finished: a head on a pretrained trunk is fitted at once; choose another --out")
    before = {name: value for name, value in header.training.get("config", {}).items() if name in _names(config)}
    try:
        check_types(before, type(config))
    except TypeError as error:
        raise DataError(f"{out} has a damaged checkpoint ({error}); take an earlier copy or train again") from error
    if before.get("start_from"):
        before["start_from"] = Path(before["start_from"])
    given = _given(words, config)
    if "steps" in given or "minutes" in given:
        before |= {"steps": None, "minutes": None}
    return replace(config, **before | given), header.data_config()


def _read_folder(root: Path, group: str | None, split_seed: int, start_from: Path | None) -> Any:
    """Read the training clips of a folder, and print a summary.

    If the initial weights were trained on the same folder, the split of that training is kept. With another split,
    the model would be tested on clips that it has learned from.
    """
    from saccade import checkpoint, console, weights
    from saccade.data import Folder

    kept = {}
    if start_from is not None:
        header = checkpoint.read_header(weights.find(start_from))
        before = header.data.get("config", {})
        if before.get("root") == str(root.resolve()):
            header.data_config()  # raises where the split cannot be read
            kept = {"held_out": before["held_out"]}
    with console.counting_bar("clips read") as counted:
        folder = Folder(root, group=group, seed=split_seed, remembered=kept, progress=counted)
        console.say(f"{root}: {folder.summary()}")
        folder.clips("train")
    return folder


def _evaluate(words: Sequence[str]) -> Callable[..., None]:
    from saccade import console
    from saccade import evaluate as verb
    from saccade.data import Folder
    from saccade.data.digits import DigitsConfig
    from saccade.explain import evaluate_with_page

    # Labels that are not given are those of training, known later; `digits` accepts every number of digits until then.
    standard = DigitsConfig(scheme="digits")

    def evaluate(
        config: verb.EvaluateConfig,
        digits: DigitsConfig = standard,
        data: Path | None = None,
        report: Path | None = None,
        json: bool = False,
    ) -> None:
        """Measure a checkpoint on the test split of its training data.

        Args:
            config: options of the evaluation.
            digits: moving digits. If not given, condition, digits, digits-dir, labels and order are those of training.
            data: the folder of clips that the checkpoint was trained on, if it has moved.
            report: an HTML file for a page with the figures, the confusion matrix, and the ten most wrong clips with
                what the attention did in them.
            json: print the figures as JSON, one line per condition, instead of a table.
        """
        measured = verb.standard_test(config.model, **_given(words, digits))
        if data is not None:
            if not isinstance(measured, Folder):
                raise UsageError(f"{config.model} learned from moving digits, not from a folder; leave out --data")
            measured = measured.moved(data)
        with console.counting_bar("clips, in each pass") as progress:
            if report is None:
                results = verb.each(config, measured, progress=progress)
            else:
                results = iter([evaluate_with_page(config, measured, report, progress=progress)])
            for result in results:
                if json:
                    print(json_format.dumps(result.as_json()), flush=True)
                else:
                    console.out.print(verb.render(result))
        for path in (report, config.confusion):
            if path is not None:
                console.say(f"wrote {path}, {path.stat().st_size / 1000:.0f} kB")

    return evaluate


def _predict(_words: Sequence[str]) -> Callable[..., None]:
    from saccade import console
    from saccade import predict as verb

    def predict(config: verb.PredictConfig, json: bool = False) -> None:
        """Predict the class of clips.

        Args:
            config: the clips and the model.
            json: print the predictions as JSON, one line per clip, instead of a table; they include the verdicts over
                time.
        """
        predictions: list[verb.Prediction] = []
        failures: list[SaccadeError] = []
        results = sys.stdout  # the bar takes over sys.stdout

        def unreadable(error: SaccadeError) -> None:
            failures.append(error)
            console.say(f"saccade: {error}")

        try:
            # On one terminal, lines and the bar would mix.
            with console.counting_bar("clips", hidden=json and results.isatty()) as progress:
                wanted = replace(config, over_time=config.over_time or json)
                for prediction in verb.each(wanted, unreadable=unreadable, progress=progress):
                    kept = prediction.over_time if config.over_time else None
                    predictions.append(replace(prediction, over_time=kept))
                    if json:
                        print(json_format.dumps(prediction.as_json()), file=results, flush=True)
        except BaseException:
            if config.csv is not None and verb.unfinished(config.csv).exists():
                console.say(f"saccade: the clips that are done are in {verb.unfinished(config.csv)}")
            raise
        finally:  # also what an interrupt or a full disk has left
            if predictions and not json:
                console.out.print(verb.render(predictions))
        if failures:
            num = len(predictions) + len(failures)
            raise DataError(f"{len(failures)} of {num} clips cannot be read; see the messages above")

    return predict


def _reproduce(_words: Sequence[str]) -> Callable[..., None]:
    from saccade import console
    from saccade import reproduce as verb

    def reproduce(config: verb.ReproduceConfig) -> None:
        with console.training_bars() as bars:
            folder = verb.reproduce(config, say=console.say, progress=bars.begin, left=bars.left)
        console.out.print((folder / "table.md").read_text(encoding="utf-8"), soft_wrap=True)
        console.say(f"wrote {folder}: {', '.join(sorted(path.name for path in folder.iterdir() if path.is_file()))}")

    return reproduce


def _explain(_words: Sequence[str]) -> Callable[..., None]:
    from saccade import console
    from saccade import explain as verb

    def explain(config: verb.ExplainConfig) -> None:
        path = verb.explain(config)
        console.say(f"wrote {path}, {path.stat().st_size / 1000:.0f} kB")

    return explain


def _serve(_words: Sequence[str]) -> Callable[..., None]:
    from saccade import console
    from saccade import serve as verb

    def serve(config: verb.ServeConfig) -> None:
        verb.serve(config, say=console.say)

    return serve


def _info(_words: Sequence[str]) -> Callable[..., None]:
    def info() -> None:
        """Show versions, device, models and digit sources."""
        from saccade import console
        from saccade import info as verb

        console.out.print(verb.render())

    return info


VERBS: dict[str, Verb] = {
    "reproduce": Verb("reproduce the published table, with pictures", "saccade reproduce --preset quick", _reproduce),
    "generate": Verb(
        "write clips of moving digits to files",
        "saccade generate --condition rotation_scaling --num-clips 100 --out clips",
        _generate,
    ),
    "check": Verb("check a collection of clips before training", "saccade check clips", _check),
    "train": Verb(
        "train a model end to end",
        "saccade train --model dcn-lstm --condition rotation_scaling --minutes 30",
        _train,
    ),
    "evaluate": Verb("measure a checkpoint", "saccade evaluate --model runs/train --num-clips 2000", _evaluate),
    "predict": Verb("predict the class of clips", "saccade predict clip.mp4 --model runs/train", _predict),
    "explain": Verb(
        "show where models look in a clip, as a page, a GIF, a video or a film strip",
        "saccade explain clip.mp4 -o report.html",
        _explain,
    ),
    "serve": Verb("show attention live in the browser", "saccade serve --open", _serve),
    "info": Verb("show versions, device, models, digit sources", "saccade info", _info),
}


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

    verb = VERBS[name]
    if "" in words:
        raise UsageError("an argument is empty; is a variable of the shell not set?")
    known = _by_names_of_today(name, words)
    tyro.cli(
        verb.make(known),
        prog=f"saccade {name}",
        description=f"{verb.summary[0].upper()}{verb.summary[1:]}. Example: {verb.example}",
        args=known,
        config=(tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff),
    )


def _given(words: Sequence[str], config: Any) -> dict[str, Any]:
    """Return the fields of a configuration whose options were typed."""
    typed = {word.partition("=")[0] for word in words}
    return {name: getattr(config, name) for name in _names(config) if _flag(name) in typed}


def _names(config: Any) -> list[str]:
    return [field.name for field in fields(config)]


def _flag(name: str) -> str:
    """Return the option name of a field of `DigitsConfig`."""
    return "--labels" if name == "scheme" else "--" + name.replace("_", "-")


def _by_names_of_today(name: str, words: list[str]) -> list[str]:
    """Return the words with old option names replaced by the current ones."""
    aliases = ALIASES | OWN_ALIASES.get(name, {})
    found = []
    for word in words:
        option, equals, value = word.partition("=")
        option = "--" + option[2:].replace("_", "-") if option.startswith("--") else option
        found.append(aliases.get(option, option) + equals + value)
    return found


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


if __name__ == "__main__":
    sys.exit(main())
