"""Trained models on the Hugging Face Hub: `push` uploads a checkpoint with its card, `load` brings one back.

On the command line `--model hf://USER/NAME` takes such a model, and `--start-from hf://timm/resnet18.a1_in1k` the
weights of a trunk. The package `huggingface_hub` does the transfers; `pip install 'saccade[hub]'` installs it. Its
environment variables hold here too: `HF_TOKEN`, `HF_HOME`, `HF_ENDPOINT`, `HF_HUB_OFFLINE`.
"""

from saccade.hub.address import Address, is_address
from saccade.hub.checkpoints import load, push
from saccade.hub.download import find
from saccade.hub.trunks import PRETRAINED, Pretrained, find_weights

__all__ = ["PRETRAINED", "Address", "Pretrained", "find", "find_weights", "is_address", "load", "push"]
