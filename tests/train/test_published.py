"""The three stages of the published protocol, most of them with a CNN small enough for a test."""

import json
import os
import signal
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from saccade.data import digits as digit_sources
from saccade.data.digits import Digits
from saccade.errors import DataError, Interrupted, NonFiniteError, UsageError
from saccade.models.published import GreyInput, PublishedCNN, lenet_cnn
from saccade.train import published, published_retraining
from saccade.train.digit_batches import augment, digit_batch, draw_generator, steps_per_epoch
from saccade.train.published import PublishedConfig, run
from saccade.train.published_cnn import DigitTraining, Limits, train_cnn
from saccade.train.published_retraining import retrain


def small_cnn() -> PublishedCNN:
    seen = [GreyInput(), nn.AvgPool2d(4), nn.Conv2d(1, 8, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)]
    return PublishedCNN(nn.Sequential(*seen, nn.Flatten(), nn.Linear(8 * 8 * 8, 500), nn.ReLU()))


def new_training(digits: Digits, limits: Limits, seed: int = 0) -> DigitTraining:
    torch.manual_seed(0)
    return DigitTraining(small_cnn(), "small", digits, limits, seed=seed)


def weights_of(training: DigitTraining) -> Tensor:
    return torch.cat([p.detach().flatten() for p in training.cnn.parameters()])


@pytest.fixture(scope="module")
def seen_digits() -> Digits:
    return digit_sources.load("uci", "train")


@pytest.fixture(scope="module")
def unseen_digits() -> Digits:
    return digit_sources.load("uci", "test")


# --- what stage 1 sees


def lit_extents(zoomed: Tensor) -> tuple[Tensor, Tensor]:
    """Return size and centre in pixels of the lit rectangle, one per frame, along one axis."""
    mass = zoomed / zoomed.amax(1, keepdim=True)
    size = mass.sum(1)
    centre = (mass * (torch.arange(64) + 0.5)).sum(1) / size
    return size, centre


@pytest.mark.parametrize("axis", [2, 3])
def test_digits_are_shifted_then_zoomed_out(axis: int) -> None:
    frames = augment(torch.full((400, 28, 28), 255, dtype=torch.uint8), torch.Generator().manual_seed(0))
    size, centre = lit_extents(frames.sum(axis).squeeze(1))
    # A shifted image is cut by up to 0.2 at one edge, then everything shrinks by up to 2.5.
    assert 64 / 2.5 * 0.8 - 1 < size.min() < 64 / 2.5
    assert 60 < size.max() <= 64
    # Before the cut the centre moves by up to 0.2 / zoom of the frame: more than that never shows.
    assert (centre - 32).abs().max() < 0.2 * 64
    # At the largest zooms nothing reaches the frame's edge, and the shift is that of the whole image.
    far = size < 30
    assert (centre[far] - 32).abs().max() < 0.2 * 64 / 2.0


def test_zoom_and_shift_are_independent_in_x_and_y() -> None:
    frames = augment(torch.full((400, 28, 28), 255, dtype=torch.uint8), torch.Generator().manual_seed(0))
    height, y = lit_extents(frames.sum(3).squeeze(1))
    width, x = lit_extents(frames.sum(2).squeeze(1))
    for one, other in ((height, width), (y, x)):
        assert torch.corrcoef(torch.stack((one, other)))[0, 1].abs() < 0.15


def test_digits_are_not_turned() -> None:
    stripe = torch.zeros(20, 28, 28, dtype=torch.uint8)
    stripe[:, :, 14:] = 255
    for frame in augment(stripe, torch.Generator().manual_seed(1)).squeeze(1):
        lit_rows = frame[frame.sum(1) > 0.5 * frame.sum(1).max()]
        assert len(lit_rows) > 10
        lit_rows = lit_rows / lit_rows.amax(1, keepdim=True)  # rows at the border are darker, but alike
        assert (lit_rows - lit_rows[0]).abs().max() < 0.01


def test_augmented_frames_are_grey_levels_between_black_and_white(seen_digits: Digits) -> None:
    frames = augment(seen_digits.images[:50], torch.Generator())
    assert frames.shape == (50, 1, 64, 64)
    assert frames.min() == 0
    assert 0.9 < frames.max() <= 1.0001


def test_an_epoch_shows_every_digit_once(seen_digits: Digits) -> None:
    marked = Digits(seen_digits.images, torch.arange(len(seen_digits.labels)), "uci", "train")
    num_steps = steps_per_epoch(marked)
    first, second = (
        torch.cat([digit_batch(marked, 0, step)[1] for step in range(start, start + num_steps)])
        for start in (0, num_steps)
    )
    assert torch.equal(first.sort().values, marked.labels)
    assert torch.equal(second.sort().values, marked.labels)
    assert not torch.equal(first, second)


def test_a_batch_is_a_function_of_seed_and_step(seen_digits: Digits) -> None:
    frames, labels = digit_batch(seen_digits, 3, 40)
    again, same_labels = digit_batch(seen_digits, 3, 40)
    assert torch.equal(frames, again)
    assert torch.equal(labels, same_labels)
    for seed, step in ((3, 41), (4, 40)):
        assert not torch.equal(frames, digit_batch(seen_digits, seed, step)[0])


def test_draws_for_different_purposes_differ() -> None:
    draws = [
        torch.rand((), generator=draw_generator(*counters)).item() for counters in ((0, 0), (0, 1), (1, 0), (0, 0, 1))
    ]
    assert len(set(draws)) == 4


# --- stage 1


def test_stage_1_learns(seen_digits: Digits, unseen_digits: Digits, tmp_path: Path) -> None:
    training = new_training(seen_digits, Limits(epochs=3))
    before = training.accuracy_on(unseen_digits)
    train_cnn(training, unseen_digits, tmp_path / "c.safetensors")
    assert training.standing.step == 3 * steps_per_epoch(seen_digits)
    assert training.standing.accuracy == training.accuracy_on(unseen_digits)
    assert training.standing.accuracy > before + 0.1


def test_resuming_gives_the_same_bits(seen_digits: Digits, unseen_digits: Digits, tmp_path: Path) -> None:
    whole = new_training(seen_digits, Limits(max_steps=12))
    train_cnn(whole, unseen_digits, tmp_path / "whole.safetensors")

    for max_steps in (5, 12):
        parts = new_training(seen_digits, Limits(max_steps=max_steps))
        train_cnn(parts, unseen_digits, tmp_path / "parts.safetensors")
    assert torch.equal(weights_of(whole), weights_of(parts))
    assert whole.standing == parts.standing


@pytest.mark.skipif(os.name == "nt", reason="signals are POSIX")
def test_ctrl_c_saves_a_whole_step(seen_digits: Digits, unseen_digits: Digits, tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    limits = Limits(max_steps=12)

    def press(row: dict[str, float]) -> None:
        if row["step"] == 5:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(Interrupted, match="step 5"):
        train_cnn(new_training(seen_digits, limits), unseen_digits, path, progress=press)
    resumed = new_training(seen_digits, limits)
    rows: list[dict[str, float]] = []
    train_cnn(resumed, unseen_digits, path, progress=rows.append)
    assert [row["step"] for row in rows] == list(range(6, 13))

    whole = new_training(seen_digits, limits)
    train_cnn(whole, unseen_digits, tmp_path / "whole.safetensors")
    assert torch.equal(weights_of(whole), weights_of(resumed))


def test_saves_every_so_often_and_logs(seen_digits: Digits, unseen_digits: Digits, tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    training = new_training(seen_digits, Limits(max_steps=4))
    seen: list[bool] = []
    train_cnn(training, unseen_digits, path, save_every_s=0.0, progress=lambda row: seen.append(path.exists()))
    assert seen == [False, True, True, True]
    last = json.loads((tmp_path / "log.jsonl").read_text().splitlines()[-1])
    assert (last["step"], last["num_steps"]) == (4, 4)


def test_a_finished_stage_is_not_trained_again(seen_digits: Digits, unseen_digits: Digits, tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    limits = Limits(max_steps=3)
    first = new_training(seen_digits, limits)
    train_cnn(first, unseen_digits, path)
    written = path.stat().st_mtime_ns
    again = new_training(seen_digits, limits)
    train_cnn(again, unseen_digits, path)
    assert path.stat().st_mtime_ns == written
    assert torch.equal(weights_of(first), weights_of(again))
    assert again.standing == first.standing


def test_minutes_fix_the_number_of_steps_once(seen_digits: Digits, unseen_digits: Digits, tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    limits = Limits(epochs=100, minutes=0.01)
    training = new_training(seen_digits, limits)
    planned: list[float] = []

    def press(row: dict[str, float]) -> None:
        planned.append(row["num_steps"])
        if row["step"] == 13:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(Interrupted):
        train_cnn(training, unseen_digits, path, progress=press)
    assert planned[0] == 100 * steps_per_epoch(seen_digits)
    assert 13 <= planned[-1] < planned[0]
    resumed = new_training(seen_digits, limits)
    train_cnn(resumed, unseen_digits, path)
    assert resumed.standing.step == planned[-1]


def test_a_loss_that_is_not_finite_keeps_the_last_checkpoint(
    seen_digits: Digits, unseen_digits: Digits, tmp_path: Path
) -> None:
    path = tmp_path / "c.safetensors"
    train_cnn(new_training(seen_digits, Limits(max_steps=3)), unseen_digits, path)
    good = path.read_bytes()
    training = new_training(seen_digits, Limits(max_steps=6))

    def spoil(row: dict[str, float]) -> None:
        training.cnn.logits.bias.data[0] = float("nan")

    with pytest.raises(NonFiniteError, match="loss of stage 1 is nan at step 4"):
        train_cnn(training, unseen_digits, path, progress=spoil)
    with pytest.raises(NonFiniteError, match=r"logits\.bias is not finite"):
        training.save(path)
    assert path.read_bytes() == good


def test_refuses_a_checkpoint_of_another_run(seen_digits: Digits, unseen_digits: Digits, tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    train_cnn(new_training(seen_digits, Limits(max_steps=3)), unseen_digits, path)
    with pytest.raises(UsageError, match="seed 0; small on uci with seed 1 is wanted"):
        train_cnn(new_training(seen_digits, Limits(max_steps=3), seed=1), unseen_digits, path)
    others = Digits(seen_digits.images, seen_digits.labels, "mnist", "train")
    with pytest.raises(UsageError, match="small on uci"):
        train_cnn(new_training(others, Limits(max_steps=3)), unseen_digits, path)
    with pytest.raises(UsageError, match="at step 3, at most 2 are wanted"):
        train_cnn(new_training(seen_digits, Limits(max_steps=2)), unseen_digits, path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError):
        train_cnn(new_training(seen_digits, Limits(max_steps=3)), unseen_digits, path)


def test_bfloat16_stays_close_to_float32(seen_digits: Digits) -> None:
    torch.manual_seed(0)
    cnn = lenet_cnn()
    frames, _ = digit_batch(seen_digits, 0, 0)
    exact, rounded = (
        DigitTraining(cnn, "lenet", seen_digits, Limits(), seed=0, dtype=dtype).logits(frames[:8]).detach()
        for dtype in (torch.float32, torch.bfloat16)
    )
    assert rounded.dtype == torch.float32
    assert 0 < (exact - rounded).abs().max() < 0.05 * exact.abs().max()


# --- stage 3


def separable(num_classes: int, spread: float, seed: int) -> tuple[Tensor, Tensor]:
    """Return one sequence per class: the class's own mean and some noise."""
    means = torch.randn(num_classes, 1, 500, generator=torch.Generator().manual_seed(0))
    noise = torch.randn(num_classes, 6, 500, generator=torch.Generator().manual_seed(seed))
    return means + spread * noise, torch.arange(num_classes)


def test_a_retraining_is_what_a_plain_loop_does() -> None:
    train, test = separable(60, 0.5, 1), separable(60, 0.5, 2)
    together = retrain(*train, *test, num_retrainings=3, num_classes=60, seed=5)
    for number in range(3):
        generator = draw_generator(5, 3, number)
        model = published_retraining._fresh(6, 60, generator)
        # Keras's RMSprop, spelled out.
        optimizer = torch.optim.RMSprop(model.parameters(), lr=1e-3, alpha=0.9, eps=1e-8)
        for _ in range(10):
            for chosen in torch.randperm(60, generator=generator).split(50):
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(train[0][chosen]), train[1][chosen]).backward()
                optimizer.step()
        with torch.no_grad():
            logits = model(test[0])
        torch.testing.assert_close(together.cross_entropy[number], nn.functional.cross_entropy(logits, test[1]))
        accuracy = (logits.argmax(1) == test[1]).float().mean()
        assert together.accuracy[number].item() == pytest.approx(accuracy.item(), abs=1 / 60)


def test_a_retraining_does_not_depend_on_how_many_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    data = *separable(20, 0.5, 1), *separable(20, 0.5, 2)
    monkeypatch.setattr(published_retraining, "_AT_ONCE_ON_CPU", 2)
    some = retrain(*data, num_retrainings=3, num_classes=20)
    more = retrain(*data, num_retrainings=5, num_classes=20)
    torch.testing.assert_close(some.cross_entropy, more.cross_entropy[:3])
    assert len(set(more.cross_entropy.tolist())) == 5  # each has a seed of its own
    other = retrain(*data, num_retrainings=3, num_classes=20, seed=1)
    assert not torch.isclose(some.cross_entropy, other.cross_entropy).any()


def test_retraining_learns_what_can_be_learned() -> None:
    train = separable(20, 0.2, 1)
    easy = retrain(*train, *separable(20, 0.2, 2), num_retrainings=4, num_classes=20)
    assert easy.accuracy.min() > 0.5
    shuffled = separable(20, 0.2, 2)[1].roll(1)
    wrong = retrain(*train, train[0], shuffled, num_retrainings=4, num_classes=20)
    assert wrong.accuracy.max() < 0.1


# --- all three


@pytest.fixture
def small_models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(published.CNNS, "lenet-lstm-published", small_cnn)
    monkeypatch.setattr(published, "NUM_CLIPS", 10)


def small_config(**changes: object) -> PublishedConfig:
    fixed: dict[str, object] = {
        "digits": "uci",
        "max_steps": 4,
        "retrainings": 2,
        "device": "cpu",
        "precision": "float32",
    }
    return PublishedConfig(**(fixed | changes))  # type: ignore[arg-type]


def file_times(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.rglob("*.safetensors")}


@pytest.mark.usefixtures("small_models")
def test_cells_share_stage_1_and_the_training_features(tmp_path: Path) -> None:
    shared = run(small_config(instances="shared"), tmp_path)
    assert {name: shared[name] for name in ("model", "protocol", "condition", "digits", "instances")} == {
        "model": "lenet-lstm-published",
        "protocol": "published",
        "condition": "normal",
        "digits": "uci",
        "instances": "shared",
    }
    assert (shared["labels"], shared["order"], shared["seed"], shared["num_clips"]) == ("ordered", "visible", 0, 10)
    assert (shared["stage1_steps"], shared["retrainings"]) == (4, 2)
    assert 0 <= shared["accuracy"] <= 1
    assert shared["cross_entropy"] > 0
    before = file_times(tmp_path)
    assert set(before) == {
        "checkpoint.safetensors",
        "features-normal-visible-train-test.safetensors",
        "features-normal-visible-train-train.safetensors",
    }

    disjoint = run(small_config(instances="disjoint"), tmp_path)
    assert disjoint["stage1_accuracy"] == shared["stage1_accuracy"]
    assert disjoint["cross_entropy"] != shared["cross_entropy"]
    after = file_times(tmp_path)
    assert after.keys() - before.keys() == {"features-normal-visible-test-test.safetensors"}
    assert all(after[name] == time for name, time in before.items())
    assert run(small_config(instances="disjoint"), tmp_path) == disjoint


def test_tested_on_its_training_clips_a_model_says_what_it_learned_by_heart(tmp_path):
    by_heart = run(small_config(instances="training_clips", retrainings=5), tmp_path)
    other_trajectories = run(small_config(instances="shared", retrainings=5), tmp_path)
    assert by_heart["accuracy"] > 2 * other_trajectories["accuracy"]
    assert by_heart["cross_entropy"] < other_trajectories["cross_entropy"]


@pytest.mark.usefixtures("small_models")
def test_features_are_made_anew_where_they_are_stale_or_damaged(tmp_path: Path) -> None:
    row = run(small_config(), tmp_path)
    [path] = tmp_path.rglob("features-*-train-train.safetensors")
    path.write_bytes(path.read_bytes()[:1000])
    assert run(small_config(), tmp_path) == row
    longer = run(small_config(max_steps=8), tmp_path)
    assert longer["stage1_steps"] == 8
    assert longer["cross_entropy"] != row["cross_entropy"]


@pytest.mark.usefixtures("small_models")
def test_features_are_those_of_the_frames(tmp_path: Path, seen_digits: Digits, unseen_digits: Digits) -> None:
    training = new_training(seen_digits, Limits(max_steps=2))
    train_cnn(training, unseen_digits, tmp_path / "c.safetensors")
    clips = published.MovingDigits(seen_digits, published.Motion("rotation"), labels="ordered", num_clips=3)
    found = published.extract(training, clips)
    assert found["labels"].tolist() == [0, 1, 2]
    frames = clips.batch(torch.tensor([2])).frames[0]
    torch.testing.assert_close(found["features"][2], training.cnn.features(frames).detach())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "lenet-lstm"}, "no model is called 'lenet-lstm'; did you mean 'lenet-lstm-published'"),
        ({"condition": "rotating"}, "no condition is called 'rotating'"),
        ({"instances": "training"}, "no instances is called 'training'; did you mean 'training_clips'"),
        ({"order": "visibl"}, "did you mean 'visible'"),
        ({"retrainings": 0}, "retrainings must be above 0"),
        ({"seed": -1}, "seed must be 0 or above"),
    ],
)
def test_refuses_configurations_that_mean_nothing(changes: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        small_config(**changes)


@pytest.mark.slow
def test_lenet_learns_mnist() -> None:
    folder = Path(os.environ.get("SACCADE_MNIST", Path(__file__).parents[3] / "shared/data/mnist"))
    if not (folder / "train-images-idx3-ubyte.gz").exists():
        pytest.skip(f"MNIST is not in {folder}")
    torch.manual_seed(0)
    digits = digit_sources.load("mnist", "train", data_dir=folder, download=False)
    training = DigitTraining(lenet_cnn(), "lenet", digits, Limits(), seed=0)
    for _ in range(300):
        training.advance()
    assert training.accuracy_on(digit_sources.load("mnist", "validation", data_dir=folder)) > 0.8
