"""The verb `robustness`: what it hands in for models of moving digits, and what it prints."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from saccade.cli.options import given


def make(words: Sequence[str]) -> Callable[..., None]:
    """Return the function of the verb."""
    from saccade import checkpoint, console, weights
    from saccade import robustness as verb
    from saccade.data.digits import CONDITIONS, DigitsConfig, DigitSourceConfig
    from saccade.data.digits.changed import drawn_changed
    from saccade.evaluate import standard_test

    # Long enough for several settings of the standard test, and a few times shorter than its clips.
    num_frames = 20
    as_trained = DigitSourceConfig()

    def generated(model: Path, config: verb.RobustnessConfig, typed: dict[str, Any]) -> verb.Generated | None:
        header = checkpoint.read_header(weights.find(model))
        if not isinstance(header.data_config(), DigitsConfig):
            if typed:
                standard_test(model, **typed)  # tells that the options are of no use here
            return None
        if "num_frames" not in header.arguments:
            typed = typed | {"num_frames": num_frames}
        base = standard_test(model, condition=("normal",), num_clips=config.num_clips, **typed)
        assert isinstance(base, DigitsConfig)
        conditions = {name: replace(base, condition=(name,)) for name in CONDITIONS if name != "normal"}
        return verb.Generated(base, conditions, drawn_changed)

    def robustness(config: verb.RobustnessConfig, source: DigitSourceConfig = as_trained) -> None:
        """Measure how accurate models stay when their input changes.

        Args:
            config: options of the measurement.
            source: the digit images, for models that know digits; if not given, those of training.
        """
        typed = given(words, source)
        with console.counting_bar("clips, in each pass") as progress:
            report = verb.robustness(
                config, lambda model: generated(model, config, typed), say=console.say, progress=progress
            )
        console.out.print(verb.summary(report.rows))
        for path in (report.csv, report.page):
            console.say(f"wrote {path}, {path.stat().st_size / 1000:.0f} kB")

    return robustness
