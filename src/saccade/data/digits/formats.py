"""Convert checkpoint headers of earlier versions; until version 0.1, all data was moving digits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from saccade.data.digits import schemes
from saccade.data.digits.config import TRAINING, DigitsConfig
from saccade.data.digits.moving_digits import DATA

NEWEST = 3
_SHORT_FRAMES = 4
# Options of moving digits that came later, with what all runs before had.
_LATER = {"short_frames": _SHORT_FRAMES, "jitter": 0.0}
_FIRST = replace(TRAINING, frames_per_setting=2, short_fraction=0.5, short_frames=_SHORT_FRAMES)
# Former options of training that are now options of the digits: old names and current names.
_OF_DIGITS = {
    **{
        name: name for name in ("condition", "digits", "num_digits", "clutter", "noise", "num_frames", "angle", "order")
    },
    **{name: name for name in ("frames_per_setting", "short_fraction")},
    "data_dir": "digits_dir",
    "labels": "scheme",
}


def of_this_version(described: Mapping[str, Any]) -> dict[str, Any]:
    """Return a header in the current format.

    Raises:
        TypeError, KeyError, UsageError: if `described` is not a header of an earlier format.
    """
    found = dict(described)
    if found["format"] == NEWEST:
        return _with_later_options(found)
    arguments, training = dict(found["arguments"]), dict(found["training"])
    matched = not str(found["model"]).endswith("-published")
    if found["format"] == 1 and matched:
        arguments.setdefault("trunk", "wide")  # the only trunk in format 1
    arguments.pop("digit_pairs", None)
    num_classes, channels = arguments.pop("num_classes", None), arguments.pop("channels", 1)
    if matched:
        found["frame_format"] = {"channels": channels}
    found["labels"] = _labels(found["data"].get("labels"), num_classes)
    config = training.get("config")
    found["data"] = _data(dict(found["data"]), dict(config or {}))
    if config:
        kept = {name: value for name, value in config.items() if name not in _OF_DIGITS}
        # The first format lacks these options, because each had only one value.
        first = {"trunk": "wide", "muon_rate": 0.0} if found["format"] == 1 else {}
        training["config"] = first | {"input": "frames"} | kept
        # The image files may have moved; the facts name the source.
        asked = DigitsConfig.from_json(found["data"]["config"] | {"digits": "uci", "digits_dir": None})
        training["data"] = asked.identity() | {"digits": found["data"]["facts"].get("digits")}
    return found | {"arguments": arguments, "training": training}


def _labels(scheme: str | None, num_classes: int | None) -> dict[str, Any] | None:
    if scheme is not None:
        return schemes.create(scheme).labels.as_json()
    return None if num_classes is None else {"names": [str(index) for index in range(num_classes)]}


def _data(data: dict[str, Any], config: dict[str, Any]) -> dict[str, Any]:
    if not data:
        return {}
    protocol = data.pop("protocol", None)
    asked = _FIRST.as_json() | {_OF_DIGITS[name]: value for name, value in config.items() if name in _OF_DIGITS}
    for name, old in (("condition", "condition"), ("scheme", "labels"), ("order", "order"), ("digits", "digits")):
        # The header names the source; if the source is a folder, only the configuration has its path.
        if old in data and not (name == "digits" and config.get("digits") not in (None, "auto")):
            asked[name] = data[old]
    if isinstance(asked["condition"], str):
        asked["condition"] = asked["condition"].split("+")
    facts = {"data": DATA} | data | ({"protocol": protocol} if protocol else {})
    return {"config": DigitsConfig.from_json(asked).as_json(), "facts": facts}


def _with_later_options(found: dict[str, Any]) -> dict[str, Any]:
    """Return a header that tells the options which came after it."""
    for part, name in (("data", "config"), ("training", "data")):
        config = (found.get(part) or {}).get(name)
        if isinstance(config, Mapping) and config.get("kind") == DigitsConfig.KIND:
            later = {option: value for option, value in _LATER.items() if option not in config}
            found[part] = dict(found[part]) | {name: dict(config) | later}
    return found
