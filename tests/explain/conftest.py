import pytest

from saccade.data.digits import DigitsConfig
from saccade.generate import GenerateConfig, generate

from .stand_ins import MATCHED, moving, save_model, save_npz


@pytest.fixture(scope="session")
def three_models(tmp_path_factory):
    """Save one untrained model of each kind."""
    folder = tmp_path_factory.mktemp("models")
    return tuple(save_model(folder / name, name) for name in MATCHED)


@pytest.fixture(scope="session")
def clip(tmp_path_factory):
    """Save a clip of which nothing else is known."""
    return save_npz(tmp_path_factory.mktemp("clips") / "clip.npz", moving())


@pytest.fixture(scope="session")
def generated(tmp_path_factory):
    """Generate a folder of clips with labels and poses, and return one of them."""
    folder = tmp_path_factory.mktemp("generated") / "clips"
    generate(GenerateConfig(folder, format="npz"), DigitsConfig("uci", num_clips=4, num_frames=8))
    return folder / "03" / "000003.npz"
