"""Metrics as streams: update with a batch, merge over processes, compute once. Counts are int64 and exact."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

PIECE = 2**24  # OpenCV counts in float32, which is exact up to here: larger inputs are counted piece by piece


def count_pairs(predictions: NDArray[np.uint8], targets: NDArray[np.uint8], num_classes: int) -> NDArray[np.int64]:
    """Counts of [target, prediction] over the pixels whose target is a class: (num_classes, num_classes + 1) int64.

    The last column holds the pixels that were predicted as no class at all: they are misses of their class.
    predictions, targets: uint8 train ids of one shape, 255 is void.
    """
    assert predictions.shape == targets.shape and predictions.dtype == targets.dtype == np.uint8
    counts = np.zeros((num_classes, num_classes + 1), np.int64)
    predictions, targets = predictions.reshape(1, -1), targets.reshape(1, -1)
    for start in range(0, targets.size, PIECE):
        target, prediction = targets[:, start : start + PIECE], predictions[:, start : start + PIECE]
        # One histogram over every 8-bit prediction; targets outside of the classes, void among them, fall out of range.
        pairs = cv2.calcHist([target, prediction], [0, 1], None, [num_classes, 256], [0, num_classes, 0, 256])
        counts[:, :-1] += pairs[:, :num_classes].astype(np.int64)
        counts[:, -1] += pairs[:, num_classes:].sum(axis=1, dtype=np.float64).astype(np.int64)
    return counts


@dataclass(frozen=True, kw_only=True)
class SegmentationScores:
    """What a confusion matrix says. Shares and IoU are 0..1; a class that occurs nowhere has an IoU of nan.

    iou: (num_classes,). mean_iou: over the classes that occur in truth or prediction. share: of each class among the
    counted pixels. present: which classes occur in the truth.
    """

    mean_iou: float
    pixel_accuracy: float
    iou: NDArray[np.float64]
    share: NDArray[np.float64]
    present: NDArray[np.bool_]


def scores_of(counts: NDArray[np.int64]) -> SegmentationScores:
    """Scores of (num_classes, num_classes + 1) counts: IoU = hit / (truth + predicted - hit) per class.

    Everingham et al. 2010, sec. 4.4: counted over the whole data set, not averaged over images.
    """
    hit = np.diagonal(counts).astype(np.float64)
    truth, predicted = counts.sum(axis=1), counts[:, :-1].sum(axis=0)
    with np.errstate(invalid="ignore"):
        iou = hit / (truth + predicted - hit)
        share = truth / truth.sum()
        pixel_accuracy = hit.sum() / truth.sum()
    defined = iou[~np.isnan(iou)]
    return SegmentationScores(
        mean_iou=float(defined.mean()) if len(defined) else float("nan"),
        pixel_accuracy=float(pixel_accuracy),
        iou=iou,
        share=share,
        present=truth > 0,
    )


class ConfusionMatrix:
    """Streaming counts of [target, prediction] (see `count_pairs`), and of the void pixels that were left out."""

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self.counts: NDArray[np.int64] = np.zeros((num_classes, num_classes + 1), np.int64)
        self.void = 0

    def update(self, predictions: NDArray[np.uint8], targets: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Count (..., H, W) train ids and return the counts of these pixels alone."""
        counts = count_pairs(predictions, targets, self.num_classes)
        self.counts += counts
        self.void += targets.size - int(counts.sum())
        return counts

    def merge(self, other: "ConfusionMatrix") -> None:
        """Add the counts of another process or shard."""
        self.counts += other.counts
        self.void += other.void

    def compute(self) -> SegmentationScores:
        return scores_of(self.counts)
