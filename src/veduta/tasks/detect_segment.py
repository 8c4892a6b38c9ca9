"""Joint detection and segmentation: boxes with classes, and one class per pixel."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from veduta.config import Loss
from veduta.labels import IGNORE_INDEX, LabelMap
from veduta.ops import detections
from veduta.ops.arrays import Array, most_likely, numpy
from veduta.ops.detections import Detections
from veduta.tasks.box_metric import JointMetric
from veduta.tasks.calibration import mask_confidence
from veduta.tasks.metrics import Rules
from veduta.tasks.prediction import Prediction

if TYPE_CHECKING:
    from torch import Tensor

    from veduta.data.batch import Batch


class DetectSegment:
    """Reads `class_logits` (N, P, num_classes), `box_deltas` (N, P, 4), `priors` (P, 4) and `mask_logits`.

    Train id 0 is the background. In training `mask_logits` (N, num_classes, h, w) may come on a coarser grid than the
    images; `predict` takes the size of the images from them.
    """

    reads: ClassVar[str] = "class_logits"
    truth: ClassVar[str] = "boxes"
    scores: ClassVar[tuple[str, ...]] = ("ap50", "mean_iou")
    reads_of_loss: ClassVar[tuple[str, ...]] = ("dice",)

    def __init__(self, labels: LabelMap, loss: Loss) -> None:
        self.labels, self.loss = labels, loss

    def fit_classes(self, pixel_counts: NDArray[np.int64]) -> None:
        """Nothing: as published, all classes weigh the same."""

    def losses(self, outputs: "dict[str, Tensor]", batch: "Batch") -> "dict[str, Tensor]":
        """Scalar losses by name; their sum is what training minimises.

        Where no pixel of the batch is labelled the mask loss is 0; the published one is no number there.
        """
        import torch

        from veduta.ops.resize import resize_legacy_nearest
        from veduta.tasks.losses import cross_entropy, dice
        from veduta.tasks.multibox import assign, multibox_loss

        assert batch.boxes is not None and batch.box_classes is not None
        mask_logits, priors = outputs["mask_logits"], outputs["priors"]
        height, width = batch.images.shape[-2:]
        size = priors.new_tensor([width, height, width, height])
        targets = assign(priors, [boxes / size for boxes in batch.boxes], batch.box_classes)
        class_loss, box_loss = multibox_loss(outputs["class_logits"], outputs["box_deltas"], *targets)
        masks = batch.masks
        if masks is None:
            masks = torch.full_like(mask_logits[:, 0], IGNORE_INDEX, dtype=torch.uint8)
        masks = resize_legacy_nearest(masks, mask_logits.shape[-2:])
        losses = {"class": class_loss, "box": box_loss, "mask": cross_entropy(mask_logits, masks)}
        if self.loss.dice:
            losses["dice"] = self.loss.dice * dice(mask_logits, masks)
        return losses

    def predict(self, outputs: Mapping[str, Array]) -> list[Prediction]:
        """One per image, its boxes and mask in pixels of `mask_logits`."""
        masks = most_likely(outputs["mask_logits"])
        height, width = masks.shape[1:]
        size = np.array([width, height, width, height], np.float32)
        predictions = []
        confidences = mask_confidence(outputs["mask_logits"])
        for mask, confidence, class_logits, box_deltas in zip(
            masks, confidences, outputs["class_logits"], outputs["box_deltas"], strict=True
        ):
            boxes, labels, scores = _detect(class_logits, box_deltas, outputs["priors"])
            predictions.append(
                Prediction(mask=mask, confidence=confidence, boxes=boxes * size, box_classes=labels, box_scores=scores)
            )
        return predictions

    def metric(self, rules: Rules) -> JointMetric:
        return JointMetric(self.labels, rules)


def _detect(class_logits: Array, box_deltas: Array, priors: Array) -> Detections:
    if isinstance(class_logits, np.ndarray):
        return detections.detect(class_logits, box_deltas, priors)
    from veduta.ops.boxes import detect

    return Detections(*(numpy(found) for found in detect(class_logits, box_deltas, priors)))
