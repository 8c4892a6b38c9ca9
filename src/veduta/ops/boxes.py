"""Boxes: overlap, matching with priors, encoding, decoding, and the way from scores to detections, of tensors.

Liu et al. 2016 (SSD), https://arxiv.org/abs/1512.02325, sec. 2.2; rules, limits and rounding are those of BlitzNet,
Dvornik et al. 2017, https://arxiv.org/abs/1708.02813. Boxes here are xyxy, relative to the image, unless said.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from veduta.ops.detections import (
    CANDIDATES_PER_CLASS,
    CENTRE_VARIANCE,
    KEPT_PER_CLASS,
    KEPT_PER_IMAGE,
    MIN_LOGIT,
    MIN_SCORE,
    SIZE_VARIANCE,
    SUPPRESSING_IOU,
)

POSITIVE_IOU = 0.5


class Detections(NamedTuple):
    """What was found in one image, best first: boxes (n, 4), labels (n,) int64 with background 0, scores (n,)."""

    boxes: Tensor
    labels: Tensor
    scores: Tensor


def iou(first: Tensor, second: Tensor) -> Tensor:
    """Intersection over union of every box of `first` with every one of `second`: (n, 4), (m, 4) -> (n, m)."""
    sides, others = first[:, 2:] - first[:, :2], second[:, 2:] - second[:, :2]
    return _iou(first.T[..., None], sides.prod(1)[:, None], second.T[:, None], others.prod(1))


def _iou(first: Tensor, first_areas: Tensor, second: Tensor, second_areas: Tensor) -> Tensor:
    """Of boxes that lie along the other axes, which broadcast: (4, ...), (...), (4, ...), (...) -> (...)."""
    sides = (torch.minimum(first[2:], second[2:]) - torch.maximum(first[:2], second[:2])).clamp_(min=0)
    intersection = sides[0] * sides[1]
    return intersection / (first_areas + second_areas - intersection)


def corners(boxes_cxcywh: Tensor) -> Tensor:
    """(..., 4) cxcywh -> (..., 4) xyxy."""
    centre, size = boxes_cxcywh[..., :2], boxes_cxcywh[..., 2:]
    start = centre - size / 2
    return torch.cat([start, start + size], dim=-1)


def match(priors: Tensor, boxes: Tensor) -> Tensor:
    """For every prior the object that it stands for, or -1: (P, 4) cxcywh, (n, 4) -> (P,) int64.

    A prior takes the object that it overlaps most, from POSITIVE_IOU on. Every object also claims its best prior,
    whatever the overlap, and a claim comes first. Ties go to the lowest index, of objects and of priors.
    """
    if len(boxes) == 0:
        return torch.full((len(priors),), -1, device=priors.device)
    # Of a tiny object all priors around it have the same IoU, and rounding decides. Areas from width and height, as in
    # the reference; boxes of float64 keep these exactly.
    areas = (boxes[:, 2:] - boxes[:, :2]).to(priors.dtype).prod(dim=1)
    overlaps = _iou(
        boxes.to(priors.dtype).T[..., None],
        areas[:, None],
        corners(priors).T.contiguous()[:, None],
        priors[:, 2] * priors[:, 3],
    )  # (n, P): long rows
    best, objects = overlaps.max(0)  # of equals the first, as torch promises; its argmax takes 20 times as long here
    objects = objects.masked_fill(best < POSITIVE_IOU, -1)
    claimed = overlaps.max(1).indices
    claims = torch.full_like(objects, len(boxes))
    claims.scatter_reduce_(0, claimed, torch.arange(len(boxes), device=boxes.device), "amin")
    return torch.where(claims < len(boxes), claims, objects)


def encode(boxes: Tensor, priors: Tensor) -> Tensor:
    """Boxes (..., 4) as deltas (..., 4) of priors (..., 4) cxcywh."""
    start, size = boxes[..., :2], boxes[..., 2:] - boxes[..., :2]
    centre_deltas = (start + size / 2 - priors[..., :2]) / priors[..., 2:] / CENTRE_VARIANCE
    return torch.cat([centre_deltas, (size / priors[..., 2:]).log() / SIZE_VARIANCE], dim=-1)


def decode(deltas: Tensor, priors: Tensor) -> Tensor:
    """Deltas (..., 4) of priors (..., 4) cxcywh -> boxes (..., 4) inside of the image.

    As published: what sticks out at the left or the top is moved inside, and only then cut at the right and the bottom.
    """
    centre = deltas[..., :2] * CENTRE_VARIANCE * priors[..., 2:] + priors[..., :2]
    size = (deltas[..., 2:] * SIZE_VARIANCE).exp() * priors[..., 2:]
    start = (centre - size / 2).clamp(min=0)
    return torch.cat([start, (start + size).clamp(max=1)], dim=-1)


def suppress(boxes: Tensor, alive: Tensor, *, limit: int, suppressing_iou: float) -> tuple[Tensor, Tensor]:
    """Greedy non-maximum suppression of many classes at once: which boxes are kept, best first.

    boxes: (C, K, 4), best first in every class. alive: (C, K) bool, which of them take part.
    Returns places in K (C, r) and which of them count (C, r) bool, where r, at most `limit`, is the most that any class
    keeps. A round keeps one box of every class, so the time depends on `limit`, and not on how the boxes overlap.
    """
    end = boxes.shape[1]
    # (4, C, K + 1): every operation runs along whole rows; one box more stands for "none left" at place K.
    coordinates = F.pad(boxes.movedim(-1, 0), (0, 1))
    areas = (coordinates[2] - coordinates[0]) * (coordinates[3] - coordinates[1])
    queue = torch.arange(end, device=boxes.device).where(alive, end)  # who is kept or suppressed gives up its place
    queue = F.pad(queue, (0, 1), value=end)
    kept = [queue[:, :0]]
    for _ in range(limit):
        first = queue.amin(dim=1, keepdim=True)
        if first.amin() == end:
            break
        kept.append(first)
        box = coordinates.gather(2, first.expand(4, -1, -1))
        overlaps = _iou(box, areas.gather(1, first), coordinates, areas)
        queue.masked_fill_(overlaps > suppressing_iou, end)
        queue.scatter_(1, first, end)  # itself, even without an area, where its own IoU is no number
    places = torch.cat(kept, dim=1)
    return places, places < end


def detect(class_logits: Tensor, box_deltas: Tensor, priors: Tensor) -> Detections:
    """One image's outputs -> detections: (P, C) logits with background first, (P, 4) deltas, (P, 4) priors cxcywh.

    Per class the CANDIDATES_PER_CLASS best scores above MIN_SCORE, non-maximum suppression, and the KEPT_PER_CLASS best
    that are left; of all classes together the KEPT_PER_IMAGE best. Of equal scores the lower class comes first, then
    the lower prior.
    """
    logits = class_logits.T.contiguous()  # (C, P): long rows
    # Whatever the other classes are, no score is higher than exp(logit - background's); the rest need no soft-max.
    seen = (logits[1:].amax(dim=0) - logits[0] > MIN_LOGIT).nonzero()[:, 0]
    if len(seen) == 0:
        return Detections(priors.new_empty(0, 4), seen, priors.new_empty(0))
    scores = logits.index_select(1, seen).float().softmax(dim=0)[1:]
    scores, candidates = _best(scores, min(CANDIDATES_PER_CLASS, len(seen)))
    candidates = seen[candidates]
    boxes = decode(box_deltas[candidates].float(), priors[candidates])  # (C - 1, K, 4)
    places, counts = suppress(boxes, scores > MIN_SCORE, limit=KEPT_PER_CLASS, suppressing_iou=SUPPRESSING_IOU)
    labels, rank = counts.nonzero().unbind(1)
    places = places[labels, rank]
    scores, order = scores[labels, places].sort(descending=True, stable=True)
    order = order[:KEPT_PER_IMAGE]
    return Detections(boxes[labels, places][order], labels[order] + 1, scores[:KEPT_PER_IMAGE])


def _best(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` highest of every row and their places, of equal ones the first: (C, p) -> (C, count) twice.

    `topk` leaves open which of several equals it takes. So the places go into the low bits of a key, whose high bits
    are those of the score, which sort like the score because it is not negative.
    """
    last = scores.shape[1] - 1
    keys = scores.view(torch.int32).long()
    keys.bitwise_left_shift_(32).bitwise_or_(torch.arange(last, -1, -1, device=scores.device))
    places = last - keys.topk(count, dim=1).values.bitwise_and_(0xFFFFFFFF)
    return scores.gather(1, places), places
