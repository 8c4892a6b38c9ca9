"""Losses over pixels that are not void and over classes of images.

With several ranks, the mean over the ranks of a loss, and of its gradients, is what one process with all their images
has. So what a rank divides by is the mean over all ranks: every rank computes every loss at every step, in one order.
"""

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from veduta import ranks
from veduta.labels import IGNORE_INDEX
from veduta.ops.resize import resize_aligned_nearest


def cross_entropy(
    logits: Tensor,
    masks: Tensor,
    class_weights: Tensor | None = None,
    *,
    divided_by: Literal["pixels", "weights"] = "weights",
    hardest: float = 1.0,
) -> Tensor:
    """Mean cross-entropy over the pixels that are not void, weighted by class; 0 where every pixel is void.

    logits: (N, C, h, w). masks: (N, H, W) uint8 train ids, 255 void. class_weights: (C,) or None for all 1.
    Coarser logits meet the mask pixels that lie under them when the corners of both are aligned.
    The sum is divided by that of the weights, or by the number of pixels that are not void. With `hardest` below 1 only
    that share of all pixels, those with the largest losses, counts, divided by how many of these losses are not 0: of
    the rank's own pixels, as in the published training, where each device chose among its own.
    Equal to torch's own with ignore_index=255; its hand-written gradient needs half the passes over memory, which on a
    CPU at full image size is a fifth of the whole training step.
    """
    if class_weights is None:
        class_weights = logits.new_ones(logits.shape[1], dtype=torch.float32)
    masks = resize_aligned_nearest(masks, logits.shape[-2:])
    return _CrossEntropy.apply(logits, masks, class_weights, divided_by, hardest)


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, masks: Tensor, class_weights: Tensor, divided_by: str, hardest: float
    ) -> Tensor:
        values = logits.float()
        seen = masks != IGNORE_INDEX
        targets = masks.long().masked_fill(~seen, 0)[:, None]
        normalizer = values.logsumexp(dim=1, keepdim=True)
        weights = class_weights[targets] * seen[:, None]
        losses = (normalizer - values.gather(1, targets)) * weights
        if hardest < 1:
            kept = losses.flatten().topk(max(1, int(hardest * losses.numel())), sorted=False).indices
            chosen = torch.zeros_like(losses).flatten().index_fill_(0, kept, 1).view_as(losses)
            weights *= chosen
            losses *= chosen
            divisor = losses.count_nonzero()
        else:
            divisor = ranks.mean_over_ranks(weights.sum() if divided_by == "weights" else seen.sum())
        divisor = divisor.float().clamp(min=torch.finfo(torch.float32).tiny)
        weights /= divisor
        ctx.save_for_backward(logits, targets, normalizer, weights)
        return losses.sum() / divisor

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None, None]:
        logits, targets, normalizer, weights = ctx.saved_tensors
        result = (logits.float() - normalizer).exp_()  # soft-max, minus one at the target
        result.scatter_add_(1, targets, result.new_full((1,), -1.0).expand_as(targets))
        result.mul_(weights * gradient)
        return result.to(logits.dtype), None, None, None, None


def dice(logits: Tensor, masks: Tensor) -> Tensor:
    """Soft Dice loss, 1 - the mean over the classes that the batch shows: Milletari 2016, arxiv.org/abs/1606.04797.

    logits: (N, C, h, w). masks: (N, H, W) uint8 train ids, 255 void; they meet as in `cross_entropy`. Overlap and sizes
    of a class are summed over the whole batch, of all ranks. 0 where every pixel is void.
    """
    masks = resize_aligned_nearest(masks, logits.shape[-2:])[:, None]
    truth = masks == torch.arange(logits.shape[1], device=masks.device)[:, None, None]  # void is no class
    shares = logits.float().softmax(dim=1) * (masks != IGNORE_INDEX)
    sums = torch.stack([part.sum(dim=(0, 2, 3)) for part in (shares * truth, shares.square(), truth)])
    overlap, predicted, present = ranks.learnt_sum_over_ranks(sums)
    losses = 1 - 2 * overlap / (predicted + present).clamp(min=1)
    shown = present > 0
    return losses.where(shown, 0).sum() / shown.sum().clamp(min=1)


def soft_cross_entropy(
    logits: Tensor, targets: Tensor, *, smoothing: float = 0.0, smoothing_over: Literal["others", "all"] = "all"
) -> Tensor:
    """Mean cross-entropy of whole images: Szegedy et al. 2016, https://arxiv.org/abs/1512.00567, sec. 7.

    logits: (N, C). targets: (N,) int64 classes, or (N, C) shares that sum to 1 per image.
    `smoothing` goes in equal parts to all C classes, or to the C - 1 others.
    """
    num_classes = logits.shape[1]
    if targets.ndim == 1:
        targets = F.one_hot(targets, num_classes)
    if smoothing_over == "all":
        targets = (1 - smoothing) * targets + smoothing / num_classes
    else:
        targets = (1 - smoothing) * targets + smoothing / (num_classes - 1) * (1 - targets)
    return -(targets * logits.float().log_softmax(dim=1)).sum(dim=1).mean()
