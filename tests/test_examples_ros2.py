"""The node for ROS 2, on messages and an `rclpy` that stand in for those of ROS, which is not installed here."""

import importlib.util
import sys
from array import array
from fractions import Fraction
from pathlib import Path
from types import ModuleType, SimpleNamespace

import av
import numpy as np
import pytest
import torch

from saccade import checkpoint
from saccade.checkpoint import Header
from saccade.clips import FrameFormat
from saccade.errors import DataError
from saccade.labels import Labels
from saccade.stream import Classifier

LABELS = Labels(("none", "wave", "clap"), none="none", min_confidence=0.6)
SIZE = HEIGHT, WIDTH = 48, 64
PIXELS = np.random.default_rng(0).integers(0, 256, (*SIZE, 3)).astype(np.uint8)


def _node():
    path = Path(__file__).parents[1] / "examples" / "ros2_node.py"
    spec = importlib.util.spec_from_file_location("ros2_node", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


node = _node()


def save(folder, logits, labels=LABELS):
    """Write a model of ten frames a second that says the same of each frame."""
    torch.manual_seed(0)
    header = Header("lenet-lstm", labels=labels, frame_format=FrameFormat(3, fps=10))
    model = header.create_model()
    with torch.no_grad():
        model.head.weight.zero_()
        model.head.bias.copy_(torch.tensor(logits))
    checkpoint.save(folder / checkpoint.NAME, model, header)
    return folder


@pytest.fixture(scope="module")
def waves(tmp_path_factory):
    return save(tmp_path_factory.mktemp("waves"), [0.0, 4.0, 0.0])


def header(stamp_s):
    sec = int(stamp_s)
    stamp = SimpleNamespace(sec=sec, nanosec=round(1e9 * (stamp_s - sec)))
    return SimpleNamespace(stamp=stamp, frame_id="camera_optical_frame")


def raw(pixels=PIXELS, encoding="rgb8", *, stamp_s=1700000000.0, padding=0, is_bigendian=0):
    """Return a sensor_msgs/Image, whose data is an array as in rclpy."""
    rows = pixels.reshape(len(pixels), -1)
    rows = np.pad(rows, ((0, 0), (0, padding)), constant_values=77)
    return SimpleNamespace(
        header=header(stamp_s),
        height=pixels.shape[0],
        width=pixels.shape[1],
        encoding=encoding,
        is_bigendian=is_bigendian,
        step=rows.shape[1],
        data=array("B", rows.tobytes()),
    )


def compressed(codec, pixels=PIXELS, *, stamp_s=1700000000.0):
    """Return a sensor_msgs/CompressedImage."""
    encoder = av.CodecContext.create(codec, "w")
    encoder.height, encoder.width, encoder.time_base = *pixels.shape[:2], Fraction(1, 25)
    encoder.pix_fmt = {"mjpeg": "yuvj444p", "png": "rgb24"}[codec]
    frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format=encoder.pix_fmt)
    content = b"".join(bytes(packet) for packet in [*encoder.encode(frame), *encoder.encode(None)])
    told = {"mjpeg": "rgb8; jpeg compressed bgr8", "png": "png"}[codec]
    return SimpleNamespace(header=header(stamp_s), format=told, data=array("B", content))


def of(classifier, read=node.image, clock=None):
    lines = []
    return node.Follower(classifier, read, lines.append, **({} if clock is None else {"clock": clock})), lines


@pytest.mark.parametrize("padding", [0, 13])
@pytest.mark.parametrize("is_bigendian", [0, 1])
def test_pixels_of_each_encoding_are_red_green_and_blue(padding, is_bigendian):
    opaque = np.concatenate([PIXELS, np.full((*SIZE, 1), 9, np.uint8)], -1)
    for encoding, sent in {
        "rgb8": PIXELS,
        "bgr8": PIXELS[..., ::-1],
        "rgba8": opaque,
        "bgra8": opaque[..., [2, 1, 0, 3]],
    }.items():
        message = raw(sent, encoding, padding=padding, is_bigendian=is_bigendian)
        assert np.array_equal(node.image(message), PIXELS), encoding
    grey = PIXELS[..., 0]
    assert np.array_equal(node.image(raw(grey, "mono8", padding=padding, is_bigendian=is_bigendian)), grey)


def test_compressed_pixels_are_those_that_were_compressed():
    assert np.array_equal(node.compressed_image(compressed("png")), PIXELS)
    smooth = np.linspace(0, 255, WIDTH)[None, :, None] * np.ones((HEIGHT, 1, 3)) * (1.0, 0.5, 0.1)
    smooth = smooth.astype(np.uint8)
    assert np.abs(node.compressed_image(compressed("mjpeg", smooth)).astype(int) - smooth).max() < 12


def cut(message):
    message.data = message.data[:-1]
    return message


WRONG = [
    (node.image, raw(encoding="16UC1"), "encoding '16UC1'; known: rgb8, bgr8"),
    (node.image, SimpleNamespace(**{**vars(raw()), "encoding": "x" * 9999}), "x; known: rgb8"),
    (node.image, cut(raw()), "48 rows of 192 bytes has 9215 bytes"),
    (node.image, SimpleNamespace(**{**vars(raw()), "step": 0}), "rows of 0 bytes"),
    (node.image, SimpleNamespace(**{**vars(raw()), "height": 0}), "64x0 px is empty"),
    (node.image, SimpleNamespace(**{**vars(raw()), "step": 191}), "rows of 191 bytes; 64 px in rgb8 need 192"),
    (node.compressed_image, SimpleNamespace(header=header(1), format="tiff", data=array("B", b"II*")), "format 'tiff'"),
    (node.compressed_image, SimpleNamespace(header=header(1), format="png", data=array("B")), "neither JPEG nor PNG"),
    (node.compressed_image, SimpleNamespace(header=header(1), format="", data=b"\xff\xd8\xff\xe0no"), "is damaged"),
    (node.compressed_image, SimpleNamespace(header=header(1), format="", data=b"\x89PNG\r\n\x1a\nno"), "is damaged"),
]


@pytest.mark.parametrize("codec", ["mjpeg", "png"])
def test_half_a_compressed_image_is_none(codec):
    message = compressed(codec)
    message.data = message.data[: len(message.data) // 2]
    with pytest.raises(node.WrongImage, match="is damaged"):
        node.compressed_image(message)


@pytest.mark.parametrize(("read", "message", "line"), WRONG)
def test_what_is_no_image_is_one_warning_and_the_next_one_counts(waves, read, message, line):
    follower, lines = of(Classifier(waves), read)
    assert follower.push(message) is None
    assert len(lines) == 1
    assert line in lines[0]
    assert "\n" not in lines[0]
    whole = raw() if read is node.image else compressed("png")
    assert follower.push(whole) == [("wave", pytest.approx(0.9647, abs=1e-3))]
    assert len(lines) == 1


def test_any_size_of_image_is_taken_also_one_that_changes(waves):
    follower, lines = of(Classifier(waves))
    for number, size in enumerate([(1, 1), SIZE, (1, 5000), (480, 640), (3, 2)]):
        found = follower.push(raw(np.zeros((*size, 3), np.uint8), stamp_s=100 + number / 10))
        assert [name for name, _ in found] == ["wave"]
    assert lines == []


def test_an_image_that_cannot_be_scaled_is_one_warning(waves):
    follower, lines = of(Classifier(waves))
    assert follower.push(raw(np.zeros((1, 40000, 3), np.uint8), stamp_s=100.0)) is None
    assert lines == ["an image of 40000x1 px cannot be scaled"]
    assert pushed(follower, [100.5, 100.6]) == [1, 2]
    assert len(lines) == 1


@pytest.mark.parametrize(
    ("logits", "labels", "names"),
    [
        ([4.0, 0.0, 0.0], LABELS, []),  # nothing happens
        ([0.0, 0.1, 0.0], LABELS, []),  # unsure
        ([0.0, 0.0, 4.0], LABELS, ["clap"]),
        ([3.0, -3.0, 4.0], Labels(("a", "b", "c"), exclusive=False), ["c", "a"]),
        ([3.0, 0.1, 4.0], Labels(("a", "b", "c"), exclusive=False), []),
        ([-3.0, -3.0, -4.0], Labels(("a", "b", "c"), exclusive=False), []),
    ],
)
def test_results_are_what_is_surely_there_and_nothing_else(tmp_path, logits, labels, names):
    follower, _ = of(Classifier(save(tmp_path, logits, labels)))
    found = follower.push(raw())
    assert [name for name, _ in found] == names
    assert [p for _, p in found] == sorted((p for _, p in found), reverse=True)


def pushed(follower, stamps_s):
    nums = []
    for stamp in stamps_s:
        follower.push(raw(stamp_s=stamp))
        nums.append(follower.num_frames)
    return nums


def test_the_model_gets_images_at_its_rate_by_their_stamps(waves):
    follower, lines = of(Classifier(waves))
    # At 20 images a second every second one is due; at 5 each is shown twice.
    assert pushed(follower, [1700000000 + number / 20 for number in range(6)]) == [1, 1, 2, 2, 3, 3]
    assert pushed(follower, [1700000000.4, 1700000000.6]) == [5, 7]
    assert lines == []


def test_after_a_gap_and_where_stamps_jump_it_begins_anew(waves):
    follower, lines = of(Classifier(waves))
    assert pushed(follower, [100.0, 100.1, 101.9]) == [1, 2, 20]
    assert pushed(follower, [104.0, 104.1]) == [1, 2]
    assert pushed(follower, [50.0, 50.1]) == [1, 2]
    assert len(lines) == 1
    assert "jumped by" in lines[0]


def test_images_without_stamps_go_by_their_arrival(waves):
    now = iter(np.arange(0, 1000, 0.05).tolist())
    follower, lines = of(Classifier(waves), clock=lambda: next(now))
    nums = pushed(follower, [0.0] * 12)
    assert nums[:4] == [0] * 4
    assert nums[4:] == sorted(nums[4:])
    assert nums[-1] >= 8
    assert ["without time stamps" in line for line in lines].count(True) == 1


def test_a_model_that_is_too_slow_gets_no_repeats_for_the_images_that_were_dropped(waves):
    """Or else each image would take longer than the one before, until the gap is over two seconds."""
    now_s = 0.0

    class Slow(Classifier):
        def step(self, frame):
            nonlocal now_s
            now_s += 0.15
            return super().step(frame)

    follower, lines = of(Slow(waves), clock=lambda: now_s)
    took = []
    for _ in range(30):
        began_s = now_s
        now_s += 0.01
        follower.push(raw(stamp_s=1 + now_s))
        took.append(now_s - began_s)
    assert took[-10:] == pytest.approx([0.16] * 10)
    assert follower.num_frames >= 30  # it never began anew
    assert len(lines) == 1
    assert "the model takes 150 ms a frame, too long for 10 frames/s" in lines[0]


class Ros:
    """What the node uses of rclpy and of messages; it keeps what was published and said."""

    def __init__(self, **given):
        self.given, self.published, self.subscribed, self.said, self.ended = given, [], {}, [], []
        made = lambda name: type(name, (SimpleNamespace,), {})  # noqa: E731
        choice = lambda name: SimpleNamespace(**{n: n for n in name.split()})  # noqa: E731
        ended = type("ExternalShutdownException", (Exception,), {})
        self.modules = {
            "rclpy": {"init": lambda: None, "spin": self.spin, "try_shutdown": lambda: self.ended.append("context")},
            "rclpy.executors": {"ExternalShutdownException": ended},
            "rclpy.node": {"Node": lambda name: self},
            "rclpy.qos": {
                "QoSProfile": SimpleNamespace,
                "HistoryPolicy": choice("KEEP_LAST KEEP_ALL"),
                "DurabilityPolicy": choice("VOLATILE TRANSIENT_LOCAL"),
                "ReliabilityPolicy": choice("RELIABLE BEST_EFFORT"),
            },
            "sensor_msgs.msg": {name: made(name) for name in ("Image", "CompressedImage")},
            "vision_msgs.msg": {
                name: made(name) for name in ("Classification", "LabelInfo", "ObjectHypothesis", "VisionClass")
            },
        }
        self.messages, self.error = [], ended

    def spin(self, _node):
        ((_, callback, _),) = self.subscribed.values()
        for message in self.messages:
            callback(message)
        raise self.error

    def declare_parameter(self, name, default):
        value = self.given.get(name, default)
        assert type(value) is type(default)  # as ROS holds it
        return SimpleNamespace(value=value)

    def create_publisher(self, kind, topic, profile):
        return SimpleNamespace(publish=lambda message: self.published.append((topic, kind, profile, message)))

    def create_subscription(self, kind, topic, callback, profile):
        self.subscribed[topic] = kind, callback, profile

    def get_logger(self):
        def say(line, throttle_duration_sec=0.0):
            self.said.append(line)

        return SimpleNamespace(warning=say, fatal=say)

    def destroy_node(self):
        self.ended.append("node")


@pytest.fixture
def ros(monkeypatch):
    def make(**given):
        made = Ros(**given)
        for name, content in made.modules.items():
            module = ModuleType(name)
            vars(module).update(content)
            monkeypatch.setitem(sys.modules, name, module)
        for name in ("sensor_msgs", "vision_msgs"):
            monkeypatch.setitem(sys.modules, name, ModuleType(name))
        return made

    return make


@pytest.mark.parametrize("is_compressed", [False, True])
def test_the_node_publishes_each_result_with_the_header_of_its_image(ros, waves, is_compressed):
    made = ros(model=str(waves), image_topic="/camera/image", compressed=is_compressed)
    first, second = (compressed("png"), compressed("png", stamp_s=1700000000.1)) if is_compressed else (raw(), raw())
    made.messages = [
        first,
        raw(encoding="nothing") if not is_compressed else SimpleNamespace(format="", data=b""),
        second,
    ]
    node.main()
    (topic, (kind, _, profile)), *_ = made.subscribed.items()
    assert (topic, kind.__name__) == (
        ("/camera/image/compressed", "CompressedImage") if is_compressed else ("/camera/image", "Image")
    )
    assert vars(profile) == {
        "history": "KEEP_LAST",
        "depth": 1,
        "reliability": "BEST_EFFORT",
        "durability": "VOLATILE",
    }
    (info_topic, _, info_profile, info), *results = made.published
    assert info_topic == "~/label_info"
    assert (info_profile.durability, info_profile.reliability) == ("TRANSIENT_LOCAL", "RELIABLE")
    assert [(one.class_id, one.class_name) for one in info.class_map] == [(0, "none"), (1, "wave"), (2, "clap")]
    assert info.threshold == 0.6
    assert [message.header for _, _, _, message in results] == [first.header, second.header]
    assert {topic for topic, *_ in results} == {"~/classification"}
    ((name, score),) = {(one.class_id, one.score) for one in results[0][3].results}
    assert (name, score) == ("wave", pytest.approx(0.9647, abs=1e-3))
    assert len(made.said) == 1
    assert made.ended == ["node", "context"]


@pytest.mark.parametrize(
    ("given", "status", "line"),
    [
        ({"model": "/no/such"}, DataError.exit_code, "no checkpoint at /no/such"),
        ({"min_confidence": 1.5}, 2, "min_confidence must lie in 0 to 1, or be -1; got 1.5"),
        ({"device": "abacus"}, 2, "abacus"),
    ],
)
def test_a_wrong_parameter_ends_the_node_with_one_line(ros, waves, given, status, line):
    made = ros(**{"model": str(waves), **given})
    with pytest.raises(SystemExit) as ended:
        node.main()
    assert ended.value.code == status
    (said,) = made.said
    assert line in said
    assert made.ended == ["node", "context"]


def test_ctrl_c_ends_the_node(ros, waves):
    made = ros(model=str(waves))
    made.error = KeyboardInterrupt
    node.main()
    assert made.ended == ["node", "context"]
