"""Training on clips in memory, which have lengths of their own."""

import pytest
import torch
from torch.nn import functional as F

from saccade import checkpoint
from saccade.data import StoredClips, StoredData
from saccade.errors import Interrupted
from saccade.labels import Labels
from saccade.train import loop, train
from saccade.train.end_to_end import start

from .runs import assert_same_bits, config_of, stop_at


@pytest.fixture(scope="module")
def stored():
    """Nine clips in memory of 2 to 6 frames in three classes, of which training takes at most 5."""
    generator = torch.Generator().manual_seed(0)
    frames = [torch.randint(256, (2 + i % 5, 3, 32, 40), dtype=torch.uint8, generator=generator) for i in range(9)]
    clips = StoredClips(frames, torch.arange(9) % 3, Labels(("wave", "clap", "jump")))
    return StoredData(clips, clips, num_frames=5)


def test_the_first_loss_is_the_mean_over_clips_of_each_clips_own_mean(stored):
    trainer = start(config_of(), stored)
    batch = trainer.batches(0, 6)
    assert len(set(batch.lengths.tolist())) > 1
    trainer.model.train()
    with torch.no_grad():
        logits = trainer.model(batch.frames, batch.lengths)
    own = []
    for clip, target, length in zip(logits, batch.targets, batch.lengths.tolist(), strict=True):
        own.append(F.cross_entropy(clip[:length], target.expand(length)).item())
    trainer = start(config_of(), stored)
    trainer.num_steps = 6
    assert loop.advance(trainer)["loss"] == pytest.approx(sum(own) / len(own), rel=1e-5)


@pytest.mark.parametrize("model", ["lenet-lstm", "dcn-lstm"])
def test_training_on_clips_in_memory_resumes_to_the_same_bits(model, stored, tmp_path):
    config = config_of(model=model)
    train(config, stored, tmp_path / "whole")
    with pytest.raises(Interrupted):
        train(config, stored, tmp_path / "resumed", progress=stop_at(2))
    train(config, stored, tmp_path / "resumed", resume=True)
    assert_same_bits(tmp_path / "whole", tmp_path / "resumed")
    trained, header = checkpoint.load(tmp_path / "whole")
    assert (trained.input.out_channels, header.labels, header.facts["data"]) == (6, stored.labels, "memory")
