"""Classify a file, a stream or a camera with an exported model: onnxruntime, PyAV and NumPy alone, no torch.

saccade export --model runs/train --out exported
python examples/onnx_camera.py exported/step.onnx clip.mp4
python examples/onnx_camera.py exported/step.onnx /dev/video0 --input-format v4l2

Prints one line of JSON for each frame that the model reads.
"""

import argparse
import json
import math
from itertools import count
from pathlib import Path

import av
import numpy as np
import onnxruntime
from av.video.reformatter import VideoReformatter

LONGEST_STILL_S = 60.0  # a longer time between two frames is a wrong time stamp
ROUNDING = 0.1  # of a period: containers round time stamps
# FFmpeg's formats with one plane per channel, and the order of the planes.
FORMATS = {1: ("gray", (0,)), 3: ("gbrp", (2, 0, 1))}


class Model:
    """The exported model for single frames; it keeps the state between frames."""

    def __init__(self, path):
        self.session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        self.about = json.loads(self.session.get_modelmeta().custom_metadata_map["saccade"])
        self.state = {
            part["name"]: np.zeros([1 if size == "batch" else size for size in part["shape"]], part["dtype"])
            for part in self.about["states"]
        }

    def __call__(self, pixels):
        """Return the probability of each class after one more frame, uint8 (channels, height, width)."""
        about = self.about
        found = self.session.run(None, {about["frames"]["name"]: pixels[None], **self.state})
        outputs = dict(zip(about["outputs"], found, strict=True))
        self.state = {part["name"]: outputs[part["next"]] for part in about["states"]}
        return outputs["probabilities"][0]

    def verdict(self, probabilities):
        """Return the name of the verdict, its probability, and whether it is sure."""
        names, least = self.about["classes"], self.about["min_confidence"]
        if self.about["exclusive"]:
            best = int(probabilities.argmax())
            return names[best], float(probabilities[best]), bool(probabilities[best] >= least)
        present = probabilities > 0.5
        name = self.about["separator"].join(n for n, there in zip(names, present, strict=True) if there)
        probability = float(np.where(present, probabilities, 1 - probabilities).prod())
        return name or self.about["nothing"], probability, bool(np.abs(2 * probabilities - 1).min() >= least)


def decoded(source, input_format):
    """Yield the frames of the first video stream; what cannot be decoded is left out."""
    with av.open(source, format=input_format) as container:
        for packet in container.demux(video=0):
            try:
                yield from packet.decode()
            except av.FFmpegError:
                continue


def at_rate(frames, fps):
    """Yield the frame that a player shows at the start of each period, by time stamps."""
    shown, start, due, at = None, None, 0, 0.0  # due and at are in periods since the start
    for frame in frames:
        if frame.time is None:
            yield frame
            continue
        start = frame.time if start is None else start
        moment = (frame.time - start) * fps
        if shown is not None and abs(moment - at) > LONGEST_STILL_S * fps:
            start, moment = frame.time - (at + 1) / fps, at + 1
        at = moment if shown is None else max(at, moment)
        while shown is not None and due < at - ROUNDING:
            yield shown
            due += 1
        shown = frame
    if shown is None:
        return
    lasts_s = min(float((shown.duration or 0) * (shown.time_base or 0)), LONGEST_STILL_S)
    while due <= at + ROUNDING or due < at + lasts_s * fps - ROUNDING:  # the last frame is shown for its duration
        yield shown
        due += 1


def pixels(frame, wanted, scaler):
    """Return a frame as the model wants it, turned as a player shows it."""
    turns = round(frame.rotation / 90) % 4
    height, width = (wanted["height"], wanted["width"])[:: -1 if turns % 2 else 1]
    name, order = FORMATS[wanted["channels"]]
    made = scaler.reformat(frame, width, height, name)
    planes = [np.frombuffer(made.planes[i], np.uint8).reshape(height, -1)[:, :width] for i in order]
    return np.ascontiguousarray(np.rot90(np.stack(planes), turns, (1, 2)))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="step.onnx, as `saccade export` writes it")
    parser.add_argument("source", help="a video file, the address of a stream, or a camera such as /dev/video0")
    parser.add_argument("--input-format", help="FFmpeg's name of the device: v4l2 (Linux), avfoundation, dshow")
    parser.add_argument("--max-frames", type=int, default=math.inf, help="stop after this many frames of the model")
    given = parser.parse_args()
    if not Path(given.model).is_file():
        parser.exit(2, f"no model at {given.model}; make it with: saccade export --model RUN --out exported\n")
    model, scaler = Model(given.model), VideoReformatter()
    wanted = model.about["frames"]
    frames = decoded(given.source, given.input_format)
    if wanted["fps"] is not None:
        frames = at_rate(frames, wanted["fps"])
    first_s = None
    for number, frame in zip(count(), frames):
        if number >= given.max_frames:
            break
        first_s = frame.time if first_s is None else first_s
        seconds = None if frame.time is None else frame.time - first_s
        if wanted["fps"] is not None:
            seconds = number / wanted["fps"]
        said = model(pixels(frame, wanted, scaler))
        name, probability, sure = model.verdict(said)
        line = {"frame": number, "seconds": seconds, "verdict": name, "probability": probability, "sure": sure}
        line["probabilities"] = dict(zip(model.about["classes"], said.tolist(), strict=True))
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
