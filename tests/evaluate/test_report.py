"""What people read of an evaluation on clips of their own."""

import pytest
import torch
from rich.console import Console

from saccade import checkpoint, cli
from saccade.checkpoint import Header
from saccade.clips import FrameFormat
from saccade.data import Folder, StoredClips, StoredData
from saccade.data.video_writing import write_mp4
from saccade.evaluate import EvaluateConfig, read_rows, render, run, worst_confusions
from saccade.labels import Labels

CLASSES = ("3 wheels", "[red]", "<b>x</b> :wave:")


def shown(result):
    console = Console(width=160, color_system=None)
    with console.capture() as captured:
        console.print(render(result))
    return captured.get()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder of five short clips of each class."""
    root = tmp_path_factory.mktemp("data") / "my [blue] clips"
    for name in CLASSES:
        inside = root / name.replace("/", "_")
        inside.mkdir(parents=True)
        for number in range(5):
            frames = torch.randint(256, (4 + number, 3, 32, 40), dtype=torch.uint8)
            write_mp4(inside / f"{number}.mp4", frames, 10)
    return Folder(root)


@pytest.fixture(scope="module")
def model(folder, tmp_path_factory):
    """An untrained model for them, with an attention that looks somewhere."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("model")
    data = {"config": folder.as_json(), "facts": folder.facts}
    header = Header("stn-lstm", {"input": "both"}, folder.labels, folder.frame_format, data, {"config": {"seed": 3}})
    made = header.create_model()
    torch.nn.init.normal_(made.encoder.attention.positions.to_map.bias, std=0.7)
    checkpoint.save(path / checkpoint.NAME, made, header)
    return path


def test_clips_of_a_folder_are_named_with_their_split(folder, model, tmp_path):
    result = run(EvaluateConfig(model, out=tmp_path / "a.csv"))
    title, *rest = shown(result).splitlines()
    assert title == "stn-lstm on my [blue] clips, test split"
    text = "\n".join(rest)
    for name in folder.labels.names:
        assert any(line.startswith(f"{name}  ") for line in rest)
    confused = worst_confusions(result.evaluation)
    assert len(confused) == 2
    assert ", ".join(f"{shown} as {said} ({num})" for shown, said, num in confused) in text
    assert not {"digit", "condition"} & set(text.replace("digits", "digit").split())
    assert "classes only" not in text
    (row,) = read_rows(tmp_path / "a.csv")
    facts = {"data": "my [blue] clips", "split": "test", "trained_on": "my [blue] clips", "seed": 3, "num_clips": 3}
    assert {name: row[name] for name in facts} == facts
    assert not {"condition", "digits", "instances", "labels"} & row.keys()
    of_validation = run(EvaluateConfig(model, split="validation"))
    assert shown(of_validation).splitlines()[0] == "stn-lstm on my [blue] clips, validation split"


def test_where_things_are_is_not_known_of_a_folder(model, tmp_path, capsys):
    words = ["evaluate", "--model", str(model), "--attention", str(tmp_path / "a.csv")]
    assert cli.main(words) == 2
    assert "known object positions" in capsys.readouterr().err


def test_clips_in_memory_are_named_with_their_split(tmp_path):
    labels = Labels(("a", "b"))
    clips = StoredClips([torch.zeros(n, 1, 32, 32, dtype=torch.uint8) for n in (2, 3)], torch.tensor([0, 1]), labels)
    data = StoredData(clips, clips, clips, name="my [red] clips")
    header = Header("lenet-lstm", {}, labels, FrameFormat(), {"facts": data.facts})
    checkpoint.save(tmp_path / checkpoint.NAME, header.create_model(), header)
    for split in ("test", "validation"):
        result = run(EvaluateConfig(tmp_path, split=split, out=tmp_path / "a.csv"), data)
        assert shown(result).splitlines()[0] == f"lenet-lstm on my [red] clips, {split} split"
    assert [row["split"] for row in read_rows(tmp_path / "a.csv")] == ["test", "validation"]
