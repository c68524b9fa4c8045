"""From a folder of clips to a prediction, as a user does it: at the command line, and in Python."""

import csv
import io
import json
import shutil
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace

import pytest
import torch

from saccade import checkpoint, cli, run_folder
from saccade.data import Folder, StoredClips, StoredData
from saccade.data.digits import DigitsConfig
from saccade.data.video_writing import write_mp4
from saccade.errors import UsageError
from saccade.evaluate import read_rows
from saccade.generate import GenerateConfig, generate
from saccade.labels import Labels
from saccade.train import TrainConfig, tables, train

from .own_clips import CLASSES, moving_square, write_folder


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("own") / "my clips")


@pytest.fixture(scope="module")
def run(clips, tmp_path_factory):
    """A run of a few steps, made by the command line."""
    out = tmp_path_factory.mktemp("runs") / "own"
    words = ["train", "--data", str(clips), "--group", r"_(\d+)_", "--model", "dcn-lstm", "--out", str(out)]
    assert cli.main([*words, "--steps", "40", "--batch-size", "4", "--precision", "float32"]) == 0
    return out


def test_the_last_lines_say_what_to_do_next(clips, tmp_path):
    """With both streams in one place, the ladder comes before what to do next."""
    out = tmp_path / "run"
    with redirect_stdout(io.StringIO()) as printed, redirect_stderr(printed):
        assert cli.main(["train", "--data", str(clips), "--steps", "2", "--batch-size", "4", "--out", str(out)]) == 0
    lines = printed.getvalue().splitlines()
    assert lines[-4:] == [
        f"wrote {out / checkpoint.NAME}",
        f"evaluate it on 4 test clips, which it has not seen, with: saccade evaluate --model {out}",
        f"use it with: saccade predict FILE --model {out}",
        f"see what it sees with: saccade explain FILE --model {out}",
    ]
    head = "accuracy on the 4 validation clips, on which the step was chosen (bootstrap intervals over clips):"
    assert head in lines[:-4]
    assert any("2 steps of 4 clips are 8 draws from 12 training clips" in line for line in lines)


def test_the_run_remembers_classes_frames_and_split(clips, run):
    header = checkpoint.read_header(run)
    assert header.labels == Labels(CLASSES)
    assert (header.frame_format.channels, header.frame_format.size, header.frame_format.fps) == (3, (48, 64), 10.0)
    assert header.arguments["input"] == "both"
    assert header.data_config().as_json() == Folder(clips, group=r"_(\d+)_").as_json()


def test_it_is_measured_on_what_was_held_out(clips, run, tmp_path, capsys):
    assert cli.main(["evaluate", "--model", str(run), "--out", str(tmp_path / "rows.csv")]) == 0
    said = capsys.readouterr().out
    assert "dcn-lstm on my clips, test split" in said
    assert "digit" not in said
    (row,) = read_rows(tmp_path / "rows.csv")
    assert (row["model"], row["data"], row["num_clips"], row["split"]) == ("dcn-lstm", "my clips", 4, "test")
    assert row["accuracy"] >= 0.75  # motion alone tells these classes apart
    assert cli.main(["evaluate", "--model", str(run), "--split", "validation", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["row"]["split"] == "validation"


def test_the_verdicts_on_validation_clips_are_in_a_table(clips, run):
    with (run / tables.TESTED).open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    held = Folder(clips, group=r"_(\d+)_").as_json()["clips"]["validation"]
    assert [row["path"] for row in rows] == held
    right = [row["verdict"] == row["class"] == row["path"].split("/")[0] for row in rows]
    assert sum(right) / len(right) == run_folder.read(run)["validation"]["accuracy"]
    assert {(row["group"], row["fold"]) for row in rows} == {(held[0].split("_")[-2], "0")}
    assert not (run / tables.LEFT_OUT).exists()


def test_clips_of_the_training_are_told_apart_from_others(clips, run, tmp_path, capsys):
    described = Folder(clips, group=r"_(\d+)_").as_json()["clips"]
    held = described["test"] + described["validation"]
    learned = [path for path in clips.rglob("*.mp4") if path.relative_to(clips).as_posix() not in held][:3]
    copied = shutil.copy(learned[0], tmp_path)
    link = tmp_path / "link"
    link.symlink_to(clips)
    for given, num in (
        (learned, "3 of 3"),
        ([clips / held[0], *learned], "3 of 4"),
        ([link / learned[0].relative_to(clips)], "1 of 1"),
        ([clips / name for name in held], None),
        ([copied], None),
    ):
        assert cli.main(["predict", *map(str, given), "--model", str(run)]) == 0
        said = capsys.readouterr().err
        assert (f"{num} clips lie among those that this model learned from" in said) if num else "learned" not in said


def test_clips_that_moved_are_named(clips, run, tmp_path, capsys):
    moved = clips.rename(clips.parent / "elsewhere")
    try:
        assert cli.main(["evaluate", "--model", str(run)]) == 1
        assert "my clips" in capsys.readouterr().err
        assert cli.main(["evaluate", "--model", str(run), "--data", str(moved)]) == 0
        assert "on elsewhere, test split" in capsys.readouterr().out
    finally:
        moved.rename(clips)


def test_options_of_digits_are_refused(run, capsys):
    assert cli.main(["evaluate", "--model", str(run), "--clutter", "3"]) == 2
    assert "--clutter is not an option of clips in a folder" in capsys.readouterr().err


def test_a_clip_is_named_and_explained(clips, run, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["saccade"])  # the page prints the command, which here may name anything
    clip = next((clips / CLASSES[0]).glob("*.mp4"))
    assert cli.main(["predict", str(clip), "--model", str(run), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["verdict"] in CLASSES
    assert {name for name, _ in said["top"]} == set(CLASSES)
    page = tmp_path / "page.html"
    assert cli.main(["explain", str(clip), "--model", str(run), "--out", str(page)]) == 0
    text = page.read_text(encoding="utf-8")
    assert CLASSES[0] in text
    assert "digit" not in text.lower().replace("digits_per_s", "")


def test_it_goes_on_where_it_was_stopped(clips, tmp_path):
    def trained(folder, *calls):
        for steps, resume in calls:
            data = Folder(clips, group=r"_(\d+)_")
            config = TrainConfig(steps=6, batch_size=4, precision="float32")
            if steps < 6:
                with pytest.raises(KeyboardInterrupt):
                    train(config, data, folder, resume=resume, progress=stop_after(steps))
            else:
                train(config, data, folder, resume=resume)
        model, _ = checkpoint.load(folder)
        return model.state_dict()

    whole, parts = trained(tmp_path / "a", (6, False)), trained(tmp_path / "b", (3, False), (6, True))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def stop_after(step):
    import signal

    return lambda row: signal.raise_signal(signal.SIGINT) if row["step"] == step else None


def losses(data, out, seed=0):
    rows = []
    config = TrainConfig(steps=8, batch_size=4, seed=seed, precision="float32", input="frames")
    train(config, data, out, progress=rows.append)
    return [row["loss"] for row in rows]


def test_digits_as_npz_from_memory_and_as_mp4_teach_the_same(tmp_path):
    asked = DigitsConfig("uci", scheme="digits", num_digits=1, num_clips=60, num_frames=6)
    written = {}
    for format in ("npz", "mp4"):
        generate(GenerateConfig(tmp_path / format, format=format, fps=10.0), asked)
        written[format] = Folder(tmp_path / format)
    learned = written["npz"]
    files = [file for file in learned.files if file.path.relative_to(learned.root).as_posix() not in held_out(learned)]
    index = [int(file.path.stem) for file in files]
    frames = asked.clips("train").batch(torch.tensor(index)).frames
    targets = torch.tensor([learned.labels.names.index(file.label) for file in files])
    stored = StoredClips(list(frames), targets, learned.labels)
    memory = losses(StoredData(stored, stored), tmp_path / "memory")
    npz, mp4 = (losses(data, tmp_path / f"run-{format}") for format, data in written.items())
    assert npz == pytest.approx(memory, rel=1e-5)
    # Compression moves grey levels by one or two.
    assert mp4 == pytest.approx(memory, rel=0.05)
    assert memory != losses(StoredData(stored, stored), tmp_path / "other", seed=1)


def held_out(folder):
    return {group for groups in folder.as_json()["held_out"].values() for group in groups}


def test_it_goes_on_only_as_it_was_begun(clips, tmp_path):
    config = TrainConfig(steps=2, batch_size=4, precision="float32")
    train(config, Folder(clips), tmp_path / "run")
    for changed, data in ((replace(config, seed=7), Folder(clips)), (config, Folder(clips, seed=1))):
        with pytest.raises(UsageError, match=r"was made with (seed|split_seed|held_out)="):
            train(changed, data, tmp_path / "run", resume=True)


def test_weights_keep_the_split_that_they_were_tested_on(clips, tmp_path, capsys):
    grown = shutil.copytree(clips, tmp_path / "grown")
    words = ["train", "--data", str(grown), "--steps", "1", "--batch-size", "2"]
    assert cli.main([*words, "--out", str(tmp_path / "first")]) == 0
    for number in range(3):
        write_mp4(grown / CLASSES[0] / f"more{number}.mp4", moving_square(CLASSES[0], 900 + number), 10.0)
    first = checkpoint.read_header(tmp_path / "first").data["config"]["held_out"]
    assert Folder(grown).as_json()["held_out"] != first
    started = ["--start-from", str(tmp_path / "first"), "--out", str(tmp_path / "second")]
    assert cli.main([*words, *started]) == 0
    assert checkpoint.read_header(tmp_path / "second").data["config"]["held_out"] == first
    config = TrainConfig(steps=1, batch_size=2, start_from=tmp_path / "first")
    with pytest.raises(UsageError, match="may have learned from clips held out now"):
        train(config, Folder(grown), tmp_path / "third")


def test_label_sets_of_a_csv_file_are_learned_by_steps(clips, tmp_path, capsys):
    """Broken files are left out, and a run that was stopped goes on without them."""
    root = shutil.copytree(clips, tmp_path / "own")
    (root / "down" / "broken.mp4").write_text("no video")
    names = [path.relative_to(tmp_path).as_posix() for path in sorted(root.rglob("*.mp4"))]
    labels = ["down" if "down" in name else "across|low" if "more" in name else "across" for name in names]
    named = [f"{name},{label}" for name, label in zip(names, labels, strict=True)]
    (tmp_path / "clips.csv").write_text("\n".join(["path,class", *named]), encoding="utf-8")
    words = ["train", "--data", str(tmp_path / "clips.csv"), "--batch-size", "4", "--precision", "float32"]
    out = ["--out", str(tmp_path / "run")]
    assert cli.main([*words, *out, "--steps", "2"]) == 0
    said = capsys.readouterr().err
    assert "without them: 20 clips of 3 classes that may be present together" in said
    assert "left out: " in said
    assert "broken.mp4" in said
    with (tmp_path / "run" / tables.LEFT_OUT).open(encoding="utf-8", newline="") as file:
        (left,) = csv.DictReader(file)
    assert left["path"] == "own/down/broken.mp4"
    assert "cannot be read" in left["reason"]
    header = checkpoint.read_header(tmp_path / "run")
    assert header.labels == Labels(("across", "down", "low"), exclusive=False)
    described = header.data["config"]["clips"]
    learned = next(name for name in names if not any(name in of_split for of_split in described.values()))
    for name, num_told in ((learned, 1), (described["test"][0], 0)):
        assert cli.main(["predict", str(tmp_path / name), "--model", str(tmp_path / "run")]) == 0
        assert capsys.readouterr().err.count("1 of 1 clips lie among those") == num_told
    assert cli.main(["train", "--resume", "--steps", "2", *out]) == 0
    capsys.readouterr()
    assert cli.main(["evaluate", "--model", str(tmp_path / "run"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["row"]["data"] == "clips.csv"
