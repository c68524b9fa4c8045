"""What others wrote: names that look like format, headers and logs of other types, at every verb that meets them."""

import itertools
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch

from saccade import checkpoint, models, run_folder
from saccade.cli import main
from saccade.clips import FrameFormat
from saccade.data import Folder
from saccade.data.digits import DigitsConfig
from saccade.data.video_writing import write_mp4
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
    command = capsys.readouterr().err.split("evaluate it with: ")[1].splitlines()[0]
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
        described["frame_format"]["channels"] = 10**8  # weights of over 100 GB in the first convolution

    with pytest.raises(DataError, match=r"does not fit: encoder\..* should be .*100000000.*, is \("):
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
        ([], "the value is \\[\\]; dict is needed"),
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


# Folders of others, and machines.


def test_a_folder_that_cannot_be_read_is_told_and_a_pipe_is_no_clip():
    with TemporaryDirectory() as folder:
        root = Path(folder)
        for label in ("a", "b"):
            for seed in range(3):
                clip(root / label / f"{seed}.mp4", 7 * seed + ord(label))
        os.mkfifo(root / "a" / "pipe.mp4")
        os.mkfifo(root / "a" / "pipe.ts")
        assert len(Folder(root).files) == 6
        root.chmod(0o755)
        (root / "b").chmod(0)
        # The administrator may read it none the less, and becomes another user.
        script = (
            "import os, sys; from pathlib import Path; from saccade.data import Folder\n"
            "os.getuid() or (os.setgid(65534), os.setuid(65534))\n"
            "Folder(Path(sys.argv[1])).files"
        )
        ended = subprocess.run([sys.executable, "-c", script, root], capture_output=True, text=True, check=False)
        (root / "b").chmod(0o755)
        # One class is left, so that the rest cannot be used either.
        assert "clips of at least two classes are needed" in ended.stderr
        assert f"left out: {root / 'b'} cannot be opened: Permission denied" in ended.stderr


def test_an_empty_argument_is_not_the_current_folder(capsys):
    assert main(["predict", "", "--model", "dcn-lstm"]) == 2
    assert "an argument is empty" in capsys.readouterr().err


def test_streams_may_be_closed(tmp_path):
    command = [sys.executable, "-m", "saccade.cli", "--help"]
    for closed in (">&-", "2>&-", ">&- 2>&-"):
        script = f"{shlex.join(command)} {closed}"
        ended = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=False)
        assert (ended.returncode, ended.stderr) == (0, ""), closed


def test_what_a_model_cannot_say_is_no_prediction(model, tmp_path, capsys):
    broken = tmp_path / "m.safetensors"
    net, header = checkpoint.load(model)
    with torch.no_grad():
        net.head.weight.fill_(3e38)  # finite, but what it is multiplied with is above 1 in sum
        net.temporal.get_parameter("cell.bias_ih_l0").fill_(20)
    checkpoint.save(broken, net, header)
    assert main(["predict", str(clip(tmp_path / "a.mp4")), "--model", str(broken)]) == 1
    assert "gives NaN or infinity" in capsys.readouterr().err


@pytest.fixture(scope="module")
def own_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    for label in ("a", "b"):
        for seed in range(3):
            clip(folder / "clips" / label / f"{seed}.mp4", 7 * seed + ord(label))
    train(TrainConfig(steps=1, batch_size=2, precision="float32"), Folder(folder / "clips"), folder / "run")
    return folder / "run"


@pytest.mark.parametrize(
    ("way", "value"),
    [
        (("data", "config", "held_out", "validation"), 0.5),
        (("data", "config", "held_out"), {"validation": [["a"]], "test": []}),
        (("data", "config", "frame_format", "zzz"), 1),
        (("data", "config", "frame_format", "mean"), [float("inf")]),
        (("data", "config", "frame_format", "channels"), 5),
        (("data", "config", "frame_format", "size"), [32, 10**30]),
        (("data", "config", "frame_format", "fps"), 1e9),
        (("data", "config", "classes", 1), 1e308),
        (("data", "facts", "protocol"), ["a"]),
        (("frame_format", "fps"), 1e9),
        (("frame_format", "channels"), 5),
        (("arguments", "trunk"), []),
        (("arguments", "input"), 1.5),
    ],
)
def test_a_header_of_own_clips_that_is_wrong_is_told(own_run, tmp_path, way, value, capsys):
    def change(described):
        for name in way[:-1]:
            described = described[name]
        described[way[-1]] = value

    folder = copied(own_run, tmp_path / "run", change)
    clips = str(own_run.parent / "clips")
    new = ["--steps", "1", "--batch-size", "2", "--out", str(tmp_path / "new")]
    ended = [
        main(words)
        for words in (
            ["evaluate", "--model", str(folder)],
            ["train", "--resume", "--out", str(folder)],
            ["train", "--data", clips, "--start-from", str(folder), *new],
            ["train", "--data", clips, "--model", str(folder), *new],
        )
    ]
    assert 1 in ended or way[-1] == "protocol"  # which is then the text of the list
    assert set(ended) <= {0, 1, 2}


def test_a_run_that_has_saved_nothing_says_so(tmp_path, capsys):
    (tmp_path / ".run.json.lock").touch()
    assert main(["train", "--resume", "--out", str(tmp_path)]) == 1
    assert f"nothing has been saved in {tmp_path} yet; leave out --resume" in capsys.readouterr().err
