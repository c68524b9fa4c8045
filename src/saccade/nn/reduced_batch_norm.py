"""Batch normalisation with the statistics of the batch of all processes, on any device."""

from __future__ import annotations

from typing import Any, final

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


@final
class ReducedBatchNorm2d(nn.BatchNorm2d):
    """Normalise by mean and variance of the batches of all processes together.

    Output, gradients and running statistics are those of `torch.nn.BatchNorm2d` on the whole batch, to rounding,
    however the batch is divided among the processes. `torch.nn.SyncBatchNorm` does the same on GPUs and refuses tensors
    of the CPU. In evaluation mode, and in a single process, it is `torch.nn.BatchNorm2d`.

    Every process must take part in every forward and backward pass in training mode. A pass sends two numbers for each
    channel.

    Source: the statistics of parts are combined as by Chan, Golub and LeVeque 1983, "Algorithms for computing the
    sample variance".
    """

    @classmethod
    def convert(cls, model: nn.Module) -> nn.Module:
        """Replace every `torch.nn.BatchNorm2d` of a model in place; parameters and buffers stay the same tensors."""
        for name, layer in list(model.named_children()):
            if type(layer) is nn.BatchNorm2d:
                setattr(model, name, cls._of(layer))
            else:
                cls.convert(layer)
        return model

    @classmethod
    def _of(cls, layer: nn.BatchNorm2d) -> ReducedBatchNorm2d:
        reduced = cls(layer.num_features, layer.eps, layer.momentum, layer.affine, layer.track_running_stats)
        reduced.__dict__.update({name: layer.__dict__[name] for name in ("_parameters", "_buffers", "training")})
        return reduced

    def forward(self, input: Float[Tensor, "batch channels height width"]) -> Tensor:
        """Normalise the maps of this process."""
        if not self.training or not dist.is_initialized() or dist.get_world_size() == 1:
            return super().forward(input)
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        applied = _Normalised.apply(input, self.weight, self.bias, self.eps)  # type: ignore[no-untyped-call]
        found: Tensor = applied[0]
        mean, variance = applied[1:]
        with torch.no_grad():
            self.num_batches_tracked += 1
            share = 1 / self.num_batches_tracked.item() if self.momentum is None else self.momentum
            self.running_mean.lerp_(mean, share)
            self.running_var.lerp_(variance, share)
        return found


class _Normalised(torch.autograd.Function):
    """Maps, normalised by the statistics of all processes; these, with the unbiased variance."""

    @staticmethod
    def forward(ctx: Any, maps: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        own = torch.promote_types(maps.dtype, torch.float32)  # statistics have the type of what they are of
        means, variances = torch.batch_norm_update_stats(maps.to(own), None, None, 0.0)
        count = means.new_full((1,), maps.numel() // maps.shape[1])
        counts, means, variances = _of_all(torch.cat((count, means, variances)).double()).split(
            [1, maps.shape[1], maps.shape[1]], 1
        )
        num = counts.sum()
        mean = (counts * means).sum(0) / num
        variance = (counts * (variances + (means - mean).square())).sum(0) / num
        mean, biased = mean.to(own), variance.to(own)
        ctx.save_for_backward(maps, weight, mean, (biased + eps).rsqrt(), num)
        ctx.mark_non_differentiable(mean, biased)
        ctx.eps = eps
        normalised = F.batch_norm(maps, mean, biased, weight, bias, training=False, eps=eps)
        return normalised, mean, (variance * (num / (num - 1))).to(own)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        maps, weight, mean, scale, num = ctx.saved_tensors
        # Of the gradients with the statistics of this process, those of weight and bias are sums over its maps.
        _, products, sums = torch.ops.aten.native_batch_norm_backward(
            gradient, maps, weight, None, None, mean, scale, True, ctx.eps, [False, True, True]
        )
        totals, of_products = (_of_all(torch.stack((sums, products)).double()).sum(0) / num).to(mean.dtype)
        # gradient * steep + maps * slope + level, with one factor of each a channel
        steep = weight * scale
        slope = -steep * scale * of_products
        level = -steep * totals - slope * mean
        steep, slope, level = (each.view(1, -1, 1, 1) for each in (steep, slope, level))
        of_maps = torch.addcmul(level, maps, slope).addcmul_(gradient, steep)
        return of_maps.to(maps.dtype), products, sums, None


def _of_all(values: Tensor) -> Tensor:
    """Return the values of every process, one after the other."""
    found = values.new_zeros(dist.get_world_size(), *values.shape)
    found[dist.get_rank()] = values
    dist.all_reduce(found)  # gloo has no gathering into one tensor on every device
    return found
