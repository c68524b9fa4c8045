"""What others wrote: names that look like format, headers and logs of other types, at every verb that meets them."""

import itertools
import json
import os
import subprocess
import sys

import pytest
import torch

from saccade import checkpoint, models, run_folder
from saccade.cli import main
from saccade.clips import FrameFormat
from saccade.data import Folder
from saccade.data.digits import DigitsConfig
from saccade.data.video import write_mp4
from saccade.errors import DataError, SaccadeError
from saccade.foreign import check_types, shown
from saccade.labels import Labels
from saccade.train import TrainConfig, train

BRACKETS = "bad [dQw4w9WgXcQ].mp4"
MARKUP = "a [/x] [bold] :smile: {0} %s $x_1$.mp4"  # in a folder whose name ends in [
NO_UTF8 = os.fsdecode(b"\xe9 \xff.mp4")
ESCAPES = "red \x1b[31m and\nlines.mp4"


def clip(path, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randint(0, 256, (6, 1, 8, 8), generator=generator).to(torch.uint8)
    write_mp4(path, coarse.repeat_interleave(8, -1).repeat_interleave(8, -2), 10)
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Write an untrained model whose classes are called oddly."""
    path = tmp_path_factory.mktemp("model") / "m [/odd].safetensors"
    arguments = {"labels": Labels(("a [/x]", "$b_1$", ":smile:")), "frame_format": FrameFormat()}
    torch.manual_seed(0)
    checkpoint.save(path, models.create("dcn-lstm", **arguments), checkpoint.Header("dcn-lstm", **arguments))
    return path


def saccade(*words, encoding="utf-8", **environment):
    """Run the command in a process of its own, with an encoding of its output; return status, output and errors."""
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "COLUMNS": "200", "OMP_NUM_THREADS": "1", **environment}
    ended = subprocess.run(
        [sys.executable, "-m", "saccade.cli", *map(os.fspath, words)], capture_output=True, env=environment, check=False
    )
    return ended.returncode, ended.stdout.decode(encoding), ended.stderr.decode(encoding)


# Names.


def test_names_are_told_as_they_are(tmp_path, model, capsys):
    for name in (BRACKETS, MARKUP):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("no video")
    good = clip(tmp_path / "good [y].mp4")
    assert main(["predict", str(tmp_path), "--model", str(model)]) == 1
    told = capsys.readouterr()
    assert str(tmp_path / BRACKETS) in told.err
    assert str(tmp_path / MARKUP) in told.err
    assert good.name in told.out.replace("\n", "")  # what could be read is not lost
    assert any(name in told.out for name in ("a [/x]", "$b_1$", ":smile:"))
    assert "[y]" in told.out


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1"])
def test_every_name_can_be_told_on_every_terminal(tmp_path, model, encoding):
    for seed, name in enumerate((NO_UTF8, ESCAPES, "漢字 ü.mp4")):
        clip(tmp_path / "clips" / name, seed)
    (tmp_path / "clips" / os.fsdecode(b"broken \xfe.mp4")).write_text("no video")
    status, out, err = saccade("predict", tmp_path / "clips", "--model", model, encoding=encoding)
    assert status == 1
    assert "Traceback" not in err
    assert "broken \\xfe.mp4" in err
    assert "\\xff.mp4" in out
    assert "\\x1b[31m and\\x0alines.mp4" in out
    assert "漢字" in out or encoding != "utf-8"


def test_an_oddly_named_clip_is_explained(tmp_path, model):
    path = clip(tmp_path / MARKUP / f"{NO_UTF8} {ESCAPES}")
    status, _, err = saccade("explain", path, "--model", model, "-o", tmp_path / "a.html", encoding="ascii")
    assert (status, "Traceback" in err) == (0, False), err
    page = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert "\\xff.mp4 red \\x1b[31m and\\x0alines.mp4" in page
    for kind in ("png", "gif"):
        assert main(["explain", str(path), "--model", str(model), "-o", str(tmp_path / f"a.{kind}")]) == 0
        assert (tmp_path / f"a.{kind}").stat().st_size > 1000


def test_the_command_that_is_recommended_works(tmp_path, capsys):
    out = tmp_path / "r [seed0] $HOME"
    tiny = ["--digits", "uci", "--num-frames", "4", "--batch-size", "2", "--steps", "1", "--short-fraction", "0"]
    assert main(["train", *tiny, "--precision", "float32", "--out", str(out)]) == 0
    command = capsys.readouterr().err.split("evaluate it with: ")[1].strip()
    assert command == f"saccade evaluate --model '{out}'"


def test_classes_may_be_called_anything(tmp_path):
    names = ("[x]", "$a$", os.fsdecode(b"\xff"), "a\nb")
    for label in names:
        for seed in range(3):
            clip(tmp_path / label / f"{seed}.mp4", hash((label, seed)) % 2**32)
    folder = Folder(tmp_path)
    assert set(folder.labels.names) == {"[x]", "$a$", "\\xff", "a\\x0ab"}
    out = tmp_path.parent / f"{tmp_path.name}-run"
    train(TrainConfig(model="dcn-lstm", steps=1, batch_size=2, precision="float32"), folder, out)
    some = next(path for path in tmp_path.rglob("*.mp4") if os.fsencode(path.parent.name) == b"\xff")
    for words in (["predict", some], ["evaluate"], ["explain", some, "-o", out / "a.png"]):
        status, _, err = saccade(*words, "--model", out, encoding="ascii")
        assert (status, "Traceback" in err) == (0, False), err


def test_what_is_shown_moves_no_cursor():
    for text in (NO_UTF8, ESCAPES, "\u202egpj.exe", "\ud800", "\x7f\x9b"):
        assert shown(text).isprintable()
        shown(text).encode()
    assert shown("plain ü 漢字 [x]") == "plain ü 漢字 [x]"


# Headers and logs.


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "run"
    train(TrainConfig(steps=2, batch_size=2, precision="float32"), DigitsConfig("uci", num_frames=4), out)
    return out


def copied(run, folder, change):
    """Copy a run with another header of its checkpoint."""
    folder.mkdir()
    for name in ("run.json", "log.jsonl"):
        (folder / name).write_bytes((run / name).read_bytes())
    content = (run / checkpoint.NAME).read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    described = json.loads(header["__metadata__"]["saccade"])
    change(described)
    header["__metadata__"]["saccade"] = json.dumps(described)
    packed = json.dumps(header).encode()
    (folder / checkpoint.NAME).write_bytes(len(packed).to_bytes(8, "little") + packed + content[8 + size :])
    return folder


def paths_in(described, before=()):
    """Give the way to every value of a header, however deep."""
    for name, value in described.items():
        yield (*before, name)
        if isinstance(value, dict):
            yield from paths_in(value, (*before, name))


def test_a_header_of_other_types_is_told_in_a_line(run, tmp_path, capsys):
    described = json.loads((run / "checkpoint.json").read_text())
    ways = list(paths_in(described))
    assert {("training", "step"), ("data", "config", "digits"), ("labels", "names")} <= set(ways)
    ended = []
    others = itertools.cycle((7, [1, [2]], "text", {"a": None}, -1.5, True))
    for number, way in enumerate(ways):
        for kind, value in enumerate((None, next(others))):

            def change(described, way=way, value=value):
                for name in way[:-1]:
                    described = described[name]
                described[way[-1]] = value

            folder = copied(run, tmp_path / f"{number}-{kind}", change)
            for words in (
                ["train", "--resume", "--out", str(folder)],
                ["evaluate", "--model", str(folder), "--num-clips", "1", "--num-frames", "2"],
            ):
                try:
                    # A value that means as much as the right one is no error, such as another seed.
                    ended.append(main(words))
                except Exception as error:
                    raise AssertionError(f"{way} as {value}: {words[0]}") from error
            err = capsys.readouterr().err
            assert "Traceback" not in err
    assert set(ended) <= {0, 1, 2}
    assert ended.count(0) < len(ended) / 2


def test_a_claim_takes_no_memory(run, tmp_path):
    def change(described):
        described["model"] = "dcn-lstm"
        described["arguments"] |= {"hidden_size": 10**7}

    with pytest.raises(DataError):
        checkpoint.load(copied(run, tmp_path / "run", change))


@pytest.mark.parametrize(
    "line",
    [b"null", b"7", b"[]", b'"text"', b'{"step": null}', b'{"step": "7"}', b'{"loss": 1}', b"\xff\xfe", b"[" * 9999],
)
def test_lines_of_a_log_that_are_no_rows_are_left_out(run, tmp_path, line):
    folder = copied(run, tmp_path / "run", lambda described: None)
    rows = (folder / "log.jsonl").read_bytes()
    (folder / "log.jsonl").write_bytes(line + b"\n" + rows + line)
    before = run_folder.read_log(run / "log.jsonl")
    assert run_folder.read_log(folder / "log.jsonl") == before
    assert main(["train", "--resume", "--out", str(folder)]) == 0
    assert run_folder.read_log(folder / "log.jsonl") == before


@pytest.mark.parametrize(
    "content", ["null", "[]", "7", '{"config": 7}', '{"config": null}', "{", "\ufeff{}", "[" * 9999]
)
def test_a_run_json_of_another_kind_is_told(run, tmp_path, content):
    folder = copied(run, tmp_path / "run", lambda described: None)
    (folder / "run.json").write_text(content, encoding="utf-8")
    with pytest.raises(SaccadeError, match=r"run\.json cannot be read"):
        train(
            TrainConfig(steps=2, batch_size=2, precision="float32"),
            DigitsConfig("uci", num_frames=4),
            folder,
            resume=True,
        )


def test_types_are_checked_by_annotations():
    check_types({"steps": 3, "minutes": None, "start_from": "a", "seed": 0}, TrainConfig)
    check_types({"condition": ["normal"], "num_digits": [1, 5], "angle": 90}, DigitsConfig)
    for described, told in [
        ({"steps": 3.5}, r"steps is 3\.5; int \| None is needed"),
        ({"steps": True}, "steps is True"),
        ({"seed": None}, "seed is None; int is needed"),
        ({"ema": "0"}, "ema is '0'; float is needed"),
        ([], "it is \\[\\]; dict is needed"),
    ]:
        with pytest.raises(TypeError, match=told):
            check_types(described, TrainConfig)
    for described in ({"condition": "normal"}, {"condition": [1]}, {"num_digits": [1, 2, 3]}, {"scale": [0.5]}):
        with pytest.raises(TypeError):
            check_types(described, DigitsConfig)


@pytest.mark.parametrize(
    "numbers",
    [
        {"channels": 0},
        {"size": (0, 64)},
        {"size": (10**6, 64)},
        {"fps": 0.0},
        {"fps": float("nan")},
        {"std": (0.0,)},
        {"mean": (0.0, 0.0)},
        {"std": (float("inf"),)},
    ],
)
def test_a_frame_format_that_no_frame_has_is_refused(numbers):
    with pytest.raises(ValueError, match=next(iter(numbers))):
        FrameFormat(**numbers)
