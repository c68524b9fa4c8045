import json
import os
import re
import shutil
import signal
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import saccade
from saccade import checkpoint, console
from saccade.cli import main
from saccade.cli.verbs import VERBS
from saccade.data.digits import DigitsConfig
from saccade.models import efficientnet

from .own_clips import write_folder

PLAIN = Path(__file__).parent / "data" / "odd_files" / "plain.mp4"
TINY = [
    "train",
    "--digits",
    "uci",
    "--batch-size",
    "2",
    "--num-frames",
    "4",
    "--precision",
    "float32",
    "--device",
    "cpu",
]


def run(*words, **options):
    environment = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "100"}
    command = [sys.executable, "-m", "saccade.cli", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, **options)


def only_line(text):
    (line,) = text.splitlines()
    return line


# --- Help


def test_help_lists_every_verb_with_an_example(capsys):
    for words in (["--help"], ["-h"]):
        assert main(words) == 0
        shown = capsys.readouterr().out
        for name, verb in VERBS.items():
            assert f"  {name} " in shown
            assert verb.example in shown


def test_without_a_verb_help_is_shown_and_the_call_was_wrong(capsys):
    assert main([]) == 2
    assert "usage: saccade VERB" in capsys.readouterr().out


def test_the_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"saccade {saccade.__version__}\n"


def test_help_does_not_wait_for_torch():
    script = (
        "import sys; from saccade.cli import main\n"
        "status = main(['--help']); heavy = {'torch', 'numpy', 'tyro', 'rich'} & set(sys.modules)\n"
        "sys.exit(f'{status} {heavy}' if status or heavy else 0)"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize("name", VERBS)
def test_every_verb_shows_its_options_and_an_example(name, capsys):
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    assert ended.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert f"usage: saccade {name}" in shown
    assert VERBS[name].example in shown


def flags_of(name, capsys):
    with pytest.raises(SystemExit):
        main([name, "--help"])
    return set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", capsys.readouterr().out)) - {"--help"}


# What says which moving digits: one group, in whatever verb.
DIGIT_FLAGS = {"--labels"} | {"--" + field.name.replace("_", "-") for field in fields(DigitsConfig)}


@pytest.mark.parametrize("name", VERBS)
def test_a_verb_has_few_flags_and_they_need_no_prefix(name, capsys):
    with pytest.raises(SystemExit):
        main([name, "--help"])
    shown = capsys.readouterr().out
    for unwanted in ("--config.", "--digits.", "--source."):
        assert unwanted not in shown
    flags = flags_of(name, capsys)
    assert not {"--" + flag.removeprefix("--no-") for flag in flags if flag.startswith("--no-")} & flags
    assert len(flags - DIGIT_FLAGS) <= (22 if name == "train" else 20)


def test_verbs_of_moving_digits_have_all_their_flags(capsys):
    for name in ("train", "evaluate", "generate"):
        assert flags_of(name, capsys) >= DIGIT_FLAGS - {"--scheme"}
        assert "--scheme" not in flags_of(name, capsys)


@pytest.mark.parametrize("name", VERBS)
def test_examples_begin_with_their_verb_and_parse(name):
    words = VERBS[name].example.split()
    assert words[:2] == ["saccade", name]
    ended = None
    try:
        main([*words[1:], "--help"])
    except SystemExit as error:
        ended = error.code
    assert ended == 0


def test_options_for_scripts_are_not_taken(capsys, tmp_path):
    for words in (["--ema", "0.5"], ["--weight-decay", "0.1"], ["--input", "both"], ["--muon-rate", "0"]):
        with pytest.raises(SystemExit) as ended:
            main(["train", *words, "--steps", "1", "--out", str(tmp_path / "run")])
        assert ended.value.code == 2


# --- Which clips


def out_of(words, tmp_path):
    """Train a step; return what the checkpoint remembers of the clips."""
    assert main([*words, "--steps", "1", "--out", str(tmp_path)]) == 0
    return checkpoint.read_header(tmp_path).data_config()


def test_an_option_of_version_01_is_known_by_its_name_of_today(capsys, tmp_path):
    folder = tmp_path / "mnist"
    folder.mkdir()
    for name in ("--data-dir", "--data_dir", "--digits-dir"):
        learned = out_of([*TINY, name, str(folder)], tmp_path / name)
        assert learned.digits_dir == folder
    for words, seed in ((["--seed", "3"], 3), (["--clips-seed=4"], 4), (["--seed=5"], 5)):
        out = tmp_path / str(seed)
        words = ["generate", "--digits", "uci", "--num-clips", "1", "--num-frames", "2", *words, "--out", str(out)]
        assert main(words) == 0
        assert json.loads((out / "dataset.json").read_text())["config"]["clips_seed"] == seed


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--data", "clips", "--condition", "normal"], "--condition is an option of moving digits"),
        (["--data", "clips", "--labels", "digits"], "--labels is an option of moving digits"),
        (["--data", "clips", "--data-dir", "there"], "--digits-dir is an option of moving digits"),
        (["--data", "clips", "--num_frames=3"], "--num-frames is an option of moving digits"),
        (["--group", "_([0-9]+)_"], "--group is an option for a folder of clips; name the folder with --data"),
        (["--data", "nowhere"], "nowhere"),
    ],
)
def test_options_of_digits_and_of_folders_do_not_mix(words, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clips").mkdir()
    (tmp_path / "there").mkdir()
    assert main(["train", *words, "--steps", "1", "--batch-size", "1", "--out", "run"]) in (1, 2)
    assert message in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "run").exists()


DIGITS = ["--digits", "uci", "--condition", "normal", "rotation", "--labels", "digits", "--num-digits", "1", "2"]


def test_a_run_goes_on_with_the_clips_that_it_began_with(capsys, tmp_path, monkeypatch):
    words = ["train", "--steps", "4", "--batch-size", "2", "--precision", "float32", "--device", "cpu"]
    clips = [*DIGITS, "--num-frames", "5", "--clutter", "1"]
    assert main([*words, *clips, "--out", str(tmp_path / "whole")]) == 0

    def stop_at_2(row):
        if row["step"] == 2:
            signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patched:
        patched.setattr(console, "training_bar", lambda _model: nullcontext(stop_at_2))
        assert main([*words, *clips, "--out", str(tmp_path / "run")]) == 130
    assert main([*words, "--condition", "normal", "--resume", "--out", str(tmp_path / "run")]) == 2
    assert "was made with" in capsys.readouterr().err
    assert main([*words, "--resume", "--out", str(tmp_path / "run")]) == 0
    resumed, whole = (load_file(tmp_path / name / "checkpoint.safetensors") for name in ("run", "whole"))
    assert resumed.keys() == whole.keys()
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)


def test_clips_of_a_test_may_differ_from_those_of_training_in_what_is_given_alone(capsys, tmp_path):
    assert main([*TINY, "--labels", "digits", "--num-digits", "1", "3", "--steps", "1", "--out", str(tmp_path)]) == 0
    capsys.readouterr()
    words = ["evaluate", "--model", str(tmp_path), "--num-clips", "2", "--num-frames", "2", "--json"]
    for given, (num_digits, clutter) in (
        ([], (2, None)),
        (["--num-digits", "1", "3", "--clutter", "1"], ("1 to 3", 1)),
    ):
        assert main([*words, *given]) == 0
        row = json.loads(capsys.readouterr().out)["row"]
        assert (row["labels"], row["num_digits"], row["clutter"]) == ("digits", num_digits, clutter)


# --- Errors


def test_an_unknown_verb_names_the_nearest(capsys):
    assert main(["trian"]) == 2
    shown = capsys.readouterr()
    assert only_line(shown.err).startswith("saccade: no verb is called 'trian'; did you mean 'train'?")
    assert shown.out == ""


@pytest.mark.parametrize(
    "words",
    [
        ["train", "--modle", "lenet-lstm"],
        ["train", "--steps", "many"],
        ["train", "--steps", "2", "--minutes", "1"],
        ["train", "--condition", "rotated"],
        [*TINY, "--model", "lenet-ltsm"],
        [*TINY, "--steps", "0"],
        [*TINY, "--device", "tpu"],
        ["train", "--digits", "no/such/folder"],
    ],
)
def test_a_wrong_call_exits_with_2_and_writes_nothing(words, capsys, tmp_path):
    out = tmp_path / "run"
    try:
        status = main([*words, "--out", str(out)])
    except SystemExit as ended:
        status = ended.code
    assert status == 2
    shown = capsys.readouterr()
    assert "Traceback" not in shown.err
    assert shown.err.strip() or shown.out.strip()
    assert not out.exists()


def test_bad_data_exits_with_1_in_one_line(capsys, tmp_path):
    (tmp_path / "digits").mkdir()
    (tmp_path / "digits" / "train-images-idx3-ubyte").write_bytes(b"\0\0\x08\x03")
    status = main(["train", "--digits", str(tmp_path / "digits"), "--out", str(tmp_path / "run"), "--steps", "1"])
    assert status == 1
    assert only_line(capsys.readouterr().err).startswith("saccade: no train-labels-idx1-ubyte in")
    assert not (tmp_path / "run").exists()


def test_a_broken_checkpoint_exits_with_1_in_one_line(capsys, tmp_path):
    (tmp_path / "checkpoint.safetensors").write_bytes(b"broken")
    assert main([*TINY, "--start-from", str(tmp_path), "--out", str(tmp_path / "run"), "--steps", "1"]) == 1
    assert "is not a complete safetensors file" in only_line(capsys.readouterr().err)


def test_an_unwritable_folder_exits_with_1_in_one_line(capsys, tmp_path):
    (tmp_path / "file").write_text("kept")
    assert main([*TINY, "--steps", "1", "--out", str(tmp_path / "file" / "run")]) == 1
    assert only_line(capsys.readouterr().err).startswith("saccade: ")
    assert (tmp_path / "file").read_text() == "kept"


@pytest.mark.parametrize("words", [["--debug", "trian"], ["trian", "--debug"]])
def test_debug_shows_the_whole_error(words, capsys):
    assert main(words) == 2
    shown = capsys.readouterr().err
    assert "Traceback (most recent call last)" in shown
    assert "UsageError: no verb is called 'trian'" in shown


def raising(error):
    def make(_words):
        def verb() -> None:
            raise error

        return verb

    return VERBS["info"]._replace(make=make)


def test_an_error_of_several_lines_is_told_in_one(capsys, monkeypatch):
    monkeypatch.setitem(VERBS, "info", raising(OSError("first\n  second")))
    assert main(["info"]) == 1
    assert only_line(capsys.readouterr().err) == "saccade: first second"


def test_an_interrupt_without_anything_saved_promises_nothing(capsys, monkeypatch):
    monkeypatch.setitem(VERBS, "info", raising(KeyboardInterrupt()))
    assert main(["info"]) == 130
    assert only_line(capsys.readouterr().err) == "interrupted"


# --- Verbs


def test_info_tells_versions_models_and_digits(capsys):
    assert main(["info"]) == 0
    shown = capsys.readouterr().out
    for wanted in (torch.__version__, saccade.__version__, "lenet-lstm", "dcn-lstm", "parameters", "digits"):
        assert wanted in shown


def test_train_writes_a_run_and_says_what_comes_next(capsys, tmp_path):
    out = tmp_path / "a b"
    assert main([*TINY, "--steps", "2", "--out", str(out)]) == 0
    shown = " ".join(capsys.readouterr().err.split())
    assert "step 2/2" in shown
    assert f"saccade evaluate --model '{out}'" in shown.replace("\n", "")
    assert json.loads((out / "run.json").read_text())["finished"]
    assert main([*TINY, "--steps", "2", "--out", str(out)]) == 2
    assert "already holds a finished run; choose another --out" in capsys.readouterr().err


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("own") / "clips", per_class=6, num_people=6)


def test_a_model_that_learned_from_a_folder_is_told_beside_simple_classifiers(own, capsys, tmp_path):
    words = ["train", "--data", str(own), "--model", "stn-lstm", "--batch-size", "2", "--precision", "float32"]
    assert main([*words, "--steps", "3", "--out", str(tmp_path / "run")]) == 0
    told = capsys.readouterr()
    assert "step 3/3  loss" in told.err
    assert re.search(r"training accuracy +\d+%  validation +\d+%", told.err)
    assert re.search(r"^step \d is kept, the best on 2 validation clips", told.err, re.MULTILINE)
    first, header, *table = told.out.splitlines()
    assert first == (
        "accuracy on the 2 validation clips, on which the step was chosen (bootstrap intervals over clips):"
    )
    assert header.split() == ["classifier", "accuracy", "95", "%", "interval"]
    pretrained = ["pretrained features"] if efficientnet.pretrained_file() else []  # only with the extra
    begins = ["largest class", "metadata", "mean frame", "motion energy", *pretrained]
    begins += ["model (stn-lstm)", "without attention"]
    assert [row.startswith(begin) for row, begin in zip(table, begins, strict=False)] == [True] * len(begins)
    assert "the best baseline" in table[len(begins)]
    assert "model (stn-lstm)" in table[-1]
    assert "without attention" in table[-1]


def test_augmentation_can_be_switched_off(own, capsys, tmp_path):
    words = ["train", "--data", str(own), "--batch-size", "2", "--precision", "float32", "--steps", "1"]
    for name, more in (("plain", ["--no-augment"]), ("augmented", ["--steps", "1"])):
        assert main([*words, *more, "--out", str(tmp_path / name)]) == 0
    configs = [checkpoint.read_header(tmp_path / name).training["config"] for name in ("plain", "augmented")]
    assert [config["augment"] for config in configs] == [False, True]
    plain, augmented = (load_file(tmp_path / name / "checkpoint.safetensors") for name in ("plain", "augmented"))
    assert any(not torch.equal(plain[name], augmented[name]) for name in plain)


def test_clips_can_be_turned_by_any_angle_and_digits_turn_by_themselves(own, capsys, tmp_path):
    words = ["train", "--steps", "1", "--batch-size", "2", "--precision", "float32", "--max-angle-deg", "180"]
    assert main([*words, "--data", str(own), "--out", str(tmp_path / "turned")]) == 0
    assert main([*words[:-2], "--data", str(own), "--out", str(tmp_path / "plain")]) == 0
    turned, plain = (load_file(tmp_path / name / "checkpoint.safetensors") for name in ("turned", "plain"))
    assert any(not torch.equal(turned[name], plain[name]) for name in plain)
    assert main([*words, "--digits", "uci", "--out", str(tmp_path / "digits")]) == 2
    assert "max_angle_deg turns stored clips" in capsys.readouterr().err


def test_preview_draws_clips_and_tells_what_it_left_out(own, capsys, tmp_path):
    root = shutil.copytree(own, tmp_path / "clips")
    broken = next((root / "down").glob("*.mp4"))
    broken.write_bytes(b"no video")
    words = ["preview", "--data", str(root), "--num-clips", "12", "--num-views", "1"]
    assert main([*words, "--out", str(tmp_path / "seen.png")]) == 0
    told = capsys.readouterr().err
    assert f"left out: {broken}" in told
    assert re.search(rf"^wrote {tmp_path / 'seen.png'}, \d+ kB$", told, re.MULTILINE)
    assert (tmp_path / "seen.png").read_bytes().startswith(b"\x89PNG")


def interrupt(words, when):
    """Start a command, press Ctrl-C once it has said `when`, and return status and what it said."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        [sys.executable, "-m", "saccade.cli", *words],
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        # A shell that starts tests in the background has Ctrl-C ignored; not so the command.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as process:
        said = ""
        for line in process.stderr:
            said += line
            if when in line:
                process.send_signal(signal.SIGINT)
                when = "\0"
        return process.wait(timeout=60), said


def test_ctrl_c_saves_and_says_how_to_go_on_to_the_same_bits(tmp_path):
    words = [*TINY, "--steps", "30", "--out", str(tmp_path / "run")]
    status, said = interrupt(words, "step 3/30")
    assert status == 130
    saved, _, hint = said.rpartition("\n")[0].rpartition("\n")
    assert hint == f"continue with: saccade {' '.join(words)} --resume"
    assert "Traceback" not in said
    found = re.search(r"^interrupted: saved at step (\d+) of 30 in .*$", saved, re.MULTILINE)
    assert found
    assert 3 <= int(found[1]) < 30
    command = hint.removeprefix("continue with: saccade ")
    assert main(command.split()) == 0
    assert main([*TINY, "--steps", "30", "--out", str(tmp_path / "whole")]) == 0
    resumed, whole = (load_file(tmp_path / name / "checkpoint.safetensors") for name in ("run", "whole"))
    assert resumed.keys() == whole.keys()
    for name in whole:
        assert torch.equal(resumed[name], whole[name]), name


def test_a_reader_that_leaves_is_no_crash():
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "saccade.cli", "--help"]
    with os.fdopen(writing) as gone:
        ended = subprocess.run(command, stdout=gone, stderr=subprocess.PIPE, text=True, check=False)
    assert ended.stderr == ""


@pytest.mark.parametrize("command", [["-m", "saccade"], ["-m", "saccade.cli"], None])
@pytest.mark.parametrize(
    ("module", "content"),
    [
        ("shlex", "raise KeyboardInterrupt"),  # of the command line itself
        ("tyro", "signal.raise_signal(signal.SIGINT)"),
        # What extension modules do: the error is lost, or becomes another one.
        ("tyro", "with contextlib.suppress(KeyboardInterrupt): signal.raise_signal(signal.SIGINT)"),
        ("tyro", "try: signal.raise_signal(signal.SIGINT)\nexcept KeyboardInterrupt: raise ImportError from None"),
    ],
)
def test_ctrl_c_while_modules_are_imported_ends_the_command_without_a_traceback(command, module, content, tmp_path):
    # The module is not imported: this one stands in front of it.
    (tmp_path / f"{module}.py").write_text(f"import contextlib, signal\n{content}\n")
    program = [Path(sys.executable).parent / "saccade"] if command is None else [sys.executable, *command]
    ended = subprocess.run(
        [*program, "info"], capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(tmp_path)}, check=False
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "interrupted\n")


def test_an_ignored_interrupt_stays_ignored():
    # As in a script that starts the command with `&`.
    script = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "from saccade.cli import main; main(['info'])\n"
        "sys.exit(signal.getsignal(signal.SIGINT) != signal.SIG_IGN)"
    )
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, check=False).returncode == 0


def test_the_command_is_installed():
    ended = run("info", "--help")
    assert ended.returncode == 0
    assert "saccade info" in ended.stdout


def test_one_bad_clip_does_not_lose_the_others(capsys, tmp_path):
    assert (
        main(["generate", "--num-clips", "2", "--num-frames", "4", "--digits", "uci", "--out", str(tmp_path / "clips")])
        == 0
    )
    assert main([*TINY, "--steps", "1", "--out", str(tmp_path / "run")]) == 0
    (tmp_path / "clips" / "00" / "a.mp4").write_bytes(b"broken")
    capsys.readouterr()
    assert main(["predict", str(tmp_path / "clips"), "--model", str(tmp_path / "run"), "--json"]) == 1
    told = capsys.readouterr()
    found = [Path(json.loads(line)["clip"]).name for line in told.out.splitlines()]
    assert found == ["000000.mp4", "000001.mp4"]
    bad, total = told.err.splitlines()
    assert "a.mp4" in bad
    assert total == "saccade: 1 of 3 clips cannot be read; see the messages above"


def test_a_published_model_is_sent_to_its_protocol(capsys, tmp_path):
    assert main(["train", "--model", "dcn-lstm-published", "--out", str(tmp_path / "run")]) == 2
    assert "saccade reproduce --preset published" in only_line(capsys.readouterr().err)


def test_a_result_that_cannot_be_kept_is_told_before_the_work(capsys, tmp_path):
    assert main([*TINY, "--steps", "1", "--out", str(tmp_path / "run")]) == 0
    capsys.readouterr()
    words = ["evaluate", "--model", str(tmp_path / "run"), "--num-clips", "2", "--out"]
    assert main([*words, "/dev/full"]) == 1
    assert "/dev/full" in only_line(capsys.readouterr().err)
    (tmp_path / "notes.csv").write_text("a,b\n1,2\n")
    assert main([*words, str(tmp_path / "notes.csv")]) == 1
    assert "has no column model" in only_line(capsys.readouterr().err)


def test_training_writes_into_no_foreign_folder(capsys, tmp_path):
    (tmp_path / "thesis.txt").write_text("kept")
    assert main([*TINY, "--steps", "1", "--out", str(tmp_path)]) == 2
    assert "holds thesis.txt, but no run" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_errors_of_the_system_name_what_they_are_of(tmp_path, capsys):
    (tmp_path / "file").touch()
    clip = str(PLAIN)
    for words, told in [
        (
            ["explain", clip, "-o", str(tmp_path / "file" / "a.html")],
            f"{tmp_path / 'file'}: is a file; a folder is needed",
        ),
        (["predict", f"{'x' * 300}.mp4", "--model", "dcn-lstm"], f"{'x' * 300}.mp4: File name too long"),
        (["explain", clip, "-o", str(tmp_path / f"{'x' * 300}.html")], f"{'x' * 300}.html: File name too long"),
    ]:
        assert main(words) == 1
        assert told in capsys.readouterr().err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_standard_output_is_told(tmp_path):
    for words in (["predict", str(PLAIN), "--model", "dcn-lstm", "--json"], ["--help"]):
        with Path("/dev/full").open("w") as full:
            command = [sys.executable, "-m", "saccade.cli", *words]
            ended = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
        assert (ended.returncode, ended.stderr) == (1, "saccade: standard output: No space left on device\n")
