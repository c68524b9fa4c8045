"""Modules of one's own, curves, test-time turning and the page."""

import contextlib
import re
from pathlib import Path

import pytest
import torch
from torch import nn

from saccade import evaluate
from saccade.errors import UsageError
from saccade.labels import Labels
from saccade.robustness import CHANGES, TurnedCopies, curves, measure, render, turned

DOCUMENT = Path(__file__).parents[2] / "docs" / "robustness.md"


class UpOrDown(nn.Module):
    """Tells whether the upper half is brighter than the lower: a turn by 180 degrees reverses it."""

    def __init__(self, over_time=False):
        super().__init__()
        self.over_time, self.modes, self.ranges, self.calls = over_time, [], [], []

    def forward(self, clips):
        self.modes.append(self.training)
        self.ranges.append(float(clips.max()))
        self.calls.append(tuple(clips.shape[:2]))
        half = clips.shape[-2] // 2
        score = 50 * (clips[..., :half, :].mean((2, 3, 4)) - clips[..., half:, :].mean((2, 3, 4)))
        logits = torch.stack((score, -score), -1)
        return logits if self.over_time else logits[:, -1]


def halves(num=6, num_frames=4, size=32):
    """Clips whose upper or lower half is bright."""
    clips = torch.full((num, num_frames, 1, size, size), 40, dtype=torch.uint8)
    for index, frames in enumerate(clips):
        (frames[..., size // 2 :, :] if index % 2 else frames[..., : size // 2, :]).fill_(200)
    return list(clips), [index % 2 for index in range(num)]


def by_strength(rows, change):
    return {row["strength"]: row["accuracy"] for row in rows if row["change"] == change}


@pytest.mark.parametrize("over_time", [False, True])
def test_a_module_is_right_until_its_clips_are_turned(over_time):
    clips, labels = halves()
    module = UpOrDown(over_time).train()
    rows = measure(module, clips, labels=labels, changes=["turn"], name="mine")
    turn = by_strength(rows, "turn")
    assert by_strength(rows, "none") == {0.0: 1.0}
    assert (turn[45], turn[150], turn[180], turn[330]) == (1.0, 0.0, 0.0, 1.0)
    assert not any(module.modes)
    assert module.training
    assert max(module.ranges) <= 1
    first = rows[0]
    assert {name: first[name] for name in ("model", "num_clips", "seed")} == {
        "model": "mine",
        "num_clips": 6,
        "seed": 0,
    }
    assert [*evaluate.COLUMNS, "change", "strength", "changes_seed"] == [
        *sorted(set(first) & set(evaluate.COLUMNS), key=evaluate.COLUMNS.index),
        *[name for name in first if name not in evaluate.COLUMNS],
    ]


def test_rows_are_written_and_read(tmp_path):
    clips, labels = halves()
    rows = measure(UpOrDown(), clips, labels=labels, changes=["noise"], strengths=[0, 8])
    evaluate.write_rows(tmp_path / "rows.csv", rows)
    assert evaluate.read_rows(tmp_path / "rows.csv") == rows


def test_clips_of_different_lengths_go_through_one_by_one():
    clips, labels = halves()
    module = UpOrDown()
    rows = measure(module, [clip[: 2 + index % 3] for index, clip in enumerate(clips)], labels=labels, changes=["dim"])
    assert rows[0]["accuracy"] == 1
    assert {shape for shape in module.calls if shape[0] > 1} == set()
    assert {length for _, length in module.calls} == {2, 3, 4}


def test_a_module_may_convolve_over_time():
    module = nn.Sequential(nn.Conv3d(4, 2, 3), nn.AdaptiveAvgPool3d(1), nn.Flatten())  # four frames as channels
    clips, labels = halves()
    wide = nn.Module()
    wide.add_module("layers", module)
    wide.forward = lambda frames: module(frames.expand(-1, -1, 3, -1, -1))
    assert len(measure(wide, clips, labels=labels, changes=["noise"], strengths=[8])) == 2


@pytest.mark.parametrize(
    ("module", "labels", "message"),
    [
        (UpOrDown(), [0, 1, 2, 0, 1, 2], "a label is 2; the module has the classes 0 to 1"),
        (UpOrDown(), [0, 1], "6 clips, but 2 targets"),
        (nn.Identity(), [0] * 6, r"the module returned \(1, 4, 1, 32, 32\) for 1 clips; logits"),
    ],
)
def test_a_module_that_does_not_fit_is_told(module, labels, message):
    with pytest.raises(UsageError, match=message):
        measure(module, halves()[0], labels=labels, changes=["turn"])


def test_unknown_changes_and_clips_that_are_no_bytes_are_refused():
    clips, labels = halves()
    with pytest.raises(UsageError, match="did you mean 'noise'"):
        measure(UpOrDown(), clips, labels=labels, changes=["nois"])
    with pytest.raises(UsageError, match=r"the first clip is torch\.float32"):
        measure(UpOrDown(), [clip / 255 for clip in clips], labels=labels)


def test_curves_tell_where_accuracy_falls_and_the_mean_over_the_range():
    def row(change, strength, accuracy):
        told = {"model": "m", "data": "d", "seed": 0, "cross_entropy": 1.0, "num_clips": 100}
        return told | {"change": change, "strength": strength, "accuracy": accuracy}

    scale = {0.4: 0.2, 0.8: 0.8, 2.0: 0.5}
    turn = {90.0: 0.4, 180.0: 0.0, 270.0: 0.8}
    rows = [row("none", 0.0, 0.8), row("noise", 8.0, 0.75), row("noise", 16.0, 0.71)]
    rows += [row("scale", *point) for point in scale.items()] + [row("turn", *point) for point in turn.items()]
    found = {curve.change: curve for curve in curves(rows)}
    assert found["scale"].falls_at() == pytest.approx([0.8 - 0.4 / 6, 1 + 1 / 3])
    assert found["scale"].strongest.strength == 0.4
    assert found["scale"].area == pytest.approx((0.4 * 0.5 + 0.2 * 0.8 + 1.0 * 0.65) / 1.6)
    assert found["noise"].falls_at() == []
    assert found["noise"].unchanged.accuracy == 0.8
    assert found["turn"].falls_at() == pytest.approx([22.5, 270 - 90 / 8])
    assert [point.strength for point in found["turn"].points] == [0, 90, 180, 270, 360]
    low, high, label = found["turn"].unchanged.interval
    assert (round(low, 3), round(high, 3), label) == (0.711, 0.867, "Wilson, 100 clips")


def test_turned_copies_agree_on_a_clip_and_on_its_quarter_turn():
    torch.manual_seed(0)
    layers = nn.Sequential(nn.AdaptiveAvgPool3d((1, 8, 8)), nn.Flatten(), nn.Linear(64, 3), nn.Unflatten(1, (1, 3)))
    model = nn.Module()
    model.forward = lambda clips: layers(clips.float().transpose(1, 2) / 9)
    labels, clips = Labels(("a", "b", "c")), torch.randint(0, 256, (2, 3, 1, 32, 32), dtype=torch.uint8)
    quarter = torch.stack([turned(clip, 90) for clip in clips])
    once, four = (TurnedCopies(model, labels, num) for num in (1, 4))
    assert torch.allclose(once(clips).softmax(-1), model(clips).softmax(-1), atol=1e-6)
    assert not torch.allclose(once(clips).softmax(-1), once(quarter).softmax(-1), atol=1e-3)
    assert torch.allclose(four(clips), four(quarter), atol=1e-5)
    several = TurnedCopies(model, Labels(("a", "b", "c"), exclusive=False), 1)
    assert torch.allclose(several(clips).sigmoid(), model(clips).sigmoid(), atol=1e-5)


def test_the_page_shows_each_change_and_escapes_names():
    clips, labels = halves()
    rows = measure(UpOrDown(), clips, labels=labels, changes=["turn", "dim"], name="<b>$mine$_")
    page = render(rows, chance={"<b>$mine$_": 0.5})
    assert page.count("data:image/svg+xml") == 2
    assert "<b>$mine" not in page
    assert "&lt;b&gt;$mine$_" in page
    assert "Turned" in page
    assert "With noise" not in page
    assert CHANGES["dim"].axis in page


def test_the_example_of_the_page_in_docs_runs(tmp_path):
    (code,) = re.findall(r"<!-- run -->\n```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.S)
    with contextlib.chdir(tmp_path):
        exec(compile(code, str(DOCUMENT), "exec"), {})
    assert "With noise" in (tmp_path / "robustness.html").read_text(encoding="utf-8")
