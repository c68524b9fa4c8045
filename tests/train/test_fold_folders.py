"""What the folds of a cross-validation settle for the model of all clips, and what is said of those that are done."""

import json
from pathlib import Path

import pytest

from saccade import run_folder
from saccade.errors import UsageError
from saccade.train import fold_folders


def validated(step, temperature, threshold=None):
    """Return what a fold says of its validation."""
    events = {} if threshold is None else {"events": {"threshold": threshold}}
    return {"validation": {"kept_step": step, "temperature": temperature} | events}


def write(folder: Path, **facts):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / run_folder.RUN).write_text(json.dumps({"config": {}, "finished": True} | facts), encoding="utf-8")


def write_folds(out, *folds):
    for number, facts in enumerate(folds, 1):
        write(fold_folders.folder_of(out, number), steps=900, **facts)


def test_all_folds_count_if_all_had_clips_for_validation(tmp_path):
    write_folds(tmp_path, validated(10, 1.5, 0.5), validated(30, 2.5, 0.9), validated(20, 4.0, 0.8))
    found = fold_folders.settled(tmp_path, 3)
    assert (found.steps, found.temperature, found.threshold) == (20, 2.5, 0.8)
    assert found.told == "20 steps, the threshold 0.8 and the temperature 2.50, the medians of the folds"


def test_folds_without_validation_are_left_out_of_the_medians(tmp_path):
    write_folds(tmp_path, {}, validated(10, 2.0), {}, validated(30, 3.0), {})
    found = fold_folders.settled(tmp_path, 5)
    assert (found.steps, found.temperature, found.threshold) == (30, 2.5, None)
    assert found.told == (
        "30 steps and the temperature 2.50, the medians of 2 of 5 folds; the others had no clips for validation"
    )


@pytest.mark.parametrize(("steps", "told"), [(1, "1 step"), (7, "7 steps")])
def test_without_any_validation_it_says_that_probabilities_are_not_calibrated(tmp_path, steps, told):
    for number in (1, 2):
        write(fold_folders.folder_of(tmp_path, number), steps=steps)
    found = fold_folders.settled(tmp_path, 2)
    assert (found.steps, found.temperature, found.threshold) == (steps, 1, None)
    assert found.told == f"{told}; probabilities are not calibrated, since no fold had clips for validation"


def test_nothing_is_settled_before_all_folds_are_finished(tmp_path):
    write_folds(tmp_path, validated(10, 2.0), {"finished": False})
    with pytest.raises(UsageError, match="fold-2 is not finished; cross-validate first"):
        fold_folders.settled(tmp_path, 2)


@pytest.mark.parametrize(
    ("num_done", "told"),
    [
        (0, "no fold is done; continuing with fold 1"),
        (1, "fold 1 is done; continuing with fold 2"),
        (2, "folds 1 and 2 are done; continuing with fold 3"),
        (3, "folds 1 to 3 are done; continuing with fold 4"),
        (4, "folds 1 to 4 are done; continuing with all clips"),
    ],
)
def test_what_is_done_is_told(tmp_path, num_done, told):
    write(tmp_path, finished=False)
    write_folds(tmp_path, *[{"finished": number <= num_done} for number in range(1, 5)])
    assert fold_folders.done(tmp_path, 4) == told


def test_a_finished_run_has_nothing_to_continue_with(tmp_path):
    write(tmp_path)
    write_folds(tmp_path, {}, {})
    assert fold_folders.done(tmp_path, 2) == "all folds and the model of all clips are done"
