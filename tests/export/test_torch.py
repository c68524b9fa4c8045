"""Programs of torch, loaded in a process without saccade."""

import json
import subprocess
import sys
import zipfile

import pytest
import torch

from saccade import checkpoint, export
from saccade.export import ExportConfig

from .models import CLASSES, clips, save_model

LOAD = """
import json, sys, torch
{before}
found = []
for name, inputs in torch.load({inputs!r}):
    held = {{"saccade": ""}}
    program = torch.export.load(name, extra_files=held).module()
    found.append((json.loads(held["saccade"]), program(*inputs)))
torch.save(found, {outputs!r})
"""


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Export a model once; return its checkpoint and the folder."""
    folder = tmp_path_factory.mktemp("export")
    path = save_model(folder / "model.safetensors", attention="dcn", temporal="mean", exclusive=False)
    export.export(ExportConfig(path, folder / "out", format="torch", deform="gridsample"))
    return path, folder / "out"


def test_the_programs_run_in_a_process_that_cannot_import_saccade(exported, tmp_path):
    path, folder = exported
    model, _ = checkpoint.load(path)
    frames = clips(3, 4)
    state = [part.clone() for part in model.initial_state(3, (32, 40))]
    inputs = [(str(folder / "clip.pt2"), (frames,)), (str(folder / "step.pt2"), (frames[:, 0].clone(), *state))]
    torch.save(inputs, tmp_path / "inputs")
    code = LOAD.format(
        before="sys.modules['saccade'] = None", inputs=str(tmp_path / "inputs"), outputs=str(tmp_path / "outputs")
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    (_, (logits, said)), (about, (first, _, *after)) = torch.load(tmp_path / "outputs")
    with torch.no_grad():
        expected = model(frames)
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(said, logits.sigmoid())
    torch.testing.assert_close(first, expected[:, 0], atol=1e-4, rtol=0)
    assert [part.dtype for part in after] == [torch.float64] * 3
    assert (tuple(about["classes"]), about["exclusive"]) == (CLASSES, False)


def test_the_files_name_no_folder_of_the_machine(exported):
    for path in exported[1].glob("*.pt2"):
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                assert b".py" not in archive.read(name), name
                if name.endswith(export.METADATA):
                    json.loads(archive.read(name))
