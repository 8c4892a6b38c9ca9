"""Detections: the way from a detector's scores and box deltas to the boxes that count; here of NumPy's arrays.

ops/boxes.py goes the same way with tensors, and says whose rules, limits and rounding they are. Boxes are xyxy,
relative to the image, unless said.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

CENTRE_VARIANCE = 0.1  # deltas are divided by these, so that all four have about the same deviation
SIZE_VARIANCE = 0.2

MIN_SCORE = 0.01
MIN_LOGIT = math.log(MIN_SCORE) - 0.1  # over the background's; less, because bfloat16 is coarse there
CANDIDATES_PER_CLASS = 400
SUPPRESSING_IOU = 0.45
KEPT_PER_CLASS = 50
KEPT_PER_IMAGE = 200


class Detections(NamedTuple):
    """What was found in one image, best first: boxes (n, 4), labels (n,) int64 with background 0, scores (n,)."""

    boxes: Floats
    labels: NDArray[np.int64]
    scores: Floats


def decode(deltas: Floats, priors: Floats) -> Floats:
    """Deltas (..., 4) of priors (..., 4) cxcywh -> boxes (..., 4) inside of the image.

    As published: what sticks out at the left or the top is moved inside, and only then cut at the right and the bottom.
    """
    centre = deltas[..., :2] * np.float32(CENTRE_VARIANCE) * priors[..., 2:] + priors[..., :2]
    size = np.exp(deltas[..., 2:] * np.float32(SIZE_VARIANCE)) * priors[..., 2:]
    start = np.maximum(centre - size / 2, 0)
    return np.concatenate([start, np.minimum(start + size, 1)], axis=-1)


def suppress(
    boxes: Floats, alive: NDArray[np.bool_], *, limit: int, suppressing_iou: float
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Greedy non-maximum suppression of many classes at once: which boxes are kept, best first.

    boxes: (C, K, 4), best first in every class. alive: (C, K), which of them take part.
    Returns places in K (C, r) and which of them count (C, r) bool, where r, at most `limit`, is the most that any class
    keeps. A round keeps one box of every class, so the time depends on `limit`, and not on how the boxes overlap.
    """
    left, top, right, bottom = corners = np.moveaxis(boxes, -1, 0).copy()  # (4, C, K): long rows
    areas = (right - left) * (bottom - top)
    classes, alive = np.arange(len(boxes)), alive.copy()
    places, counts = [np.zeros((len(boxes), 0), np.int64)], [np.zeros((len(boxes), 0), np.bool_)]
    for _ in range(limit):
        if not alive.any():  # also where there are no boxes at all
            break
        first = alive.argmax(axis=1)
        there = alive[classes, first]
        places.append(first[:, None])
        counts.append(there[:, None])
        box = corners[:, classes, first, None]
        widths = np.minimum(box[2], right) - np.maximum(box[0], left)
        heights = np.minimum(box[3], bottom) - np.maximum(box[1], top)
        both = np.maximum(widths, 0) * np.maximum(heights, 0)
        with np.errstate(invalid="ignore"):  # boxes without an area
            overlaps = both / (areas[classes, first, None] + areas - both)
        alive &= ~(overlaps > suppressing_iou)
        alive[classes, first] = False  # itself, even without an area, where its own IoU is no number
    return np.concatenate(places, axis=1), np.concatenate(counts, axis=1)


def detect(class_logits: Floats, box_deltas: Floats, priors: Floats) -> Detections:
    """One image's outputs -> detections: (P, C) logits with background first, (P, 4) deltas, (P, 4) priors cxcywh.

    Per class the CANDIDATES_PER_CLASS best scores above MIN_SCORE, non-maximum suppression, and the KEPT_PER_CLASS best
    that are left; of all classes together the KEPT_PER_IMAGE best. Of equal scores the lower class comes first, then
    the lower prior.
    """
    # Whatever the other classes are, no score is higher than exp(logit - background's); the rest need no soft-max.
    background, *others = class_logits.T
    largest = others[0].copy()
    for logits in others[1:]:  # several times faster than `max` over an axis as short as this
        np.maximum(largest, logits, out=largest)
    seen = np.flatnonzero(largest - background > MIN_LOGIT)
    if len(seen) == 0:
        return Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros(0, np.float32))
    odds = class_logits[seen].T.copy()  # (C, p): long rows
    odds -= odds.max(axis=0)
    np.exp(odds, out=odds)
    scores, candidates = _best(odds[1:] / odds.sum(axis=0), CANDIDATES_PER_CLASS)
    candidates = seen[candidates]
    boxes = decode(box_deltas[candidates], priors[candidates])  # (C - 1, K, 4)
    places, counts = suppress(boxes, scores > MIN_SCORE, limit=KEPT_PER_CLASS, suppressing_iou=SUPPRESSING_IOU)
    labels, rank = counts.nonzero()
    places = places[labels, rank]
    scores = scores[labels, places]
    order = np.argsort(-scores, kind="stable")[:KEPT_PER_IMAGE]
    return Detections(boxes[labels, places][order], labels[order] + 1, scores[order])


def _best(scores: Floats, count: int) -> tuple[Floats, NDArray[np.int64]]:
    """The at most `count` highest of every row that are above MIN_SCORE, of equal ones the first: (C, p) -> (C, K).

    Scores and places; rows that have fewer of them than others end in scores of 0.
    """
    found = []
    for row in scores:
        places = np.flatnonzero(row > MIN_SCORE)
        if len(places) > count:  # sorting all of them would take most of the time
            places = places[row[places] >= np.partition(row[places], -count)[-count]]
        found.append(places[np.argsort(-row[places], kind="stable")[:count]])
    longest = max(map(len, found))
    best, of_rows = np.zeros((len(scores), longest), np.float32), np.zeros((len(scores), longest), np.int64)
    for k, places in enumerate(found):
        best[k, : len(places)], of_rows[k, : len(places)] = scores[k, places], places
    return best, of_rows
