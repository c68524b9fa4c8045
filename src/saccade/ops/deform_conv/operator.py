"""Deformable convolution as one `torch.library` operator, so that eager mode, `torch.compile` and export see one op.

`saccade::deform_conv2d` and its backward operator choose a backend at run time, from the tensors that they get.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from saccade.ops.deform_conv.arguments import Gradients, Tensors, empty_gradients, empty_output
from saccade.ops.deform_conv.autocast import switched_off
from saccade.ops.deform_conv.backends import choose
from saccade.ops.deform_conv.geometry import Geometry, check

ONLY_REVERSE = (
    "torch.func and forward-mode differentiation need deform_conv2d(..., backend='reference'); "
    "the fast backends have first derivatives in reverse mode only"
)
# Registered piece by piece, since `torch.library.custom_op`, which does the same, adds 0.2 ms to every call.
_TENSORS = "Tensor input, Tensor offset, Tensor weight, Tensor? bias, Tensor? mask"
_SETTINGS = "int[2] stride, int[2] padding, int[2] dilation, str backend"
_GRADIENTS = "Tensor, Tensor, Tensor, Tensor, Tensor"
_LIBRARY = torch.library.Library("saccade", "DEF")
_LIBRARY.define(f"deform_conv2d({_TENSORS}, {_SETTINGS}) -> Tensor", tags=torch.Tag.pt2_compliant_tag)
_LIBRARY.define(
    f"deform_conv2d_backward(Tensor grad, {_TENSORS}, {_SETTINGS}, bool[5] needs) -> ({_GRADIENTS})",
    tags=torch.Tag.pt2_compliant_tag,
)
forward = torch.ops.saccade.deform_conv2d.default
backward = torch.ops.saccade.deform_conv2d_backward.default


def _parse(*arguments: Any) -> tuple[Tensors, Geometry, str]:
    tensors, (stride, padding, dilation, backend) = Tensors(*arguments[:5]), arguments[5:]
    return tensors, check(tensors, stride=stride, padding=padding, dilation=dilation), backend


@torch.library.impl(_LIBRARY, "deform_conv2d", "CompositeExplicitAutograd")
def _(*arguments: Any) -> Tensor:
    tensors, geometry, backend = _parse(*arguments)
    with switched_off(tensors.input.device.type):
        return choose(backend, tensors, geometry).forward(tensors, geometry)


@torch.library.impl(_LIBRARY, "deform_conv2d_backward", "CompositeExplicitAutograd")
def _(grad: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    *call, needs = arguments
    tensors, geometry, backend = _parse(*call)
    with switched_off(tensors.input.device.type):
        return _all_there(choose(backend, tensors, geometry).backward(grad, tensors, geometry, needs), tensors)


@torch.library.register_fake("saccade::deform_conv2d", lib=_LIBRARY)
def _(*arguments: Any) -> Tensor:
    tensors, geometry, _ = _parse(*arguments)
    return empty_output(tensors, geometry.out_size)


@torch.library.register_fake("saccade::deform_conv2d_backward", lib=_LIBRARY)
def _(grad: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    tensors = Tensors(*arguments[:5])
    return _all_there(empty_gradients(tensors, arguments[-1]), tensors)


def _all_there(gradients: Gradients, tensors: Tensors) -> tuple[Tensor, ...]:
    """Replace missing gradients by empty tensors, since an operator cannot return None."""
    return tuple(tensors.input.new_empty(0) if gradient is None else gradient for gradient in gradients)


def _apply(function: Any, *arguments: Any) -> Any:
    # Torch's own error says that the function lacks a method, but not what to do instead.
    if torch._C._are_functorch_transforms_active():
        raise RuntimeError(ONLY_REVERSE)
    return function.apply(*arguments)


def _is_differentiated() -> bool:
    # Forward mode works without grad mode, but only within a dual level.
    return torch.is_grad_enabled() or forward_ad._current_level >= 0


def _below_autograd(operator: Callable[..., Any], *arguments: Any) -> Any:
    with torch._C._AutoDispatchBelowAutograd():
        return operator(*arguments)


class _Differentiable(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Any:
        ctx.save_for_backward(*arguments[:5])
        ctx.settings = arguments[5:]
        return _below_autograd(forward, *arguments)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        needs = ctx.needs_input_grad[:5]
        found = backward(grad, *ctx.saved_tensors, *ctx.settings, needs)
        return *(gradient if needed else None for gradient, needed in zip(found, needs, strict=True)), *[None] * 4

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> None:
        raise RuntimeError(ONLY_REVERSE)


class _NotDifferentiable(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Any:
        return _below_autograd(backward, *arguments)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> None:
        raise RuntimeError(
            "a second derivative of deform_conv2d was requested; the fast backends have only the first: "
            "use deform_conv2d(..., backend='reference')"
        )

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> None:
        raise RuntimeError(ONLY_REVERSE)


@torch.library.impl(_LIBRARY, "deform_conv2d", "Autograd")
def _(*arguments: Any) -> Any:
    return _apply(_Differentiable, *arguments) if _is_differentiated() else _below_autograd(forward, *arguments)


@torch.library.impl(_LIBRARY, "deform_conv2d_backward", "Autograd")
def _(*arguments: Any) -> Any:
    return _apply(_NotDifferentiable, *arguments) if _is_differentiated() else _below_autograd(backward, *arguments)


@torch.library.register_vmap("saccade::deform_conv2d", lib=_LIBRARY)
def _(info: Any, in_dims: tuple[int | None, ...], *arguments: Any) -> tuple[Tensor, int]:
    if in_dims[2] is not None or in_dims[3] is not None:  # several weights or biases: not one convolution
        return _one_by_one(forward, info.batch_size, in_dims, arguments)
    size = info.batch_size

    def fold(tensor: Tensor | None, dim: int | None) -> Tensor | None:
        if tensor is None:
            return None
        batched = tensor.expand(size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)
        return batched.flatten(0, 1)

    image, offset, weight, bias, mask, *settings = arguments
    folded = fold(image, in_dims[0]), fold(offset, in_dims[1]), weight, bias, fold(mask, in_dims[4])
    return forward(*folded, *settings).unflatten(0, (size, -1)), 0


@torch.library.register_vmap("saccade::deform_conv2d_backward", lib=_LIBRARY)
def _(info: Any, in_dims: tuple[int | None, ...], *arguments: Any) -> tuple[Any, Any]:
    return _one_by_one(backward, info.batch_size, in_dims, arguments)


def _one_by_one(
    operator: Callable[..., Any], size: int, in_dims: tuple[int | None, ...], arguments: tuple[Any, ...]
) -> tuple[Any, Any]:
    def at(i: int) -> list[Any]:
        # An argument that is not a tensor has the dimension None, or a list with None for each of its numbers.
        pairs = zip(arguments, in_dims, strict=True)
        return [value.select(dim, i) if isinstance(dim, int) else value for value, dim in pairs]

    found = [operator(*at(i)) for i in range(size)]
    if isinstance(found[0], Tensor):
        return torch.stack(found), 0
    return tuple(torch.stack(several) for several in zip(*found, strict=True)), (0,) * len(found[0])
