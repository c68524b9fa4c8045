"""Pretrained trunks on the hub: their digest, the frames that they expect, and a training that starts from them."""

import json

import pytest
import torch
from safetensors.torch import save

from saccade import hub as saccade_hub
from saccade.data import StoredClips, StoredData
from saccade.errors import DataError, UsageError
from saccade.labels import Labels
from saccade.models import resnet
from saccade.models.resnet import ResNet18
from saccade.models.trunks import PICTURE_TRUNKS
from saccade.train import TrainConfig, initial_weights
from saccade.train.end_to_end import start

from .conftest import HEADER

# What a repository holds where nothing is read of it.
SOME = save({"conv1.weight": torch.zeros(1)})


def described(mean=resnet.MEAN):
    return json.dumps({"architecture": "resnet18", "pretrained_cfg": {"mean": mean, "std": resnet.STD}}).encode()


@pytest.fixture
def stored():
    generator = torch.Generator().manual_seed(0)
    frames = [torch.randint(256, (2, 3, 32, 32), dtype=torch.uint8, generator=generator) for _ in range(4)]
    clips = StoredClips(frames, torch.arange(4) % 2, Labels(("wave", "clap")))
    return StoredData(clips, clips, num_frames=2)


def config(address):
    return TrainConfig(trunk="resnet18", steps=1, batch_size=2, augment=False, start_from=address)


def test_a_training_starts_from_the_weights_of_a_network_on_the_hub(hub, stored):
    torch.manual_seed(5)
    network = ResNet18().state_dict() | {"fc.weight": torch.zeros(10, 512), "fc.bias": torch.zeros(10)}
    content = save(network)
    hub.add("timm/some-resnet18", {"model.safetensors": content, "config.json": described(), "x.bin": b"code"})
    said = []
    trainer = start(config("hf://timm/some-resnet18"), stored, say=said.append)
    trunk = trainer.model.encoder.trunk.state_dict()
    assert all(torch.equal(tensor, network[name]) for name, tensor in trunk.items())
    assert trainer.model.frame_format.mean == resnet.MEAN
    assert trainer.header.training["trunk"] == initial_weights.LEARNED
    assert any("tensors loaded" in line for line in said)
    assert not any("x.bin" in request for request in hub.requests)


def test_a_known_network_has_its_digest_whatever_the_hub_says(hub):
    known = saccade_hub.PRETRAINED["timm/resnet18.a1_in1k"]
    assert known.trunk in PICTURE_TRUNKS
    files = {"model.safetensors": SOME, "config.json": described()}
    hub.add("timm/resnet18.a1_in1k", files, commit=known.commit)
    hub.add("timm/resnet18.a1_in1k", files, commit="0" * 40)
    for _ in range(2):
        with pytest.raises(DataError, match=f"and {known.sha256[:12]}... is needed"):
            saccade_hub.find_weights("hf://timm/resnet18.a1_in1k")
    assert any(known.commit in request for request in hub.requests)
    assert saccade_hub.find_weights(f"hf://timm/resnet18.a1_in1k@{'0' * 40}").name == "model.safetensors"


def test_weights_of_other_frames_are_refused(hub):
    hub.add("timm/other-frames", {"model.safetensors": SOME, "config.json": described((0.5, 0.5, 0.5))})
    with pytest.raises(DataError, match=r"expect frames of mean \(0.5, 0.5, 0.5\); this trunk gives them \(0.485"):
        initial_weights.check(config("hf://timm/other-frames"))
    assert saccade_hub.find_weights("hf://timm/other-frames").is_file()


@pytest.mark.parametrize("text", [b"{", b"[]", b'{"pretrained_cfg": {"mean": "grey"}}', b"\xff"])
def test_a_damaged_description_is_refused(hub, text):
    hub.add(f"timm/damaged-{len(text)}", {"model.safetensors": SOME, "config.json": text})
    with pytest.raises(DataError, match=r"is damaged|is no text"):
        initial_weights.check(config(f"hf://timm/damaged-{len(text)}"))


def test_a_checkpoint_on_the_hub_is_told_from_a_network(hub, run):
    hub.add("somebody/start", {"checkpoint.safetensors": (run / "checkpoint.safetensors").read_bytes()})
    with pytest.raises(UsageError, match="holds a lenet-lstm"):
        initial_weights.check(config("hf://somebody/start"))
    same = TrainConfig(model=HEADER.model, steps=1, start_from="hf://somebody/start")
    initial_weights.check(same)


def test_a_repository_without_weights_is_refused(hub):
    hub.add("timm/nothing", {"README.md": b""})
    with pytest.raises(DataError, match=r"a repository with checkpoint.safetensors or model.safetensors is needed"):
        saccade_hub.find_weights("hf://timm/nothing")
