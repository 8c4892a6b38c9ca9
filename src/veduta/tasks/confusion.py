"""Confusion matrix: which class was predicted where another one was true, and the scores that follow from it."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from veduta.tasks.metrics import State, mean_defined

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


def marginals(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Of (num_classes, num_classes + 1) counts what IoU needs: rows of hits, of truth and of predictions, (3, n)."""
    return np.stack([np.diagonal(counts), counts.sum(axis=1), counts[:, :-1].sum(axis=0)])


def iou_of(hit: NDArray[np.float64], truth: NDArray[np.float64], predicted: NDArray[np.float64]) -> NDArray[np.float64]:
    """hit / (truth + predicted - hit); nan where that is empty."""
    union = truth + predicted - hit
    return np.divide(hit, union, out=np.full(union.shape, np.nan), where=union > 0)


@dataclass(frozen=True, kw_only=True)
class SegmentationScores:
    """What a confusion matrix says. Shares and IoU are 0..1; a class that occurs nowhere has an IoU of nan.

    iou: (num_classes,). share: of each class among the counted pixels. present: which classes occur in the truth.

    Papers and programs mean different things by the mean of the IoU; they differ where classes are absent:
    mean_iou: over the classes that occur in truth or prediction. Everingham et al. 2010, sec. 4.4, cityscapesScripts.
    mean_iou_tensorflow: the same, but 0 where nothing was counted.
    mean_iou_present: over the classes that occur in the truth; what was predicted of others costs only where it stands.
    mean_iou_all: over all classes, absent ones as 0.

    frequency_weighted_iou: the mean weighted by `share`. Long et al. 2015, https://arxiv.org/abs/1411.4038, sec. 5.
    """

    mean_iou: float
    mean_iou_present: float
    mean_iou_all: float
    frequency_weighted_iou: float
    pixel_accuracy: float
    iou: NDArray[np.float64]
    share: NDArray[np.float64]
    present: NDArray[np.bool_]

    @property
    def mean_iou_tensorflow(self) -> float:
        return 0.0 if np.isnan(self.mean_iou) else self.mean_iou


def scores_of(counts: NDArray[np.int64]) -> SegmentationScores:
    """Scores of (num_classes, num_classes + 1) counts: over the whole data set, not averaged over images."""
    hit, truth, predicted = marginals(counts).astype(np.float64)
    iou, present, total = iou_of(hit, truth, predicted), truth > 0, float(truth.sum())
    share = truth / total if total else np.full(len(truth), np.nan)
    known = np.nan_to_num(iou)
    return SegmentationScores(
        mean_iou=mean_defined(iou),
        mean_iou_present=mean_defined(iou[present]),
        mean_iou_all=float(known.mean()),
        frequency_weighted_iou=float((share * known).sum()),
        pixel_accuracy=float(hit.sum()) / total if total else float("nan"),
        iou=iou,
        share=share,
        present=present,
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

    def state(self) -> State:
        return {"counts": self.counts, "void": np.array(self.void)}

    def restore(self, state: State) -> None:
        self.counts, self.void = state["counts"].copy(), int(state["void"])

    @property
    def void_share(self) -> float:
        """Part of all pixels that are void; nan before the first one."""
        seen = self.void + int(self.counts.sum())
        return self.void / seen if seen else float("nan")
