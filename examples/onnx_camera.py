"""Classify a file, a stream or a camera with an exported model: onnxruntime, PyAV and NumPy alone, no torch.

saccade export --model runs/train --out exported
python examples/onnx_camera.py exported/step.onnx clip.mp4
python examples/onnx_camera.py exported/step.onnx /dev/video0 --input-format v4l2

Prints one line of JSON for each frame that the model reads. Exits with 2 for a wrong call, 1 for a source that fails.
"""

import argparse
import json
import math
import os
import re
import sys
from itertools import count
from pathlib import Path

import av
import numpy as np
import onnxruntime
from av.sidedata.sidedata import SideData
from av.stream import Disposition
from av.video.reformatter import VideoReformatter

LONGEST_STILL_S = 60.0  # a longer time between two frames is a wrong time stamp
ROUNDING = 0.1  # of a period: containers round time stamps
# FFmpeg's formats with one plane per channel, and the order of the planes.
FORMATS = {1: ("gray", (0,)), 3: ("gbrp", (2, 0, 1))}
# Whether rows become columns, and which axes are then flipped, of quarter turns counter-clockwise.
TURNS = ((False, ()), (True, (0,)), (False, (0, 1)), (True, (1,)))
EXPORT = "make it with: saccade export --model RUN --out exported"


class WrongCallError(Exception):
    """The model or an argument is not what is needed."""


class SourceError(Exception):
    """The source cannot be opened or read."""


class Model:
    """The exported model for single frames; it keeps the state between frames."""

    def __init__(self, path):
        if not Path(path).is_file():
            raise WrongCallError(f"no model at {path}; {EXPORT}")
        try:
            self.session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        except Exception as error:
            if type(error).__name__ == "InvalidProtobuf":
                raise WrongCallError(f"{path} is no whole ONNX file; {EXPORT}") from error
            raise WrongCallError(
                f"onnxruntime {onnxruntime.__version__} cannot run {path} ({one_line(error)}); deformable convolutions"
                " need 1.25 or newer, or an export with --deform gridsample"
            ) from error
        self.about = described(self.session, path)
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


def described(session, path):
    """Return what an exported file says about itself."""
    try:
        about = json.loads(session.get_modelmeta().custom_metadata_map["saccade"])
        form, version = about["form"], about["format"]
    except (KeyError, TypeError, ValueError) as error:
        raise WrongCallError(f"{path} was not written by saccade export; {EXPORT}") from error
    if form != "step":
        raise WrongCallError(f"{path} reads whole clips; give the step.onnx beside it, which reads single frames")
    if version != 1:
        raise WrongCallError(f"{path} has a description of version {version}; take the example of its Saccade")
    return about


def decoded(source, input_format):
    """Yield the frames of the video stream that a player shows; what cannot be decoded is left out."""
    name = re.sub(r"(?<=://).*@", "", source, flags=re.DOTALL)  # without the password
    num = 0
    try:
        with av.open(source, format=input_format) as container:
            pictures = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
            if not pictures:
                raise SourceError(f"{name} has no video stream; give a video")
            chosen = next((s for s in pictures if s.disposition & Disposition.default), pictures[0])
            chosen.codec_context.thread_count = 1  # with more, damaged frames differ from run to run
            for packet in container.demux(chosen):
                try:
                    frames = packet.decode()
                except av.FFmpegError:
                    continue
                num += len(frames)
                yield from frames
    except IndexError:
        pass  # PyAV ends so where a stream begins that was not there at the start
    except (av.FFmpegError, OSError, ValueError) as error:
        what = f"broke off after {num} frames" if num else "cannot be read as a video"
        raise SourceError(f"{name} {what} ({getattr(error, 'strerror', None) or one_line(error)})") from error
    if not num:
        raise SourceError(f"no frame of {name} can be decoded; give another video")


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
        if abs(due - at) <= ROUNDING:  # known at once: a camera is not delayed by a frame
            yield shown
            due += 1
    if shown is not None:
        lasts_s = min(float((shown.duration or 0) * (shown.time_base or 0)), LONGEST_STILL_S)
        for _ in range(due, math.ceil(at + lasts_s * fps - ROUNDING)):  # the last frame is shown for its duration
            yield shown


def pixels(frame, wanted, scaler):
    """Return a frame as the model wants it, turned and mirrored as a player shows it."""
    transposed, flips = orientation(frame)
    height, width = (wanted["height"], wanted["width"])[:: -1 if transposed else 1]
    if wanted["channels"] == 3 and (height, width) == (frame.height, frame.width):
        # FFmpeg's conversion to planes without scaling leaves columns at the right edge unwritten, at many widths.
        packed = plane(scaler.reformat(frame, width, height, "rgb24", threads=1), 0)[:height, : 3 * width]
        planes = packed.reshape(height, width, 3).transpose(2, 0, 1)
    else:
        name, order = FORMATS[wanted["channels"]]
        made = scaler.reformat(frame, width, height, name, threads=1)
        planes = np.stack([plane(made, place)[:height, :width] for place in order])
    planes = planes.swapaxes(1, 2) if transposed else planes
    return np.ascontiguousarray(np.flip(planes, [1 + axis for axis in flips]))


def plane(frame, place):
    """Return a plane of a frame with its padding."""
    found = frame.planes[place]
    return np.frombuffer(found, np.uint8).reshape(-1, found.line_size)


def orientation(frame):
    """Return whether rows become columns, and which axes are then flipped, by the display matrix of a frame."""
    # A frame whose side data was looked at waits for the garbage collector; a tiny copy is looked at.
    tiny = VideoReformatter().reformat(frame, 2, 2, "gray", threads=1)
    try:
        matrix = tiny.side_data.get("DISPLAYMATRIX")
    except ValueError:  # PyAV does not know all kinds of side data
        return TURNS[round(frame.rotation / 90) % 4]
    if not isinstance(matrix, SideData):
        return TURNS[0]
    # x' = a x + c y and y' = b x + d y, with y downwards.
    a, b, _, c, d = np.frombuffer(bytes(matrix), np.int32)[:5].tolist()
    transposed = abs(b) + abs(c) > abs(a) + abs(d)
    to_x, to_y = (c, b) if transposed else (a, d)
    return transposed, tuple(axis for axis, sign in enumerate((to_y, to_x)) if sign < 0)


def classify(given):
    """Print one line of JSON for each frame that the model reads."""
    model, scaler = Model(given.model), VideoReformatter()
    wanted = model.about["frames"]
    frames = decoded(given.source, given.input_format)
    if wanted["fps"] is not None:
        frames = at_rate(frames, wanted["fps"])
    first_s = None
    for number, frame in zip(count(), frames):
        first_s = frame.time if first_s is None else first_s
        seconds = None if frame.time is None else frame.time - first_s
        if wanted["fps"] is not None:
            seconds = number / wanted["fps"]
        said = model(pixels(frame, wanted, scaler))
        name, probability, sure = model.verdict(said)
        line = {"frame": number, "seconds": seconds, "verdict": name, "probability": probability, "sure": sure}
        line["probabilities"] = dict(zip(model.about["classes"], said.tolist(), strict=True))
        print(json.dumps(line), flush=True)
        if number + 1 == given.max_frames:
            break


def one_line(error):
    """Return the text of an error in one line."""
    return " ".join(str(error).split())[:300]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="step.onnx, as `saccade export` writes it")
    parser.add_argument("source", help="a video file, the address of a stream, or a camera such as /dev/video0")
    parser.add_argument("--input-format", help="FFmpeg's name of the device: v4l2 (Linux), avfoundation, dshow")
    parser.add_argument("--max-frames", type=int, help="stop after this many frames of the model")
    given = parser.parse_args()
    if given.max_frames is not None and given.max_frames < 1:
        parser.error(f"--max-frames is {given.max_frames}; 1 or more is needed")
    try:
        classify(given)
    except (WrongCallError, SourceError) as error:
        parser.exit(2 if isinstance(error, WrongCallError) else 1, f"{error}\n")
    except BrokenPipeError:  # the reader of the lines, such as head, has ended
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
