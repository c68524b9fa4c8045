"""ONNX files in onnxruntime, beside the model that they were exported from."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from saccade import checkpoint, export, files
from saccade.cli import main
from saccade.data.video_writing import write_mp4
from saccade.export import ExportConfig
from saccade.predict import PredictConfig, predict

from ..own_clips import moving_square
from .models import CLASSES, clips, save_model

CAMERA = Path(__file__).parents[2] / "examples" / "onnx_camera.py"
# A deformable trunk, differences of frames, a recurrent state: what is hard to export.
MODEL = {"trunk": "small", "attention": "dcn", "temporal": "lstm", "input": "both", "fps": 8.0}


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Export a model once; return its checkpoint and what was written."""
    folder = tmp_path_factory.mktemp("export")
    path = save_model(folder / "model.safetensors", **MODEL)
    return path, export.export(ExportConfig(path, folder / "out"))


def session(exported, name):
    (path,) = (path for path in exported[1].paths if path.name == name)
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def about(session):
    return json.loads(session.get_modelmeta().custom_metadata_map[export.METADATA])


def wanted(exported, frames):
    model, _ = checkpoint.load(exported[0])
    with torch.no_grad():
        return model(frames).numpy()


def test_the_clip_model_is_the_model_for_any_number_of_clips_and_frames(exported):
    clip = session(exported, "clip.onnx")
    for batch, num_frames in ((1, 2), (2, 3), (4, 11)):
        frames = clips(batch, num_frames)
        logits, probabilities = clip.run(None, {"frames": frames.numpy()})
        assert np.abs(logits - wanted(exported, frames)).max() < 1e-4
        assert np.abs(probabilities - torch.from_numpy(logits).softmax(-1).numpy()).max() < 1e-6


def test_the_step_model_passes_on_its_state_for_three_clips(exported):
    step, frames = session(exported, "step.onnx"), clips(3, 9)
    told = about(step)
    shapes = {part["name"]: [3 if size == "batch" else size for size in part["shape"]] for part in told["states"]}
    state = {part["name"]: np.zeros(shapes[part["name"]], part["dtype"]) for part in told["states"]}
    expected = wanted(exported, frames)
    assert len(state) == 4
    for time in range(9):
        outputs = dict(zip(told["outputs"], step.run(None, {"frame": frames[:, time].numpy(), **state}), strict=True))
        state = {part["name"]: outputs[part["next"]] for part in told["states"]}
        assert np.abs(outputs["logits"] - expected[:, time]).max() < 1e-4


def test_the_files_tell_what_a_program_needs(exported):
    for form in ("clip", "step"):
        told = about(session(exported, f"{form}.onnx"))
        assert (told["form"], told["model"], told["exclusive"]) == (form, "small-dcn-lstm", True)
        assert (tuple(told["classes"]), told["min_confidence"]) == (CLASSES, 0.4)
        assert told["checkpoint_sha256"] == files.digest_of(exported[0])
        frames = told["frames"]
        assert (frames["channels"], frames["height"], frames["width"], frames["fps"]) == (3, 32, 40, 8.0)
        assert (frames["colours"], frames["dtype"]) == ("RGB", "uint8")
    assert about(session(exported, "clip.onnx"))["states"] == []


def test_inputs_and_outputs_have_the_names_and_shapes_that_are_told(exported):
    for form in ("clip", "step"):
        opened = session(exported, f"{form}.onnx")
        told = about(opened)
        parts = [told["frames"], *told["states"]]
        assert [(value.name, value.shape) for value in opened.get_inputs()] == [(p["name"], p["shape"]) for p in parts]
        assert [value.name for value in opened.get_outputs()] == told["outputs"]


def test_a_deformable_convolution_is_one_standard_operator(exported):
    for path in exported[1].paths:
        if path.suffix == ".onnx":
            model = onnx.load(path)
            onnx.checker.check_model(model, full_check=True)
            assert [node.op_type for node in model.graph.node].count("DeformConv") == 2
            assert {opset.domain for opset in model.opset_import} == {""}


def test_the_files_name_no_folder_of_the_machine(exported):
    for path in exported[1].paths:
        content = path.read_bytes()
        assert b"site-packages" not in content
        assert str(Path(export.__file__).parent.parent).encode() not in content


def test_the_card_runs_as_it_is_and_shows_class_names_as_text(exported):
    (card,) = (path for path in exported[1].paths if path.name == "README.md")
    text = card.read_text(encoding="utf-8")
    assert "1. \\<b\\>take\\|2\\</b\\>" in text
    assert f"{exported[1].largest_difference:.1e}" in text
    assert files.digest_of(exported[0]) in text
    code = re.search(r"```python\n(.*?)```", text, re.S)[1]
    assert len(code.splitlines()) <= 10
    done = subprocess.run([sys.executable, "-c", code], cwd=card.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [line.rsplit(" ", 1)[0] in CLASSES for line in done.stdout.splitlines()] == [True] * 5


def called_without_torch(*arguments):
    code = f"import sys, runpy; sys.modules['torch'] = None; sys.argv[0] = {str(CAMERA)!r}; "
    command = [sys.executable, "-c", code + f"runpy.run_path({str(CAMERA)!r}, run_name='__main__')", *arguments]
    return subprocess.run(command, capture_output=True, text=True)


def run_without_torch(*arguments):
    done = called_without_torch(*arguments)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("fps", [8.0, 5.0, 12.5])
def test_the_example_without_torch_says_what_predict_says(exported, tmp_path, fps):
    clip = tmp_path / "clip.mp4"
    write_mp4(clip, moving_square(CLASSES[0], 3, num_frames=15), fps)
    lines = run_without_torch(str(exported[1].paths[-1]), str(clip))
    (prediction,) = predict(PredictConfig((clip,), exported[0], over_time=True, min_confidence=0.4))
    over_time = prediction.over_time
    assert len(lines) == len(over_time.frames) >= 9
    assert [line["verdict"] for line in lines] == [verdict.name for verdict in over_time.verdicts]
    assert [line["sure"] for line in lines] == list(over_time.sure)
    assert [line["seconds"] for line in lines] == pytest.approx(over_time.seconds)
    found = np.array([[line["probabilities"][name] for name in CLASSES] for line in lines])
    assert np.abs(found - over_time.probabilities).max() < 1e-4
    assert np.abs(found[0] - found[-1]).max() > 0.01


def test_the_example_says_what_stream_says(exported, tmp_path, capsys):
    clip = tmp_path / "clip.mp4"
    write_mp4(clip, moving_square(CLASSES[0], 3, num_frames=15), 12.5)
    lines = run_without_torch(str(exported[1].paths[-1]), str(clip))
    assert main(["stream", str(clip), "--model", str(exported[0]), "--probabilities"]) == 0
    streamed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(line["verdict"], line["sure"]) for line in lines] == [(line["class"], line["sure"]) for line in streamed]
    for line, other in zip(lines, streamed, strict=True):
        assert line["probabilities"] == pytest.approx(other["probabilities"], abs=1e-4)


def test_the_example_says_how_to_make_a_model_that_is_not_there(tmp_path):
    done = called_without_torch(str(tmp_path / "step.onnx"), "clip.mp4")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"no model at {tmp_path / 'step.onnx'}; make it with: saccade export --model RUN --out exported\n"
    )
