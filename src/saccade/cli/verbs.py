"""The verbs of the command line: what each one calls and prints; training and streams have files of their own."""

import json as json_format
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from saccade.cli import robustness, stream, train
from saccade.cli.options import given
from saccade.errors import DataError, Interrupted, SaccadeError, UsageError


class Verb(NamedTuple):
    """A verb: its summary, an example call, a factory of the function that runs it, and more about it for its help.

    The factory takes the words that were typed. It runs only when the verb is called, because it imports torch.
    """

    summary: str
    example: str
    make: Callable[[Sequence[str]], Callable[..., Any]]
    about: str = ""


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


def _shard(_words: Sequence[str]) -> Callable[..., None]:
    from saccade import console
    from saccade import shard as verb

    def shard(config: verb.ShardConfig) -> None:
        with console.stages() as begin:
            written = verb.shard(config, begin=begin)
        for name, why in written.left_out.items():
            console.say(f"left out: {name}: {why}")
        clips = ", ".join(f"{num} for {split}" for split, num in written.num_clips.items() if num)
        before = f", {written.num_before} of them before" if written.num_before else ""
        console.say(f"wrote {len(written.archives)} archives to {config.out}{before}; clips: {clips}")
        console.say(f"train on them with: saccade train --data '{config.out}/*.tar'")

    return shard


def _preview(_words: Sequence[str]) -> Callable[..., None]:
    from saccade import console
    from saccade import preview as verb

    def preview(config: verb.PreviewConfig) -> None:
        with console.counting_bar("clips read") as progress:
            verb.preview(config, unreadable=lambda error: console.say(f"left out: {error}"), progress=progress)
        console.say(f"wrote {config.out}, {config.out.stat().st_size / 1000:.0f} kB")

    return preview


def _evaluate(words: Sequence[str]) -> Callable[..., None]:
    from saccade import console
    from saccade import evaluate as verb
    from saccade.data import Folder
    from saccade.data.digits import DigitsConfig
    from saccade.data.scan import cache_warning
    from saccade.explain import each_with_page

    # Labels that are not given are those of training, known later; `digits` accepts every number of digits until then.
    standard = DigitsConfig(scheme="digits")

    def evaluate(
        config: verb.EvaluateConfig,
        digits: DigitsConfig = standard,
        data: Path | None = None,
        report: Path | None = None,
        stream: bool = False,
        json: bool = False,
    ) -> None:
        """Measure a checkpoint on the test split of its training data.

        Args:
            config: options of the evaluation.
            digits: moving digits. If not given, condition, digits, digits-dir, labels and order are those of training.
            data: the folder or CSV file of clips that the checkpoint was trained on, if it has moved.
            report: an HTML file for a page with the figures, the confusion matrix, and the ten most wrong clips with
                what the attention did in them.
            stream: instead, join the clips to a stream with ten minutes of the class that means that nothing happens,
                and measure the events that are found in it. Of the other options, --model, --split, --device, --data
                and --json apply.
            json: print the figures as JSON, one line per condition, instead of a table.
        """
        measured = verb.standard_test(config.model, **given(words, digits))
        if data is not None:
            if not isinstance(measured, Folder):
                raise UsageError(f"{config.model} learned from moving digits, not from a folder; leave out --data")
            measured = measured.moved(data)
        if stream:
            with console.counting_bar("frames of the stream") as progress:
                figures = verb.evaluate_stream(config, measured, progress=progress)
            if json:
                print(json_format.dumps(figures.as_json()))
            else:
                console.out.print(verb.render_stream(figures))
            return
        with console.counting_bar("clips, in each pass") as progress:
            if report is None:
                results = verb.each(config, measured, progress=progress)
            else:
                results = each_with_page(config, measured, report, progress=progress)
            for result in results:
                if json:
                    print(json_format.dumps(result.as_json()), flush=True)
                else:
                    console.out.print(verb.render(result))
        if (warning := cache_warning()) is not None:
            console.say(f"warning: {warning}")
        for path in (report, config.confusion):
            if path is not None:
                console.say(f"wrote {path}, {path.stat().st_size / 1000:.0f} kB")

    return evaluate


def _predict(_words: Sequence[str]) -> Callable[..., None]:
    from saccade import checkpoint, console, weights
    from saccade import predict as verb
    from saccade.cli.learned import num_learned

    def predict(config: verb.PredictConfig, json: bool = False) -> None:
        """Predict the class of clips.

        Args:
            config: the clips and the model.
            json: print the predictions as JSON, one line per clip, instead of a table; they include the verdicts over
                time.
        """
        if config.out is not None:
            if json:
                raise UsageError("--out writes Parquet files; leave out --json")
            _predict_into(config)
            return
        predictions: list[verb.Prediction] = []
        failures: list[SaccadeError] = []
        results = sys.stdout  # the bar takes over sys.stdout

        def unreadable(error: SaccadeError) -> None:
            failures.append(error)
            console.say(f"saccade: {error}")

        def continued(num: int) -> None:
            console.say(f"continuing: {num} {'clip is' if num == 1 else 'clips are'} done")

        try:
            # On one terminal, lines and the bar would mix.
            with console.counting_bar("clips", hidden=json and results.isatty()) as progress:
                wanted = replace(config, over_time=config.over_time or json)
                for prediction in verb.each(wanted, unreadable=unreadable, progress=progress, continued=continued):
                    kept = prediction.over_time if config.over_time else None
                    predictions.append(replace(prediction, over_time=kept))
                    if json:
                        print(json_format.dumps(prediction.as_json()), file=results, flush=True)
        except UsageError:  # of a call that differs from the interrupted one
            raise
        except BaseException:
            if config.csv is not None and verb.unfinished(config.csv).exists():
                console.say(
                    f"saccade: the clips that are done are in {verb.unfinished(config.csv)}; the same command continues"
                )
            raise
        finally:  # also what an interrupt or a full disk has left
            if predictions and not json:
                console.out.print(verb.render(predictions))
        header = checkpoint.read_header(weights.find(config.model))
        if num_seen := num_learned((prediction.clip for prediction in predictions), header):
            console.say(
                f"{num_seen} of {len(predictions)} clips lie among those that this model learned from: what it says of"
                " them is no evidence of how good it is"
            )
        if failures:
            num = len(predictions) + len(failures)
            raise DataError(f"{len(failures)} of {num} clips cannot be read; see the messages above")

    return predict


def _predict_into(config: Any) -> None:
    """Write the predictions of a large collection, and tell how many clips could not be classified."""
    from saccade import console
    from saccade.predict import bulk

    call = bulk.Call.of(config)
    num, num_left = (sum(len(part.clips) for part in parts) for parts in (call.parts, call.left))
    num_done = num - num_left
    if num_done:
        console.say(f"continuing: {num_done} of {num} clips are done")
    with console.counting_bar("clips") as progress:
        progress(num_done, num)
        missing = frozenset(call.left)
        num_failed = call.out.num_failed([part for part in call.parts if part not in missing])
        try:
            for done in call.each():
                num_done, num_failed = num_done + done.num_clips, num_failed + done.num_failed
                progress(num_done, num)
        except KeyboardInterrupt as error:
            raise Interrupted(f"the rows of {num_done} of {num} clips are in {call.out.address}") from error
    written = f"wrote {len(call.left)} of {len(call.parts)} files to {call.out.address}"
    console.say(f"{written}, for {num_left} of {num} clips")
    if num_failed:
        told = "1 clip" if num_failed == 1 else f"{num_failed} clips"
        raise DataError(f"{told} could not be classified; the column error says why; to try again, remove the file")


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


def _record(_words: Sequence[str]) -> Callable[..., None]:
    from saccade import console
    from saccade import record as verb

    def record(config: verb.RecordConfig) -> None:
        verb.record(config, say=console.say)

    return record


def _export(_words: Sequence[str]) -> Callable[..., None]:
    from saccade import console
    from saccade import export as verb

    def export(config: verb.ExportConfig) -> None:
        exported = verb.export(config, stage=console.say)
        console.say(f"largest difference of a probability: {exported.largest_difference:.1e}")
        for path in exported.paths:
            console.say(f"wrote {path}, {path.stat().st_size / 1000:.0f} kB")

    return export


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
    "shard": Verb(
        "write a collection of clips into tar archives, which training reads in place",
        "saccade shard --data clips --out shards",
        _shard,
    ),
    "preview": Verb("draw clips as a model sees them", "saccade preview --data clips", _preview),
    "train": Verb(
        "train a model on your own clips, or on moving digits",
        "saccade train --data clips --out runs/own",
        train.make,
        train.ABOUT,
    ),
    "evaluate": Verb("measure a checkpoint", "saccade evaluate --model runs/train --num-clips 2000", _evaluate),
    "robustness": Verb(
        "measure how accurate models stay when clips are turned, scaled, compressed, occluded, noisy",
        "saccade robustness --model runs/train --changes turn noise",
        robustness.make,
    ),
    "predict": Verb("predict the class of clips", "saccade predict clip.mp4 --model runs/train", _predict),
    "stream": Verb(
        "classify a camera, a network stream or a file as it comes",
        "saccade stream rtsp://camera/1 --model runs/train --events",
        stream.make,
    ),
    "record": Verb(
        "record clips of a class from a camera, as files that training reads",
        "saccade record wave --source 0 --out clips",
        _record,
    ),
    "explain": Verb(
        "show where models look in a clip, as a page, a GIF, a video or a film strip",
        "saccade explain clip.mp4 -o report.html",
        _explain,
    ),
    "export": Verb(
        "write a model for onnxruntime or torch.export, to run without saccade",
        "saccade export --model runs/train --out exported",
        _export,
    ),
    "serve": Verb("show attention live in the browser", "saccade serve --open", _serve),
    "info": Verb("show versions, device, models, digit sources", "saccade info", _info),
}
