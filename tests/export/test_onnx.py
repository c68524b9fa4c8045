"""ONNX files in onnxruntime, beside the model that they were exported from."""

import importlib.util
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
ODD_FILES = Path(__file__).parents[1] / "data" / "odd_files"
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
    assert "| 1 | \\<b\\>take\\|2\\</b\\> |" in text
    assert f"{exported[1].largest_difference:.1e}" in text
    assert files.digest_of(exported[0]) in text
    code = re.search(r"```python\n(.*?)```", text, re.S)[1]
    assert len(code.splitlines()) <= 10
    done = subprocess.run([sys.executable, "-c", code], cwd=card.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [line.rsplit(" ", 1)[0] in CLASSES for line in done.stdout.splitlines()] == [True] * 5


def run_without_torch(*arguments):
    code = f"import sys, runpy; sys.modules['torch'] = None; sys.argv[0] = {str(CAMERA)!r}; "
    command = [sys.executable, "-c", code + f"runpy.run_path({str(CAMERA)!r}, run_name='__main__')", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize(("fps", "num_frames"), [(8.0, 15), (5.0, 15), (12.5, 15), (60.0, 75)])
def test_the_example_without_torch_says_what_predict_says(exported, tmp_path, fps, num_frames):
    clip = tmp_path / "clip.mp4"
    write_mp4(clip, moving_square(CLASSES[0], 3, num_frames=num_frames), fps)
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


@pytest.fixture
def camera(monkeypatch, capsys):
    """Return a function that calls the example in this process: its status, lines and errors."""
    spec = importlib.util.spec_from_file_location("onnx_camera", CAMERA)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", [str(CAMERA), *map(str, arguments)])
        status = 0
        try:
            example.main()
        except SystemExit as ended:
            status = ended.code
        told = capsys.readouterr()
        return status, [json.loads(line) for line in told.out.splitlines()], told.err

    return call


@pytest.mark.parametrize("name", ["hflip.mov", "rot90flip.mov", "gap.mkv", "of the model's size"])
def test_the_example_sees_unusual_files_as_predict_does(exported, camera, tmp_path, name):
    clip = ODD_FILES / name
    if not clip.exists():  # 40 pixels are a width at which FFmpeg's planes without scaling lack columns
        clip = tmp_path / "clip.mp4"
        write_mp4(clip, clips(1, 12)[0], 8.0)
    status, lines, told = camera(exported[1].paths[-1], clip)
    (prediction,) = predict(PredictConfig((clip,), exported[0], over_time=True))
    found = np.array([[line["probabilities"][name] for name in CLASSES] for line in lines])
    assert (status, told, len(found)) == (0, "", len(prediction.over_time.frames))
    assert np.abs(found - prediction.over_time.probabilities).max() < 1e-5


def foreign(path, operator):
    """Write an ONNX file that was not made by Saccade."""
    ends = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in "ab"]
    graph = onnx.helper.make_graph([onnx.helper.make_node(operator, ["a"], ["b"])], "graph", ends[:1], ends[1:])
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=9), path)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("clip", "clip.onnx reads whole clips; give the step.onnx beside it"),
        ("absent", "no model at {path}; make it with: saccade export --model RUN --out exported"),
        ("half", "{path} is no whole ONNX file"),
        ("Identity", "{path} was not written by saccade export"),
        ("OfTomorrow", "onnxruntime .* cannot run {path} .*need 1.25 or newer, or an export with --deform gridsample"),
    ],
)
def test_the_example_refuses_other_models_in_one_line(exported, camera, tmp_path, model, said):
    path = exported[1].paths[-1].with_name("clip.onnx") if model == "clip" else tmp_path / "model.onnx"
    if model == "half":
        path.write_bytes(exported[1].paths[-1].read_bytes()[:1000])
    elif model[0].isupper():
        foreign(path, model)
    status, lines, told = camera(path, "clip.mp4")
    assert (status, lines, told.count("\n")) == (2, [], 1)
    assert re.search(said.format(path=path), told)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("absent.mp4", "absent.mp4 cannot be read as a video (No such file or directory)"),
        (CAMERA, f"{CAMERA} cannot be read as a video (Invalid data found when processing input)"),
        (ODD_FILES / "cover.m4a", f"{ODD_FILES / 'cover.m4a'} has no video stream; give a video"),
        ("http://me:secr@t@127.0.0.1:1/x", "http://127.0.0.1:1/x cannot be read as a video (Connection refused)"),
    ],
)
def test_the_example_says_why_a_source_fails_without_its_password(exported, camera, source, said):
    assert camera(exported[1].paths[-1], source) == (1, [], f"{said}\n")


def test_the_example_ends_quietly_after_enough_frames_and_with_its_reader(exported, camera):
    step, clip = exported[1].paths[-1], ODD_FILES / "plain.mp4"
    status, lines, told = camera(step, clip, "--max-frames", 2)
    assert (status, len(lines), told) == (0, 2, "")
    assert camera(step, clip, "--max-frames", 0)[:2] == (2, [])
    command = [sys.executable, str(CAMERA), str(step), str(clip)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as done:
        done.stdout.close()
        assert (done.stderr.read(), done.wait()) == (b"", 0)
