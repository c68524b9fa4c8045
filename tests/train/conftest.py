import pytest

from saccade.data.digits import DigitSourceConfig
from saccade.train import train

from .runs import DIGITS


@pytest.fixture(autouse=True)
def digits_in_memory(uci, monkeypatch):
    """Spare the tests the second that reading UCI's digits takes."""
    read = DigitSourceConfig.load
    monkeypatch.setattr(
        DigitSourceConfig, "load", lambda config, split: uci[split] if config.digits == "uci" else read(config, split)
    )


@pytest.fixture(scope="package")
def whole(tmp_path_factory):
    """Train without a stop, each configuration once; return the run folder."""
    runs = {}

    def trained(config, data=DIGITS):
        if (config, data) not in runs:
            runs[config, data] = tmp_path_factory.mktemp("whole")
            train(config, data, runs[config, data])
        return runs[config, data]

    return trained
