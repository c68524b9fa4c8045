"""What a slower camera costs: measured by `evaluate`, kept with the run, told by `stream`."""

import json
import shutil

import pytest
import torch

from saccade import checkpoint
from saccade.checkpoint import Header
from saccade.cli import main
from saccade.clips import FrameFormat
from saccade.data.video_writing import write_mp4
from saccade.evaluate.camera import CameraFigures, keep_figures
from saccade.intervals import Difference
from saccade.labels import Labels
from saccade.stream.measured import NAME

COMMAND = "`saccade evaluate --camera` tells what this costs"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Write a model of 20 frames a second."""
    torch.manual_seed(0)
    header = Header("lenet-lstm", labels=Labels(("wave", "clap")), frame_format=FrameFormat(1, (32, 32), fps=20))
    path = tmp_path_factory.mktemp("run") / checkpoint.NAME
    checkpoint.save(path, header.create_model(), header)
    return path.parent


@pytest.fixture(scope="module")
def slow(tmp_path_factory):
    """Write a video of 9 frames a second."""
    path = tmp_path_factory.mktemp("clips") / "slow.mp4"
    write_mp4(path, torch.arange(18).view(-1, 1, 1, 1).expand(-1, 1, 32, 32).to(torch.uint8), 9)
    return path


def figures(every, accuracy, dropped=0.0):
    difference = None if every == 1 and not dropped else Difference(0.0, 0.0, 0.0)
    return CameraFigures(every, dropped, accuracy, 0.0, 1.0, difference, 1)


def keep(run):
    measured = [figures(1, 0.95), figures(2, 0.85), figures(3, 0.7), figures(4, 0.6), figures(1, 0.5, dropped=0.1)]
    keep_figures(run, measured, 20.0, split="test", num_clips=40)


def told(run, source, capsys):
    capsys.readouterr()
    assert main(["stream", str(source), "--model", str(run)]) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{source.name} gives 9 frames/s; the model learned at 20: frames are repeated; " in line
    return line


def test_a_slow_source_is_told_the_accuracy_at_the_nearest_rate(run, slow, tmp_path, capsys):
    run = shutil.copytree(run, tmp_path / "run")
    assert told(run, slow, capsys).endswith(COMMAND)
    keep(run)
    for model in (run, run / checkpoint.NAME):
        line = told(model, slow, capsys)
        assert line.endswith("85.0 % of 40 test clips were classified correctly at 10 frames/s, 95.0 % at 20")
    assert main(["stream", str(slow), "--model", str(run), "--realtime"]) == 0
    assert "85.0 % of 40 test clips" not in capsys.readouterr().err  # two seconds are too few to tell a rate


def test_figures_of_other_weights_are_not_told(run, slow, tmp_path, capsys):
    run = shutil.copytree(run, tmp_path / "run")
    keep(run)
    model, header = checkpoint.load(run)
    with torch.no_grad():
        model.head.bias.add_(1)
    checkpoint.save(run / checkpoint.NAME, model, header)
    assert told(run, slow, capsys).endswith(COMMAND)
    keep(run)
    assert "85.0 %" in told(run, slow, capsys)


@pytest.mark.parametrize(
    "change",
    [
        lambda kept: "no JSON",
        lambda kept: "[]",
        lambda kept: json.dumps({**kept, "rates": []}),
        lambda kept: json.dumps({**kept, "rates": [{"fps": "fast", "accuracy": 1.0}] * 2}),
        lambda kept: json.dumps({**kept, "rates": [{"fps": 0.0, "accuracy": 1.0}] * 2}),
        lambda kept: json.dumps({**kept, "rates": [{"fps": 5.0, "accuracy": 70.0}] * 2}),
        lambda kept: json.dumps({**kept, "rates": [{"fps": 10**400, "accuracy": 1}, *kept["rates"]]}),
        lambda kept: json.dumps({**kept, "num_clips": 10**400}),
        lambda kept: json.dumps({**kept, "split": "\x1b[31mtest\nof 40 clips"}),
        lambda kept: json.dumps({name: value for name, value in kept.items() if name != "split"}),
    ],
)
def test_a_damaged_file_counts_as_none(run, slow, tmp_path, capsys, change):
    run = shutil.copytree(run, tmp_path / "run")
    keep(run)
    kept = json.loads((run / NAME).read_text())
    (run / NAME).write_text(change(kept))
    assert told(run, slow, capsys).endswith(COMMAND)


def test_only_a_run_folder_keeps_them(run, tmp_path):
    """Beside a checkpoint of another name there may be more of them."""
    shutil.copy(run / checkpoint.NAME, tmp_path / "mine.safetensors")
    keep(tmp_path / "mine.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.safetensors"]
