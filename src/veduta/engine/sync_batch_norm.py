"""BatchNorm over the batches of all ranks, from one all_reduce forward and one backward: on every backend that sums.

Ioffe and Szegedy 2015, https://arxiv.org/abs/1502.03167; means and deviations of the ranks are put together as Chan et
al. 1979 do, "Updating formulae and a pairwise algorithm for computing sample variances".
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from veduta import ranks

PIXELS = (0, 2, 3)  # of (N, C, H, W): all that share a channel


def synchronise(model: nn.Module) -> None:
    """Every BatchNorm2d of the model takes its statistics over all ranks. Parameters, buffers and names stay.

    Raises ValueError where the model has a BatchNorm2d of another kind, as some of timm's have.
    """
    for name, module in model.named_modules():
        if isinstance(module, nn.BatchNorm2d) and type(module) not in (nn.BatchNorm2d, SyncBatchNorm2d):
            raise ValueError(f"sync_batch_norm: {name} is a {type(module).__name__}, which cannot be. Set it to false.")
        if type(module) is nn.BatchNorm2d:
            module.__class__ = SyncBatchNorm2d


class SyncBatchNorm2d(nn.BatchNorm2d):
    """In training, what one process's BatchNorm2d makes of the batches of all ranks; else that process's own.

    Batches may differ in size, and be empty. Statistics are float32 (of float64: float64), whatever the input.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> the same shape, dtype and memory format."""
        if not self.training or ranks.world_size() == 1:
            return super().forward(x)
        assert self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None
        assert self.momentum is not None
        with torch.no_grad():
            count, mean, variance = _statistics(x)
            self.num_batches_tracked.add_(1)
            unbiased = variance * (count / (count - 1).clamp(min=1))
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
            self.running_var.lerp_(unbiased.to(self.running_var.dtype), self.momentum)
        return _Normalise.apply(x, self.weight, self.bias, mean, variance, count, self.eps)


def _statistics(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Over all ranks: values per channel (), their mean (C,) and their mean squared deviation from it (C,)."""
    values = x.to(torch.promote_types(x.dtype, torch.float32))
    own = values.new_zeros(2 * x.shape[1] + 1)
    if x.numel():
        count = x.numel() // x.shape[1]
        variance, mean = torch.var_mean(values, PIXELS, correction=0)
        own = torch.cat([own.new_tensor([count]), mean, count * variance])
    counts, means, deviations = ranks.stacked_over_ranks(own).split([1, x.shape[1], x.shape[1]], dim=1)
    count = counts.sum()
    mean = (counts * means).sum(dim=0) / count
    return count, mean, (deviations + counts * (means - mean).square()).sum(dim=0) / count


class _Normalise(torch.autograd.Function):
    """BatchNorm with statistics that come from outside and depend on the inputs of all ranks."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, count: Tensor, eps: float
    ) -> Tensor:
        ctx.save_for_backward(x, weight, mean, variance, count)
        ctx.eps = eps
        return F.batch_norm(x, mean, variance, weight, bias, training=False, eps=eps)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of scale and shift are the own batch's part, as those of every other layer are."""
        x, weight, mean, variance, count = ctx.saved_tensors
        if x.numel():
            # As if the statistics were constants: of x, and the sums of (gradient * normalised x) and of the gradient.
            of_x, of_weight, of_bias = torch.ops.aten.native_batch_norm_backward(
                gradient, x, weight, mean, variance, None, None, False, ctx.eps, [True, True, True]
            )
        else:  # which the operator does not survive
            of_x, of_weight, of_bias = gradient, torch.zeros_like(weight), torch.zeros_like(weight)
        if ctx.needs_input_grad[0]:
            # And through the mean and the variance, on which the losses of all ranks depend.
            slopes, offsets = ranks.sum_over_ranks(torch.stack([of_weight, of_bias]).to(mean.dtype)) / count
            inverse = (variance + ctx.eps).rsqrt()
            slopes *= inverse
            offsets -= mean * slopes
            scale = -inverse * weight
            through = torch.addcmul((scale * offsets)[:, None, None], x, (scale * slopes)[:, None, None])
            of_x = (through + of_x).to(x.dtype)
        return of_x, of_weight, of_bias, None, None, None, None
