"""Multibox loss: every prior has a class, positive ones also a box; of the many negatives only the hardest count.

Liu et al. 2016 (SSD), https://arxiv.org/abs/1512.02325, sec. 2.2; choice and division are those of BlitzNet,
Dvornik et al. 2017, https://arxiv.org/abs/1708.02813.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from veduta import ranks
from veduta.ops.boxes import encode, match

NEGATIVES_PER_POSITIVE = 3


def assign(priors: Tensor, boxes: Sequence[Tensor], classes: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """What every prior should say: classes (N, P) int64, 0 for background, and box deltas (N, P, 4), 0 there.

    priors: (P, 4) cxcywh. boxes: per image (n, 4) xyxy relative to the image. classes: per image (n,), from 1.
    """
    assigned = [_assign(priors, *objects) for objects in zip(boxes, classes, strict=True)]
    return torch.stack([labels for labels, _ in assigned]), torch.stack([deltas for _, deltas in assigned])


def _assign(priors: Tensor, boxes: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
    if len(boxes) == 0:
        return torch.zeros_like(priors[:, 0], dtype=torch.int64), torch.zeros_like(priors)
    objects = match(priors, boxes)
    positive, objects = objects >= 0, objects.clamp(min=0)
    deltas = encode(boxes[objects], priors).to(priors.dtype)
    return classes[objects] * positive, deltas.where(positive[:, None], 0)


def multibox_loss(
    class_logits: Tensor, box_deltas: Tensor, classes: Tensor, target_deltas: Tensor
) -> tuple[Tensor, Tensor]:
    """Class loss and box loss: (N, P, C) logits, (N, P, 4) deltas, and for both what `assign` says.

    Both are sums divided by the number of positives in the batch, 0 without any. The class loss sums the cross-entropy
    of the positives and of the hardest negatives, taken from the whole batch together: three times as many as there are
    positives but, as published, no more than P less the positives of all images. The box loss sums smooth L1.
    The batch is that of all ranks together, and the mean of their losses is that of one process with all the images.
    """
    positive = classes > 0
    num_positive = ranks.sum_over_ranks(positive.sum())  # of all ranks
    logits = class_logits.float()
    # Of a negative this is the loss against the background, which is how hard it is.
    losses = logits.logsumexp(dim=2) - logits.gather(2, classes[..., None])[..., 0]
    num_priors = classes.shape[1]
    # The number of negatives stays on the device: all that there can be are sorted, the others do not count.
    hardest = losses.masked_fill(positive, float("-inf")).flatten().topk(num_priors).values
    num_negative = torch.minimum(NEGATIVES_PER_POSITIVE * num_positive, num_priors - num_positive)
    counted = _places(hardest) < num_negative
    class_loss = losses.where(positive, 0).sum() + hardest.where(counted, 0).sum()
    box_losses = F.smooth_l1_loss(box_deltas.float(), target_deltas, reduction="none").sum(dim=2)
    box_loss = box_losses.where(positive, 0).sum()
    divisor = num_positive.clamp(min=1) / ranks.world_size()
    return class_loss / divisor, box_loss / divisor


def _places(losses: Tensor) -> Tensor:
    """Where this rank's losses (P,), the largest first, come among those of all ranks, from 0. Equals: by rank."""
    everyones = -ranks.stacked_over_ranks(losses)  # rows that ascend, as searchsorted wants them
    own = ranks.rank()
    places = torch.arange(len(losses), device=losses.device)
    for others, right in ((everyones[:own], True), (everyones[own + 1 :], False)):
        places += torch.searchsorted(others, everyones[own].repeat(len(others), 1), right=right).sum(dim=0)
    return places
