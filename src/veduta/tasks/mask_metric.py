"""Scores of semantic segmentation: mean IoU and pixel accuracy; under full rules all that is published beside them."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from veduta.data.label_maps import CITYSCAPES
from veduta.data.sample import Sample
from veduta.labels import LabelMap
from veduta.tasks.boundaries import BoundaryCounts
from veduta.tasks.calibration import Calibration
from veduta.tasks.cityscapes import InstanceCounts, category_iou
from veduta.tasks.confusion import ConfusionMatrix, iou_of, marginals, scores_of
from veduta.tasks.metrics import Rows, Rules, Scores, State, mean_defined
from veduta.tasks.prediction import Prediction


class Part(Protocol):
    """What is counted beside the confusion matrix."""

    def update(self, prediction: Prediction, sample: Sample, /) -> None: ...

    def state(self) -> State: ...

    def restore(self, state: State, /) -> None: ...


class MaskMetric:
    """A Metric. Of every image it keeps the pixels of each class that are hits, true and predicted."""

    def __init__(self, labels: LabelMap, rules: Rules) -> None:
        self.matrix = ConfusionMatrix(labels.num_classes)
        self.of_images = Rows(np.zeros((0, 3, labels.num_classes), np.int64))
        self.boundaries = BoundaryCounts(labels.num_classes) if rules.full else None
        self.calibration = Calibration() if rules.full else None
        self.instances = InstanceCounts() if rules.full and labels.names == CITYSCAPES.names else None

    @property
    def images(self) -> int:
        return len(self.of_images)

    def update(self, prediction: Prediction, sample: Sample) -> dict[str, float]:
        assert prediction.mask is not None and sample.mask is not None
        for part in self._parts():
            part.update(prediction, sample)
        counts = self.matrix.update(prediction.mask, sample.mask)
        self.of_images.add(marginals(counts)[None])
        scores = scores_of(counts)
        return {"mean_iou": scores.mean_iou, "pixel_accuracy": scores.pixel_accuracy}

    def merge(self, other: "MaskMetric") -> None:
        self.matrix.merge(other.matrix)
        self.of_images.add(other.of_images.joined())
        if self.boundaries is not None and other.boundaries is not None:
            self.boundaries.merge(other.boundaries)
        if self.calibration is not None and other.calibration is not None:
            self.calibration.merge(other.calibration)
        if self.instances is not None and other.instances is not None:
            self.instances.merge(other.instances)

    def compute(self) -> Scores:
        scores, counts = self.matrix.compute(), self.matrix.counts
        overall = {"mean_iou": scores.mean_iou, "pixel_accuracy": scores.pixel_accuracy}
        per_class: dict[str, NDArray[np.float64]] = {"iou": scores.iou}
        details: dict[str, float] = {}
        if self.instances is not None:
            details["category_iou"] = mean_defined(category_iou(counts))
            if self.instances.of_all_images:
                per_class["iiou"] = self.instances.class_iou(counts)
                details["iiou"] = mean_defined(per_class["iiou"])
                details["category_iiou"] = mean_defined(self.instances.category_iou(counts))
        if self.boundaries is not None:
            per_class["boundary_iou"] = self.boundaries.iou()
            details |= {
                "boundary_iou": mean_defined(per_class["boundary_iou"]),
                "frequency_weighted_iou": scores.frequency_weighted_iou,
                "mean_iou_present": scores.mean_iou_present,
                "mean_iou_all": scores.mean_iou_all,
            }
        if self.calibration is not None and self.calibration.any:
            details["calibration_error"] = self.calibration.error()
        return Scores(
            overall=overall,
            per_class={**per_class, "share": scores.share},
            present=scores.present,
            confusion=counts,
            confusion_of="pixels",
            facts={"void_share": self.matrix.void_share},
            details=details,
        )

    def state(self) -> State:
        state = {**self.matrix.state(), "of_images": self.of_images.joined()}
        for part in self._parts():
            state |= part.state()
        return state

    def restore(self, state: State) -> None:
        self.matrix.restore(state)
        self.of_images.add(state["of_images"])
        for part in self._parts():
            part.restore(state)

    def resampled(self, weights: NDArray[np.int64]) -> float:
        rows = self.of_images.joined()
        hit, truth, predicted = (weights @ rows.reshape(len(rows), -1)).reshape(rows.shape[1:]).astype(np.float64)
        return mean_defined(iou_of(hit, truth, predicted))

    def _parts(self) -> list[Part]:
        parts: tuple[Part | None, ...] = (self.instances, self.boundaries, self.calibration)
        return [part for part in parts if part is not None]
