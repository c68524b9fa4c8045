import json
import subprocess
import sys

import pytest
import torch

from saccade import run_folder
from saccade.errors import DataError, UsageError


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
    with pytest.raises(UsageError, match=r"already holds a run; add --resume .* or choose another --out"):
        run_folder.create(run, "train", {"seed": 4}, device="cpu")
    assert (run / "run.json").read_bytes() == before


def test_what_a_run_that_hardly_began_leaves_is_in_nobodys_way(tmp_path):
    run_folder.check_free(tmp_path / "new")
    for name in ("checkpoint.safetensors", "log.jsonl", "tensorboard", ".hidden"):
        (tmp_path / name).touch()
    run_folder.check_free(tmp_path)
    (tmp_path / "notes.txt").touch()
    with pytest.raises(UsageError, match=r"holds notes\.txt, but no run"):
        run_folder.check_free(tmp_path)
    with pytest.raises(UsageError, match=r"notes\.txt is a file"):
        run_folder.check_free(tmp_path / "notes.txt")


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
