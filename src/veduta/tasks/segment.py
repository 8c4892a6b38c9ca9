"""Semantic segmentation: one class per pixel."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from veduta.config import Loss
from veduta.data.check.card import log_weights
from veduta.labels import LabelMap
from veduta.ops.arrays import Array, like, log_, mirrored, most_likely, softmax
from veduta.tasks.calibration import mask_confidence
from veduta.tasks.mask_metric import MaskMetric
from veduta.tasks.metrics import Rules
from veduta.tasks.prediction import Prediction

if TYPE_CHECKING:
    from torch import Tensor

    from veduta.data.batch import Batch


class Segment:
    """Reads `mask_logits` (N, num_classes, H, W); in training these, and `aux_mask_logits`, may come at a stride."""

    reads: ClassVar[str] = "mask_logits"
    truth: ClassVar[str] = "mask"
    scores: ClassVar[tuple[str, ...]] = ("mean_iou", "pixel_accuracy")
    reads_of_loss: ClassVar[tuple[str, ...]] = ("class_weights", "divided_by", "hardest", "auxiliary", "dice")

    def __init__(self, labels: LabelMap, loss: Loss) -> None:
        self.labels, self.loss = labels, loss
        self.class_weights: NDArray[np.float32] | None = None

    def fit_classes(self, pixel_counts: NDArray[np.int64]) -> None:
        """Set the class weights from the training pixels of each class (num_classes,), as the recipe's loss says."""
        if self.loss.class_weights == "log":
            self.class_weights = log_weights(pixel_counts).astype(np.float32)

    def losses(self, outputs: "dict[str, Tensor]", batch: "Batch") -> "dict[str, Tensor]":
        """Scalar losses by name; their sum is what training minimises."""
        from veduta.tasks.losses import dice

        assert batch.masks is not None
        losses = {"mask": self._loss(outputs["mask_logits"], batch.masks)}
        if self.loss.auxiliary and "aux_mask_logits" in outputs:
            losses["aux_mask"] = self.loss.auxiliary * self._loss(outputs["aux_mask_logits"], batch.masks)
        if self.loss.dice:
            losses["dice"] = self.loss.dice * dice(outputs["mask_logits"], batch.masks)
        return losses

    def _loss(self, logits: "Tensor", masks: "Tensor") -> "Tensor":
        from veduta.tasks.losses import cross_entropy

        weights = None if self.class_weights is None else like(self.class_weights, masks)
        return cross_entropy(logits, masks, weights, divided_by=self.loss.divided_by, hardest=self.loss.hardest)

    def predict(self, outputs: Mapping[str, Array]) -> list[Prediction]:
        """The class of the largest logit per pixel, and of some pixels how sure that is.

        Only label maps leave the device, never logits.
        """
        masks = most_likely(outputs["mask_logits"])
        confidences = mask_confidence(outputs["mask_logits"])
        return [Prediction(mask=mask, confidence=c) for mask, c in zip(masks, confidences, strict=True)]

    def average_mirrored(self, outputs: Mapping[str, Array], others: Mapping[str, Array]) -> dict[str, Array]:
        """Outputs of the images and of their mirror images -> outputs for `predict`: soft-max, then the mean."""
        # In float32: bfloat16 has so few digits that two classes often end equal.
        probabilities = softmax(outputs["mask_logits"])  # then in place: on a CPU new memory costs as much as the sums
        probabilities += mirrored(softmax(others["mask_logits"]))
        probabilities /= 2
        return {"mask_logits": log_(probabilities)}

    def metric(self, rules: Rules) -> MaskMetric:
        return MaskMetric(self.labels, rules)
