"""Scores of boxes: what is kept of every image, and the average precision of all; boxes and masks together."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from veduta.data.sample import Sample
from veduta.labels import LabelMap
from veduta.tasks.average_precision import VOC_RULES, Voc
from veduta.tasks.coco_ap import Coco
from veduta.tasks.mask_metric import MaskMetric
from veduta.tasks.metrics import Rows, Rules, Scores, State, mean_defined
from veduta.tasks.precision_recall import BoxScores, Curves
from veduta.tasks.prediction import Prediction

Matched = tuple[NDArray[Any], NDArray[Any]]


class BoxCounts:
    """Matched detections and objects of all images: some 10 bytes of each by VOC's rules, some 25 by COCO's.

    Whatever the order in which images came, the scores are the same: where it matters, as among COCO's detections of
    equal score, images are taken by their names. Those of COCO sort as its ids do, by which its own evaluation goes.
    """

    def __init__(self, num_classes: int, rules: Rules) -> None:
        self.num_classes = num_classes
        self.counting: Voc | Coco = Coco() if rules.boxes == "coco" else Voc(VOC_RULES[rules.boxes])
        self.detections = Rows(np.zeros(0, self.counting.detection_type))
        self.objects = Rows(np.zeros(0, self.counting.object_type))
        self.names: list[str] = []
        self.left_out: NDArray[np.int64] = np.zeros(2, np.int64)  # difficult objects, crowds
        self._curves: Curves | None = None  # for `resampled`, of what was counted so far

    def update(self, prediction: Prediction, sample: Sample) -> float:
        """Count one image; returns its own first score."""
        detections, objects = self.counting.match(prediction, sample)
        score = _mean_of(self.counting.curves(detections, objects, self.num_classes), np.ones(1, np.int64))
        difficult, crowds = sample.box_difficult, sample.crowd_boxes
        self.left_out += (0 if difficult is None else int(difficult.sum()), 0 if crowds is None else len(crowds))
        self._add((detections, objects), [sample.name])
        return score

    def merge(self, other: "BoxCounts") -> None:
        self.left_out += other.left_out
        self._add((other.detections.joined(), other.objects.joined()), other.names)

    def _add(self, matched: Matched, names: list[str]) -> None:
        for rows, block in zip((self.detections, self.objects), matched, strict=True):
            block = block.copy()
            block["image"] += len(self.names)
            rows.add(block)
        self.names += names
        self._curves = None

    def compute(self) -> BoxScores:
        return self.counting.scores(*self._by_name(), self.num_classes, len(self.names))

    def objects_by_class(self) -> NDArray[np.int64]:
        """(num_classes,); those that are asked for."""
        return np.bincount(self.objects.joined()["class"], minlength=self.num_classes)

    def facts(self) -> dict[str, int]:
        """Objects that were asked for, and what was left out; VOC knows no crowds."""
        difficult, crowds = self.left_out.tolist()
        facts = {"objects": len(self.objects), "difficult": difficult}
        return {**facts, "crowds": crowds} if isinstance(self.counting, Coco) else facts

    def resampled(self, weights: NDArray[np.int64]) -> float:
        if self._curves is None:
            self._curves = self.counting.curves(*self._by_name(), self.num_classes)
        return _mean_of(self._curves, weights)

    def _by_name(self) -> Matched:
        """All detections and objects, in the order of the names of their images."""
        places = np.empty(len(self.names), np.int64)
        places[sorted(range(len(self.names)), key=self.names.__getitem__)] = np.arange(len(self.names))
        detections, objects = self.detections.joined(), self.objects.joined()
        return detections[np.argsort(places[detections["image"]], kind="stable")], objects

    def state(self) -> State:
        return {
            "detections": self.detections.joined(),
            "objects": self.objects.joined(),
            "names": np.array(self.names, np.str_),
            "left_out": self.left_out,
        }

    def restore(self, state: State) -> None:
        self._add((state["detections"], state["objects"]), state["names"].tolist())
        self.left_out = state["left_out"].copy()


def _mean_of(curves: Curves, weights: NDArray[np.int64]) -> float:
    return mean_defined(curves.average_precisions(weights))


class JointMetric:
    """A Metric: scores of joint detection and segmentation in one pass, average precision first, then mean IoU.

    An image without a mask counts for its boxes alone, and so do predictions without masks.
    """

    def __init__(self, labels: LabelMap, rules: Rules) -> None:
        self.boxes, self.masks = BoxCounts(labels.num_classes, rules), MaskMetric(labels, rules)

    @property
    def images(self) -> int:
        return len(self.boxes.names)

    def update(self, prediction: Prediction, sample: Sample) -> dict[str, float]:
        mean_iou = float("nan")
        if sample.mask is not None and prediction.mask is not None:
            mean_iou = self.masks.update(prediction, sample)["mean_iou"]
        return {self.boxes.counting.first: self.boxes.update(prediction, sample), "mean_iou": mean_iou}

    def merge(self, other: "JointMetric") -> None:
        self.boxes.merge(other.boxes)
        self.masks.merge(other.masks)

    def compute(self) -> Scores:
        boxes, masks, objects = self.boxes.compute(), self.masks.compute(), self.boxes.objects_by_class()
        has_masks = self.masks.images > 0
        return Scores(
            overall={**boxes.overall, "mean_iou": masks.overall["mean_iou"]},
            per_class={**boxes.per_class, **masks.per_class, "objects": objects},
            present=masks.present | (objects > 0),
            confusion=masks.confusion,
            confusion_of="pixels",
            facts={**self.boxes.facts(), **masks.facts},
            details={
                **boxes.details,
                **({"pixel_accuracy": masks.overall["pixel_accuracy"], **masks.details} if has_masks else {}),
            },
        )

    def state(self) -> State:
        return {**self.boxes.state(), **self.masks.state()}

    def restore(self, state: State) -> None:
        self.boxes.restore(state)
        self.masks.restore(state)

    def resampled(self, weights: NDArray[np.int64]) -> float:
        return self.boxes.resampled(weights)
