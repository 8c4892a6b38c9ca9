"""Metrics as streams: update with an image, merge over processes, compute once. Counts are int64 and exact."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from veduta.data.sample import Sample
from veduta.tasks.prediction import Prediction

PIECE = 2**24  # OpenCV counts in float32, which is exact up to here: larger inputs are counted piece by piece


@dataclass(frozen=True, kw_only=True)
class Scores:
    """What a metric says in the end. Scores and shares are 0..1, nan where undefined.

    overall: by name, the one that chooses the best checkpoint first. per_class: columns (num_classes,) by name, float64
    shares or int64 counts, the one that ranks the classes first. present: (num_classes,), which classes occur in the
    truth. confusion: (num_classes, num_classes + 1) int64 of [truth, prediction]; the last column is "no class".
    confusion_of: what it counts. facts: what else was counted, by name: objects, difficult, void_share.
    """

    overall: Mapping[str, float]
    per_class: Mapping[str, NDArray[Any]]
    present: NDArray[np.bool_]
    confusion: NDArray[np.int64]
    confusion_of: Literal["pixels", "images"]
    facts: Mapping[str, float] = field(default_factory=dict)


class Metric(Protocol):
    """What `task.metric()` gives."""

    def update(self, prediction: Prediction, sample: Sample, /) -> dict[str, float]:
        """Count one image; returns its own scores by name, the ones that rank images first."""
        ...

    def merge(self, other: Any, /) -> None:
        """Add what a metric of the same kind has counted in another process or shard."""
        ...

    def compute(self) -> Scores: ...


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
    return SegmentationScores(
        mean_iou=mean_defined(iou),
        pixel_accuracy=float(pixel_accuracy),
        iou=iou,
        share=share,
        present=truth > 0,
    )


def mean_defined(values: NDArray[np.float64]) -> float:
    """The mean of those that are numbers; nan where none is."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else float("nan")


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

    @property
    def void_share(self) -> float:
        """Part of all pixels that are void; nan before the first one."""
        seen = self.void + int(self.counts.sum())
        return self.void / seen if seen else float("nan")


class MaskMetric:
    """Scores of semantic segmentation: mean IoU and pixel accuracy."""

    def __init__(self, num_classes: int) -> None:
        self.matrix = ConfusionMatrix(num_classes)

    def update(self, prediction: Prediction, sample: Sample) -> dict[str, float]:
        assert prediction.mask is not None and sample.mask is not None
        scores = scores_of(self.matrix.update(prediction.mask, sample.mask))
        return {"mean_iou": scores.mean_iou, "pixel_accuracy": scores.pixel_accuracy}

    def merge(self, other: "MaskMetric") -> None:
        self.matrix.merge(other.matrix)

    def compute(self) -> Scores:
        scores = self.matrix.compute()
        return Scores(
            overall={"mean_iou": scores.mean_iou, "pixel_accuracy": scores.pixel_accuracy},
            per_class={"iou": scores.iou, "share": scores.share},
            present=scores.present,
            confusion=self.matrix.counts,
            confusion_of="pixels",
            facts={"void_share": self.matrix.void_share},
        )


class ClassMetric:
    """Scores of classification: how often the true class is the first guess, and how often among the first TOP.

    Of equal scores the lower class comes first. Scores that are no numbers guess no class.
    """

    TOP = 5

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self.counts: NDArray[np.int64] = np.zeros((num_classes, num_classes + 1), np.int64)
        self.in_top = 0

    def update(self, prediction: Prediction, sample: Sample) -> dict[str, float]:
        """Returns `true_class_score`, too: how sure the model was of the truth."""
        assert prediction.class_scores is not None and sample.scene_class is not None
        scores, truth = prediction.class_scores, sample.scene_class
        guess, in_top = self.num_classes, False
        if np.isfinite(scores).all():
            guess = int(scores.argmax())
            in_top = bool((scores > scores[truth]).sum() + (scores[:truth] == scores[truth]).sum() < self.TOP)
        self.counts[truth, guess] += 1
        self.in_top += in_top
        return {"top1": float(guess == truth), "top5": float(in_top), "true_class_score": scores[truth].item()}

    def merge(self, other: "ClassMetric") -> None:
        self.counts += other.counts
        self.in_top += other.in_top

    def compute(self) -> Scores:
        images, hits = self.counts.sum(axis=1), np.diagonal(self.counts)
        total = int(images.sum())
        with np.errstate(invalid="ignore"):
            accuracy = hits / images
        return Scores(
            overall={
                "top1": int(hits.sum()) / total if total else float("nan"),
                "top5": self.in_top / total if total else float("nan"),
            },
            per_class={"accuracy": accuracy, "images": images},
            present=images > 0,
            confusion=self.counts,
            confusion_of="images",
        )
