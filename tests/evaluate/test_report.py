"""What people read of an evaluation on clips of their own."""

import pytest
import torch
from rich.console import Console

from saccade import checkpoint, cli
from saccade.checkpoint import Header
from saccade.clips import FrameFormat
from saccade.data import Folder, StoredClips, StoredData
from saccade.data.video_writing import write_mp4
from saccade.evaluate import (
    AttentionEffect,
    EvaluateConfig,
    Result,
    evaluate,
    read_rows,
    render,
    run,
    worst_confusions,
)
from saccade.intervals import wilson_interval
from saccade.labels import Labels

from .stand_ins import Canned

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


def stored(labels, num, **named):
    frames = [torch.zeros(2, 1, 32, 32, dtype=torch.uint8)] * num
    return StoredClips(frames, torch.arange(num) % len(labels.names), labels, {"data": "memory"}, **named)


def told(clips, num_wrong=0):
    """Render the result of a model that is wrong on the first clips."""
    said = clips.targets.clone()
    said[:num_wrong] = (said[:num_wrong] + 1) % len(clips.labels.names)
    found = evaluate(Canned(torch.nn.functional.one_hot(said).float()), clips)
    effect = AttentionEffect({}, found.accuracy, None, None, 0, found.num_clips)
    return shown(Result(found, effect, found.row(model="m", seed=0))), found


def test_of_many_classes_and_groups_the_worst_are_shown():
    labels = Labels(tuple(f"class {index:02d}" for index in range(30)))
    groups = [f"group {index // 5:02d}" for index in range(60)]
    text, found = told(stored(labels, 60, groups=groups), num_wrong=3)
    lines = text.splitlines()
    assert [line[:8] for line in lines if line.startswith("class ") and line[6].isdigit()][:3] == [
        "class 00",
        "class 01",
        "class 02",
    ]
    assert next(line for line in lines if line.startswith("group ") and line[6].isdigit()).startswith("group 00")
    assert "the worst 10 of 30 classes; --report FILE.html and --json show all" in text
    assert "the worst 10 of 12 groups" in text
    assert len(lines) < 40
    low, high, label = found.interval
    assert label == "bootstrap, 12 groups"
    assert f"accuracy           95.0 % ({100 * low:.1f} to {100 * high:.1f}; {label})" in text
    assert "by class, the lowest recall first" in lines
    assert "by group, the lowest accuracy first" in lines
    assert "intervals of classes and groups are Wilson's: they treat clips as independent" in lines
    assert [line for line in lines[:7] if line.endswith(" ")] == []


def test_one_group_has_no_interval_over_groups():
    text, found = told(stored(Labels(("a", "b")), 12, groups=["ann"] * 12), num_wrong=2)
    assert found.interval == (*wilson_interval(10, 12), "Wilson, 12 clips of one group")
    assert "all clips are of the group ann: the intervals say nothing about clips of other groups" in text
    alike, found = told(stored(Labels(("a", "b")), 12, groups=["ann", "bob"] * 6))
    assert found.interval.label == "Wilson, 2 groups"  # nothing varies when groups are drawn
    assert "all clips are of" not in alike


def test_few_classes_are_all_shown_with_recall_and_precision():
    text, _ = told(stored(Labels(("a", "b", "c")), 18), num_wrong=1)
    words = [" ".join(line.split()) for line in text.splitlines()]
    assert "a 6 83.3 % (44 to 97) 100.0 % (57 to 100)" in words
    assert "b 6 100.0 % (61 to 100) 85.7 % (49 to 97)" in words
    assert "worst" not in text
    assert "fewer than" not in text


def test_classes_with_few_clips_are_named():
    text, _ = told(stored(Labels(("a", "b", "c")), 14))
    assert "fewer than 5 clips: c (4); the figures of these classes say little" in " ".join(text.split())


def test_many_classes_with_few_clips_take_one_line():
    text, _ = told(stored(Labels(tuple(map(str, range(100)))), 100))
    assert "fewer than 5 clips: " in text
    assert "and 92 more" in text
