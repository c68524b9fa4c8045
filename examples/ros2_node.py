"""Classify the images of a ROS 2 topic with a trained model, as they come.

python examples/ros2_node.py --ros-args -p model:=runs/live -p image_topic:=/camera/image_raw

It needs Saccade in the Python of ROS 2: Jazzy or later, since Humble has Python 3.10 (`python3 -m venv
--system-site-packages`, with ROS 2 sourced). No OpenCV and no cv_bridge.

What was run: the tests call all of this file on messages and an `rclpy` that stand in for those of ROS, with the
fields that vision_msgs 4 and sensor_msgs document. What was not: anything with ROS 2 itself, which was not there.

Subscribes to IMAGE_TOPIC (sensor_msgs/Image: rgb8, bgr8, rgba8, bgra8, mono8), or with `compressed` to
IMAGE_TOPIC/compressed (sensor_msgs/CompressedImage: JPEG or PNG). Reliability is best effort, and the queue holds one
image: if the model is slower than the camera, the newest image wins and the delay does not grow.

Publishes
  ~/classification (vision_msgs/Classification): one message for each image, with the header of the image. `results`
    holds what is recognised: the class whose probability reaches the threshold, or each one if classes do not exclude
    each other, the most probable first. It is empty while nothing happens (the class `none`) and while no verdict is
    sure, so a robot acts on what is listed. An empty list also says that the node is alive.
  ~/label_info (vision_msgs/LabelInfo): the names of the classes and the threshold, once, kept for late subscribers.
    LabelInfo is the message of vision_msgs for names; VisionInfo only says where a database of names is. `class_id`
    of a result is the name itself. The numbers in `class_map` are the places of the classes in the model.

Parameters: model (a run folder or a checkpoint), image_topic, compressed (false), min_confidence (-1: that of the
checkpoint), device (auto, cpu, cuda).

An image of another encoding, or with too little data, is left out with a warning. After a gap of more than two
seconds, and where time stamps jump, the model begins anew.
"""

import time
from collections import deque
from statistics import median

import av
import numpy as np

from saccade.errors import SaccadeError, UsageError
from saccade.stream import Classifier
from saccade.stream.classifier import LONGEST_GAP_S
from saccade.stream.timeline import Timeline

# The channels of a pixel, and those of them that are red, green and blue.
ENCODINGS = {
    "rgb8": (3, slice(0, 3)),
    "bgr8": (3, slice(2, None, -1)),
    "rgba8": (4, slice(0, 3)),
    "bgra8": (4, slice(2, None, -1)),
    "mono8": (1, 0),
}
# The first bytes of a picture, and FFmpeg's name of the decoder.
DECODERS = {b"\xff\xd8": "mjpeg", b"\x89PNG": "png"}
# Half a picture is none, and a tiny file must not claim the memory of a huge one.
STRICT = {"err_detect": "explode", "max_pixels": str(1 << 26)}
OF_CHECKPOINT = -1.0
PARAMETERS = {
    "model": "dcn-lstm",
    "image_topic": "image",
    "compressed": False,
    "min_confidence": OF_CHECKPOINT,
    "device": "auto",
}
SAID_EVERY_S = 10.0


class WrongImage(ValueError):
    """A message holds no image that can be read; the text is one line."""


def image(message):
    """Return the pixels of a sensor_msgs/Image: (height, width, 3) in RGB, or (height, width) in grey."""
    if message.encoding not in ENCODINGS:
        raise WrongImage(f"an image has encoding {message.encoding!r:.40}; known: {', '.join(ENCODINGS)}")
    channels, chosen = ENCODINGS[message.encoding]
    height, width, step = message.height, message.width, message.step
    if not height or not width:
        raise WrongImage(f"an image of {width}x{height} px is empty")
    if step < (needed := width * channels):
        raise WrongImage(f"an image has rows of {step} bytes; {width} px in {message.encoding} need {needed}")
    if len(message.data) < step * height:
        raise WrongImage(f"an image of {height} rows of {step} bytes has {len(message.data)} bytes; it is cut off")
    rows = np.frombuffer(message.data, np.uint8, step * height).reshape(height, step)
    return rows[:, :needed].reshape(height, width, channels)[:, :, chosen]


def compressed_image(message):
    """Return the pixels of a sensor_msgs/CompressedImage: (height, width, 3) in RGB."""
    content = bytes(message.data)
    name = next((name for start, name in DECODERS.items() if content.startswith(start)), None)
    if name is None:
        raise WrongImage(f"a compressed image of format {message.format!r:.40} is neither JPEG nor PNG")
    decoder = av.CodecContext.create(name, "r")
    decoder.thread_count, decoder.options = 1, STRICT
    try:
        frames = [*decoder.decode(av.Packet(content)), *decoder.decode(None)]
        return frames[0].to_ndarray(format="rgb24")
    except (av.FFmpegError, IndexError, ValueError) as error:
        raise WrongImage(f"a compressed image ({name}, {len(content)} bytes) is damaged") from error


def stamp_s(header):
    """Return the time stamp in seconds; None if the driver has set none."""
    return header.stamp.sec + header.stamp.nanosec / 1e9 or None


def recognised(prediction, labels):
    """Return the names and probabilities of what is surely there, the most probable first; `none` is nothing."""
    if not prediction.sure or prediction.verdict == labels.none:
        return []
    if labels.exclusive:
        return [(prediction.verdict, prediction.probability)]
    found = [(name, p) for name, p in zip(labels.names, prediction.probabilities, strict=True) if p > 0.5]
    return sorted(found, key=lambda one: -one[1])


class Follower:
    """The model behind the node: messages in, results out.

    Args:
        classifier: a `saccade.stream.Classifier`.
        read: the function from a message to its pixels.
        warn: called with one line about images that cannot be used.
        clock: the time of this machine, in seconds.
    """

    def __init__(self, classifier, read, warn, clock=time.monotonic):
        self.classifier, self.read, self.warn, self.clock = classifier, read, warn, clock
        self.timeline = Timeline(leap_s=LONGEST_GAP_S)
        self.at_s = self.shown_s = 0.0  # by the stamps, and in the time of the model
        self.num_frames, self.took_s, self.has_told = 0, deque(maxlen=5), False

    def push(self, message):
        """Return what is recognised after one more image, as (name, probability); None if it cannot be used."""
        try:
            pixels = self.read(message)
        except WrongImage as error:
            self.warn(str(error))
            return None
        moment = self.timeline.add(stamp_s(message.header), self.clock())
        if moment is None:
            return None
        if moment.note:
            self.warn(f"images: {moment.note}")
        passed_s = max(0.0, moment.at_s - self.at_s)
        if moment.begins or passed_s > LONGEST_GAP_S:
            self.classifier.reset()
            self.at_s, self.shown_s, self.num_frames = moment.at_s, 0.0, 0
        else:
            self.at_s += passed_s
            self.shown_s += self.affordable(passed_s)
        began_s = self.clock()
        try:
            prediction = self.classifier.push(pixels, self.shown_s)
        except ValueError:
            self.warn(f"an image of {pixels.shape[1]}x{pixels.shape[0]} px cannot be scaled")
            self.classifier.reset()  # or it would be repeated until the next one
            self.num_frames = 0
            return None
        if num := prediction.num_frames - self.num_frames:
            self.took_s.append((self.clock() - began_s) / num)
        self.num_frames = prediction.num_frames
        return recognised(prediction, self.classifier.labels)

    def affordable(self, passed_s):
        """Return how much time passes for the model: for one that is too slow, the time of one frame.

        Images that were dropped meanwhile would otherwise be made up for by repeats, for which it has no time.
        """
        fps = self.classifier.frame_format.fps
        if not fps or len(self.took_s) < 3 or (step_s := median(self.took_s)) * fps <= 1:
            return passed_s
        if not self.has_told:
            self.has_told = True
            self.warn(
                f"the model takes {1000 * step_s:.0f} ms a frame, too long for {fps:.3g} frames/s: images are dropped"
            )
        return min(passed_s, 1 / fps)


def parameters(node):
    """Return the parameters of a node, and its classifier."""
    given = {name: node.declare_parameter(name, default).value for name, default in PARAMETERS.items()}
    least = None if given["min_confidence"] == OF_CHECKPOINT else given["min_confidence"]
    if least is not None and not 0 <= least <= 1:
        raise UsageError(f"min_confidence must lie in 0 to 1, or be {OF_CHECKPOINT:g}; got {least}")
    return given, Classifier(given["model"], device=given["device"], min_confidence=least)


def start(node):
    """Let a node classify images and publish what it recognises."""
    from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
    from sensor_msgs.msg import CompressedImage, Image
    from vision_msgs.msg import Classification, LabelInfo, ObjectHypothesis, VisionClass

    def newest(reliability, durability):
        return QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=1, reliability=reliability, durability=durability)

    given, classifier = parameters(node)
    latched = newest(ReliabilityPolicy.RELIABLE, DurabilityPolicy.TRANSIENT_LOCAL)
    places = [VisionClass(class_id=place, class_name=name) for place, name in enumerate(classifier.labels.names)]
    info = node.create_publisher(LabelInfo, "~/label_info", latched)
    info.publish(LabelInfo(class_map=places, threshold=float(classifier.min_confidence)))
    reliable = newest(ReliabilityPolicy.RELIABLE, DurabilityPolicy.VOLATILE)
    results = node.create_publisher(Classification, "~/classification", reliable)
    log = node.get_logger()
    kind, read, topic = Image, image, given["image_topic"]
    if given["compressed"]:
        kind, read, topic = CompressedImage, compressed_image, f"{topic}/compressed"
    follower = Follower(classifier, read, lambda line: log.warning(line, throttle_duration_sec=SAID_EVERY_S))

    def follow(message):
        found = follower.push(message)
        if found is not None:
            named = [ObjectHypothesis(class_id=name, score=probability) for name, probability in found]
            results.publish(Classification(header=message.header, results=named))

    # As the sensor data profile, but for its queue of five, each of which would add to the delay.
    images = newest(ReliabilityPolicy.BEST_EFFORT, DurabilityPolicy.VOLATILE)
    node.create_subscription(kind, topic, follow, images)


def main():
    import rclpy
    from rclpy.executors import ExternalShutdownException
    from rclpy.node import Node

    rclpy.init()
    node = Node("saccade")
    try:
        start(node)
        rclpy.spin(node)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except SaccadeError as error:
        node.get_logger().fatal(str(error))
        raise SystemExit(error.exit_code) from None
    finally:
        node.destroy_node()
        rclpy.try_shutdown()


if __name__ == "__main__":
    main()
