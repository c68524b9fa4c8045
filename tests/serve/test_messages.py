import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saccade.serve import messages
from saccade.serve.messages import MessageError

SETTINGS = {
    "num_digits": 2, "max_angle_deg": 60, "scale_low": 0.6, "scale_high": 1.0, "speed_px": 1.5, "tempo": 1.0,
    "per_digit": True, "clutter": 0, "noise": 0,
}  # fmt: skip
GOOD = [
    {"type": "start", "seed": 7, "settings": SETTINGS},
    {"type": "start", "seed": 7, "settings": SETTINGS, "digits": [{"type": "pick", "slot": 1, "digit": 3}]},
    {"type": "settings", "settings": SETTINGS},
    {"type": "pace", "fps": 25},
    {"type": "pace", "fps": 1},
    {"type": "pace", "fps": 60},
    {"type": "pause", "paused": True},
    {"type": "step"},
    {"type": "seek", "frame": 3},
    {"type": "forget"},
    {"type": "source", "kind": "camera"},
    {"type": "show", "models": ["a"], "saliency": [], "clean": True},
    {"type": "seen", "number": 4},
    {"type": "draw", "slot": 0, "strokes": [[[0, 255], [3, 4]]], "label": None},
    {"type": "pick", "slot": 4, "digit": 9, "instance": 2},
]
BAD = [
    ("", "JSON"),
    ("[]", "object"),
    ("{}", "discriminator"),
    ('{"type": "sing"}', "does not match"),
    ('{"type": "pause"}', "paused"),
    ('{"type": "pause", "paused": 1}', "bool"),
    ('{"type": "pause", "paused": true, "more": 1}', "more"),
    ('{"type": "pace", "fps": NaN}', "fps"),
    ('{"type": "pace", "fps": 1e9}', "60"),
    ('{"type": "pace", "fps": 0.5}', "1"),
    ('{"type": "seen", "number": -1}', "number"),
    ('{"type": "start", "seed": 1, "settings": null}', "settings"),
    ('{"type": "draw", "slot": 5, "strokes": [[[1, 2]]]}', "slot"),
    ('{"type": "draw", "slot": 0, "strokes": []}', "strokes"),
    ('{"type": "draw", "slot": 0, "strokes": [[]]}', "strokes"),
    ('{"type": "draw", "slot": 0, "strokes": [[[1, 256]]]}', "255"),
    ('{"type": "draw", "slot": 0, "strokes": [[[1, 2, 3]]]}', "strokes"),
    ('{"type": "source", "kind": "/etc/passwd"}', "kind"),
    ("[" * 100_000, "message not understood"),
]


@pytest.mark.parametrize("message", GOOD, ids=lambda message: message["type"])
def test_what_the_page_says_is_understood(message):
    assert messages.parse(json.dumps(message)).type == message["type"]


@pytest.mark.parametrize(("text", "told"), BAD)
def test_anything_else_is_one_line_that_says_what_is_wrong(text, told):
    with pytest.raises(MessageError, match=told) as caught:
        messages.parse(text)
    assert len(str(caught.value)) < 600
    assert "\n" not in str(caught.value)


def test_a_drawing_has_a_limit():
    stroke = [[1, 1]] * (messages.MAX_POINTS + 1)
    for strokes in ([stroke], [[[1, 1]]] * (messages.MAX_STROKES + 1)):
        with pytest.raises(MessageError, match="at most"):
            messages.parse(json.dumps({"type": "draw", "slot": 0, "strokes": strokes}))


def understood_or_refused(text):
    refusal = ""
    try:
        messages.parse(text)
    except MessageError as error:
        refusal = str(error)
    assert len(refusal) < 600


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(GOOD).flatmap(
        lambda good: st.dictionaries(st.sampled_from([*good, "more"]), json_values, max_size=3).map(
            lambda changes: {**good, **changes}
        )
    )
)
def test_a_message_with_fields_of_any_shape_is_understood_or_refused(message):
    understood_or_refused(json.dumps(message))


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=40) | json_values.map(json.dumps))
def test_any_text_is_understood_or_refused(text):
    understood_or_refused(text)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    "data", [b"", b"\x40", bytes([64, 64, 1]), bytes([64, 64]) + bytes(4 + 64 * 64 * 2), bytes(6 + 256 * 255)]
)
def test_a_camera_frame_of_wrong_length_is_refused(data, channels):
    with pytest.raises(MessageError, match="camera frame"):
        messages.parse_camera(data, channels)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_camera_frame_keeps_its_rows(channels):
    head = bytes([28, 30, 0, 1, 0, 0])
    frame = messages.parse_camera(head + bytes(k % 251 for k in range(28 * 30 * channels)), channels)
    assert (frame.pixels.shape, frame.time_s) == ((28, 30, channels), 65.536)
    assert frame.pixels[1, 2].tolist() == [32 * channels + c for c in range(channels)]


def test_the_largest_camera_frame_is_no_longer_than_a_message_may_be():
    data = bytes(6) + bytes(256 * 256 * 3)
    assert messages.parse_camera(data, 3).pixels.shape == (256, 256, 3)
    assert len(data) <= messages.MAX_MESSAGE_BYTES
