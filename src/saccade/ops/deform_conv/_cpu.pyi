# The kernels in cpp/, as module.cpp exports them to Python. `settings` holds stride, padding and dilation (y, x each),
# groups and offset groups. Results are written into the tensors after `num_threads`; those that are None are skipped.

from torch import Tensor

def instruction_sets() -> list[str]: ...
def forward(
    instructions: str,
    input: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    mask: Tensor | None,
    settings: list[int],
    num_threads: int,
    out: Tensor,
) -> None: ...
def backward(
    instructions: str,
    grad: Tensor,
    input: Tensor,
    offset: Tensor,
    weight: Tensor,
    mask: Tensor | None,
    settings: list[int],
    num_threads: int,
    grad_input: Tensor | None,
    grad_offset: Tensor | None,
    grad_weight: Tensor | None,
    grad_bias: Tensor | None,
    grad_mask: Tensor | None,
) -> None: ...
