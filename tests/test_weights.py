"""The weights that come with the package: their cards say what is measured again here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from recipes import cards

from saccade import checkpoint, weights
from saccade.data.digits import DigitsConfig
from saccade.errors import UsageError
from saccade.evaluate import evaluate
from saccade.models import MATCHED

ROOT = Path(__file__).parent.parent
QUICK = ("strokes", "uci")


ROWS = [(name, row) for name in weights.paths() for row in cards.rows_of(name)]
FEW = [(name, row) for name, row in ROWS if row["num_clips"] <= 300 and row["digits"] in QUICK]


def named(value: Any) -> str:
    return value if isinstance(value, str) else f"{value['digits']}-{value['condition']}-{value['num_clips']}"


def test_the_matched_ones_come_first() -> None:
    assert tuple(weights.paths())[: len(MATCHED)] == MATCHED
    assert {name: checkpoint.read_header(path).model for name, path in weights.paths().items()} == {
        name: name for name in weights.paths()
    }


def test_a_card_of_no_model_is_refused() -> None:
    with pytest.raises(UsageError, match="lenet-lstm, stn-lstm, dcn-lstm"):
        weights.card("../weights/lenet-lstm")


@pytest.mark.parametrize("name", weights.paths())
def test_a_checkpoint_is_small_and_has_figures_that_the_suite_measures_again(name: str) -> None:
    assert weights.paths()[name].stat().st_size < 3_000_000
    assert {row["digits"] for known, row in FEW if known == name} == set(QUICK)


@pytest.mark.parametrize("name", weights.paths())
def test_a_card_says_what_checkpoint_and_rows_say(name: str) -> None:
    assert weights.card(name) == cards.text(name), "run: python -m recipes.cards"


def measure_again(name: str, row: dict[str, Any], digits_dir: Path | None = None) -> None:
    """Compare a row with the same evaluation; processors may round one clip to another verdict."""
    model, header = checkpoint.load(weights.paths()[name])
    clips = DigitsConfig(
        digits=row["digits"],
        digits_dir=digits_dir,
        condition=(row["condition"],),
        scheme=header.facts["labels"],
        num_digits=(1, 5) if row["num_digits"] == "1 to 5" else row["num_digits"],
        clutter=row["clutter"] or 0,
        noise=row["noise"] or 0.0,
        num_clips=row["num_clips"],
        num_frames=row["num_frames"],
    ).clips("test")
    with torch.inference_mode():
        found = evaluate(model, clips, precision="float32")
    assert found.accuracy == pytest.approx(row["accuracy"], abs=1.01 / row["num_clips"])
    assert found.cross_entropy == pytest.approx(row["cross_entropy"], rel=0.01)


@pytest.mark.parametrize(("name", "row"), FEW, ids=named)
def test_the_figures_of_a_card_are_found_again(name: str, row: dict[str, Any]) -> None:
    measure_again(name, row)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "row"), [found for found in ROWS if found not in FEW], ids=named)
def test_the_other_figures_of_a_card_are_found_again(
    name: str, row: dict[str, Any], request: pytest.FixtureRequest
) -> None:
    measure_again(name, row, request.getfixturevalue("mnist_folder") if row["digits"] == "mnist" else None)


def test_the_page_of_models_has_every_card() -> None:
    page = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    assert [name for name in weights.paths() if f"weights/{name}.md" not in page] == []
