"""Semantic segmentation: one class per pixel."""

from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from veduta.config import Loss
from veduta.data.check.card import log_weights
from veduta.data.sample import Batch
from veduta.labels import LabelMap
from veduta.tasks.calibration import mask_confidence
from veduta.tasks.losses import cross_entropy, dice
from veduta.tasks.mask_metric import MaskMetric
from veduta.tasks.metrics import Rules
from veduta.tasks.prediction import Prediction


def most_likely(mask_logits: Tensor) -> NDArray[np.uint8]:
    """The class of the largest logit per pixel, of equals the first: (N, C, H, W) -> (N, H, W)."""
    # `max` also promises the first, and takes a third of the time of `argmax` on a CPU.
    masks: NDArray[np.uint8] = mask_logits.max(dim=1).indices.to(torch.uint8).cpu().numpy()
    return masks


class Segment:
    """Reads `mask_logits` (N, num_classes, H, W); in training these, and `aux_mask_logits`, may come at a stride."""

    reads: ClassVar[str] = "mask_logits"
    truth: ClassVar[str] = "mask"
    scores: ClassVar[tuple[str, ...]] = ("mean_iou", "pixel_accuracy")
    reads_of_loss: ClassVar[tuple[str, ...]] = ("class_weights", "divided_by", "hardest", "auxiliary", "dice")

    def __init__(self, labels: LabelMap, loss: Loss) -> None:
        self.labels, self.loss = labels, loss
        self.class_weights: Tensor | None = None

    def fit_classes(self, pixel_counts: NDArray[np.int64]) -> None:
        """Set the class weights from the training pixels of each class (num_classes,), as the recipe's loss says."""
        if self.loss.class_weights == "log":
            self.class_weights = torch.tensor(log_weights(pixel_counts), dtype=torch.float32)

    def losses(self, outputs: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """Scalar losses by name; their sum is what training minimises."""
        assert batch.masks is not None
        losses = {"mask": self._loss(outputs["mask_logits"], batch.masks)}
        if self.loss.auxiliary and "aux_mask_logits" in outputs:
            losses["aux_mask"] = self.loss.auxiliary * self._loss(outputs["aux_mask_logits"], batch.masks)
        if self.loss.dice:
            losses["dice"] = self.loss.dice * dice(outputs["mask_logits"], batch.masks)
        return losses

    def _loss(self, logits: Tensor, masks: Tensor) -> Tensor:
        weights = None if self.class_weights is None else self.class_weights.to(masks.device)
        return cross_entropy(logits, masks, weights, divided_by=self.loss.divided_by, hardest=self.loss.hardest)

    def predict(self, outputs: dict[str, Tensor]) -> list[Prediction]:
        """The class of the largest logit per pixel, and of some pixels how sure that is.

        Only label maps leave the device, never logits.
        """
        masks = most_likely(outputs["mask_logits"])
        confidences = mask_confidence(outputs["mask_logits"])
        return [Prediction(mask=mask, confidence=c) for mask, c in zip(masks, confidences, strict=True)]

    def average_mirrored(self, outputs: dict[str, Tensor], mirrored: dict[str, Tensor]) -> dict[str, Tensor]:
        """Outputs of the images and of their mirror images -> outputs for `predict`: soft-max, then the mean."""
        # In float32: bfloat16 has so few digits that two classes often end equal.
        one, other = outputs["mask_logits"].float(), mirrored["mask_logits"].float()
        probabilities = one.softmax(dim=1)  # then in place: on a CPU new memory costs as much as the sums
        probabilities += other.softmax(dim=1).flip(-1)
        return {"mask_logits": probabilities.div_(2).log_()}

    def metric(self, rules: Rules) -> MaskMetric:
        return MaskMetric(self.labels, rules)
