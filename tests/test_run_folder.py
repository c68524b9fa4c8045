import json
import re
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace

import pytest
import torch

from saccade import run_folder
from saccade.data.digits import Digits, DigitsConfig, DigitSourceConfig, load
from saccade.errors import DataError, UsageError
from saccade.generate import GenerateConfig, generate
from saccade.models.published import CNNS
from saccade.published import stage1
from saccade.reproduce import ReproduceConfig, reproduce
from saccade.train import TrainConfig, train

from .published.small import small_cnn


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/usr/bin/saccade", "train", "--out", "a b"])
    run_folder.create(tmp_path / "run", "train", {"seed": 3}, device="cpu")
    return tmp_path / "run"


def test_run_json_says_how_to_do_it_again(run):
    described = json.loads((run / "run.json").read_text())
    assert described["verb"] == "train"
    assert described["command"] == "saccade train --out 'a b'"
    assert described["config"] == {"seed": 3}
    assert described["versions"].keys() >= {"saccade", "torch", "python"}
    assert described["num_threads"] == torch.get_num_threads()
    assert "CPU" in described["device"]
    assert described["commit"]
    assert described["started"].endswith("+00:00")
    assert run_folder.read(run) == described


def test_a_run_is_not_overwritten(run):
    before = (run / "run.json").read_bytes()
    with pytest.raises(UsageError, match="already holds a run; choose another --out"):
        run_folder.create(run, "train", {"seed": 4}, device="cpu")
    with pytest.raises(UsageError, match=r"already holds a run; add --resume .* or choose another --out"):
        run_folder.check_free(run)
    assert (run / "run.json").read_bytes() == before
    run_folder.update(run, finished=True)
    with pytest.raises(UsageError, match="already holds a finished run; choose another --out"):
        run_folder.check_free(run)


def test_whether_a_run_can_be_saved_is_found_out_before_it(tmp_path):
    run_folder.check_writable(tmp_path / "new")
    assert not (tmp_path / "new").exists()
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        run_folder.check_writable(tmp_path / "file" / "run")


def test_what_a_run_that_hardly_began_leaves_is_in_nobodys_way(tmp_path):
    run_folder.check_free(tmp_path / "new")
    for name in ("log.jsonl", "tensorboard", ".hidden"):
        (tmp_path / name).touch()
    run_folder.check_free(tmp_path)
    (tmp_path / "notes.txt").touch()
    with pytest.raises(UsageError, match=r"holds notes\.txt, but no run"):
        run_folder.check_free(tmp_path)
    with pytest.raises(UsageError, match=r"notes\.txt is a file"):
        run_folder.check_free(tmp_path / "notes.txt")


# --- The same run?


def test_what_differs_is_named_with_what_came_and_what_is_wanted(tmp_path):
    before = {"seed": 3, "model": "a", "gone": 1}
    run_folder.check_same(tmp_path, before, {"model": "a", "seed": 3})
    with pytest.raises(UsageError, match=r"was made with seed=3, now seed=4; give the same .* or choose another --out"):
        run_folder.check_same(tmp_path, before, {"model": "a", "seed": 4})
    with pytest.raises(UsageError, match="was made with new=None, now new=1"):
        run_folder.check_same(tmp_path, before, {"new": 1})


TINY = DigitsConfig("uci", num_frames=2, num_clips=1)


def trained(out, options=(), clips=(), **again):
    config = TrainConfig(batch_size=1, precision="float32", **{"steps": 1} | dict(options))
    train(config, replace(TINY, **dict(clips)), out, **again)


def generated(out, clips=()):
    generate(GenerateConfig(out, format="npz"), replace(TINY, **dict(clips)))


def reproduced(out, options=()):
    def begun(line):
        if "samples.png" in line:
            raise KeyboardInterrupt

    asked = {"preset": "full", "steps": 1, "conditions": ("normal",), "trained_on": ("condition",), "jobs": 1}
    config = ReproduceConfig(out=out, source=DigitSourceConfig("uci"), **asked | dict(options))
    with suppress(KeyboardInterrupt):
        reproduce(config, say=begun)


def stage_1(out, source="uci", seed=0):
    digits = load("uci", "train")
    few = Digits(digits.images[:40], digits.labels[:40], source, "train")
    begun = stage1.start("lenet-lstm-published", few, seed=seed)
    stage1.train_cnn(begun, stage1.Limits(max_steps=1), few, out)


@pytest.mark.parametrize(
    ("work", "again", "told"),
    [
        (trained, {"options": {"seed": 1}, "resume": True}, "seed=0, now seed=1"),
        (trained, {"clips": {"clutter": 2}, "resume": True}, "clutter=0, now clutter=2"),
        (generated, {"clips": {"clips_seed": 5}}, "clips_seed=0, now clips_seed=5"),
        (reproduced, {"options": {"steps": 2}}, "steps=1, now steps=2"),
        (stage_1, {"source": "mnist"}, "digits=uci, now digits=mnist"),
        (stage_1, {"seed": 1}, "seed=0, now seed=1"),
    ],
)
def test_every_verb_asks_at_one_place_whether_it_goes_on_with_the_same(work, again, told, tmp_path, monkeypatch):
    monkeypatch.setitem(CNNS, "lenet-lstm-published", small_cnn)
    if work is reproduced:
        pytest.importorskip("matplotlib")
    work(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(UsageError, match=re.escape(f"{tmp_path} was made with {told}; give the same to continue")):
        work(tmp_path, **again)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    # There is no second place: with this one silenced, nobody asks.
    monkeypatch.setattr(run_folder, "check_same", lambda *_given: None)
    work(tmp_path, **again)


def test_facts_are_added(run):
    run_folder.update(run, steps=7)
    run_folder.update(run, finished=True)
    described = run_folder.read(run)
    assert (described["steps"], described["finished"], described["config"]) == (7, True, {"seed": 3})


@pytest.mark.parametrize("content", [None, "", "{"])
def test_a_folder_that_is_no_run(tmp_path, content):
    if content is not None:
        (tmp_path / "run.json").write_text(content)
    with pytest.raises(DataError, match="is not the folder of a run"):
        run_folder.read(tmp_path)


def test_the_commit_is_that_of_the_checkout_or_unknown(monkeypatch):
    assert run_folder.commit() == "unknown" or len(run_folder.commit().rstrip("+")) == 12

    def no_git(*_args, **_kwargs):
        raise FileNotFoundError("git")

    monkeypatch.setattr(subprocess, "run", no_git)
    assert run_folder.commit() == "unknown"


def test_a_changed_checkout_is_marked(tmp_path, monkeypatch):
    def git(*arguments):
        identity = ("-c", "user.name=a", "-c", "user.email=a@b")
        subprocess.run(["git", "-C", str(tmp_path), *identity, *arguments], check=True, capture_output=True)

    module = tmp_path / "run_folder.py"
    module.write_text("first\n")
    git("init")
    git("add", ".")
    git("commit", "-m", "first")
    monkeypatch.setattr(run_folder, "__file__", str(module))
    clean = run_folder.commit()
    assert len(clean) == 12
    (tmp_path / "unrelated.txt").write_text("not tracked\n")
    assert run_folder.commit() == clean
    module.write_text("second\n")
    assert run_folder.commit() == clean + "+"
    git("commit", "-am", "second")
    assert run_folder.commit() not in (clean, clean + "+")
    assert not run_folder.commit().endswith("+")


def test_a_gpu_is_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"Card {device}")
    assert run_folder.device_name("cuda:1") == "Card cuda:1"


def test_scalars_go_to_tensorboard(tmp_path):
    pytest.importorskip("tensorboard")
    with run_folder.scalars(tmp_path) as write:
        write({"step": 1, "loss": 0.5})
    assert len(list((tmp_path / "tensorboard").iterdir())) == 1


def test_a_run_that_goes_on_hides_what_was_written_of_later_steps(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for start, steps in ((0, (1, 2, 3, 4)), (2, (3,))):
        with run_folder.scalars(tmp_path, start) as write:
            for step in steps:
                write({"step": step, "loss": 0.5})
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [event.step for event in events.Scalars("loss")] == [1, 2, 3]


def test_without_tensorboard_scalars_go_nowhere(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with run_folder.scalars(tmp_path) as write:
        write({"step": 1, "loss": 0.5})
    assert list(tmp_path.iterdir()) == []


def rows_of(num=5):
    return [{"loss": 4.0 / (i + 1), "step": i} for i in range(num)]


def test_a_log_is_read_back(tmp_path):
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows_of()))
    assert run_folder.read_log(tmp_path / "log.jsonl") == rows_of()
    assert run_folder.read_log(tmp_path / "none.jsonl") == []


def test_a_last_line_cut_short_is_left_out(tmp_path):
    text = "".join(json.dumps(row) + "\n" for row in rows_of())
    (tmp_path / "log.jsonl").write_text(text[:-9])
    assert run_folder.read_log(tmp_path / "log.jsonl") == rows_of()[:-1]


def test_rows_after_a_line_cut_short_are_kept(tmp_path):
    # A run was killed while it wrote, and resumed: its next row follows in the same line.
    lines = [json.dumps(row) + "\n" for row in rows_of()]
    (tmp_path / "log.jsonl").write_text(lines[0] + lines[1] + lines[2][:9] + lines[2] + lines[3] + lines[4])
    steps = [row["step"] for row in run_folder.read_log(tmp_path / "log.jsonl")]
    assert steps[:2] == [0, 1]
    assert steps[-2:] == [3, 4]


def test_a_log_is_rewound_to_a_step(tmp_path):
    lines = [json.dumps(row) + "\n" for row in rows_of()]
    (tmp_path / "log.jsonl").write_text("".join(lines[:3]) + lines[3][:5])
    run_folder.rewind_log(tmp_path / "log.jsonl", 1)
    assert run_folder.read_log(tmp_path / "log.jsonl") == rows_of()[:2]
