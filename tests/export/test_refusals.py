"""What is refused, and that nothing is left behind."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from saccade import checkpoint, export
from saccade.checkpoint import Header
from saccade.cli import main
from saccade.errors import DataError, UsageError
from saccade.export import ExportConfig
from saccade.export import compare as comparison
from saccade.models import create

from .models import save_model


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Save a small model."""
    return save_model(tmp_path_factory.mktemp("model") / "model.safetensors", temporal="gru")


def test_an_export_that_differs_is_refused_and_leaves_nothing(model, tmp_path, monkeypatch):
    monkeypatch.setattr(comparison, "TOLERANCE", -1.0)
    there = tmp_path / "empty"
    there.mkdir()
    for out in (tmp_path / "new", there):
        with pytest.raises(DataError, match=r"differs from the model by .* in a probability, .*nothing was written"):
            export.export(ExportConfig(model, out, format="torch"))
    assert list(tmp_path.iterdir()) == [there]
    assert list(there.iterdir()) == []


def runs(model):
    """Return the model as the comparison calls exported files."""

    def clip(inputs):
        logits = model(*inputs)
        return [logits, model.labels.probabilities(logits)]

    def step(inputs):
        frame, *state = inputs
        logits, after = model.step(frame.unsqueeze(1), tuple(state))
        return [logits[:, 0], model.labels.probabilities(logits[:, 0]), *after]

    return clip, step


def test_the_comparison_sees_what_only_other_shapes_and_later_frames_show(model):
    loaded, _ = checkpoint.load(model)
    clip, step = runs(loaded)
    compare = comparison.largest_difference
    assert compare(loaded, (32, 40), clip, step) < 1e-6

    def only_three_frames(inputs):
        logits, said = clip(inputs)
        return [logits, said if inputs[0].shape[1] <= 3 else said + 2e-4]

    def only_two_clips(inputs):
        logits, said = clip(inputs)
        return [logits, said if len(inputs[0]) <= 2 else said.roll(1, 0)]

    def forgetful(inputs):
        return step([inputs[0], *(torch.zeros_like(part) for part in inputs[1:])])

    def not_a_number(inputs):
        logits, said = clip(inputs)
        return [logits, said * np.nan]

    for wrong in ((only_three_frames, step), (only_two_clips, step), (not_a_number, step), (clip, forgetful)):
        with pytest.raises(DataError, match="differs from the model by"):
            compare(loaded, (32, 40), *wrong)


def test_a_model_without_classes(tmp_path):
    path = tmp_path / "model.safetensors"
    checkpoint.save(path, create("lenet-lstm"), Header("lenet-lstm"))
    with pytest.raises(DataError, match="does not say what its classes are"):
        export.export(ExportConfig(path, tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_model_that_reads_whole_clips(tmp_path):
    path = tmp_path / "model.safetensors"
    made = create("lenet-lstm-published", num_frames=2)
    checkpoint.save(path, made, Header("lenet-lstm-published", {"num_frames": 2}, made.labels))
    with pytest.raises(UsageError, match="lenet-lstm-published reads whole clips of one length"):
        export.export(ExportConfig(path, tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_not_empty_and_one_that_cannot_be(model, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"holds notes\.txt; choose a new or empty folder"):
        export.export(ExportConfig(model, tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    for out in (tmp_path / "notes.txt", tmp_path / "notes.txt" / "out"):
        with pytest.raises((UsageError, OSError), match=r"notes\.txt"):
            export.export(ExportConfig(model, out))
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_another_size_than_that_of_training(model, tmp_path):
    with pytest.raises(UsageError, match="takes frames of 32x40 px; leave out --size"):
        export.export(ExportConfig(model, tmp_path / "out", size=(40, 32)))
    for size in ((16, 64), (64, 5000)):
        with pytest.raises(UsageError, match=f"size is {size[0]}x{size[1]} px; each side must lie in 28 to 4096"):
            ExportConfig(model, tmp_path, size=size)


@pytest.mark.parametrize(("changed", "message"), [({"format": "onx"}, "onnx"), ({"deform": "grid"}, "gridsample")])
def test_unknown_names(tmp_path, changed, message):
    with pytest.raises(UsageError, match=message):
        ExportConfig(tmp_path, tmp_path, **changed)


def test_the_command_line_says_why_in_one_line(model, tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("mine")
    assert main(["export", "--model", str(model), "--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err == f"saccade: {tmp_path} holds notes.txt; choose a new or empty folder as --out\n"
    assert main(["export", "--model", str(model), "--out", str(tmp_path / "out"), "--size", "48", "64"]) == 2
    assert "takes frames of 32x40 px; leave out --size" in capsys.readouterr().err


def test_temporary_files_of_others_are_no_leftovers(model, tmp_path):
    others = tmp_path / ".checkpoint.part-x.safetensors"
    others.write_text("of a training that runs")
    with pytest.raises(UsageError, match=r"holds \.checkpoint\.part-x\.safetensors"):
        export.export(ExportConfig(model, tmp_path, format="torch"))
    assert list(tmp_path.iterdir()) == [others]


def arguments(model, out):
    return ["export", "--model", str(model), "--out", str(out), "--format", "torch"]


def test_a_killed_export_leaves_nothing_that_counts_as_one(model, tmp_path):
    out = tmp_path / "out"
    command = [sys.executable, "-m", "saccade", *arguments(model, out)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as first:
        while not list(out.glob(".export*")):
            assert first.poll() is None
            time.sleep(0.02)
        os.kill(first.pid, signal.SIGSTOP)
        with pytest.raises(UsageError, match=r"another process is writing to .*out; choose another --out"):
            export.export(ExportConfig(model, out, format="torch"))
        assert list(out.glob(".export*"))
        first.kill()
    assert list(out.glob(".export*"))
    assert not list(out.glob("[!.]*"))
    exported = export.export(ExportConfig(model, out, format="torch"))
    assert sorted(out.iterdir()) == sorted(exported.paths)


def test_a_full_disk_ends_an_export_with_one_line(model, tmp_path):
    limited = "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)); "
    code = limited + f"from saccade.cli import main; sys.exit(main({arguments(model, tmp_path / 'out')!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr.splitlines()[-1:]) == (1, [f"saccade: {tmp_path / 'out'}: File too large"])
    assert not (tmp_path / "out").exists()
