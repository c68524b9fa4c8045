"""What `saccade train` says of clips that are damaged, and of a model that follows streams."""

import pytest
from tests.own_clips import CLASSES, write_folder

from saccade.cli import train_told
from saccade.data import Folder
from saccade.stream.joined import Found


def test_damaged_clips_are_named_whether_they_are_left_out_or_read_in_part(tmp_path, capsys):
    root = write_folder(tmp_path / "clips", per_class=3)
    whole = (root / CLASSES[1] / f"{CLASSES[1]}_00_0.mp4").read_bytes()
    (root / CLASSES[1] / "cut.mp4").write_bytes(whole[:-1])
    (root / CLASSES[0] / "broken.mp4").write_bytes(b"no video")
    train_told.scanned(Folder(root))
    (told,) = (line for line in capsys.readouterr().err.replace("\n", " ").split("left out: ") if "broken.mp4" in line)
    assert "read in part: " in told
    assert "cut.mp4" in told.partition("read in part: ")[2]


@pytest.mark.parametrize(
    ("num_found", "num_false", "said"),
    [(20, 2, None), (2, 0, "the model notices few events"), (20, 60, "no threshold gives one false alarm a minute")],
)
def test_a_model_that_notices_little_or_too_much_comes_with_advice(capsys, num_found, num_false, said):
    train_told.events(Found(0.5, 24, num_found, num_false, minutes=11.0, delay_s=1.0))
    told = " ".join(capsys.readouterr().err.split())
    assert f"{num_found} of 24 events found" in told
    for advice in ("the model notices few events", "no threshold gives one false alarm a minute"):
        assert (advice in told) == (advice == said)
