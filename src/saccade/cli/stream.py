"""The verb `stream`: lines on standard output, and pictures for the browser if they are asked for."""

import json
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from saccade.serve.mjpeg import MjpegServer
    from saccade.stream import Classifier, Moment, StreamConfig


def make(words: Sequence[str]) -> Callable[..., None]:
    """Return the function that follows a stream."""
    from saccade.stream import StreamConfig
    from saccade.stream.address import Address
    from saccade.stream.ending import terminated_like_interrupted

    def parsed(config: StreamConfig) -> None:
        pass

    _refuse_without_passwords(words, parsed)

    def stream(config: StreamConfig) -> None:
        # The source and the server first: a wrong call is told before the model is loaded.
        Address.of(config.source).check()
        with terminated_like_interrupted(), _picture_server(config) if config.mjpeg else nullcontext() as pictures:
            _print(_lines(config, pictures))

    return stream


def _print(lines: Generator[dict[str, Any]]) -> None:
    try:
        for line in lines:
            print(json.dumps(line), flush=True)
    except KeyboardInterrupt as error:
        # One that comes while a line is printed has not reached those who end the events that last.
        line = lines.throw(error)
        while True:
            print(json.dumps(line), flush=True)
            line = next(lines)


def _refuse_without_passwords(words: Sequence[str], parsed: Callable[..., None]) -> None:
    """Let the parser refuse wrong words before it sees a password: its messages show the words."""
    from saccade.stream.address import BEFORE_HOST

    shown = [BEFORE_HOST.sub("...@", word) for word in words]
    if shown != list(words):
        import tyro

        tyro.cli(
            parsed,
            prog="saccade stream",
            args=shown,
            config=(tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff),
        )


def _picture_server(config: "StreamConfig") -> "MjpegServer[Moment]":
    from saccade.serve.mjpeg import MjpegServer
    from saccade.stream.address import Address
    from saccade.visualize import Annotator

    return MjpegServer(
        Annotator().jpeg,
        host=config.host,
        port=config.port,
        title=f"saccade stream: {Address.of(config.source).shown}",
        caption="Outline: the area that a spatial transformer samples. Dots: where deformable convolutions sample.",
    )


def _lines(config: "StreamConfig", pictures: "MjpegServer[Moment] | None") -> Generator[dict[str, Any]]:
    from saccade import console
    from saccade import stream as verb

    classifier = verb.Classifier(config.model, device=config.device, min_confidence=config.min_confidence)
    moments = _moments(config, classifier, pictures)
    if not config.events:
        return verb.prediction_lines(moments, classifier.labels, probabilities=config.probabilities)
    if classifier.labels.none is None:
        console.say(
            "no class of this model means that nothing happens: the threshold alone decides, and more events will"
            " be false; train with a class folder named none"
        )
    events = verb.Events(classifier.labels, threshold=classifier.min_confidence, smoothing_s=config.smoothing_s)
    return verb.event_lines(moments, events)


def _moments(
    config: "StreamConfig", classifier: "Classifier", pictures: "MjpegServer[Moment] | None"
) -> "Iterator[Moment]":
    """Yield the moments of a stream; each is shown first."""
    from saccade import console
    from saccade.stream import follow

    if pictures is None:
        yield from follow(config, classifier, say=console.say)
        return
    console.say(f"see the stream: {pictures.address}")
    for moment in follow(config, classifier, say=console.say, is_watched=pictures.is_watched):
        pictures.show(moment)
        yield moment
