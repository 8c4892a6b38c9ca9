"""Losses over pixels that are not void."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from veduta.labels import IGNORE_INDEX


def cross_entropy(logits: Tensor, masks: Tensor, class_weights: Tensor | None = None) -> Tensor:
    """Mean cross-entropy over the pixels that are not void, weighted by class; 0 where every pixel is void.

    logits: (N, C, h, w). masks: (N, H, W) uint8 train ids, 255 void. class_weights: (C,) or None for all 1.
    Coarser logits meet the mask pixels that lie under them when the corners of both are aligned.
    Equal to torch's own with ignore_index=255; its hand-written gradient needs half the passes over memory, which on a
    CPU at full image size is a fifth of the whole training step.
    """
    if class_weights is None:
        class_weights = logits.new_ones(logits.shape[1], dtype=torch.float32)
    masks = _sample(masks, logits.shape[-2:])
    return _CrossEntropy.apply(logits, masks, class_weights)


def _sample(masks: Tensor, size: Sequence[int]) -> Tensor:
    """(N, H, W) -> (N, *size): the nearest pixels of a coarser grid with the same corners."""
    for axis, length in zip((1, 2), size, strict=True):
        if masks.shape[axis] != length:
            places = torch.linspace(0, masks.shape[axis] - 1, length, dtype=torch.float64).round().long()
            masks = masks.index_select(axis, places.to(masks.device))
    return masks


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, masks: Tensor, class_weights: Tensor) -> Tensor:
        values = logits.float()
        seen = masks != IGNORE_INDEX
        targets = masks.long().masked_fill(~seen, 0)[:, None]
        normalizer = values.logsumexp(dim=1, keepdim=True)
        weights = class_weights[targets] * seen[:, None]
        weights /= weights.sum().clamp(min=torch.finfo(torch.float32).tiny)
        ctx.save_for_backward(logits, targets, normalizer, weights)
        return ((normalizer - values.gather(1, targets)) * weights).sum()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        logits, targets, normalizer, weights = ctx.saved_tensors
        result = (logits.float() - normalizer).exp_()  # soft-max, minus one at the target
        result.scatter_add_(1, targets, result.new_full((1,), -1.0).expand_as(targets))
        result.mul_(weights * gradient)
        return result.to(logits.dtype), None, None
