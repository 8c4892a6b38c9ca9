"""Average precision of boxes as BlitzNet and PASCAL VOC 2012 evaluate it, and joint scores of boxes and masks.

Everingham et al. 2010, sec. 4.2; Dvornik et al. 2017, https://arxiv.org/abs/1708.02813, by its code. Sides of boxes are
differences of edges, as in BlitzNet. An object whose annotation says pixels 1 to 10 has the edges 0 and 10 here and is
10 wide, as in the VOC kit; BlitzNet takes the annotation's numbers as its edges, 1 and 10.
"""

import numpy as np
from numpy.typing import NDArray

from veduta.data.sample import Sample
from veduta.tasks.metrics import ConfusionMatrix, Scores, mean_defined, scores_of
from veduta.tasks.prediction import Prediction

HIT_IOU = 0.5  # a detection has to overlap its object by more

Boxes = NDArray[np.float32]
Flags = NDArray[np.bool_]


def overlaps(first: Boxes, second: Boxes) -> NDArray[np.float64]:
    """IoU of every box of `first` with every one of `second`: (n, 4), (m, 4) xyxy -> (n, m); 0 for two of no area."""
    one, other = first.astype(np.float64)[:, None], second.astype(np.float64)
    sides = np.minimum(one[..., 2:], other[..., 2:]) - np.maximum(one[..., :2], other[..., :2])
    intersection = sides.clip(min=0).prod(axis=-1)
    union = sum((boxes[..., 2:] - boxes[..., :2]).prod(axis=-1) for boxes in (one, other)) - intersection
    result: NDArray[np.float64] = np.divide(intersection, union, out=np.zeros_like(intersection), where=union > 0)
    return result


def overlapped_objects(boxes: Boxes, objects: Boxes) -> NDArray[np.int64]:
    """For each of boxes (n, 4) the one of objects (m, 4) that it overlaps most, or -1 where it hits none: (n,)."""
    if len(boxes) == 0 or len(objects) == 0:
        return np.full(len(boxes), -1)
    overlap = overlaps(boxes, objects)
    return np.where(overlap.max(axis=1) > HIT_IOU, overlap.argmax(axis=1), -1)


def find_hits(boxes: Boxes, objects: Boxes, difficult: Flags) -> tuple[Flags, Flags]:
    """Which detections of one class in one image hit an object, and which count at all: (n,) bool twice.

    boxes: (n, 4), best first. objects: (m, 4), of which some are difficult (m,). The object that a detection overlaps
    most decides: no hit where another detection came first; one that is difficult takes the detection out of the count.
    """
    found = overlapped_objects(boxes, objects)
    counted = ~np.append(difficult, False)[found]  # at -1 stands: hits none
    hits = np.zeros(len(boxes), bool)
    hits[np.unique(found, return_index=True)[1]] = True  # the first detection of each object
    return hits & (found >= 0) & counted, counted


def average_precision(scores: NDArray[np.float32], hits: Flags, num_objects: int) -> float:
    """Area under the envelope of precision over recall: (n,), (n,) in any order; nan where there is no object.

    Detections of one score count together, since no threshold tells them apart: so the result does not depend on the
    order of the images.
    """
    if num_objects == 0:
        return float("nan")
    order = np.argsort(-scores, kind="stable")
    found = hits[order].cumsum()
    last_of_score = np.append(np.diff(scores[order]) != 0, True)[: len(order)]
    precision = (found / np.arange(1, len(order) + 1))[last_of_score]
    recall = (found / num_objects)[last_of_score]
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float((np.diff(recall, prepend=0) * envelope).sum())


class BoxCounts:
    """Detections that count, as (class, score, hit), and the objects of each class. Grows by at most 6 bytes per box.

    objects: (num_classes,) int64, those that are not difficult. difficult: the number of the others.
    """

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self.objects: NDArray[np.int64] = np.zeros(num_classes, np.int64)
        self.difficult = 0
        self.classes: list[NDArray[np.uint8]] = []  # one part per image
        self.scores: list[NDArray[np.float32]] = []
        self.hits: list[Flags] = []

    def update(self, prediction: Prediction, sample: Sample) -> None:
        """Count one image."""
        assert prediction.boxes is not None and prediction.box_classes is not None
        assert prediction.box_scores is not None
        assert sample.boxes is not None and sample.box_classes is not None
        difficult = sample.box_difficult
        if difficult is None:
            difficult = np.zeros(len(sample.boxes), bool)
        hits, counted = np.zeros(len(prediction.boxes), bool), np.ones(len(prediction.boxes), bool)
        for train_id in np.unique(prediction.box_classes):
            own, true = prediction.box_classes == train_id, sample.box_classes == train_id
            hits[own], counted[own] = find_hits(prediction.boxes[own], sample.boxes[true], difficult[true])
        self.objects += np.bincount(sample.box_classes[~difficult], minlength=self.num_classes)
        self.difficult += int(difficult.sum())
        self.classes.append(prediction.box_classes[counted].astype(np.uint8))
        self.scores.append(prediction.box_scores[counted])
        self.hits.append(hits[counted])

    def merge(self, other: "BoxCounts") -> None:
        self.objects += other.objects
        self.difficult += other.difficult
        self.classes += other.classes
        self.scores += other.scores
        self.hits += other.hits

    def average_precisions(self) -> NDArray[np.float64]:
        """(num_classes,); nan for a class without objects, 0 for one whose objects nothing was found of."""
        result = np.where(self.objects > 0, 0.0, np.nan)
        if self.classes:
            classes, scores, hits = (np.concatenate(parts) for parts in (self.classes, self.scores, self.hits))
            for train_id in np.unique(classes):
                own = classes == train_id
                result[train_id] = average_precision(scores[own], hits[own], int(self.objects[train_id]))
        return result


class JointMetric:
    """Scores of joint detection and segmentation in one pass: mean AP at an IoU of 0.5, and mean IoU of the masks.

    An image without a mask counts for its boxes alone.
    """

    def __init__(self, num_classes: int) -> None:
        self.boxes, self.matrix = BoxCounts(num_classes), ConfusionMatrix(num_classes)

    def update(self, prediction: Prediction, sample: Sample) -> dict[str, float]:
        own = BoxCounts(self.matrix.num_classes)
        own.update(prediction, sample)
        self.boxes.merge(own)
        mean_iou = float("nan")
        if sample.mask is not None:
            assert prediction.mask is not None
            mean_iou = scores_of(self.matrix.update(prediction.mask, sample.mask)).mean_iou
        return {"ap50": mean_defined(own.average_precisions()), "mean_iou": mean_iou}

    def merge(self, other: "JointMetric") -> None:
        self.boxes.merge(other.boxes)
        self.matrix.merge(other.matrix)

    def compute(self) -> Scores:
        precisions, masks = self.boxes.average_precisions(), self.matrix.compute()
        objects = self.boxes.objects
        return Scores(
            overall={"ap50": mean_defined(precisions), "mean_iou": masks.mean_iou},
            per_class={"ap50": precisions, "iou": masks.iou, "objects": objects, "share": masks.share},
            present=masks.present | (objects > 0),
            confusion=self.matrix.counts,
            confusion_of="pixels",
            facts={
                "objects": int(objects.sum()),
                "difficult": self.boxes.difficult,
                "void_share": self.matrix.void_share,
            },
        )
