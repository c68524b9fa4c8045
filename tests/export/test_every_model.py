"""Every kind of model in every format: the export compares itself with the model, and refuses where they differ."""

import importlib.util
import json

import numpy as np
import onnx
import onnxruntime
import pytest

from saccade import export
from saccade.export import TOLERANCE, ExportConfig
from saccade.models import COMBINATIONS, END_TO_END
from saccade.nn.temporal import TEMPORAL

from .models import clips, save_model

pytestmark = pytest.mark.slow

PICTURES = (64, 80)
KINDS = {
    **{f"{trunk}-{attention}": {"trunk": trunk, "attention": attention} for trunk, attention in COMBINATIONS},
    **{temporal: {"temporal": temporal, "input": "differences"} for temporal in TEMPORAL},
    **{name: {"name": name} for name in END_TO_END},
    "similarity": {"attention": "stn", "mode": "similarity", "input": "both"},
    "lite0-dcn-both-lstm": {"trunk": "efficientnet-lite0", "attention": "dcn", "temporal": "lstm", "input": "both"},
    "lite0-memory": {"name": "lite0-memory", "window": 8},
    "lite0-memory-early": {"name": "lite0-memory", "early": 3.0, "decay": 2.0},
}


def save(path, kind):
    # Larger than what a closer look makes of it: then several samples make a pixel.
    size = (176, 200) if KINDS[kind].get("attention") == "stn" and "trunk" in KINDS[kind] else PICTURES
    return save_model(path / "model.safetensors", size=size, **KINDS[kind])


@pytest.mark.parametrize("kind", KINDS)
def test_every_model_becomes_onnx(kind, tmp_path):
    exported = export.export(ExportConfig(save(tmp_path, kind), tmp_path / "out"))
    assert exported.largest_difference <= TOLERANCE


@pytest.mark.parametrize("kind", ["resnet18-dcn", "efficientnet-lite0-stn", "transformer", "lite0-memory"])
def test_models_become_programs_of_torch(kind, tmp_path):
    exported = export.export(ExportConfig(save(tmp_path, kind), tmp_path / "out", format="torch"))
    assert exported.largest_difference <= TOLERANCE


@pytest.mark.parametrize("kind", ["small-dcn", "resnet18-dcn", "lite0-dcn-both-lstm"])
def test_deformable_convolutions_become_grid_samples(kind, tmp_path):
    export.export(ExportConfig(save(tmp_path, kind), tmp_path / "out", deform="gridsample"))
    kinds = {node.op_type for node in onnx.load(tmp_path / "out" / "step.onnx").graph.node}
    assert "GridSample" in kinds
    assert "DeformConv" not in kinds


@pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="openvino is not installed")
@pytest.mark.parametrize("kind", ["small-dcn", "lstm", "gru", "mean", "transformer", "lite0-memory", "small-stn"])
def test_openvino_says_what_onnxruntime_says(kind, tmp_path):
    import openvino

    export.export(ExportConfig(save(tmp_path, kind), tmp_path / "out", deform="gridsample"))
    frames = clips(2, 5, size=PICTURES).numpy()
    if kind == "small-stn":
        frames = clips(2, 5, size=(176, 200)).numpy()
    session = onnxruntime.InferenceSession(tmp_path / "out" / "step.onnx")
    about = json.loads(session.get_modelmeta().custom_metadata_map[export.METADATA])
    exact = {"INFERENCE_PRECISION_HINT": "f32"}
    core = openvino.Core()
    clip = core.compile_model(tmp_path / "out" / "clip.onnx", "CPU", exact)
    step = core.compile_model(tmp_path / "out" / "step.onnx", "CPU", exact)
    by_clip = clip({"frames": frames})["probabilities"]
    state = {
        part["name"]: np.zeros([2 if size == "batch" else size for size in part["shape"]], part["dtype"])
        for part in about["states"]
    }
    others = dict(state)
    for time in range(5):
        given = {"frame": frames[:, time], **state}
        outputs = step(given)
        expected = dict(zip(about["outputs"], session.run(None, {"frame": frames[:, time], **others}), strict=True))
        state = {part["name"]: outputs[part["next"]] for part in about["states"]}
        others = {part["name"]: expected[part["next"]] for part in about["states"]}
        assert np.abs(outputs["probabilities"] - expected["probabilities"]).max() < TOLERANCE
        assert np.abs(by_clip[:, time] - expected["probabilities"]).max() < TOLERANCE
