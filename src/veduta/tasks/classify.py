"""Classification: one class per image."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from veduta.config import Loss
from veduta.labels import LabelMap
from veduta.ops.arrays import Array, float32, log_, numpy, softmax
from veduta.tasks.class_metric import ClassMetric
from veduta.tasks.metrics import Rules
from veduta.tasks.prediction import Prediction

if TYPE_CHECKING:
    from torch import Tensor

    from veduta.data.batch import Batch


class Classify:
    """Reads `class_logits` (N, num_classes)."""

    reads: ClassVar[str] = "class_logits"
    truth: ClassVar[str] = "scene_class"
    scores: ClassVar[tuple[str, ...]] = ("top1", "top5")
    reads_of_loss: ClassVar[tuple[str, ...]] = ("smoothing", "smoothing_over", "mixup", "cutmix")

    def __init__(self, labels: LabelMap, loss: Loss) -> None:
        self.labels, self.loss = labels, loss

    def fit_classes(self, pixel_counts: NDArray[np.int64]) -> None:
        """Nothing: no published classifier weighs its classes."""

    def losses(self, outputs: "dict[str, Tensor]", batch: "Batch") -> "dict[str, Tensor]":
        """Scalar losses by name; `batch.scene_classes` may be soft, (N, num_classes), as mixup leaves them."""
        from veduta.tasks.losses import soft_cross_entropy

        assert batch.scene_classes is not None
        loss = soft_cross_entropy(
            outputs["class_logits"],
            batch.scene_classes,
            smoothing=self.loss.smoothing,
            smoothing_over=self.loss.smoothing_over,
        )
        return {"class": loss}

    def predict(self, outputs: Mapping[str, Array]) -> list[Prediction]:
        """One per image: the soft-max over the classes, (num_classes,) float32."""
        # Of arrays whatever the runtime, so that the same logits give the same scores to the bit.
        scores = softmax(numpy(float32(outputs["class_logits"])))
        return [Prediction(class_scores=row) for row in scores]

    def average_mirrored(self, outputs: Mapping[str, Array], others: Mapping[str, Array]) -> dict[str, Array]:
        """Outputs of the images and of their mirror images -> outputs for `predict`: soft-max, then the mean."""
        probabilities = softmax(outputs["class_logits"]) + softmax(others["class_logits"])
        return {"class_logits": log_(probabilities / 2)}

    def metric(self, rules: Rules) -> ClassMetric:
        return ClassMetric(self.labels.num_classes, rules)
