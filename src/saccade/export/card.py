"""The model card beside exported files."""

from __future__ import annotations

import re
from typing import Any

from saccade import foreign
from saccade.checkpoint import Header
from saccade.export.compare import SHAPES, TOLERANCE

NAME = "README.md"

_CARD = """\
# {kind}, exported

A video classifier for {num_classes} classes, exported from the Python package Saccade {version}. The weights are those
of the checkpoint with the SHA-256 `{digest}`.

| file | reads | returns |
|---|---|---|
| `clip{suffix}` | whole clips, any number of clips and frames | logits and probabilities at every frame |
| `step{suffix}` | one frame of each clip, and the state before it | logits, probabilities and the next state |

## Classes

{classes}

{reading} A verdict below a confidence of {min_confidence:g} is unsure. The logits are already divided by their
temperature.

## Frames

{frames}

## State

{states}

Each part is zero before the first frame of a clip. The next frame gets the parts that the last call returned.

## Run

```python
{code}
```

{needs}

## Agreement

The files were compared with the model at clips times frames of {shapes}, which they were not traced with. The largest
difference of a probability was {difference:.1e}; up to {tolerance:g} is allowed. Written and compared with {versions}.

## Training data

{training}

## Limits

- {closed}
- Accuracy on clips of other cameras, places or persons may be lower than that of the test after training.
- Frames must have the size above. A clip must have the frame rate above, if there is one.
"""

_ONNX = """\
import json, numpy as np, onnxruntime
step = onnxruntime.InferenceSession("step.onnx")
about = json.loads(step.get_modelmeta().custom_metadata_map["saccade"])
state = {s["name"]: np.zeros([1 if n == "batch" else n for n in s["shape"]], s["dtype"]) for s in about["states"]}
for frame in np.zeros((5, {channels}, {height}, {width}), np.uint8):  # the frames of a clip
    outputs = dict(zip(about["outputs"], step.run(None, {"frame": frame[None], **state})))
    state = {s["name"]: outputs[s["next"]] for s in about["states"]}
    print(about["classes"][outputs["probabilities"][0].argmax()], outputs["probabilities"][0].max())"""

_TORCH = """\
import json, torch{imports}
held = {"saccade": ""}
step = torch.export.load("step.pt2", extra_files=held).module()
about = json.loads(held["saccade"])
shapes = [([1 if n == "batch" else n for n in s["shape"]], getattr(torch, s["dtype"])) for s in about["states"]]
state = [torch.zeros(shape, dtype=dtype) for shape, dtype in shapes]
for frame in torch.zeros(5, {channels}, {height}, {width}, dtype=torch.uint8):  # the frames of a clip
    logits, probabilities, *state = step(frame[None], *state)
    print(about["classes"][int(probabilities.argmax())], float(probabilities.max()))"""


def text(header: Header, about: dict[str, Any], *, suffix: str, native: bool, difference: float, versions: str) -> str:
    """Return the model card.

    Args:
        header: the header of the checkpoint.
        about: the description of the model for single frames.
        suffix: the suffix of the files.
        native: whether the files hold a deformable convolution as one operator.
        difference: the largest difference of a probability that was found.
        versions: the versions of the software that wrote the files.
    """
    names = [foreign.in_markdown(name) for name in about["classes"]]
    one = "Exactly one class is present: probabilities add up to 1."
    closed = "A clip of none of these classes is given one of them."
    if about["none"] is not None:
        nothing = foreign.in_markdown(about["none"])
        one += f" {nothing} means that nothing happens."
        closed = f"What is unlike the clips of training may be given any class, not only {nothing}."
    if not about["exclusive"]:
        one = "Any number of classes may be present, each with a probability of its own."
        closed = "What is none of these classes is not recognised."
    return _CARD.format(
        kind=foreign.in_markdown(header.kind),
        num_classes=len(names),
        version=about["saccade"],
        digest=about["checkpoint_sha256"],
        suffix=suffix,
        # In a table, what a name begins with is no mark of a list or of code.
        classes="\n".join(["| output | class |", "|---|---|", *(f"| {i} | {name} |" for i, name in enumerate(names))]),
        reading=one,
        min_confidence=about["min_confidence"],
        frames=_frames(about["frames"]),
        states=_states(about),
        code=_code(about["frames"], suffix, native),
        needs=_needs(suffix, native),
        shapes=", ".join(f"{batch}x{num}" for batch, num in SHAPES),
        difference=difference,
        tolerance=TOLERANCE,
        versions=versions,
        training=_training(header),
        closed=closed,
    )


def _frames(frames: dict[str, Any]) -> str:
    rate = "at any rate" if frames["fps"] is None else f"at {frames['fps']:g} frames per second"
    return (
        f"`uint8` pixels from 0 to 255, {frames['colours']}, channels first, {frames['height']}x{frames['width']}"
        f" (height x width) px, {rate}. Scaling and normalisation are inside the model."
    )


def _states(about: dict[str, Any]) -> str:
    rows = [
        f"| `{state['name']}` | `{state['next']}` | {' x '.join(map(str, state['shape']))} | {state['dtype']} |"
        for state in about["states"]
    ]
    return "\n".join(["| input of `step` | output of `step` | shape | dtype |", "|---|---|---|---|", *rows])


def _code(frames: dict[str, Any], suffix: str, native: bool) -> str:
    code = _ONNX if suffix == ".onnx" else _TORCH
    values = {name: str(frames[name]) for name in ("channels", "height", "width")}
    values["imports"] = ", saccade.ops" if native else ""
    # Braces of the code itself stay as they are.
    return re.sub(r"\{(channels|height|width|imports)\}", lambda match: values[match[1]], code)


def _needs(suffix: str, native: bool) -> str:
    if not native:
        return "The files hold standard operators only."
    if suffix == ".onnx":
        return "The files hold the operator DeformConv; onnxruntime runs it from version 1.25 on."
    return "The files hold the deformable convolution of saccade, which `import saccade.ops` brings."


def _training(header: Header) -> str:
    facts = [
        f"- {foreign.in_markdown(name)}: {foreign.in_markdown(str(value))}"
        for name, value in header.facts.items()
        if value is not None
    ]
    return "\n".join(facts) or "The checkpoint does not name its training data."
